"""Before anybody signs: how likely a page is to be passed, if the truth is as named."""

from collections.abc import Callable
from functools import partial

from helpers.agree.bar import Bar
from helpers.measure.planning import chance_to_be_rare, chance_to_clear

Chance = Callable[[int], float]

# assumed shares of rows where just one of the two ways is right
DISCORDANT_RECORDS, DISCORDANT_FIELDS = 0.4, 0.1


def chances_of_passing(bar: Bar) -> dict[str, tuple[str, Chance]]:
    """{figure name: (what is true, function of n rows: probability that the condition is shown)}.

    The page passes only when every condition does, so its own chance is at most the smallest.
    """
    chances: dict[str, tuple[str, Chance]] = {}
    clear = partial(chance_to_clear, alpha=bar.alpha / bar.looks)
    for extra in (5, 10):
        gain = min(1.0, bar.margin + extra / 100)
        discordant = max(DISCORDANT_RECORDS, gain)
        chance = partial(clear, gain=gain, discordant=discordant, margin=bar.margin)
        chances[f"exact_record.plus_{extra}"] = (f"exact record, plus {extra}", chance)
    if bar.secondary:
        margin = -min(bar.secondary.values())
        chance = partial(clear, gain=0, discordant=DISCORDANT_FIELDS, margin=margin)
        chances["a_field"] = ("a field, exactly equal", chance)
    for kind, limit in bar.critical.items():
        name = kind.replace(" ", "_").replace("-", "_").lower()
        chance = partial(chance_to_be_rare, rate=limit / 2, limit=limit)
        chances[name] = (f"{kind}, at half its limit", chance)
    return chances
