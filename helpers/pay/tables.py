"""The answer of chapter 10 in words, and its tables with a line for each way."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from helpers.pay import cost_model
from helpers.pay.cost_model import TODAY, CostModel, Payoff


def year_in_words(results: Mapping[str, Any], way: str, currency: str) -> str:
    """What a way costs in a year, and the hours in which people do the work."""
    money, hours = cost_model.a_year(results, way)
    return f"{money:,.0f} {currency} and {hours:,.0f} hours a year"


def saving_in_words(results: Mapping[str, Any], way: str, payoff: Payoff, currency: str) -> str:
    """What a way saves in a year, its range over the draws, people's hours, how often it pays."""
    value, low, high = payoff.saving
    money = f"{'saves' if value > 0 else 'loses'} {abs(value):,.0f} {currency} a year"
    freed = cost_model.a_year(results, TODAY)[1] - cost_model.a_year(results, way)[1]
    hours = f"{'frees' if freed > 0 else 'takes'} {abs(freed):,.0f} hours"
    chance = f"pays in {payoff.probability:.0%} of the draws"
    return f"{money} [{low:+,.0f}, {high:+,.0f}], {hours}, {chance}"


def answer(
    model: CostModel,
    results: Mapping[str, Any],
    payoffs: Mapping[str, Payoff],
    leading: str,
    currency: str,
    unmeasured: Collection[str],
) -> list[str]:
    """Today, the leading way, the difference, its median, and the surest other measured way."""
    others = [way for way in payoffs if way not in (leading, *unmeasured)]
    rival = max(others, key=lambda way: payoffs[way].probability)
    lines = []
    for way in (TODAY, leading):
        lines.append(f"{model.names[way]}: {year_in_words(results, way, currency)}")
    saved = saving_in_words(results, leading, payoffs[leading], currency)
    lines.append(f"difference: {saved}")
    lines.append(f"half of the draws save more than {payoffs[leading].median:,.0f} {currency}")
    saved = saving_in_words(results, rival, payoffs[rival], currency)
    return [*lines, f"surest other way: {model.names[rival]}, {saved}"]


def year_table(
    model: CostModel, results: Mapping[str, Any], payoffs: Mapping[str, Payoff], currency: str
) -> pd.DataFrame:
    """Money and hours in a year, what a way saves against today, and how often."""
    lines = {}
    for way in model.ways:
        money, hours = cost_model.a_year(results, way)
        lines[model.names[way]] = [f"{money:,.0f}", f"{hours:,.0f}", "", "", "", ""]
        if way in payoffs:
            saved = [f"{value:+,.0f}" for value in payoffs[way].saving]
            lines[model.names[way]][2:] = [*saved, f"{payoffs[way].probability:.0%}"]
    head = [f"{currency} a year", "hours a year", "saves", "5th", "95th", "P(it pays)"]
    return pd.DataFrame(lines, head).T


def payoff_table(
    model: CostModel, payoffs: Mapping[str, Payoff], sure: float, unmeasured: Collection[str]
) -> pd.DataFrame:
    """What each way saves, the middle draw, and the verdict of those who want to be this sure."""
    lines = {}
    for way, payoff in payoffs.items():
        saved = [f"{value:+,.0f}" for value in (*payoff.saving, payoff.median)]
        verdict = payoff.verdict(sure) + ", as assumed" * (way in unmeasured)
        lines[model.names[way]] = [*saved, verdict]
    return pd.DataFrame(lines, ["saves", "5th", "95th", "median", "verdict"]).T


def sum_table(model: CostModel, results: Mapping[str, Any], currency: str) -> pd.DataFrame:
    """Money a message, at the start and in a year, and all of it for 1,000 messages."""
    parts = {"each": f"{currency} a message", "once": "once", "year": "a year"}
    parts["total"] = "per 1,000 messages"
    lines = {}
    for way in model.ways:
        lines[model.names[way]] = [results[f"{way}_{part}"] for part in parts]
    return pd.DataFrame(lines, list(parts.values())).T.round(2)


def volume_table(model: CostModel, results: Mapping[str, Any], currency: str) -> pd.DataFrame:
    """What a way saves a message, from which volume it pays, and after how many months."""
    lines = {}
    for way in model.ways:
        if way != TODAY:
            saved = results[f"{TODAY}_each"] - results[f"{way}_each"]
            volume = cost_model.break_even(results, way)
            lines[model.names[way]] = [saved, volume, cost_model.payback(results, way)]
    head = [f"{currency} saved a message", "pays from, messages a year", "payback, months"]
    return pd.DataFrame(lines, head).T.round(2)
