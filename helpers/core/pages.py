"""runs/<pilot>/report.html: what was measured, with its pictures, on one page that opens anywhere."""

import base64
import json
from pathlib import Path

import jinja2
import yaml

from helpers.core.runs import write_text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ pilot }}: what was measured</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;color:#22313f;max-width:56rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem} h2{font-size:1.2rem;margin-top:2.5rem} table{border-collapse:collapse;width:100%;font-size:.9rem}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #dde4ea;vertical-align:top}
td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums} .soft{color:#66788a} img{max-width:100%}
.lead{font-size:1.05rem;background:#f3f6f8;padding:.8rem 1rem;border-radius:.4rem}
</style></head><body>
<h1>Pilot <em>{{ pilot }}</em>: what was measured</h1>
{% if bar %}<p class="lead">The {{ bar }}</p>{% endif %}
{% for chapter in chapters %}
<h2>Chapter {{ chapter.chapter }} <span class="soft">profile {{ chapter.profile }}, {{ '%.0f'|format(chapter.seconds) }} s,
{{ chapter.machine.cores }} cores</span></h2>
{% for line in chapter.lead %}<p class="lead">{{ line }}</p>{% endfor %}
{% for note in chapter.notes %}<p>Note: {{ note }}</p>{% endfor %}
<p class="soft">{% if chapter.settings.base %}Base model {{ chapter.settings.base }}, seed {{ chapter.settings.seed }}. {% endif %}An exact record has every field right. An interval
(in brackets, or the line beside a dot) says where the share would lie for this one trained model if other messages of the same kind had
been tested, 19 times of 20; another seed or other training rows move it further. A baseline is a cheaper way to do the same.</p>
{% for name, data in chapter.pictures %}<p><img alt="{{ name }}" src="data:image/png;base64,{{ data }}"></p>{% endfor %}
<details><summary>All figures</summary>
<table><tr><th>figure</th><th>value</th><th>95 % interval</th><th>rows</th><th>how it was measured</th></tr>
{% for f in chapter.figures %}<tr><td>{{ f.name }}</td><td class="n">{{ show(f.value, f.unit) }}</td>
<td class="n">{% if f.low is not none %}{{ show(f.low, f.unit) }} to {{ show(f.high, f.unit) }}{% endif %}</td>
<td class="n">{{ f.n if f.n is not none else '' }}</td><td class="soft">{{ f.how }}</td></tr>
{% endfor %}</table></details>
<p class="soft">{% for name, version in chapter.versions.items() %}{{ name }} {{ version }}{{ ' · ' if not loop.last }}{% endfor %}</p>
{% endfor %}
</body></html>
"""


def show(value, unit):
    """A figure as a reader wants it: shares as per cent, the rest with at most three significant digits."""
    if value is None:
        return "none"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "difference":
        return f"{100 * value:+.1f} points"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return number if unit == "count" else f"{number} {unit}"


def _bar(folder):
    """The frozen bar in one sentence, where the folder has one."""
    place = folder / "bar.yaml"
    if not place.is_file():
        return ""
    page = yaml.safe_load(place.read_text(encoding="utf-8"))
    said = f"bar, frozen on {page['frozen']}: exact record {100 * page['margin']:g} points over {page['baseline']} on {page['rows']} rows"
    kinds = ", ".join(
        f"{kind} at most {100 * limit:g} %" for kind, limit in page["critical"].items()
    )
    late = "; frozen after a tuned result had been seen" if page["seen_before"] else ""
    return (
        said + (f"; {kinds}" if kinds else "") + late + "".join(f"; {x}" for x in page["revised"])
    )


def build(folder):
    """Write report.html for every chapter with a results.json under `folder` (runs/<pilot>/); returns its path."""
    folder, chapters = Path(folder), []
    for path in sorted(folder.glob("*/results.json")):
        chapter = json.loads(path.read_text(encoding="utf-8"))
        pictures = sorted(path.parent.glob("*.png"))
        chapter["pictures"] = [
            (p.stem, base64.b64encode(p.read_bytes()).decode()) for p in pictures
        ]
        chapter["lead"], chapter["notes"] = (
            chapter["settings"].get("lead", []),
            chapter["settings"].get("notes", []),
        )
        chapters.append(chapter)
    template = jinja2.Environment(autoescape=True, undefined=jinja2.Undefined).from_string(PAGE)
    name = chapters[0]["pilot"] if chapters else folder.name
    write_text(
        folder / "report.html",
        template.render(pilot=name, chapters=chapters, show=show, bar=_bar(folder)),
    )
    return folder / "report.html"
