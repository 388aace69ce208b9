"""docs/scale.md: its figures follow from those that were measured, and what it names exists."""

from __future__ import annotations

import json
import math
import re
import statistics

import pytest

from bench.report.processes import JUDGED, ONE
from server.config import ServerConfig
from server.core.metric_names import METRICS
from server.flags import list_settings
from tests.fakes import ROOT

PAGE = (ROOT / "docs" / "scale.md").read_text("utf-8")
BUSIEST_SHARE = 0.25
"""Of a day's slices in one hour."""

INT8, FP32 = r"costs ([\d.]+) ms of a processor with INT8", r"([\d.]+) ms\nwith fp32"
PROCESSORS, LOAD = 2, 0.5
OLD_FIGURE = 0.25
"""How far those of the page may be from what is measured anew before they have to be renewed."""


def count_boxes(slices: int, milliseconds: float) -> int:
    """Boxes for so many slices a day, each of which costs so much of a processor; one of them may be away."""
    processors = slices * BUSIEST_SHARE / 3600 * milliseconds / 1000
    return math.ceil(processors / (PROCESSORS * LOAD)) + 1


def test_plan_follows_from_the_cost_of_an_image() -> None:
    """Each row of the table."""
    (int8,) = map(float, re.findall(INT8, PAGE))
    (fp32,) = map(float, re.findall(FP32, PAGE))
    (decode,) = map(float, re.findall(r"JPEG 2000 has \[([\d.]+) ms\]", PAGE))
    rows = [row.replace(",", "").split("|")[1:-1] for row in re.findall(r"^\| \d.*$", PAGE, re.MULTILINE)]

    assert len(rows) == 5
    for row in rows:
        slices = int(row[0])
        assert float(row[1]) == pytest.approx(slices * BUSIEST_SHARE / 3600, abs=0.06)
        assert [int(cell) for cell in row[2:]] == [count_boxes(slices, cost) for cost in (int8, fp32, int8 + decode)]


@pytest.mark.parametrize(("precision", "pattern"), [("int8", INT8), ("fp32", FP32)])
def test_cost_of_an_image_is_what_was_measured(precision: str, pattern: str) -> None:
    """With eight callers, the median of the rounds."""
    figures = json.loads((ROOT / "docs" / "processes.json").read_text("utf-8"))
    rounds = figures[precision]["sides"][ONE][JUDGED]
    measured = statistics.median(one["server_cpu_ms"] for one in rounds)

    (said,) = re.findall(pattern, PAGE)
    assert float(said) == pytest.approx(measured, rel=OLD_FIGURE)


def test_page_names_what_exists() -> None:
    """Settings, metrics, reasons and files."""
    flags = {one.flag for one in list_settings(ServerConfig)}
    of_commands = {"--server", "--tls-ca", "--token-file", "--key", "--json", "--shadow", "--canary"}
    text = "".join(path.read_text("utf-8") for folder in ("server", "client") for path in (ROOT / folder).rglob("*.py"))

    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", PAGE)) <= flags | of_commands
    assert set(re.findall(r"\bstroke_[a-z_]+\b", PAGE)) <= {one.name for one in METRICS}
    for reason in re.findall(r"\b[A-Z]+_[A-Z_]+\b", PAGE):
        assert f'"{reason}"' in text or reason in ("NOT_SERVING", "RESOURCE_EXHAUSTED"), reason
    for path in re.findall(r"`((?:deploy|tests)/[\w./-]+)`", PAGE) + re.findall(r"\b(tests/\w+\.py)\b", PAGE):
        assert (ROOT / path).exists(), path


def test_links_lead_somewhere() -> None:
    """To pages that are there, and to headings that they have."""
    for page, heading in re.findall(r"\]\(([\w-]+\.md)?(?:#([\w-]+))?\)", PAGE):
        text = (ROOT / "docs" / page).read_text("utf-8") if page else PAGE
        found = {make_anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")}
        assert not heading or heading in found, (page, heading)


def make_anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
