"""One page for whoever signs, and a model card for whoever uses the model: both written from the figures, not by hand."""

import base64
from pathlib import Path

import jinja2

from helpers import CourseError
from helpers.core.pages import format_figure as show
from helpers.core.files import write_text

ANSWER = {
    "pass": "Yes: it met everything that was agreed.",
    "fail": "No: it missed what was agreed.",
    "not enough rows": "Not known yet: the messages tested are too few.",
    "": "No bar was agreed, so there is no yes or no.",
}
KINDS = {
    "wrong": "{0}: another value",
    "empty": "{0}: left empty where a value stood",
    "extra": "{0}: a value where none belongs",
}
SIDES = {"shown": "shown", "missed": "missed", "open": "not shown"}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ f.pilot }}: is it good enough?</title>
<style>
body{font:15px/1.45 system-ui,sans-serif;color:#22313f;max-width:54rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem} h2{font-size:1.05rem;margin:1.4rem 0 .4rem} .soft{color:#66788a;font-size:.85rem}
.answer{font-size:1.15rem;padding:.7rem 1rem;border-radius:.4rem;border-left:.4rem solid {{ colour }};background:#f3f6f8}
table{border-collapse:collapse;width:100%;font-size:.9rem} td,th{text-align:left;padding:.25rem .6rem;border-bottom:1px solid #dde4ea}
td.n,th.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums} img{max-width:100%}
.two{display:flex;flex-wrap:wrap;gap:1rem} .two>div{flex:1 1 22rem} ul{margin:.3rem 0;padding-left:1.2rem} @media print{body{margin:0}}
</style></head><body>
<h1>Pilot <em>{{ f.pilot }}</em>: is it good enough?</h1>
<p class="soft">{{ f.rows }} test messages the model had never seen · base model {{ f.base }} · adapter {{ f.adapter }} ·
profile {{ f.profile }}</p>
<p class="answer"><b>{{ answer }}</b>{% for line in f.why %}<br>{{ line }}{% endfor %}</p>
<div class="two"><div>
<h2>How often every field is right</h2>
<table><tr><th>way</th><th class="n">right</th><th class="n">95 % interval</th></tr>
{% for name, s in f.exact.items() %}<tr><td>{{ name }}</td><td class="n">{{ show(s.value, 'share') }}</td>
<td class="n">{{ show(s.low, 'share') }} to {{ show(s.high, 'share') }}</td></tr>
{% endfor %}</table></div>
{% if f.conditions %}<div><h2>What was agreed, and what was found</h2>
<table>{% for name, side in f.conditions.items() %}<tr><td>{{ name }}</td><td>{{ sides[side] }}</td></tr>
{% endfor %}</table></div>{% endif %}</div>
{% if f.errors %}<h2>Which errors it made, and what they would cost</h2>
<table><tr><th>error</th><th class="n">in {{ f.rows }} messages</th>
<th class="n">{{ f.currency }} per 1,000 messages (assumed prices)</th></tr>
{% for kind, (count, money) in f.errors.items() %}<tr><td>{{ words(kind) }}</td><td class="n">{{ count }}</td>
<td class="n">{{ '{:,.0f}'.format(money) }}</td></tr>
{% endfor %}</table>{% endif %}
<h2>What else was measured</h2>
<ul>{% for line in f.found %}<li>{{ line }}</li>{% endfor %}</ul>
<div class="two">{% for caption, data in pictures %}<div><img alt="{{ caption }}" src="data:image/png;base64,{{ data }}">
<p class="soft">{{ caption }}</p></div>{% endfor %}</div>
<h2>What this does not show</h2>
<ul>{% for line in f.limits %}<li>{{ line }}</li>{% endfor %}</ul>
<p class="soft">An interval says where the share would lie for this trained model on very many messages of the same kind, 19 times of
20. <i>Shown</i>: the whole interval lies on the good side. <i>Missed</i>: it lies on the bad side. <i>Not shown</i>: neither.</p>
</body></html>
"""

CARD = """---
base_model: {{ f.base | tojson }}
license: {{ f.licence | tojson }}
language: {{ f.language | tojson }}
library_name: peft
pipeline_tag: text-generation
---

# Model card: {{ f.pilot }}

{{ f.about }}

**What it is.** A LoRA adapter for {{ f.base }} that turns a message into one JSON record with the fields {{ f.fields }}.
Adapter {{ f.adapter }}. Licence of the base model: {{ f.licence }}; whoever ships the adapter keeps its terms.

**Made from** {{ f.train_rows }} labelled messages, settings {{ f.settings }}.

**Meant for** messages like those it was tested on, with the answer held to the pilot's grammar. **Not meant for** other trades or
languages, for text that is no request, or for decisions that nobody looks at.

## What was measured

| figure | value | 95 % interval | rows | how |
|---|---|---|---|---|
{% for x in figures %}| {{ x.name }} | {{ show(x.value, x.unit) }} | {% if x.low is not none %}{{ show(x.low, x.unit) }} to \
{{ show(x.high, x.unit) }}{% endif %} | {{ x.n if x.n is not none else '' }} | {{ x.how | replace('|', '/') }} |
{% endfor %}
**Against its bar:** {{ answer }}{% for line in f.why %} {{ line }}{% endfor %}

## What else is known

{% for line in f.found %}- {{ line }}
{% endfor %}
## Limits

{% for line in f.limits %}- {{ line }}
{% endfor %}"""

NEEDED = (
    "pilot",
    "about",
    "language",
    "base",
    "licence",
    "adapter",
    "profile",
    "fields",
    "rows",
    "train_rows",
    "settings",
    "status",
    "why",
    "exact",
    "conditions",
    "errors",
    "currency",
    "found",
    "limits",
    "figures",
)


def words(kind):
    """A kind of error in words: 'order_id.wrong' as 'order_id: another value'."""
    field, *rest = kind.split(".", 2)
    if len(rest) == 2:
        return f"{field}: {rest[1]} overlooked"
    return KINDS[rest[0]].format(field) if rest else "no usable record"


def page(facts, pictures=()):
    """The page for a manager as self-contained HTML; nothing in it is loaded from elsewhere and every text is escaped.

    `facts` has the keys NEEDED: `status` of the Verdict ('' without a bar), `why` and `found` and `limits` sentences, `exact` {way:
    Share}, `conditions` the Verdict's parts, `errors` {kind: (count, money per 1,000)}, `figures` as in results.json. `pictures`:
    (caption, path of a PNG).
    """
    colour = {"pass": "#5b8a72", "fail": "#c8553d"}.get(facts.get("status"), "#b08d3e")
    shown = [
        (caption, base64.b64encode(Path(path).read_bytes()).decode()) for caption, path in pictures
    ]
    return _fill(PAGE, facts, True, pictures=shown, colour=colour)


def card(facts, names=("exact.", "risk.", "escalation.", "forgetting.")):
    """The model card as Markdown with a YAML head, from the same facts; figures whose name begins with one of `names`."""
    chosen = [
        f
        for f in facts.get("figures", ())
        if f["value"] is not None and f["name"].startswith(tuple(names))
    ]
    return _fill(CARD, facts, False, figures=chosen)


def write(folder, facts, pictures=()):
    """Write evaluation.html and model_card.md into a run's folder; returns both paths."""
    places = Path(folder) / "evaluation.html", Path(folder) / "model_card.md"
    for place, text in zip(places, (page(facts, pictures), card(facts))):
        write_text(place, text)
    return places


def _fill(template, facts, escape, **more):
    if lacking := [name for name in NEEDED if name not in facts]:
        raise CourseError(f"The report lacks {', '.join(lacking)}; run the cells above first.")
    if facts["status"] not in ANSWER:
        raise CourseError(
            f"The report knows no status {facts['status']!r}; it can be {', '.join(filter(None, ANSWER))}."
        )
    made = jinja2.Environment(
        autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=False
    ).from_string(template)
    return made.render(
        f=facts, show=show, words=words, sides=SIDES, answer=ANSWER[facts["status"]], **more
    )
