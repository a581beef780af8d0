"""Prices with a source and a date, and what an answer costs, and what a right answer costs."""

import difflib
import math
from dataclasses import dataclass
from datetime import date, datetime, timezone

import numpy as np

from helpers import CourseError
from helpers.choose import catalog

OLD = 365  # days after which a price is still used, but never without a word


def number(value, name, above_zero=False):
    """A finite float that is not negative. Raises CourseError naming what is wrong: text, a unit, NaN, a negative number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise CourseError(
            f"{name} is {value!r}; write a plain number with a point, without unit or currency."
        )
    if not math.isfinite(value):
        raise CourseError(
            f"{name} is {value}, which is no number to reckon with; write what you know, with a range around it."
        )
    if value < 0 or above_zero and value == 0:
        raise CourseError(
            f"{name} is {value:g}; it must be {'above 0' if above_zero else '0 or more'}."
        )
    return float(value)


def _cell(row, column, file, key):
    """A number from a cell of a table in data/catalog/."""
    text = (row.get(column) or "").strip()
    if not text:
        raise CourseError(
            f"data/catalog/{file} has no {column} for {row[key]}; write the number, with its source and date."
        )
    try:
        value = float(text)
    except ValueError:
        raise CourseError(
            f"data/catalog/{file}: {column} of {row[key]} is {text!r}; write a plain number with a point, "
            "in the currency that the column names."
        ) from None
    return number(
        value, f"data/catalog/{file}: {column} of {row[key]}", above_zero=column != "usd_per_hour"
    )


def price(machine, folder=catalog.FOLDER):
    """The row of data/catalog/prices.csv for a machine: usd_per_hour with source, date and confidence."""
    rows = catalog.read_table("prices.csv", "machine", folder)
    for row in rows:
        if row["machine"] == machine:
            return {**row, "usd_per_hour": _cell(row, "usd_per_hour", "prices.csv", "machine")}
    raise CourseError(
        f"There is no price for {machine!r}; data/catalog/prices.csv has {', '.join(r['machine'] for r in rows)}."
    )


def exchange(currency, folder=catalog.FOLDER):
    """How much of `currency` one US dollar is: per_usd with low, high, source, date and confidence, from data/catalog/rates.csv.

    Nothing is converted without this row; for USD itself it is 1. Raises CourseError for a currency without a row.
    """
    if currency == "USD":
        return {
            "currency": "USD",
            "per_usd": 1.0,
            "low": 1.0,
            "high": 1.0,
            "source": "the same currency, nothing to convert",
            "date": date.today().isoformat(),
            "confidence": "high",
        }
    rows = catalog.read_table("rates.csv", "currency", folder)
    for row in rows:
        if row["currency"] == currency:
            return {
                **row,
                **{
                    name: _cell(row, name, "rates.csv", "currency")
                    for name in ("per_usd", "low", "high")
                },
            }
    raise CourseError(
        f"There is no exchange rate from USD to {currency!r}; add a row with source and date to data/catalog/rates.csv, "
        f"which has {', '.join(r['currency'] for r in rows)}."
    )


def published(folder=catalog.FOLDER):
    """{task: row} of data/catalog/published.csv, with times_cheaper as a number and what it measures."""
    return {
        row["task"]: {**row, "times_cheaper": _cell(row, "times_cheaper", "published.csv", "task")}
        for row in catalog.read_table("published.csv", "task", folder)
    }


def hosted(provider, model, on):
    """List price of a hosted model on a day (ISO date): usd_in and usd_out per million tokens, with source, date and confidence.

    Read from the genai-prices package as installed: nothing is fetched. Tiers for long prompts and discounts for repeated prompts
    are left out. Raises CourseError for a provider or model that the package does not know, or one without a price.
    """
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    at = datetime.combine(_day(on, f"The price of {model}"), datetime.min.time(), timezone.utc)
    place = f"genai-prices {genai_prices.__version__}"
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1000, output_tokens=1000),
            model,
            provider_id=provider,
            genai_request_timestamp=at,
        )
    except LookupError:
        known = {p.id: [m.id for m in p.models] for p in get_snapshot().providers}
        if provider not in known:
            raise CourseError(
                f"{place} has no prices of {provider!r}{_near(provider, known)}"
            ) from None
        raise CourseError(
            f"{place} has no price for {model!r} of {provider}{_near(model, known[provider])}"
        ) from None
    if not found.input_price or not found.output_price:
        raise CourseError(
            f"{place} names {found.model.id!r} of {provider}, but no price for its tokens; take the provider's own list."
        )
    return {
        "model": found.model.id,
        "usd_in": float(found.input_price) * 1000,
        "usd_out": float(found.output_price) * 1000,
        "source": f"{place}, {provider} {found.model.id}, list price",
        "date": on,
        "confidence": "medium",
    }


def _near(word, known):
    near = difflib.get_close_matches(str(word).lower(), list(known), 3)
    return f"; did you mean {' or '.join(near)}?" if near else "; write it as the provider does."


def _day(text, what):
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise CourseError(
            f"{what} has the date {text!r}; write it as year-month-day, for example 2026-11-22."
        ) from None


def stale(row, name, today=None):
    """A sentence when a row's date is more than a year old or still to come, else an empty text.

    An old price is a warning and no refusal: the course must still run in some years, and nobody may miss that the price is old.
    """
    read, today = _day(row["date"], name), today or date.today()
    days = (today - read).days
    if days < 0:
        return f"{name} is dated {read}, which is still to come: an announced price, or a mistake in the table."
    if days <= OLD:
        return ""
    return f"{name} was read on {read}, {days / 365.25:.1f} years ago: look it up again before anybody signs."


def per_thousand_successes(usd_per_hour, seconds_per_message, success_rate):
    """US dollars for 1,000 records that are right: what 1,000 / success_rate messages cost. Infinite when none is right.

    The idea of dividing by the success rate is 'inference cost per success' (TensorZero, 2025).
    """
    number(usd_per_hour, "The price of an hour")
    number(seconds_per_message, "The time for a message")
    if number(success_rate, "The success rate") > 1:
        raise CourseError(
            f"The success rate is {success_rate:g}; a share lies between 0 and 1: write {success_rate / 100:g} for "
            f"{success_rate:g} %."
        )
    if success_rate == 0:
        return float("inf")
    return usd_per_hour * seconds_per_message * 1000 / 3600 / success_rate


@dataclass(frozen=True)
class Ratio:
    """How many times cheaper a success is: value with its 95 % interval, infinite where the expensive way may have no success at all."""

    value: float
    low: float
    high: float
    n: int
    draws: np.ndarray

    def __str__(self):
        if not math.isfinite(self.value):
            least = f"; at least {self.low:.1f} times" if self.value == math.inf else ""
            return f"no ratio, because the expensive way had no success in {self.n} rows{least}"
        if self.value == 0:
            return f"no ratio, because the cheap way had no success in {self.n} rows; at most {self.high:.1f} times"
        return f"{self.value:.1f} times  [{self.low:.1f}, {self.high:.1f}]  n={self.n}"


def success_ratio(expensive_cost, expensive_right, cheap_cost, cheap_right, seed=0, size=20_000):
    """Cost per success of an expensive way over that of a cheap one, from two bool sequences over the same rows, shape (rows,).

    Costs are per message in any one unit. The interval is a smoothed bootstrap over rows, pairs kept together: Dirichlet weights for
    the four kinds of row, their counts plus 1/2 each (the Jeffreys prior of a multinomial). Drawing whole rows covers too little when
    successes are few: about 90 % instead of 95 % with four or five in 200.
    """
    a, b = np.asarray(expensive_right, bool), np.asarray(cheap_right, bool)
    if a.shape != b.shape or not a.size:
        raise CourseError(f"A ratio needs the same rows on both sides, not {a.size} and {b.size}.")
    times = number(expensive_cost, "The expensive way's cost") / number(
        cheap_cost, "The cheap way's cost", above_zero=True
    )
    counts = np.array([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()])
    weights = np.random.default_rng(seed).dirichlet(counts + 0.5, size)
    draws = (
        times * (weights[:, 0] + weights[:, 2]) / np.maximum(weights[:, 0] + weights[:, 1], 1e-300)
    )
    low, high = np.quantile(draws, [0.025, 0.975])
    value = times * b.mean() / a.mean() if a.any() else float("inf") if b.any() else float("nan")
    low = float(min(low, value)) if b.any() else 0.0
    return Ratio(
        float(value), low, float(max(high, value)) if a.any() else math.inf, int(a.size), draws
    )
