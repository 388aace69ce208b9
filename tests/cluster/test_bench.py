"""What docs/ray.md is made of."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.archive.judge import Job
from cluster.archive.parts import read_part, write_part
from cluster.archive.plan import write_plan
from cluster.archive.storage import Storage
from cluster.bench import archive, serve
from cluster.bench.free import TERMS, FreeJudge
from cluster.bench.page import publish
from server.config import ServerConfig
from tests.tracing import ROOT

SECTION = {
    "process": {"bare_ms": 5.0, "judge_ms": 5.4, "ratio": 0.93, "ratio_least": 0.9, "ratio_most": 0.95},
    "cluster": {"files": 800, "cpu_ms": 6.0, "ratio": 0.83, "rate": 300.0, "workers": 2, "beside": 0.1},
    "driver": {"rows": 1000, "partitions": 1, "tenths_mb": [100.0, 101.0], "growth_mb": 0.0, "seconds": 1.0},
}


def test_a_section_is_put_between_its_marks(tmp_path: Path) -> None:
    """The rest of the page stays as it was, and so do the other figures."""
    (tmp_path / "ray.md").write_text("before\n<!-- archive -->\nold\n<!-- end of archive -->\nafter\n", "utf-8")
    (tmp_path / "ray.json").write_text('{"serve": 1}', "utf-8")

    text = publish("archive", SECTION, archive.render, tmp_path)

    page = (tmp_path / "ray.md").read_text("utf-8")
    assert page == f"before\n<!-- archive -->\n{text}\n<!-- end of archive -->\nafter\n"
    assert "| 0.93 (0.90 to 0.95) |" in text
    assert json.loads((tmp_path / "ray.json").read_text("utf-8")).keys() == {"serve", "archive"}


def test_the_page_has_the_figures_beside_it() -> None:
    """Nobody has written them by hand."""
    page = (ROOT / "docs" / "ray.md").read_text("utf-8")
    figures = json.loads((ROOT / "docs" / "ray.json").read_text("utf-8"))

    assert archive.render(figures["archive"]) in page
    assert serve.render(figures["serve"]) in page


def test_what_costs_nothing_has_all_fields(tmp_path: Path) -> None:
    """So that the driver of a simulated archive does what that of a real one does."""
    out = Storage(str(tmp_path))
    plan = write_plan(out, TERMS, (f"{number}.png" for number in range(1500)), {}, lambda files: None)
    judge = FreeJudge(Job(Storage("nowhere"), out, plan, ServerConfig()))

    tallies = [write_part(out, plan, number, judge.judge(number), judge.schema) for number in range(plan.partitions)]

    assert [one.files for one in tallies] == [1000, 500]
    assert [read_part(out, plan, number) for number in range(2)] == tallies
    missing = set(judge.schema.names) - judge.judge(0)[0].keys()
    assert missing == {"frame", "error", "reason", "file_bytes", "file_modified"}
