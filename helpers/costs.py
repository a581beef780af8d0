"""What an answer costs, and what a right answer costs."""

import csv

from helpers import ROOT, CourseError


def price(machine):
    """The row of data/catalog/prices.csv for a machine: usd_per_hour with source, date and confidence."""
    with open(ROOT / "data/catalog/prices.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if row["machine"] == machine:
            return {**row, "usd_per_hour": float(row["usd_per_hour"])}
    raise CourseError(f"There is no price for {machine!r}; data/catalog/prices.csv has {', '.join(r['machine'] for r in rows)}.")


def per_thousand_successes(usd_per_hour, seconds_per_message, success_rate):
    """US dollars for 1,000 records that are right: what 1,000 / success_rate messages cost. Infinite when none is right.

    The idea of dividing by the success rate is 'inference cost per success' (TensorZero, 2025).
    """
    if usd_per_hour < 0 or seconds_per_message < 0 or not 0 <= success_rate <= 1:
        raise CourseError("A price and a time cannot be negative, and a success rate lies between 0 and 1.")
    if success_rate == 0:
        return float("inf")
    return usd_per_hour * seconds_per_message * 1000 / 3600 / success_rate
