"""What a bar says: beforehand in sentences for those who sign it, afterwards as pass, fail or not enough rows."""

from dataclasses import dataclass, replace

from helpers.measure.error_costs import Cost
from helpers.measure.intervals import Comparison, compare, paired_interval


@dataclass(frozen=True)
class Verdict:
    """`status`: pass, fail or not enough rows. `parts`: {condition: shown, missed or open}; `small`: {open condition: rows that even
    a result without an error would need}; prints as one line."""

    status: str
    exact: Comparison
    fields: dict
    critical: dict
    cost: Cost
    parts: dict
    small: dict
    n: int
    bar: object
    made: list

    def _said(self):
        """What the line is made of, {part: words}; a part without words is left out."""
        why = {
            side: [
                name
                for name, found in self.parts.items()
                if found == side and name not in self.small
            ]
            for side in ("missed", "open")
        }
        most = self.bar.max_cost_per_1000
        low, high = 100 * self.exact.low, 100 * self.exact.high
        gap = f"{100 * self.exact.difference:+.1f} points [{low:+.1f}, {high:+.1f}]"
        said = {
            "exact": f"{self.status.upper()}: exact record {gap} against {self.bar.baseline}, asked {100 * self.bar.margin:+g}"
        }
        said |= {
            side: f"{word}: {', '.join(why[side])}"
            for side, word in (("missed", "missed"), ("open", "not shown"))
            if why[side]
        }
        if self.small:
            said["small"] = (
                f"these rows cannot show: {', '.join(f'{k} ({needs(v)})' for k, v in self.small.items())}"
            )
        if most is not None:
            said["cost"] = f"costs {str(self.cost).strip()}, at most {most:,.0f}"
        return said | {
            "rows": "; ".join(
                [f"{self.n} rows, {self.bar.rows} agreed", *self.made, *self.bar.remarks]
            )
        }

    def __str__(self):
        return "; ".join(self._said().values())

    @property
    def brief(self):
        """The figure and the reason: what was missed, else what was not shown, else what these rows cannot show."""
        said = self._said()
        return "; ".join(
            [
                said["exact"],
                *[said[side] for side in ("missed", "open", "small") if side in said][:1],
            ]
        )


def paired(a, b, alpha):
    """compare(a, b) with Tango's interval at 1 - alpha."""
    found = compare(a, b)
    low, high = paired_interval(found.only_a, found.only_b, found.n, alpha)
    return replace(found, low=low, high=high)


def side(low, high):
    """An interval of 'how far on the good side' as shown, missed or open."""
    return "shown" if low >= 0 else "missed" if high < 0 else "open"


def needs(rows):
    """How many rows a condition needs, in words."""
    return f"needs {rows} rows" if rows else "no number of rows does"


def in_words(bar):
    """A Bar as one page of Markdown for the people who sign it: sentences, messages and money."""
    money = bar.costs.currency
    wrongs = {
        "wrong": "{0} wrong",
        "empty": "{0} left empty where one stood",
        "extra": "{0} given where there is none",
    }

    def rare(kind, limit):
        field, *rest = kind.split(".", 2)
        what = (
            f"{field} {rest[1]!r} overlooked"
            if rest[1:]
            else wrongs[rest[0]].format(field)
            if rest
            else "no usable record"
        )
        return f"- {what}: in at most {1000 * limit:,.0f} of 1,000 messages, at {bar.costs.of(kind):,.2f} {money} each"

    state = (
        f"Frozen on {bar.frozen}, version {bar.version}."
        if bar.frozen
        else "**DRAFT: nothing is agreed, nothing is frozen.**"
    )
    much = bar.messages_per_year
    volume = (
        [
            f"We expect {much:,} messages a year (an assumption). Read by people they cost "
            f"{much / 1000 * bar.costs.today:,.0f} {money} a year ({bar.costs.today:,.0f} {money} per 1,000)."
        ]
        if much
        else []
    )
    cost = (
        []
        if bar.max_cost_per_1000 is None
        else [
            f"- Errors, running and checking together cost at most {bar.max_cost_per_1000:,.0f} {money} per 1,000 messages"
            + (f", {much / 1000 * bar.max_cost_per_1000:,.0f} {money} a year" if much else "")
            + "; doubt counts against the model."
        ]
    )
    fields = [
        f"- {name}: right in at most {100 * loss:g} fewer of 100 messages than with {bar.baseline}."
        for name, loss in bar.secondary.items()
    ]
    seeds = (
        f"{len(bar.seeds)} models are trained (seeds {', '.join(map(str, bar.seeds))}); all are reported, the middle one judged, "
        "and together they are one look. "
        if len(bar.seeds) > 1
        else ""
    )
    follows = (
        "**What follows.** *Pass*: the model goes into trial use. *Fail*: it does not; the baseline or today's process stays. "
        "*Not enough rows*: more messages are labelled, nothing is put to use."
    )
    return "\n".join(
        [
            f"# The bar for the pilot {bar.pilot}",
            "",
            " ".join([state, *(f"{r[0].upper()}{r[1:]}." for r in bar.remarks)]),
            "",
            *volume,
            "",
            f"**What must be achieved**, on {bar.rows:,} test messages that no model was tuned on. Each must be shown, not just seen: "
            "the doubtful end of the interval counts.",
            "",
            f"- All fields right in at least {100 * bar.margin:g} more of 100 messages than with {bar.baseline}.",
            *fields,
            *cost,
            "",
            *(
                [
                    "**Which errors must stay rare**",
                    "",
                    *(rare(*pair) for pair in bar.critical.items()),
                    "",
                ]
                if bar.critical
                else []
            ),
            f"**How it is judged.** {seeds}The test messages are looked at {'once' if bar.looks == 1 else f'{bar.looks} times'}.",
            "",
            follows,
            "",
            f"**Who decides:** {bar.decides or '(write a name or a role)'}",
            "",
            "Name and date: ______________________________",
            "",
            "Name and date: ______________________________",
            "",
        ]
    )
