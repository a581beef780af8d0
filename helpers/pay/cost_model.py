"""Does it pay: one cost model as formulas, break-even, payback, tornado, Monte Carlo."""

import ast
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from helpers import CourseError
from helpers.pay.prices import number

TOTAL = "1000 * ({0}_each + ({0}_once / life_years + {0}_year) / messages_a_year)"


class Model:
    """Formulas in one currency. `steps`: {name: formula}; `ways`: {way: {each, once, year}}, money per message, at the start, a year.

    A formula knows inputs and earlier lines, + - * / and brackets: the same text works in a spreadsheet. Each way gets a `_total`,
    money per 1,000 messages done, with what is paid once spread over `life_years`.
    """

    def __init__(self, steps, ways):
        self.ways, self.formulas = list(ways), dict(steps)
        for way, parts in ways.items():
            self.formulas |= {
                f"{way}_{part}": parts.get(part, "0") for part in ("each", "once", "year")
            }
            self.formulas[f"{way}_total"] = TOTAL.format(way)
        self.trees = {name: _parsed(name, text) for name, text in self.formulas.items()}
        self.code = {name: compile(tree, name, "eval") for name, tree in self.trees.items()}

    def check(self, inputs):
        """Raises CourseError for a name that is neither an input nor an earlier line, or an input that is divided by and can be 0."""
        known = set(inputs)
        for name, tree in self.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and node.id not in known:
                    raise CourseError(
                        f"The formula of {name} needs {node.id!r}, which is no input and no earlier line."
                    )
                if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                    for below in ast.walk(node.right):
                        if isinstance(below, ast.Name) and below.id in inputs:
                            number(
                                inputs[below.id].low,
                                f"{below.id} (with its range; {name} divides by it)",
                                above_zero=True,
                            )
            known.add(name)

    def run(self, values):
        """{name: result} of every formula for {input: number or array}; start with the inputs' values or with draws."""
        found = dict(values)
        for name, code in self.code.items():
            found[name] = eval(
                code, {"__builtins__": {}}, found
            )  # only names, numbers and + - * / passed _parsed
        return found

    def base(self, inputs):
        """The results at the inputs' own values."""
        self.check(inputs)
        return self.run({name: one.value for name, one in inputs.items()})


def _parsed(name, text):
    allowed = (
        ast.Expression,
        ast.BinOp,
        ast.UnaryOp,
        ast.USub,
        ast.Add,
        ast.Sub,
        ast.Mult,
        ast.Div,
        ast.Name,
        ast.Load,
        ast.Constant,
    )
    try:
        tree = ast.parse(str(text), mode="eval")
    except SyntaxError:
        raise CourseError(f"The formula of {name} cannot be read: {text}") from None
    for node in ast.walk(tree):
        if (
            not isinstance(node, allowed)
            or isinstance(node, ast.Constant)
            and type(node.value) not in (int, float)
        ):
            raise CourseError(
                f"The formula of {name} may hold names, numbers, + - * / and brackets only: {text}"
            )
    return tree


def break_even(found, way, against="people"):
    """Messages a year from which `way` costs less than `against`, from the results of Model.run; infinite where it never does."""
    saving = np.asarray(found[f"{against}_each"] - found[f"{way}_each"], float)
    fixed = (
        (found[f"{way}_once"] - found[f"{against}_once"]) / found["life_years"]
        + found[f"{way}_year"]
        - found[f"{against}_year"]
    )
    volume = np.where(saving > 0, np.maximum(fixed, 0) / np.where(saving > 0, saving, 1), np.inf)
    return float(volume) if volume.ndim == 0 else volume


def payback(found, way, against="people"):
    """Months until what is paid once has come back, running costs and upkeep taken off; infinite where it never does."""
    saving = (found[f"{against}_each"] - found[f"{way}_each"]) * found["messages_a_year"]
    saving = np.asarray(saving - found[f"{way}_year"] + found[f"{against}_year"], float)
    once = found[f"{way}_once"] - found[f"{against}_once"]
    months = np.where(
        saving > 0, 12 * np.maximum(once, 0) / np.where(saving > 0, saving, 1), np.inf
    )
    return float(months) if months.ndim == 0 else months


@dataclass(frozen=True)
class Pays:
    """One way against another, per 1,000 messages: `total` and `saving` at the inputs' values with the 5th and 95th percentile of the
    draws, the saving's `median`, P(it pays), break-even, payback in months."""

    way: str
    total: tuple
    saving: tuple
    median: float
    probability: float
    volume: float
    months: float

    def verdict(self, sure=0.9):
        """'pays', 'does not pay' or 'not decided', for those who want to be this sure."""
        return (
            "pays"
            if self.probability >= sure
            else "does not pay"
            if self.probability <= 1 - sure
            else "not decided"
        )


def pays(model, inputs, drawn, way, against="people"):
    """A Pays at the inputs' values, with percentiles over `drawn` = model.run(inputs.draw(...))."""
    base, total = model.base(inputs), f"{way}_total"
    saving = drawn[f"{against}_total"] - drawn[total]
    ends = [[float(q) for q in np.quantile(x, [0.05, 0.95])] for x in (drawn[total], saving)]
    return Pays(
        way,
        (float(base[total]), *ends[0]),
        (float(base[f"{against}_total"] - base[total]), *ends[1]),
        float(np.median(saving)),
        float(np.mean(saving > 0)),
        break_even(base, way, against),
        payback(base, way, against),
    )


def tornado(model, inputs, way, against="people"):
    """[(input, saving at its low end, saving at its high end)], widest first: one input moved at a time, money per 1,000 messages."""
    model.check(inputs)
    rows = []
    for name, one in inputs.items():
        ends = []
        for end in (one.low, one.high):
            found = model.run({n: i.value for n, i in inputs.items()} | {name: end})
            ends.append(float(found[f"{against}_total"] - found[f"{way}_total"]))
        rows.append((name, *ends))
    return sorted((row for row in rows if row[1] != row[2]), key=lambda row: -abs(row[2] - row[1]))


def threshold(model, inputs, name, way, against="people", low=0.0, high=1.0):
    """The value of one input between low and high at which both ways cost the same, the others as they are; None without one."""

    def gap(x):
        found = model.run({n: i.value for n, i in inputs.items()} | {name: x})
        return float(found[f"{against}_total"] - found[f"{way}_total"])

    model.check(inputs)
    return float(brentq(gap, low, high)) if gap(low) * gap(high) < 0 else None
