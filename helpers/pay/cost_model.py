"""Does it pay: one cost model as formulas, break-even, payback, tornado, Monte Carlo."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from helpers import CourseError
from helpers.pay.inputs import Inputs
from helpers.pay.prices import checked_number

TODAY = "people"  # the way that all others are measured against: today's process
TOTAL = "1000 * ({0}_each + ({0}_once / life_years + {0}_year) / messages_a_year)"
PARTS = ("each", "once", "year")
ALLOWED = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.USub, ast.Add, ast.Sub, ast.Mult, ast.Div)
ALLOWED += (ast.Name, ast.Load, ast.Constant)


class CostModel:
    """Formulas in one currency. `steps`: {name: formula}; `ways`: {way: {each, once, year}}, money
    per message, at the start, a year; `names`: {way: what a reader calls it}.

    A formula knows inputs and earlier lines, + - * / and brackets: the same text works in a
    spreadsheet. Each way gets a `_total`, money per 1,000 messages done, with what is paid once
    spread over `life_years`. The way `people` is today's process, which must be among them.
    """

    def __init__(
        self,
        steps: Mapping[str, str],
        ways: Mapping[str, Mapping[str, str]],
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.ways, self.formulas = list(ways), dict(steps)
        self.names = {way: (names or {}).get(way, way) for way in ways}
        for way, costs in ways.items():
            for part in PARTS:
                self.formulas[f"{way}_{part}"] = costs.get(part, "0")
            self.formulas[f"{way}_total"] = TOTAL.format(way)
        self.trees = {name: _parsed(name, text) for name, text in self.formulas.items()}
        self.code = {name: compile(tree, name, "eval") for name, tree in self.trees.items()}

    def check(self, inputs: Inputs) -> None:
        """Raises CourseError for a name that is neither an input nor an earlier line, or for an
        input that is divided by and can be 0.
        """
        known = set(inputs)
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id not in known:
                    raise CourseError(
                        f"The formula of {name} needs {node.id!r}, which is no input and no "
                        "earlier line."
                    )
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                    _check_divisor(name, node.right, inputs)
            known.add(name)  # later lines may use it

    def run(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """{name: result} of every formula, for {input: number or array of draws}."""
        results = dict(values)
        for name, code in self.code.items():
            # nothing but names, numbers and + - * / has passed _parsed
            results[name] = eval(code, {"__builtins__": {}}, results)
        return results

    def base(self, inputs: Inputs, **changed: float) -> dict[str, Any]:
        """The results at the inputs' own values, some of them `changed`."""
        self.check(inputs)
        return self.run({name: one.value for name, one in inputs.items()} | changed)


def _check_divisor(name: str, below: ast.expr, inputs: Inputs) -> None:
    for node in ast.walk(below):
        if isinstance(node, ast.Name) and node.id in inputs:
            what = f"{node.id} (with its range; {name} divides by it)"
            checked_number(inputs[node.id].low, what, above_zero=True)


def _parsed(name: str, text: str) -> ast.Expression:
    try:
        tree = ast.parse(str(text), mode="eval")
    except SyntaxError:
        raise CourseError(f"The formula of {name} cannot be read: {text}") from None
    for node in ast.walk(tree):
        # True is a number for Python, but not for a spreadsheet
        odd = isinstance(node, ast.Constant) and type(node.value) not in (int, float)
        if odd or not isinstance(node, ALLOWED):
            raise CourseError(
                f"The formula of {name} may hold names, numbers, + - * / and brackets only: {text}"
            )
    return tree


def break_even(results: Mapping[str, Any], way: str) -> Any:
    """Messages a year from which `way` costs less than today; infinite where it never does.

    `results` of CostModel.run, numbers or arrays of draws.
    """
    once, year = _more_than_today(results, way)
    return _quotient(once / results["life_years"] + year, _saved_each(results, way))


def payback(results: Mapping[str, Any], way: str) -> Any:
    """Months until what is paid once has come back, upkeep taken off; infinite if it never does."""
    once, year = _more_than_today(results, way)
    return _quotient(12 * once, _saved_each(results, way) * results["messages_a_year"] - year)


def _more_than_today(results: Mapping[str, Any], way: str) -> tuple[Any, Any]:
    """What a way costs once and a year beyond today's process."""
    return tuple(results[f"{way}_{part}"] - results[f"{TODAY}_{part}"] for part in ("once", "year"))


def _saved_each(results: Mapping[str, Any], way: str) -> Any:
    return results[f"{TODAY}_each"] - results[f"{way}_each"]


def _quotient(spent: Any, saved: Any) -> Any:
    """How often `saved` goes into `spent`; infinite where nothing is saved."""
    spent, saved = np.maximum(spent, 0), np.asarray(saved, float)
    # 1 stands in where nothing is saved, so that no draw divides by zero
    times = np.where(saved > 0, spent / np.where(saved > 0, saved, 1), np.inf)
    return float(times) if times.ndim == 0 else times


@dataclass(frozen=True)
class Payoff:
    """One way against today, per 1,000 messages: `total` and `saving` as (value, low, high), the
    value at the inputs' own values, the others the 5th and 95th percentile of the draws; the
    saving's `median`; P(it pays).
    """

    way: str
    total: tuple[float, float, float]
    saving: tuple[float, float, float]
    median: float
    probability: float

    def verdict(self, sure: float = 0.9) -> str:
        """'pays', 'does not pay' or 'not decided', for those who want to be this sure."""
        if self.probability >= sure:
            return "pays"
        if self.probability <= 1 - sure:
            return "does not pay"
        return "not decided"


def judge_way(model: CostModel, inputs: Inputs, drawn: Mapping[str, Any], way: str) -> Payoff:
    """The Payoff of a way; percentiles over `drawn` = model.run(inputs.draw(...))."""
    base = model.base(inputs)
    total, today = f"{way}_total", f"{TODAY}_total"
    # draw by draw: in one draw an hour costs the same for every way
    saved = drawn[today] - drawn[total]
    return Payoff(
        way,
        (float(base[total]), *middle_draws(drawn[total])),
        (float(base[today] - base[total]), *middle_draws(saved)),
        float(np.median(saved)),
        float(np.mean(saved > 0)),
    )


def overall_verdict(payoffs: Sequence[Payoff], sure: float) -> str:
    """'pays' when one of these ways does, 'does not pay' when none does, else 'not decided'."""
    verdicts = {payoff.verdict(sure) for payoff in payoffs}
    if "pays" in verdicts:
        return "pays"
    return "does not pay" if verdicts == {"does not pay"} else "not decided"


def how_often(share: float) -> str:
    """Words for a share of draws, so that a sentence follows the figure."""
    for least, words in ((0.9, "almost always"), (0.6, "mostly"), (0.4, "as often as not")):
        if share >= least:
            return words
    return "seldom" if share >= 0.1 else "almost never"


def middle_draws(draws: np.ndarray) -> tuple[float, float]:
    """The 5th and the 95th percentile: nine draws of ten lie between them."""
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


def saving(model: CostModel, inputs: Inputs, way: str, **changed: float) -> float:
    """Money saved per 1,000 messages at the inputs' own values, some of them `changed`."""
    results = model.base(inputs, **changed)
    return float(results[f"{TODAY}_total"] - results[f"{way}_total"])


def tornado(model: CostModel, inputs: Inputs, way: str) -> pd.DataFrame:
    """What is saved per 1,000 messages with one input at its `low` or its `high` end, the others as
    they are; one row an input, the widest first.
    """
    rows = {}
    for name, one in inputs.items():
        ends = [saving(model, inputs, way, **{name: end}) for end in (one.low, one.high)]
        if ends[0] != ends[1]:
            rows[name] = ends
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["low", "high"])
    width = (table["high"] - table["low"]).abs()
    return table.loc[width.sort_values(ascending=False, kind="stable").index]


def switching_value(
    model: CostModel, inputs: Inputs, name: str, way: str, low: float = 0.0, high: float = 1.0
) -> float | None:
    """The value of one input between low and high at which both ways cost the same, else None."""

    def gap(value: float) -> float:
        return saving(model, inputs, way, **{name: value})

    if gap(low) * gap(high) >= 0:  # the same sign at both ends: it turns nowhere in between
        return None
    return float(brentq(gap, low, high))
