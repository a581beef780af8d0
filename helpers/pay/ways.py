"""The ways to do the work as formulas, and what each is called: the cost model of chapter 10.

Every line is money for one message, but for what is paid once or a year. A formula knows the inputs
and the lines above it. Of each way there are `<way>_time`, what people's minutes cost, and
`<way>_errors`, what its wrong records cost.
"""

NAMES = {
    "people": "people, as today",
    "cheap": "best cheap way, unchecked",
    "cheap_checked": "best cheap way, all checked",
    "tuned": "tuned model, unchecked",
    "tuned_checked": "tuned model, all checked",
    "system": "system, unchecked",
    "system_checked": "system, all checked",
    "system_doubtful": "system, doubtful checked",
    "hosted": "hosted model, unchecked",
    "hosted_checked": "hosted model, all checked",
}

STEPS = {
    # a machine that works all the time; the tokens of a hosted model
    "machine_busy": "machine_seconds / 3600 * usd_per_hour * per_usd",
    "tokens": "(tokens_in * usd_in + tokens_out * usd_out) / 1000000 * per_usd",
    # what a person does: today's work, a check, putting right what a check found
    "person": "today_minutes / 60 * hourly",
    "check": "review_minutes / 60 * hourly",
    "correction": "caught * fixing_minutes / 60 * hourly",
    "handling": "handling_minutes / 60 * hourly",
    # one wrong record
    "people_record": "(people_error_minutes / 60 * hourly + people_error_money) * error_prices",
    "cheap_record": "(cheap_error_minutes / 60 * hourly + cheap_error_money) * error_prices",
    "tuned_record": "(tuned_error_minutes / 60 * hourly + tuned_error_money) * error_prices",
    "doubtful_record": "(doubtful_error_minutes / 60 * hourly + doubtful_error_money)"
    " * error_prices",
    "unchecked_record": "(unchecked_error_minutes / 60 * hourly + unchecked_error_money)"
    " * error_prices",
    "system_record": "wrong_doubtful * doubtful_record + (1 - wrong_doubtful) * unchecked_record",
    "hosted_record": "hosted_wrong * tuned_record",
    # paid once, and every year
    "label_test": "test_rows * label_minutes / 60 * hourly",
    "label_train": "train_rows * label_minutes / 60 * hourly",
    "building": "label_test + label_train + build_hours * engineer_hourly",
    "hosting": "label_test + hosted_hours * engineer_hourly",
    "upkeep": "upkeep_hours * 12 * engineer_hourly",
    "machine_year": "paid_hours * usd_per_hour * per_usd",
    "machine": "machine_year / messages_a_year",
    # people's time in each way, a message
    "people_time": "person",
    "cheap_time": "handling",
    "cheap_checked_time": "handling + check + (1 - cheap_right) * correction",
    "tuned_time": "handling",
    "tuned_checked_time": "handling + check + (1 - tuned_right) * correction",
    "system_time": "handling",
    "system_checked_time": "handling + check + (1 - system_right) * correction",
    "system_doubtful_time": "handling + doubtful * check"
    " + (1 - system_right) * wrong_doubtful * correction",
    "hosted_time": "handling",
    "hosted_checked_time": "handling + check + (1 - hosted_right) * correction",
    # its wrong records, a message; what a check does not catch costs its full price
    "people_errors": "people_wrong * people_record",
    "cheap_errors": "(1 - cheap_right) * cheap_record",
    "cheap_checked_errors": "(1 - caught) * cheap_errors",
    "tuned_errors": "(1 - tuned_right) * tuned_record",
    "tuned_checked_errors": "(1 - caught) * tuned_errors",
    "system_errors": "(1 - system_right) * system_record",
    "system_checked_errors": "(1 - caught) * system_errors",
    "system_doubtful_errors": "(1 - system_right) * (wrong_doubtful * (1 - caught)"
    " * doubtful_record + (1 - wrong_doubtful) * unchecked_record)",
    "hosted_errors": "(1 - hosted_right) * hosted_record",
    "hosted_checked_errors": "(1 - caught) * hosted_errors",
}

_WITH_MACHINE = {"once": "building", "year": "upkeep + machine_year"}
# labels and upkeep as for the tuned model, which is more than it needs
_WITHOUT = {"once": "building", "year": "upkeep"}
_HOSTED = {"once": "hosting", "year": "upkeep"}

WAYS = {
    "people": {"each": "people_time + people_errors"},
    "cheap": {"each": "running + cheap_time + cheap_errors", **_WITHOUT},
    "cheap_checked": {"each": "running + cheap_checked_time + cheap_checked_errors", **_WITHOUT},
    "tuned": {"each": "running + tuned_time + tuned_errors", **_WITH_MACHINE},
    "tuned_checked": {
        "each": "running + tuned_checked_time + tuned_checked_errors",
        **_WITH_MACHINE,
    },
    "system": {"each": "running + system_time + system_errors", **_WITH_MACHINE},
    "system_checked": {
        "each": "running + system_checked_time + system_checked_errors",
        **_WITH_MACHINE,
    },
    "system_doubtful": {
        "each": "running + system_doubtful_time + system_doubtful_errors",
        **_WITH_MACHINE,
    },
    "hosted": {"each": "running + tokens + hosted_time + hosted_errors", **_HOSTED},
    "hosted_checked": {
        "each": "running + tokens + hosted_checked_time + hosted_checked_errors",
        **_HOSTED,
    },
}
