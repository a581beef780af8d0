"""Prices carry source and date; a ratio's interval covers; nothing is fetched."""

import math
import socket
from datetime import date

import numpy as np
import pytest

from helpers import CourseError
from helpers.choose import catalog
from helpers.pay import prices


def tables(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


HEAD = "machine,usd_per_hour,source,date,confidence\n"


@pytest.mark.parametrize(
    "row, words",
    [
        ("desk,,a list,2026-11-01,high", "usd_per_hour of desk is ''; write a plain number"),
        ("desk,-0.5,a list,2026-11-01,high", "is -0.5; it must be 0 or more"),
        ("desk,0.40 EUR,a list,2026-11-01,high", "is '0.40 EUR'; write a plain number"),
        ('desk,"0,4",a list,2026-11-01,high', "is '0,4'; write a plain number"),
        ("desk,nan,a list,2026-11-01,high", "no number to reckon with"),
        ("desk,inf,a list,2026-11-01,high", "no number to reckon with"),
        ("desk,0.4,,2026-11-01,high", "has no source"),
        ("desk,0.4,a list,,high", "has no date"),
        ("desk,0.4,a list,2026-11-01,quite", "can be high, medium or low"),
        (
            "other,0.4,a list,2026-11-01,high",
            "There is no price for 'desk' in data/catalog/prices.csv; there are other",
        ),
    ],
)
def test_a_bad_price_is_one_sentence(tmp_path, row, words):
    with pytest.raises(CourseError, match=words.replace("(", r"\(")) as refused:
        prices.price("desk", tables(tmp_path, "prices.csv", HEAD + row + "\n"))
    assert "\n" not in str(refused.value)


def test_every_table_of_money_is_sourced_and_dated():
    for name, key in (
        ("prices.csv", "machine"),
        ("rates.csv", "currency"),
        ("published.csv", "task"),
    ):
        for row in catalog.read_table(name, key, catalog.FOLDER):
            assert (
                date.fromisoformat(row["date"])
                and row["source"]
                and row["confidence"] in catalog.SURE
            )
    assert list(prices.published().values()) == [
        31.0,
        29.4,
        23.1,
        15.2,
        10.4,
    ]
    assert prices.price("cpu-basic")["usd_per_hour"] == 0.01


def test_another_currency_needs_a_rate_of_its_own(tmp_path):
    assert prices.exchange("USD")["per_usd"] == 1
    euro = prices.exchange("EUR")
    assert (
        euro["low"] < euro["per_usd"] < euro["high"]
        and "assumed" in euro["source"]
        and euro["confidence"] == "low"
    )
    with pytest.raises(
        CourseError, match="no exchange rate from USD to 'CHF'; add a row with source and date"
    ):
        prices.exchange("CHF")
    head = "currency,per_usd,low,high,source,date,confidence\n"
    with pytest.raises(CourseError, match="per_usd of CHF is 0; it must be above 0"):
        prices.exchange(
            "CHF", tables(tmp_path, "rates.csv", head + "CHF,0,0,1,a bank,2026-11-01,low\n")
        )


@pytest.mark.parametrize(
    "day, words",
    [
        ("2026-11-01", ""),
        ("2025-11-23", ""),
        ("2025-11-01", "1.1 years ago: look it up again"),
        ("2024-11-22", "2.0 years ago: look it up again"),
        ("2027-01-01", "still to come"),
    ],
)
def test_an_old_price_is_used_and_said(day, words):
    warning = prices.age_warning({"date": day}, "The price", today=date(2026, 11, 22))
    assert (words in warning) if words else warning == ""


def test_a_date_that_is_none_is_refused():
    for wrong in ("22.11.2026", "", None, "yesterday"):
        with pytest.raises(CourseError, match="write it as year-month-day"):
            prices.age_warning({"date": wrong}, "The price")


def test_hosted_prices_come_from_the_installed_package_and_nothing_is_fetched(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a price was fetched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    before, after = (
        prices.hosted("mistral", "mistral-large-4", on) for on in ("2026-10-25", "2026-10-29")
    )
    assert (before["usd_in"], before["usd_out"]) == pytest.approx((1.36, 4.18))
    assert (after["usd_in"], after["usd_out"]) == pytest.approx((0.70, 2.10))
    short = prices.hosted("openai", "gpt-6.1-sol", "2026-11-22")  # dearer for long prompts
    assert (short["usd_in"], short["usd_out"]) == pytest.approx((2, 10))
    assert (
        "genai-prices 0.2" in after["source"]
        and after["date"] == "2026-10-29"
        and after["confidence"] == "medium"
    )


@pytest.mark.parametrize(
    "asked, words",
    [
        (
            ("mistrl", "mistral-large-4", "2026-11-22"),
            "no prices of 'mistrl'; did you mean 'mistral'",
        ),
        (
            ("mistral", "mistral-larg-4", "2026-11-22"),
            "no price for 'mistral-larg-4' of mistral; did you mean 'mistral-large-4'",
        ),
        (("google", "gemma-3", "2026-11-22"), "but no price for its tokens"),
        (("mistral", "mistral-large-4", "22.11.2026"), "year-month-day"),
    ],
)
def test_a_hosted_model_without_a_price(asked, words):
    with pytest.raises(CourseError, match=words):
        prices.hosted(*asked)


def test_the_ratio_by_hand():
    # 2 s and 1 of 10 right: 20 s a success; 3 s and 6 of 10: 5 s a success; four times
    few, tuned = [True] + [False] * 9, [True] * 6 + [False] * 4
    ratio = prices.success_ratio(2.0, few, 3.0, tuned)
    assert ratio.value == pytest.approx(4.0) and ratio.low < 4 < ratio.high and ratio.n == 10
    assert str(prices.success_ratio(2.0, few, 3.0, tuned, seed=0)) == str(ratio)


def test_no_success_is_said_and_not_divided_by():
    none, some = [False] * 20, [True] * 10 + [False] * 10
    costly = prices.success_ratio(1, none, 1, some)
    assert (
        math.isinf(costly.value)
        and math.isinf(costly.high)
        and costly.low > 2
        and "no ratio" in str(costly)
        and "at least" in str(costly)
    )
    assert math.isnan(prices.success_ratio(1, none, 1, none).value) and "no ratio" in str(
        prices.success_ratio(1, none, 1, none)
    )
    cheap = prices.success_ratio(1, some, 1, none)
    assert cheap.value == 0 and cheap.low == 0 and cheap.high < 1
    for a, b, words in (([True], [True] * 2, "same rows"), ([], [], "same rows")):
        with pytest.raises(CourseError, match=words):
            prices.success_ratio(1, a, 1, b)
    with pytest.raises(CourseError, match="must be above 0"):
        prices.success_ratio(1, some, 0, some)


@pytest.mark.parametrize(
    "p_few, p_cheap, together, n",
    [
        (0.025, 0.58, 0.02, 200),
        (0.015, 0.58, 0.01, 200),
        (0.3, 0.6, 0.25, 200),
        (0.05, 0.58, 0.03, 200),
    ],
)
def test_the_ratios_interval_covers(p_few, p_cheap, together, n, monkeypatch):
    """2,000 tests drawn from a known truth with paired successes: 93 to 97 % are covered."""
    monkeypatch.setattr(prices, "DRAWS", 1200)
    rng = np.random.default_rng(7)
    cells = [together, p_few - together, p_cheap - together, 1 - p_few - p_cheap + together]
    rows = np.array([[1, 1], [1, 0], [0, 1], [0, 0]], bool)
    covered, plain = 0, 0
    for counts in rng.multinomial(n, cells, 2000):
        pairs = np.repeat(rows, counts, axis=0)
        ratio = prices.success_ratio(1.0, pairs[:, 0], 1.0, pairs[:, 1], seed=int(counts[0]))
        covered += ratio.low <= p_cheap / p_few <= ratio.high
        weights = (
            rng.multinomial(n, counts / n, 400) / n
        )  # whole rows drawn anew: what the docstring warns of
        draws = (weights[:, 0] + weights[:, 2]) / np.maximum(weights[:, 0] + weights[:, 1], 1e-9)
        low, high = np.quantile(draws, [0.025, 0.975])
        plain += low <= p_cheap / p_few <= high
    assert 0.93 <= covered / 2000 <= 0.97
    if p_few < 0.03:
        assert plain < covered, "with few successes, drawing whole rows covers less"
