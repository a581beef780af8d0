"""Prices with a source and a date, and how many times cheaper a right answer is."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
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
DRAWS = 20_000  # for the interval of a ratio


def checked_number(value: Any, name: str, above_zero: bool = False) -> float:
    """A finite float that is not negative; CourseError names text, a unit, NaN or a minus."""
    # True is a number for Python, and hardly what somebody meant by a price
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        plain = "write a plain number with a point, without unit or currency"
        raise CourseError(f"{name} is {value!r}; {plain}.")
    if not math.isfinite(value):
        known = "write what you know, with a range around it"
        raise CourseError(f"{name} is {value}, which is no number to reckon with; {known}.")
    if value < 0:
        raise CourseError(f"{name} is {value:g}; it must be 0 or more.")
    if above_zero and value == 0:
        raise CourseError(f"{name} is 0; it must be above 0.")
    return float(value)


def _table(file: str, key: str, columns: Sequence[str], folder: Path) -> dict[str, dict]:
    """{key: row} of a table in data/catalog/, the cells of `columns` as numbers."""
    table = {}
    for row in catalog.read_table(file, key, folder):
        numbers: dict[str, Any] = dict(row)
        for column in columns:
            cell: Any = (row.get(column) or "").strip()
            with suppress(ValueError):  # what is no number stays a text, which the check refuses
                cell = float(cell)
            where = f"data/catalog/{file}: {column} of {row[key]}"
            # a machine may cost nothing, but nobody can divide by a rate of 0
            numbers[column] = checked_number(cell, where, above_zero=column != "usd_per_hour")
        table[row[key]] = numbers
    return table


def price(machine: str, folder: Path = catalog.FOLDER) -> dict:
    """The row of prices.csv for a machine: usd_per_hour with source, date and confidence."""
    rows = _table("prices.csv", "machine", ["usd_per_hour"], folder)
    if machine not in rows:
        near = did_you_mean(machine, rows)
        raise CourseError(f"There is no price for {machine!r} in data/catalog/prices.csv{near}")
    return rows[machine]


def exchange(currency: str, folder: Path = catalog.FOLDER) -> dict:
    """How much of `currency` one US dollar is: the row of rates.csv, per_usd with low and high."""
    if currency == "USD":
        today, same = date.today().isoformat(), "the same currency, nothing to convert"
        return {"per_usd": 1.0, "source": same, "date": today, "confidence": "high"}
    rows = _table("rates.csv", "currency", ["per_usd", "low", "high"], folder)
    if currency not in rows:
        cure = f"add a row with source and date to rates.csv, which has {', '.join(rows)}"
        raise CourseError(f"There is no exchange rate from USD to {currency!r}; {cure}.")
    return rows[currency]


def published() -> dict[str, float]:
    """{task: times cheaper} from data/catalog/published.csv."""
    rows = _table("published.csv", "task", ["times_cheaper"], catalog.FOLDER)
    return {task: row["times_cheaper"] for task, row in rows.items()}


def hosted(provider: str, model: str, on: str) -> dict:
    """List price of a hosted model on a day (ISO date): usd_in, usd_out per million tokens.

    Read from genai-prices as installed, without tiers for long prompts and without discounts.
    """
    # its list of prices is long: read only where it is asked
    from genai_prices import Usage, __version__, calc_price
    from genai_prices.data_snapshot import get_snapshot

    # midnight: a price that changes on this day counts as changed
    at = datetime.combine(_day(on, f"The price of {model}"), datetime.min.time(), UTC)
    package = f"genai-prices {__version__}"
    models = {one.id: [m.id for m in one.models] for one in get_snapshot().providers}
    if provider not in models:
        raise CourseError(
            f"{package} has no prices of {provider!r}{did_you_mean(provider, models)}"
        )
    # of a short prompt: a million tokens at once would fall under the tier for long ones
    usage = Usage(input_tokens=1000, output_tokens=1000)
    try:
        listed = calc_price(usage, model, provider_id=provider, genai_request_timestamp=at)
    except LookupError:
        near = did_you_mean(model, models[provider])
        raise CourseError(f"{package} has no price for {model!r} of {provider}{near}") from None
    name = listed.model.id
    if not listed.input_price or not listed.output_price:  # free weights, or an unpriced preview
        missing = "but no price for its tokens; take the provider's own list"
        raise CourseError(f"{package} names {name!r} of {provider}, {missing}.")
    return {
        "usd_in": 1000 * float(listed.input_price),
        "usd_out": 1000 * float(listed.output_price),
        "source": f"{package}, {provider} {name}, list price",
        "date": on,
        "confidence": "medium",
    }


def _day(text: Any, what: str) -> date:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        cure = "write it as year-month-day, for example 2026-11-22"
        raise CourseError(f"{what} has the date {text!r}; {cure}.") from None


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


@dataclass(frozen=True)
class Ratio:
    """How many times cheaper a success is, with its 95 % interval over `n` rows."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        way, bound = "expensive", ""
        if self.value == math.inf:
            bound = f"; at least {self.low:.1f} times"
        elif self.value == 0:
            way, bound = "cheap", f"; at most {self.high:.1f} times"
        elif self.value > 0:
            return f"{self.value:.1f} times  [{self.low:.1f}, {self.high:.1f}]  n={self.n}"
        return f"no ratio, because the {way} way had no success in {self.n} rows{bound}"


def success_ratio(
    cost: float,
    right: Sequence[bool],
    cheap_cost: float,
    cheap_right: Sequence[bool],
    seed: int = 0,
) -> Ratio:
    """Cost per success of an expensive way over a cheap one, both on the same rows, shape (rows,).

    Costs are per message in any one unit. The interval is a smoothed bootstrap over pairs of rows:
    Dirichlet weights for the four kinds of pair, their counts plus 1/2 each (Jeffreys' prior).
    Drawing whole rows covers too little when successes are few: 90 % instead of 95 % with four.
    """
    expensive, cheap = np.asarray(right, bool), np.asarray(cheap_right, bool)
    if expensive.shape != cheap.shape or not expensive.size:
        sizes = f"{expensive.size} and {cheap.size}"
        raise CourseError(f"A ratio needs the same rows on both sides, not {sizes}.")
    times = checked_number(cost, "The expensive way's cost")
    times /= checked_number(cheap_cost, "The cheap way's cost", above_zero=True)
    # both right, only the expensive one, only the cheap one, none: a ratio needs no more
    counts = np.bincount(2 * ~expensive + ~cheap, minlength=4)
    weights = stats.dirichlet(counts + 0.5).rvs(DRAWS, np.random.default_rng(seed))
    cheap_share, expensive_share = weights[:, 0] + weights[:, 2], weights[:, 0] + weights[:, 1]
    draws = times * cheap_share / np.maximum(expensive_share, 1e-300)
    low, high = np.quantile(draws, [0.025, 0.975])
    with np.errstate(divide="ignore", invalid="ignore"):  # without a success: inf, or no number
        value = float(times * cheap.mean() / expensive.mean())
    # the smoothing pulls the draws to the middle: the interval still holds the value itself
    low, high = np.minimum(low, value), np.maximum(high, value)
    return Ratio(value, float(low), float(high), int(expensive.size))
