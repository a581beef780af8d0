"""Does it pay: one cost model as formulas, break-even, payback, tornado, Monte Carlo."""

import ast
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from helpers import CourseError
from helpers.pay.inputs import Inputs, plain_number
from helpers.pay.prices import checked_number

TODAY = "people"  # the way that all others are measured against: today's process
TOTAL = "1000 * ({0}_each + ({0}_once / life_years + {0}_year) / messages_a_year)"
VALUES = (ast.Expression, ast.Name, ast.Load, ast.Constant)
SIGNS = (ast.BinOp, ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div)
Texts = Mapping[str, str]


class CostModel:
    """Formulas in one currency. `steps`: {name: formula}; `ways`: {way: {each, once, year}}, money
    per message, at the start, a year; `names`: {way: what a reader calls it}.

    A formula knows inputs and earlier lines, + - * / and brackets: the same text works in a
    spreadsheet. Each way gets a `_total`, money per 1,000 messages done, with what is paid once
    spread over `life_years`. The way `people` is today's process, which must be among them.
    """

    def __init__(self, steps: Texts, ways: Mapping[str, Texts], names: Texts | None = None) -> None:
        self.ways, self.formulas = list(ways), dict(steps)
        self.names = dict(zip(ways, ways, strict=True)) | dict(names or {})
        for way, costs in ways.items():
            for part in ("each", "once", "year"):
                self.formulas[f"{way}_{part}"] = costs.get(part, "0")
            self.formulas[f"{way}_total"] = TOTAL.format(way)
        self.trees = {name: _parsed(name, text) for name, text in self.formulas.items()}
        self.code = {name: compile(tree, name, "eval") for name, tree in self.trees.items()}

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """{name: result} of every formula, for {input: number or array of draws}."""
        results = dict(values)
        for name, code in self.code.items():
            try:
                # nothing but names, numbers and + - * / has passed _parsed
                results[name] = eval(code, {"__builtins__": {}}, results)
            except NameError as missing:
                unknown = f"{missing.name!r}, which is no input and no earlier line"
                raise CourseError(f"The formula of {name} needs {unknown}.") from None
        return results

    def base(self, inputs: Inputs, **changed: float) -> dict[str, Any]:
        """Results at the inputs' own values, some `changed`; CourseError if a divisor can be 0."""
        for name, tree in self.trees.items():
            for divisor in _divisors(tree) & set(inputs):
                what = f"{divisor} (with its range; {name} divides by it)"
                checked_number(inputs[divisor].low, what, above_zero=True)
        return self.run({name: one.value for name, one in inputs.items()} | changed)


def _divisors(tree: ast.Expression) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            names |= {below.id for below in ast.walk(node.right) if isinstance(below, ast.Name)}
    return names


def _parsed(name: str, text: str) -> ast.Expression:
    try:
        tree = ast.parse(str(text), mode="eval")  # a plain number is a formula, too
    except SyntaxError:
        raise CourseError(f"The formula of {name} cannot be read: {text}") from None
    for node in ast.walk(tree):
        # True is a number for Python, but not for a spreadsheet
        odd = isinstance(node, ast.Constant) and type(node.value) not in (int, float)
        if odd or not isinstance(node, VALUES + SIGNS):
            allowed = "names, numbers, + - * / and brackets"
            raise CourseError(f"The formula of {name} may hold {allowed} only: {text}")
    return tree


def break_even(results: Mapping[str, Any], way: str) -> Any:
    """Messages a year from which `way` costs less than today; infinite where it never does."""
    each, once, year = _beyond_today(results, way)
    return _quotient(once / results["life_years"] + year, -each)


def payback(results: Mapping[str, Any], way: str) -> Any:
    """Months until what is paid once has come back, upkeep taken off; infinite if it never does."""
    each, once, year = _beyond_today(results, way)
    return _quotient(12 * once, -each * results["messages_a_year"] - year)


def _beyond_today(results: Mapping[str, Any], way: str) -> list[Any]:
    """What a way costs beyond today's process: a message, once, a year."""
    parts = ("each", "once", "year")
    return [results[f"{way}_{part}"] - results[f"{TODAY}_{part}"] for part in parts]


def _quotient(spent: Any, saved: Any) -> Any:
    """How often `saved` goes into `spent`; infinite where nothing is saved."""
    with np.errstate(divide="ignore", invalid="ignore"):  # those places become infinite
        return np.where(saved > 0, np.maximum(spent, 0) / saved, np.inf)[()]


@dataclass(frozen=True)
class Payoff:
    """What a way saves against today, per 1,000 messages or in a year."""

    saving: tuple[float, float, float]  # at the inputs' own values, 5th, 95th percentile
    median: float  # of the draws
    probability: float  # the share of draws in which it saves anything

    def verdict(self, sure: float) -> str:
        """'pays', 'does not pay' or 'not decided', for those who want to be this sure."""
        if self.probability >= sure:
            return "pays"
        if self.probability <= 1 - sure:
            return "does not pay"
        return "not decided"


def judge_way(
    model: CostModel, inputs: Inputs, drawn: Mapping[str, Any], way: str, yearly: bool = False
) -> Payoff:
    """The Payoff of a way; percentiles over `drawn` = model.run(inputs.draw(...))."""
    # draw by draw: in one draw an hour costs the same for every way
    saved = drawn[f"{TODAY}_total"] - drawn[f"{way}_total"]
    value = saving(model, inputs, way)
    if yearly:  # each draw at its own number of messages
        saved = saved * drawn["messages_a_year"] / 1000
        value *= inputs["messages_a_year"].value / 1000
    values = value, *middle_draws(saved)
    return Payoff(values, float(np.median(saved)), float(np.mean(saved > 0)))


def a_year(results: Mapping[str, Any], way: str) -> tuple[float, float]:
    """What a way costs in a year, all in all: (money, hours in which people do the work)."""
    messages = results["messages_a_year"]
    hours = messages * results.get(f"{way}_time", 0) / results["hourly"]
    return results[f"{way}_total"] * messages / 1000, hours


def pieces(model: CostModel, results: Mapping[str, Any], way: str) -> dict[str, float]:
    """{what: money for 1,000 messages} of one way; their sum is its total."""
    time, errors = (1000 * results.get(f"{way}_{part}", 0) for part in ("time", "errors"))
    machine = 1000 * results[f"{way}_each"] - time - errors  # tokens
    if "machine_year" in str(model.formulas[f"{way}_year"]):
        machine += 1000 * results["machine"]
    rest = results[f"{way}_total"] - time - errors - machine
    return {
        "people's minutes": time,
        "wrong records": errors,
        "once and upkeep": rest,
        "machine or tokens": machine,
    }


def how_often(share: float) -> str:
    """Words for a share of draws, so that a sentence follows the figure."""
    words = ("almost never", "seldom", "as often as not", "mostly", "almost always")
    return words[bisect([0.1, 0.4, 0.6, 0.9], share)]


def middle_draws(draws: np.ndarray) -> tuple[float, float]:
    """The 5th and the 95th percentile: nine draws of ten lie between them."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


def saving(model: CostModel, inputs: Inputs, way: str, **changed: float) -> float:
    """Money saved per 1,000 messages at the inputs' own values, some of them `changed`."""
    results = model.base(inputs, **changed)
    return float(results[f"{TODAY}_total"] - results[f"{way}_total"])


def tornado(model: CostModel, inputs: Inputs, way: str) -> pd.DataFrame:
    """Money saved per 1,000 messages with one input at its `low` or `high` end; widest first."""
    table = pd.DataFrame(index=list(inputs), columns=["low", "high"], dtype=float)
    for name, one in inputs.items():
        for end in table:
            table.loc[name, end] = saving(model, inputs, way, **{name: getattr(one, end)})
    width = (table["high"] - table["low"]).abs()
    return table.loc[width[width > 0].sort_values(ascending=False, kind="stable").index]


def switching_value(
    model: CostModel, inputs: Inputs, name: str, way: str, low: float = 0.0, high: float = 1.0
) -> float | None:
    """The value of one input between low and high at which both ways cost the same, else None."""

    def gap(value: float) -> float:
        return saving(model, inputs, way, **{name: value})

    if gap(low) * gap(high) >= 0:  # the same sign at both ends: it turns nowhere in between
        return None
    return float(brentq(gap, low, high))


@dataclass(frozen=True)
class Turn:
    """The value `at` of an input at which a way costs what today costs.

    `part`: how far that is on the way from the input's `now` to the end of its range, 0 to 1.
    """

    name: str
    now: float
    at: float
    part: float

    def __str__(self) -> str:
        words = self.name.replace("_", " ")
        return f"{words} {plain_number(self.at)} instead of {plain_number(self.now)}"


def turns(model: CostModel, inputs: Inputs, way: str) -> list[Turn]:
    """Every input that alone, within its own range, makes a gain a loss or a loss a gain.

    The one that needs the smallest part of its range comes first.
    """
    now, found = saving(model, inputs, way), []
    for name, one in inputs.items():
        for end in (one.low, one.high):
            if now * saving(model, inputs, way, **{name: end}) >= 0:
                continue
            at = switching_value(model, inputs, name, way, *sorted((one.value, end)))
            if at is not None:
                found.append(Turn(name, one.value, at, (at - one.value) / (end - one.value)))
    return sorted(found, key=lambda turn: turn.part)
