"""What was measured of the ways to read messages, as inputs of the cost model of helpers.pay."""

from collections.abc import Sequence

import numpy as np

from helpers import CourseError
from helpers.choose import catalog
from helpers.core.files import Journal
from helpers.core.pilot import Pilot
from helpers.core.rows import spread
from helpers.core.runs import StoredAnswers
from helpers.core.text import words_are_spaced
from helpers.measure.error_costs import Records, error_kinds
from helpers.pay import prices
from helpers.pay.error_prices import Costs
from helpers.pay.inputs import ASSUMED, MEASURED, Inputs


def measured(
    pilot: Pilot, rows: Sequence[dict], decisions: Sequence[dict], seed: int, costs: Costs
) -> Inputs:
    """The inputs that come from the decisions of chapter 08 with the model of one `seed`.

    `<way>_right`: share of exact records of `cheap`, `tuned` and `system`. `doubtful`: share of
    the system's records that a person checks; `wrong_doubtful`: share of its wrong records that
    are among these. `<group>_error_minutes` and `_error_money`: what the errors of a wrong record
    cost, of `cheap`, of `tuned`, of the system's `doubtful` and of its `unchecked` ones.
    """
    lines = _lines_of(decisions, seed, rows)
    inputs = Inputs(costs.currency)
    for way, words in (("cheap", "best cheap way"), ("tuned", f"tuned model, seed {seed}")):
        minutes, money, wrong = _errors(pilot, rows, [line[way] for line in lines], costs)
        inputs.share(f"{way}_right", ~wrong, words)
        _enter_errors(inputs, way, minutes[wrong], money[wrong], costs, f"wrong records, {words}")
    minutes, money, wrong = _errors(pilot, rows, [line["system"] for line in lines], costs)
    checked, words = np.array([line["checked"] for line in lines], bool), f"system, seed {seed}"
    inputs.share("system_right", ~wrong, words)
    inputs.share("doubtful", checked, f"records that a person checks, {words}")
    if wrong.any():
        inputs.share("wrong_doubtful", checked[wrong], f"wrong records that are checked, {words}")
    else:
        inputs.assume("wrong_doubtful", 0.5, 0, 1, "share", "no wrong record was seen")
    for group, some in (("doubtful", wrong & checked), ("unchecked", wrong & ~checked)):
        source = f"wrong records, {group}, {words}"
        _enter_errors(inputs, group, minutes[some], money[some], costs, source)
    return inputs


def _lines_of(decisions: Sequence[dict], seed: int, rows: Sequence[dict]) -> list[dict]:
    """The lines of one seed, which must be of these rows in this order."""
    lines = [line for line in decisions if line["seed"] == seed]
    if [line["id"] for line in lines] != [row["id"] for row in rows]:
        what = "The decisions of chapter 08 are of other rows than those that are judged now"
        raise CourseError(f"{what}; run that chapter again.")
    return lines


def _errors(
    pilot: Pilot, rows: Sequence[dict], records: Records, costs: Costs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(minutes, money, wrong) of each record's errors: two arrays of floats, one of bools."""
    minutes, money, wrong = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows), bool)
    for place, (row, record) in enumerate(zip(rows, records, strict=True)):
        for kind in error_kinds(pilot, row, record, costs.errors):
            price = costs.price(kind)
            minutes[place] += price.minutes
            money[place] += price.money
            wrong[place] = True
    return minutes, money, wrong


def _enter_errors(
    inputs: Inputs, name: str, minutes: np.ndarray, money: np.ndarray, costs: Costs, source: str
) -> None:
    """Both columns of the same wrong records; the dearest error may come even if none was seen."""
    worst = costs.price(max(costs.errors, key=costs.of))
    columns = {
        f"{name}_error_minutes": (minutes, worst.minutes, "minutes"),
        f"{name}_error_money": (money, worst.money, inputs.currency),
    }
    inputs.priced(columns, source)


def enter_people(inputs: Inputs, costs: Costs) -> None:
    """What a wrong record of people costs: one wrong field, each as likely, as in Costs.people."""
    prices_of = [costs.price(kind) for kind in costs.people_kinds]
    columns = {
        "people_error_minutes": ([one.minutes for one in prices_of], None, "minutes"),
        "people_error_money": ([one.money for one in prices_of], None, inputs.currency),
    }
    inputs.priced(columns, "people: one wrong field, each as likely; the bar", ASSUMED)


def seconds_each(answers: StoredAnswers) -> float:
    """Seconds that one of these recorded answers took."""
    return answers.seconds / len(Journal(answers.path).entries)


def enter_machine(inputs: Inputs, machine: str, seconds: float, source: str) -> None:
    """Seconds a message, the dated price of an hour, the exchange rate; pays for enough hours."""
    inputs.within_factor("machine_seconds", seconds, 1.25, "s a message", source, MEASURED)
    inputs.table("usd_per_hour", prices.price(machine), "usd_per_hour", "USD an hour")
    rate = prices.exchange(inputs.currency)
    inputs.table("per_usd", rate, "per_usd", f"{inputs.currency} for 1 USD")
    needed = inputs["messages_a_year"].high * inputs["machine_seconds"].high / 3600
    paid = inputs["paid_hours"]
    if needed > paid.low:
        value, high = max(paid.value, needed), max(paid.high, needed)
        why = f"{paid.source}; raised to what the messages need"
        inputs.assume("paid_hours", value, needed, high, paid.unit, why)


def enter_hosted(
    inputs: Inputs,
    hosted: tuple[str, str],
    on: str,
    pilot: Pilot,
    train: Sequence[dict],
    rows: Sequence[dict],
    shots: int,
) -> None:
    """List price of a `hosted` (provider, model) `on` a day, and the tokens it would read and
    write: characters of the few-shot prompts, times the tokens a character of tokens.csv."""
    listed = prices.hosted(*hosted, on=on)
    for name in ("usd_in", "usd_out"):
        inputs.table(name, listed, name, "USD per million tokens")
    texts = [row[pilot.text] for row in rows]
    column = "ja_tokens_per_char"
    if words_are_spaced(pilot.language, texts):
        column = "en_tokens_per_char"
    table = {row["tokenizer"]: row for row in catalog.read_table("tokens.csv", "tokenizer")}
    per_character = float(table["GPT-4o (o200k)"][column])
    how = f"characters x {per_character} (tokens.csv, o200k)"
    examples = spread(train, pilot.labels, shots)
    read = [sum(len(part["content"]) for part in pilot.chat(text, examples)) for text in texts]
    written = [len(pilot.answer(row)) for row in rows]
    for name, counts in (("tokens_in", read), ("tokens_out", written)):
        inputs.computed(name, float(np.mean(counts)) * per_character, "tokens a message", how)
