"""Pick a base model by language, licence, memory and use: a table from the catalogue, with controls where a kernel runs."""

import html
import os

from helpers.choose import catalog, licensing, memory

# the column "Japanese": native (made for it), declared (its makers name it), weak (neither)
SHOWN = ("model", "parameters", "verdict", "GiB to tune", "Japanese", "note")


def matches(language="any", licence="any", gib=15.0, mode="qlora", use=None, tokens=512):
    """Base models of the catalogue that fit: a list of dicts with the keys of SHOWN, smallest first.

    language: any or Japanese; licence: any, or a class of licences.yaml such as permissive; gib: memory at hand; mode: lora, qlora,
    full or inference; use: a licensing.Use. Blocked models are left out, those with open questions come last.
    """
    found = []
    for row in catalog.models():
        if "base" not in row["role"] or language == "Japanese" and row["japanese"] == "weak":
            continue
        classes = {catalog.licences().get(x, {}).get("class") for x in row["licence"].split(" + ")}
        if licence != "any" and classes != {licence}:
            continue
        shape = memory.shape_of_row(row)
        need = memory.estimate(shape, mode, tokens).total / memory.GIB if shape else None
        least = (
            memory.NF4 * int(row["parameters"] or 0) / memory.GIB
        )  # sizes not known: at least the weights in 4 bits
        verdict = licensing.gate(row["hub_id"], use=use).verdict
        if need is None and least > gib:
            continue
        if verdict != licensing.BLOCKED and (need is None or need <= gib):
            found.append(
                {
                    "model": row["hub_id"],
                    "parameters": int(row["parameters"] or 0),
                    "verdict": verdict,
                    "GiB to tune": need,
                    "Japanese": row["japanese"],
                    "note": row["note"],
                }
            )
    return sorted(
        found,
        key=lambda f: (
            f["verdict"] == licensing.UNKNOWN,
            f["GiB to tune"] is None,
            f["GiB to tune"] or 0,
            f["model"],
        ),
    )


def table(found, limit=20):
    """The rows of `matches` as an HTML table; text from the catalogue is escaped."""
    if not found:
        return "<p>No base model of the catalogue fits. Give it more memory, another licence class, or state the revenue.</p>"
    cells = [
        [
            f["model"],
            f"{f['parameters'] / 1e9:.2f} B" if f["parameters"] else "",
            f["verdict"],
            "not known" if f["GiB to tune"] is None else f"{f['GiB to tune']:.1f}",
            f["Japanese"],
            f["note"],
        ]
        for f in found[:limit]
    ]
    look = "style='text-align:left;vertical-align:top;padding:2px 10px 2px 0;line-height:1.35'"
    head = "".join(f"<th {look}>{html.escape(h)}</th>" for h in SHOWN)
    body = "".join(
        "<tr>" + "".join(f"<td {look}>{html.escape(c)}</td>" for c in row) + "</tr>"
        for row in cells
    )
    more = f"<p>and {len(found) - limit} more</p>" if len(found) > limit else ""
    sized = sum(f["GiB to tune"] is not None for f in found)
    return f"<p><b>{sized} base models fit</b>; of {len(found) - sized} more the memory is not known</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def show(**start):
    """Display the picker: controls and a table that follows them; a page without a kernel shows the table alone."""
    import ipywidgets as widgets
    from IPython.display import display

    first = table(matches(**start))
    if os.environ.get("COURSE_QUIET"):  # a recorded page has no kernel to talk to
        display({"text/html": first, "text/plain": "a table of base models"}, raw=True)
        return
    wide = {"style": {"description_width": "110px"}, "layout": {"width": "330px"}}
    use = start.get("use") or licensing.Use()
    classes = sorted({p["class"] for p in catalog.licences().values()} - {"own", "service-terms"})
    controls = {
        "language": widgets.Dropdown(
            options=["any", "Japanese"],
            value=start.get("language", "any"),
            description="language",
            **wide,
        ),
        "licence": widgets.Dropdown(
            options=["any", *classes],
            value=start.get("licence", "any"),
            description="licence class",
            **wide,
        ),
        "gib": widgets.Dropdown(
            options=[
                ("4 GiB", 4.0),
                ("8 GiB", 8.0),
                ("15 GiB (T4)", 15.0),
                ("24 GiB", 24.0),
                ("80 GiB", 80.0),
            ],
            value=start.get("gib", 15.0),
            description="memory",
            **wide,
        ),
        "mode": widgets.Dropdown(
            options=list(memory.MODES), value=start.get("mode", "qlora"), description="work", **wide
        ),
        "purpose": widgets.Dropdown(
            options=list(licensing.PURPOSES), value=use.purpose, description="use", **wide
        ),
        "revenue": widgets.Text(
            value="" if use.revenue is None else f"{use.revenue:.0f}",
            placeholder="whole company, yearly",
            description=f"revenue in {use.currency}",
            **wide,
        ),
    }
    out = widgets.HTML(value=first)

    def follow(_=None):
        value = {name: control.value for name, control in controls.items()}
        try:
            revenue = float(value.pop("revenue").replace(",", "") or "nan")
            asked = licensing.Use(
                value.pop("purpose"),
                revenue=None if revenue != revenue else revenue,
                currency=use.currency,
                region=use.region,
            )
            out.value = table(matches(use=asked, **value))
        except ValueError:
            out.value = "<p>The revenue is a number, for example 4000000.</p>"
        except Exception as problem:  # a control must never go silent
            out.value = f"<p>{html.escape(str(problem))}</p>"

    for control in controls.values():
        control.observe(follow, names="value")
    box = widgets.VBox(
        [widgets.HBox(list(controls.values()), layout={"flex_flow": "row wrap"}), out]
    )
    bundle = box._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    display({**(bundle or {}), "text/html": first}, raw=True)
