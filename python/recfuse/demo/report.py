"""The result of the demo as one self-contained HTML page."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from html import escape

import recfuse
from recfuse.demo.pipeline import K, Person, Result
from recfuse.demo.race import Race

__all__ = ["as_html"]

# One colour per modality, readable on white and on black; the order of Result.modalities.
_COLOURS = ("#3b82f6", "#14b8a6", "#f59e0b", "#a855f7", "#94a3b8", "#ef4444", "#84cc16")

_STYLE = """
:root { --ink: #1f2937; --dim: #6b7280; --line: #e5e7eb; --page: #ffffff; --card: #f9fafb;
        --strong: #2563eb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --dim: #9ca3af; --line: #374151; --page: #0f172a; --card: #1e293b;
          --strong: #60a5fa; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--page);
       color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p, li { color: var(--dim); margin: .25rem 0 .75rem; } b { color: var(--ink); }
.headline { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.headline div { flex: 1 1 11rem; background: var(--card); border-radius: .75rem; padding: 1rem; }
.headline strong { display: block; font-size: 1.6rem; color: var(--strong); }
.headline span { color: var(--dim); font-size: .875rem; }
.columns { display: grid; gap: 1.5rem;
           grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); }
.row { display: grid; grid-template-columns: minmax(7rem, 15rem) 1fr 4.5rem; gap: .75rem;
       align-items: center; padding: .2rem 0; font-size: .9rem; }
.columns .row { grid-template-columns: 5.5rem 1fr 3.5rem; }
.row .value { text-align: right; font-variant-numeric: tabular-nums; }
.bar { height: 1rem; border-radius: .25rem; display: flex; overflow: hidden;
       background: var(--card); }
.bar i { display: block; height: 100%; }
.best { font-weight: 600; }
.key { display: inline-flex; align-items: center; gap: .35rem; margin-right: 1rem;
       font-size: .85rem; color: var(--dim); }
.key i { width: .8rem; height: .8rem; border-radius: .2rem; }
.later::after { content: " liked later"; color: #16a34a; font-size: .75rem; font-weight: 600; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem;
         font-size: .85rem; }
@media (max-width: 34rem) { .row { grid-template-columns: 1fr 4rem; }
  .row .bar { grid-column: 1 / -1; order: 3; } }
"""


def as_html(result: Result) -> str:
    """Return the page: no scripts, no fonts, nothing from elsewhere."""
    colours = dict(zip(result.modalities, _COLOURS * 2, strict=False))
    body = [
        f"<h1>What {_count(result)} would like next</h1>",
        f"<p>{escape(result.data.title)}. Split {escape(result.split)}.</p>",
        _headline(result),
        "<h2>How well it finds what people liked later</h2>",
        f"<p>Lists of {K}, films already seen left out. Everything was chosen on validation events "
        "before the test: weights, and parameters of the models.</p>",
        _metrics(result),
        "<h2>What each source of evidence is worth</h2>",
        "<p>Weights of the fusion, fitted by NDCG on the validation slice.</p>",
        *(
            _row(name, [(weight, colours[name])], f"{weight:.3f}")
            for name, weight in result.weights.items()
        ),
        "<h2>Three lists, and why</h2>",
        "<p>Bars show what each modality adds to the score; what speaks against a film is not "
        "drawn.</p>",
        _key(colours),
        *(_list(person, result.modalities, colours) for person in result.people),
        f"<h2>Films that nobody had touched: {result.n_cold}</h2>",
        "<p>No behaviour is known of them, so their content decides alone, on the same scale.</p>",
        _list(result.cold, result.modalities, colours),
        "<h2>Time</h2>",
        f"<p>Fused top-{K} beside the same in NumPy: seen films left out, scores equal.</p>",
        *map(_race, result.races),
        *_stages(result),
        _footer(result),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>recfuse demo</title><style>{_STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _count(result: Result) -> str:
    return f"{result.data.events.n_users:,} people"


def _ndcg(result: Result) -> dict[str, float]:
    return {row["model"]: row["ndcg"] for row in result.comparison.rows}


def _headline(result: Result) -> str:
    ndcg = _ndcg(result)
    single = max((name for name in ndcg if name != "fusion"), key=lambda name: ndcg[name])
    seconds = sum(result.stages.seconds.values())
    facts = [
        (
            f"{ndcg['fusion'] / ndcg[single] - 1:+.1%}",
            f"NDCG@{K} of the fusion over {single} alone",
        ),
        (f"{ndcg['fusion'] / ndcg['popularity']:.1f}x", "the NDCG of what is popular"),
        (f"{result.races[0].speed:.1f}x", "NumPy's speed in the fused top-k"),
        (f"{seconds:.0f} s", "from files to this page"),
    ]
    cards = "".join(f"<div><strong>{a}</strong><span>{escape(b)}</span></div>" for a, b in facts)
    return f'<div class="headline">{cards}</div>'


def _metrics(result: Result) -> str:
    charts = []
    for metric, label in (
        ("ndcg", f"NDCG@{K}"),
        ("recall", f"Recall@{K}"),
        ("coverage", "Coverage of the catalogue"),
    ):
        values = {row["model"]: row[metric] for row in result.comparison.rows}
        largest = max(values.values()) or 1.0
        rows = "".join(
            _row(
                name,
                [(value / largest, "var(--strong)" if name == "fusion" else "#94a3b8")],
                f"{value:.4f}",
                best=name == "fusion",
            )
            for name, value in values.items()
        )
        charts.append(f"<div><h3>{label}</h3>{rows}</div>")
    return f'<div class="columns">{"".join(charts)}</div>'


def _row(
    name: str,
    parts: Sequence[tuple[float, str]],
    value: str,
    *,
    best: bool = False,
    later: bool = False,
) -> str:
    """One bar of parts (share of the full width, colour), between its name and its value."""
    bars = "".join(
        f'<i style="width:{100 * share:.2f}%;background:{colour}"></i>' for share, colour in parts
    )
    classes = " ".join(["name"] + ["best"] * best + ["later"] * later)
    return (
        f'<div class="row"><span class="{classes}">{escape(name)}</span>'
        f'<span class="bar">{bars}</span><span class="value">{escape(value)}</span></div>'
    )


def _key(colours: dict[str, str]) -> str:
    return "".join(
        f'<span class="key"><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
    )


def _list(person: Person, modalities: list[str], colours: dict[str, str]) -> str:
    largest = max((sum(max(p, 0) for p in item.parts) for item in person.items), default=1.0) or 1.0
    rows = "".join(
        _row(
            item.film,
            [
                (max(part, 0.0) / largest, colours[name])
                for name, part in zip(modalities, item.parts, strict=True)
            ],
            f"{item.score:+.2f}",
            later=item.liked_later,
        )
        for item in person.items
    )
    liked = escape("; ".join(person.favourites))
    return f"<h3>For {escape(person.label)}</h3><p>Who liked {liked}</p>{rows}"


def _race(race: Race) -> str:
    slowest = max(race.recfuse, race.numpy)
    return (
        f"<p>{escape(race.workload)}.</p>"
        + _row(
            "recfuse", [(race.recfuse / slowest, "var(--strong)")], f"{race.recfuse * 1e3:.1f} ms"
        )
        + _row("NumPy", [(race.numpy / slowest, "#94a3b8")], f"{race.numpy * 1e3:.1f} ms")
    )


def _stages(result: Result) -> list[str]:
    seconds = result.stages.seconds
    longest = max(seconds.values()) or 1.0
    return [
        "<h3>Stages</h3>",
        *(_row(name, [(s / longest, "#94a3b8")], f"{s:.1f} s") for name, s in seconds.items()),
    ]


def _footer(result: Result) -> str:
    chosen = "; ".join(f"{name}: {what}" for name, what in result.chosen.items())
    found = recfuse.doctor()
    return (
        f"<footer><p>Chosen on the validation slice: {escape(chosen)}. Validation NDCG@{K} of the "
        f"fusion: {result.validation_ndcg:.4f}.</p><p>{escape(result.data.terms)}</p>"
        f"<p>recfuse {recfuse.__version__}, NumPy {found['versions']['numpy']}, Python "
        f"{platform.python_version()}, {found['isa']['active']} kernels, "
        f"{found['threads']} threads.</p></footer>"
    )
