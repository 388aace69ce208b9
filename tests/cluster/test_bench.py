"""What docs/ray.md is made of."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.archive.judge import Job
from cluster.archive.parts import find_parts, read_part, write_part
from cluster.archive.plan import write_plan
from cluster.archive.storage import Storage
from cluster.bench import archive, serve
from cluster.bench.free import TERMS, FreeJudge
from cluster.bench.page import publish
from cluster.bench.turns import Address, Group, Turn
from cluster.ray_session import connect
from server.config import ServerConfig
from tests.cluster.archives import make_job, make_models
from tests.tracing import ROOT

BEFORE, IN_TURN = 0.5, 0.02
"""CPU seconds."""

SECTION = {
    "process": {"bare_ms": 5.0, "judge_ms": 5.4, "ratio": 0.93, "ratio_least": 0.9, "ratio_most": 0.95},
    "cluster": {
        "workers": 2,
        "files": 800,
        "bare_ms": 5.2,
        "cpu_ms": 6.0,
        "ratio": 0.87,
        "ratio_least": 0.84,
        "ratio_most": 0.91,
        "beside": 0.1,
    },
    "driver": {"rows": 1000, "partitions": 1, "tenths_mb": [100.0, 101.0], "growth_mb": 0.0, "seconds": 1.0},
}


def test_a_section_is_put_between_its_marks(tmp_path: Path) -> None:
    """The rest of the page stays as it was, and so do the other figures."""
    (tmp_path / "ray.md").write_text("before\n<!-- archive -->\nold\n<!-- end of archive -->\nafter\n", "utf-8")
    (tmp_path / "ray.json").write_text('{"serve": 1}', "utf-8")

    text = publish("archive", SECTION, archive.render, tmp_path)

    page = (tmp_path / "ray.md").read_text("utf-8")
    assert page == f"before\n<!-- archive -->\n{text}\n<!-- end of archive -->\nafter\n"
    assert "| 5.40 ms | 0.93 (0.90 to 0.95) |" in text
    assert "| 6.00 ms | 0.87 (0.84 to 0.91) |" in text
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's of its own settings
def test_processes_on_ray_take_turns_with_bare_loops(tmp_path: Path) -> None:
    """Both sides go through as many files in each round, and all parts are there in the end."""
    files = archive.copy_samples(tmp_path / "archive", 32)
    job = make_job(files, make_models(tmp_path), tmp_path / "out", partition_files=4)

    with connect("", 2) as processors:
        figures = archive.measure_cluster(job, processors)

    assert (figures["workers"], figures["files"]) == (2, 2 * 2 * 4)
    assert min(figures["bare_ms"], figures["cpu_ms"]) > 0
    assert 0 < figures["ratio_least"] <= figures["ratio"] <= figures["ratio_most"]
    assert find_parts(job.out, job.plan).keys() == set(range(job.plan.partitions))


def test_a_turn_is_what_a_process_does_in_it_alone() -> None:
    """Not what it did before; after the last one it goes on alone."""
    with ThreadPoolExecutor(1) as pool, Group(1) as group:
        worked = pool.submit(work_in_turns, group.address)
        with group:
            group.gather()
            used = group.take_turn()

        assert worked.result() == 2
    assert IN_TURN <= used < BEFORE


def work_in_turns(address: Address) -> int:
    """Uses the processor before the first turn and in each, and returns how many there were."""
    spend(BEFORE)
    turn, turns = Turn(address), 0
    while turn.wait():
        spend(IN_TURN)
        turns += 1
    return turns


def spend(seconds: float) -> None:
    """Uses so much CPU time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
