"""The page of the distribution: every figure beside what is published, what lies outside, and the amount of brain."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from bench.report.machine import format_machine
from bench.report.tables import render_table
from bench.training.realism.published import PUBLISHED, SOURCES, Published

HEAD = """\
# Synthetic slices beside published figures

What the generator of synthetic slices (`python -m training phantom`) draws, measured in its own heads before noise and
window, or in what it exports (`python -m bench.training.realism --out docs`, which also writes [the
figures](phantom.json)), beside published figures of people. No real slice is read here.
"""

ABOUT = """\
The first number is the median, in brackets the 5th and 95th percentile; of shares of heads it is the share and its 95 %
interval. A published range is the mean less and plus one standard deviation of people where both are known, or goes
from the lowest to the highest of what the sources give. The verdict is where the median lies; *too even* and *too
uneven* say that the middle 90 % span less than half, or more than twice, of what the standard deviation between people
would give.
"""

NOT_DRAWN = """\
## What cannot be measured, because it is not drawn

- **Time.** Of all bleeds only subdural ones are ever old. Blood in the brain stays as dense as on its first days,
  though after 30 it is always darker than brain (Tans, Clin Neurol Neurosurg 1977;79:285-295,
  doi:10.1016/s0303-8467(76)80023-6).
- **The thickness of a slice** of anything but bone: vault, base and face fade into what lies beside them where they are
  in a part of the slice; brain, fluid and lesions are cut without thickness, their edges 1.5 pixels soft.
- **Tilt of the gantry**, and a volume of which all slices are cut: each slice draws its own brain.
- **Size of a head**: only its share of the field varies.
- **Resolution by kernel** in line pairs: the filter is a few pixels wide whatever a pixel's size is.
"""

NORMAL_SPAN = 3.29
"""Standard deviations between the 5th and the 95th percentile of a normal distribution."""


def describe_values(values: Sequence[float], published: Published) -> dict[str, Any]:
    """Returns count, spread (see ``ABOUT``), the published range, and the share of values that are inside of it."""
    if published.is_share:
        interval = binomtest(round(sum(values)), len(values)).proportion_ci(method="wilson")
        spread = [100 * float(share) for share in (interval.low, np.mean(values), interval.high)]
    else:
        spread = [float(value) for value in np.percentile(values, (5, 50, 95))]
    if published.low is None or published.high is None:
        return {"count": len(values), "spread": spread, "range": None, "inside": None}
    inside = None
    if not published.is_share:
        inside = float(np.mean([published.low <= value <= published.high for value in values]))
    return {"count": len(values), "spread": spread, "range": [published.low, published.high], "inside": inside}


def judge(figure: Mapping[str, Any], published: Published) -> str:
    """Returns inside, below or above, and whether people differ more or less; nothing where no figure was found."""
    if figure["range"] is None:
        return ""
    (low, high), (least, middle, most) = figure["range"], figure["spread"]
    verdict = "**below**" if middle < low else "**above**" if middle > high else "inside"
    if published.deviation:
        ratio = (most - least) / (NORMAL_SPAN * published.deviation)
        verdict += ", too even" if ratio < 0.5 else ", too uneven" if ratio > 2 else ""
    return verdict


def write_realism(document: dict[str, Any], out: Path) -> None:
    """Writes ``phantom.json`` and ``phantom.md`` into a folder that is there."""
    (out / "phantom.json").write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    (out / "phantom.md").write_text(render_realism(document), "utf-8")


def render_realism(document: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    figures = document["figures"]
    known = [name for name in PUBLISHED if name in figures]
    verdicts = {name: judge(figures[name], PUBLISHED[name]) for name in known}
    numbers = {name: str(number) for number, name in enumerate(list_sources(known), 1)}
    outside = [name for name in known if verdicts[name] not in ("", "inside")]
    rows = (
        (
            PUBLISHED[name].about,
            str(figures[name]["count"]),
            format_spread(figures[name], PUBLISHED[name]),
            format_range(figures[name], PUBLISHED[name]),
            "" if figures[name]["inside"] is None else f"{figures[name]['inside']:.0%}",
            verdicts[name],
            " ".join(numbers[source] for source in PUBLISHED[name].sources),
        )
        for name in known
    )
    judged = [name for name in known if verdicts[name]]
    texts = [
        HEAD.rstrip(),
        f"{format_machine(document['machine'], '')}. {document['heads']} heads, {document['slices']} slices for the "
        "amount of brain.",
        describe_total(judged, outside),
        ABOUT.rstrip(),
        render_table(("figure", "values", "generator", "published", "values inside", "verdict", "source"), rows),
        "## What to change next",
        "\n".join(describe_change(figures[name], PUBLISHED[name], verdicts[name]) for name in outside),
        NOT_DRAWN.rstrip(),
        render_brain(document["brain"]),
        "## Sources",
        "\n".join(f"{number}. {SOURCES[name]}." for name, number in numbers.items()),
    ]
    return "\n\n".join(texts) + "\n"


def describe_total(judged: Sequence[str], outside: Sequence[str]) -> str:
    """How many figures are inside, and how many of the verdicts have no source that can be looked up."""
    weak = {name for name in judged if "Common" in PUBLISHED[name].sources}
    return (
        f"**{len(judged) - len(outside)} of {len(judged)} figures are inside of what is published, and as varied.** "
        f"The ranges of {len(weak)} of them, {len(weak.intersection(outside))} that lie outside included, are general "
        "knowledge in whole or in part: those verdicts are weaker."
    )


def list_sources(names: Sequence[str]) -> Iterator[str]:
    """The sources of these figures, each once, in the order of the page."""
    yield from dict.fromkeys(source for name in names for source in PUBLISHED[name].sources)


def format_spread(figure: Mapping[str, Any], published: Published) -> str:
    """``35.3 (32.8 to 37.3) HU``."""
    low, middle, high = (format(value, published.form) for value in figure["spread"])
    return f"{middle} ({low} to {high}) {published.unit}".rstrip()


def format_range(figure: Mapping[str, Any], published: Published) -> str:
    """``30.1 to 36.1``; a dash where nothing was found."""
    if figure["range"] is None:
        return "-"
    low, high = (format(value, published.form) for value in figure["range"])
    return f"{low} to {high}"


def describe_change(figure: Mapping[str, Any], published: Published, verdict: str) -> str:
    """One line of the list: what is outside, by how much, and where it would be changed."""
    return (
        f"- {published.about}: {verdict.replace('*', '')}, {format_spread(figure, published)}, published "
        f"{format_range(figure, published)}. {published.where}."
    )


def render_brain(brain: Mapping[str, Any]) -> str:
    """Whether the amount of brain predicts the class."""
    about = (
        "The AUC of the share of mid-grey pixels, which says how much brain is in a slice, on slices as a data set has "
        "them: half of the normal ones lie evenly from the foramen magnum to the vertex. 0.5 says nothing of the "
        "class; on the real slices of [the results](results.md) the share of brain has 0.742. In brackets: 95 %, "
        "DeLong. Within a band of levels slices have similar amounts of brain; by kind, all normal slices are compared "
        "with the lesions of that kind."
    )
    table = render_table(
        ("slices", "normal", "stroke", "AUC of the amount of brain"),
        ((name, str(row["normal"]), str(row["stroke"]), format_auc(row["auc"])) for name, row in brain.items()),
    )
    return "\n\n".join(("## Does the amount of brain predict the class?", about, table))


def format_auc(auc: Sequence[float] | None) -> str:
    """``0.652 (0.598 to 0.706)``; too few slices are told."""
    if auc is None:
        return "too few"
    value, low, high = auc
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
