"""Prices with a source and a date, what an answer costs, and what a right answer costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from helpers import CourseError
from helpers.choose import catalog
from helpers.core.text import did_you_mean

OLD = 365  # days after which a price is still used, but never without a word


def checked_number(value: Any, name: str, above_zero: bool = False) -> float:
    """A finite float that is not negative; CourseError names text, a unit, NaN or a minus."""
    # True is a number for Python, and hardly what somebody meant by a price
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise CourseError(
            f"{name} is {value!r}; write a plain number with a point, without unit or currency."
        )
    if not math.isfinite(value):
        raise CourseError(
            f"{name} is {value}, which is no number to reckon with; write what you know, "
            "with a range around it."
        )
    if value < 0:
        raise CourseError(f"{name} is {value:g}; it must be 0 or more.")
    if above_zero and value == 0:
        raise CourseError(f"{name} is 0; it must be above 0.")
    return float(value)


def _cell(row: Mapping, column: str, file: str, key: str) -> float:
    where = f"data/catalog/{file}: {column} of {row[key]}"
    text = (row.get(column) or "").strip()
    try:
        value = float(text)
    except ValueError:
        raise CourseError(
            f"{where} is {text!r}; write a plain number with a point, in the currency that the "
            "column names, with its source and date."
        ) from None
    # a machine may cost nothing, but nobody can divide by a rate of 0
    return checked_number(value, where, above_zero=column != "usd_per_hour")


def _table(file: str, key: str, columns: Sequence[str], folder: Path) -> dict[str, dict]:
    """{key: row} of a table in data/catalog/, the cells of `columns` as numbers."""
    rows = {}
    for row in catalog.read_table(file, key, folder):
        rows[row[key]] = dict(row)
        for column in columns:
            rows[row[key]][column] = _cell(row, column, file, key)
    return rows


def price(machine: str, folder: Path = catalog.FOLDER) -> dict:
    """The row of prices.csv for a machine: usd_per_hour with source, date and confidence."""
    rows = _table("prices.csv", "machine", ["usd_per_hour"], folder)
    if machine not in rows:
        near = did_you_mean(machine, rows)
        raise CourseError(f"There is no price for {machine!r} in data/catalog/prices.csv{near}")
    return rows[machine]


def exchange(currency: str, folder: Path = catalog.FOLDER) -> dict:
    """How much of `currency` one US dollar is: the row of rates.csv, per_usd with low and high.

    Nothing is converted without a row; for USD itself it is 1. CourseError for one without a row.
    """
    if currency == "USD":
        today, same = date.today().isoformat(), "the same currency, nothing to convert"
        return {"per_usd": 1.0, "source": same, "date": today, "confidence": "high"}
    rows = _table("rates.csv", "currency", ["per_usd", "low", "high"], folder)
    if currency not in rows:
        raise CourseError(
            f"There is no exchange rate from USD to {currency!r}; add a row with source and date "
            f"to data/catalog/rates.csv, which has {', '.join(rows)}."
        )
    return rows[currency]


def published(folder: Path = catalog.FOLDER) -> dict[str, float]:
    """{task: times cheaper} from data/catalog/published.csv."""
    rows = _table("published.csv", "task", ["times_cheaper"], folder)
    return {task: row["times_cheaper"] for task, row in rows.items()}


def hosted(provider: str, model: str, on: str) -> dict:
    """List price of a hosted model on a day (ISO date): usd_in, usd_out per million tokens.

    Read from the genai-prices package as installed: nothing is fetched. Tiers for long prompts and
    discounts for repeated ones are left out. CourseError for a provider or model without a price.
    """
    import genai_prices
    from genai_prices.data_snapshot import get_snapshot

    # midnight: a price that changes on this day counts as changed
    at = datetime.combine(_day(on, f"The price of {model}"), datetime.min.time(), UTC)
    package = f"genai-prices {genai_prices.__version__}"
    models = {one.id: [m.id for m in one.models] for one in get_snapshot().providers}
    if provider not in models:
        near = did_you_mean(provider, models, 3)
        raise CourseError(f"{package} has no prices of {provider!r}{near}")
    # of a short prompt: a million tokens at once would fall under the tier for long ones
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=1000)
    try:
        listed = genai_prices.calc_price(
            usage, model, provider_id=provider, genai_request_timestamp=at
        )
    except LookupError:
        near = did_you_mean(model, models[provider], 3)
        raise CourseError(f"{package} has no price for {model!r} of {provider}{near}") from None
    name = listed.model.id
    if not listed.input_price or not listed.output_price:  # free weights, or an unpriced preview
        raise CourseError(
            f"{package} names {name!r} of {provider}, but no price for its tokens; "
            "take the provider's own list."
        )
    usd_in, usd_out = (1000 * float(part) for part in (listed.input_price, listed.output_price))
    source = f"{package}, {provider} {name}, list price"
    row = {"model": name, "usd_in": usd_in, "usd_out": usd_out, "source": source}
    return {**row, "date": on, "confidence": "medium"}


def _day(text: Any, what: str) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        raise CourseError(
            f"{what} has the date {text!r}; write it as year-month-day, for example 2026-11-22."
        ) from None


def age_warning(row: Mapping, name: str, today: date | None = None) -> str:
    """A sentence when a row's date is over a year old or still to come, else an empty text.

    A warning and no refusal: the course must still run in some years, and nobody may miss it.
    """
    read = _day(row["date"], name)
    days = ((today or date.today()) - read).days
    if days < 0:
        return f"{name} is dated {read}, which is still to come: announced, or a mistake."
    if days <= OLD:
        return ""
    years = f"{days / 365.25:.1f} years ago"
    return f"{name} was read on {read}, {years}: look it up again before anybody signs."


def per_thousand_successes(
    usd_per_hour: float, seconds_per_message: float, success_rate: float
) -> float:
    """US dollars for 1,000 right records, which take 1,000 / success_rate messages.

    Dividing by the success rate is 'inference cost per success' (TensorZero, 2025).
    """
    checked_number(usd_per_hour, "The price of an hour")
    checked_number(seconds_per_message, "The time for a message")
    if checked_number(success_rate, "The success rate") > 1:
        raise CourseError(
            f"The success rate is {success_rate:g}; a share lies between 0 and 1: "
            f"write {success_rate / 100:g} for {success_rate:g} %."
        )
    if success_rate == 0:
        return float("inf")
    return usd_per_hour * seconds_per_message * 1000 / 3600 / success_rate


@dataclass(frozen=True)
class Ratio:
    """How many times cheaper a success is, with its 95 % interval over `n` rows."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        nobody = f"no ratio, because the {{}} way had no success in {self.n} rows"
        if self.value == 0:
            return nobody.format("cheap") + f"; at most {self.high:.1f} times"
        if self.value == math.inf:
            return nobody.format("expensive") + f"; at least {self.low:.1f} times"
        if math.isnan(self.value):
            return nobody.format("expensive")
        return f"{self.value:.1f} times  [{self.low:.1f}, {self.high:.1f}]  n={self.n}"


def success_ratio(
    expensive_cost: float,
    expensive_right: Sequence[bool],
    cheap_cost: float,
    cheap_right: Sequence[bool],
    seed: int = 0,
    size: int = 20_000,
) -> Ratio:
    """Cost per success of an expensive way over a cheap one, both on the same rows, shape (rows,).

    Costs are per message in any one unit. The interval is a smoothed bootstrap over pairs of rows:
    Dirichlet weights for the four kinds of pair, their counts plus 1/2 each (the Jeffreys prior of
    a multinomial), which no library offers. Drawing whole rows covers too little when successes
    are few: about 90 % instead of 95 % with four or five in 200.
    """
    expensive, cheap = np.asarray(expensive_right, bool), np.asarray(cheap_right, bool)
    if expensive.shape != cheap.shape or not expensive.size:
        raise CourseError(
            f"A ratio needs the same rows on both sides, not {expensive.size} and {cheap.size}."
        )
    times = checked_number(expensive_cost, "The expensive way's cost")
    times /= checked_number(cheap_cost, "The cheap way's cost", above_zero=True)
    # both right, only one, only the other, none: a ratio needs no more of the rows
    pairs = (expensive & cheap, expensive & ~cheap, ~expensive & cheap, ~expensive & ~cheap)
    counts = np.array([pair.sum() for pair in pairs])
    weights = stats.dirichlet(counts + 0.5).rvs(size, np.random.default_rng(seed))
    cheap_share, expensive_share = weights[:, 0] + weights[:, 2], weights[:, 0] + weights[:, 1]
    draws = times * cheap_share / np.maximum(expensive_share, 1e-300)
    low, high = np.quantile(draws, [0.025, 0.975])
    with np.errstate(divide="ignore", invalid="ignore"):  # without a success: inf, or no number
        value = float(times * cheap.mean() / expensive.mean())
    # the smoothing pulls the draws to the middle: the interval still holds the value itself
    low = float(min(low, value)) if cheap.any() else 0.0
    high = float(max(high, value)) if expensive.any() else math.inf
    return Ratio(value, low, high, int(expensive.size))
