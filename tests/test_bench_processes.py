"""One process beside two, and gRPC's kinds of server: the page, and that every side serves and is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.onebox.__main__ import bind_processors, measure_group
from bench.onebox.sides import SIDES
from bench.report.processes import AIO, BEGIN, CALLERS, JUDGED, ONE, ONE_PORT, THREADS, TWO_PORTS, publish_processes
from client import StrokeClient
from tests.fakes import ROOT, encode, make_slice
from tests.test_bench_report import MACHINE, SETTINGS

FIGURES = {
    "rate": 200.0,
    "p50_ms": 40.0,
    "p99_ms": 60.0,
    "server_cpu_ms": 4.0,
    "client_cpu_ms": 0.4,
    "others": 0.0,
    "switches": 12.0,
    "loop_cpu_ms": 0.5,
    "pss_mb": 100.0,
}


def make_section(**rates: float) -> dict[str, Any]:
    """Two rounds of all sides, whose rates are those of one process but for some."""
    sides = {
        name: {
            str(callers): [{**FIGURES, "rate": factor * rates.get(name, 200.0)} for factor in (1, 0.5)]
            for callers in CALLERS
        }
        for name in (ONE, ONE_PORT, TWO_PORTS, THREADS, AIO)
    }
    settings = {**SETTINGS, "precision": "int8", "processors": 2}
    bare = [{"cpu_ms": 3.2, "rate": 400.0}, {"cpu_ms": 4.0, "rate": 200.0}]
    return {"machine": MACHINE, "settings": settings, "bare": bare, "sides": sides}


def test_page_says_whether_several_processes_are_worth_it(tmp_path: Path) -> None:
    """By the better of both ways, with the callers for which that was asked, round by round."""
    publish_processes(make_section(**{TWO_PORTS: 230.0}), tmp_path)
    page = (tmp_path / "processes.md").read_text("utf-8")

    assert (
        f"{TWO_PORTS}, does 1.15 (1.15 to 1.15) x the images of {ONE}; 1.10 was wanted. Several processes are" in page
    )
    assert "So there is no setting" in publish_processes(make_section(**{ONE_PORT: 218.0}), None)


def test_nothing_is_decided_on_a_busy_machine() -> None:
    """Images a second then say who was lucky."""
    section = make_section(**{TWO_PORTS: 400.0})
    for rounds in section["sides"][ONE].values():
        for figures in rounds:
            figures["others"] = 0.4

    text = publish_processes(section, None)

    assert "these rounds cannot tell: other programs took 0.40 of the processors" in text
    assert "worth it" not in text


def test_page_has_every_side_for_each_number_of_callers(tmp_path: Path) -> None:
    """CPU time stands beside the bare loop's, and what is calculated says so."""
    section = make_section()
    text = publish_processes(section, tmp_path)

    assert text.count(f"| {THREADS} | 150 (100 to 200) | 1.00 (1.00 to 1.00) | 40.0 (40.0 to 40.0) |") == len(CALLERS)
    assert (
        f"| {JUDGED} callers: server CPU an image over the bare loop's | at most 1.12 | 1.12 (1.00 to 1.25) |" in text
    )
    assert "this is a calculation" in text
    assert "| 16 | 4000 | 2000 | 2 |" in text
    assert json.loads((tmp_path / "processes.json").read_text("utf-8")) == {"int8": section}


def test_precisions_stand_beside_each_other_each_with_what_is_wanted_of_it(tmp_path: Path) -> None:
    """Measuring one leaves the figures of the other."""
    of_int8, of_fp32 = make_section(), make_section()
    of_fp32["settings"]["precision"] = "fp32"
    for section in (of_int8, of_fp32, of_int8):
        publish_processes(section, tmp_path)

    page = (tmp_path / "processes.md").read_text("utf-8")
    assert page.count("### int8") == page.count("### fp32") == 1
    assert page.index("### int8") < page.index("at least 0.8 ") < page.index("### fp32") < page.index("at least 0.9 ")


def test_published_page_is_made_of_the_published_figures() -> None:
    """Nobody writes figures by hand."""
    sections = json.loads((ROOT / "docs" / "processes.json").read_text("utf-8"))

    page = (ROOT / "docs" / "processes.md").read_text("utf-8")

    assert BEGIN in page
    assert all(publish_processes(section, None) in page for section in sections.values())


@pytest.mark.parametrize("name", SIDES)
def test_every_side_serves_and_is_measured(name: str, tiny_models: Path, tmp_path: Path) -> None:
    """All its processes count, and our client reaches them by one address."""
    (tmp_path / "image.png").write_bytes(encode(make_slice(90)))
    with SIDES[name](tiny_models, ()) as group:
        assert len(group.services) == (2 if name in (ONE_PORT, TWO_PORTS) else 1)
        with StrokeClient(group.address) as client:
            client.wait_until_ready()
            assert client.predict(tmp_path / "image.png").label == "stroke"
        figures = measure_group(group, tmp_path, 0.5, 2)

    assert figures.keys() == {*FIGURES, "count", "p90_ms"}
    assert figures["server_cpu_ms"] > figures["loop_cpu_ms"] > 0
    assert figures["pss_mb"] > 20


def test_more_processors_than_there_are_are_refused() -> None:
    """Before anything is started."""
    with pytest.raises(SystemExit, match="this process may use"):
        bind_processors(1 << 20)
