"""perf_analyzer beside this project's own bench: the page, and that the unmodified program runs on this server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import neighbours
from bench.report.interop import BEGIN, CLIENTS, END, OURS, THEIRS, embed, publish_interop
from bench.serving.perf_analyzer import LibraryMissingError, Until, run_perf_analyzer, start_command
from tests.fakes import encode, make_slice, run_server
from tests.test_bench_report import MACHINE, SETTINGS, make_rounds


def test_page_changes_between_its_marks_alone() -> None:
    """All else of it is written by hand."""
    page = f"# Interop\n\n{BEGIN}\nold\n{END}\n\nMore.\n"

    assert embed(page, "new\n") == f"# Interop\n\n{BEGIN}\n\nnew\n\n{END}\n\nMore.\n"
    assert embed(embed(page, "new\n"), "new\n") == embed(page, "new\n")
    assert embed("# Interop\n", "new\n") == f"# Interop\n\n{BEGIN}\n\nnew\n\n{END}\n"


def test_both_are_in_one_table_for_each_number_of_clients(tmp_path: Path) -> None:
    """Ratios are taken round by round, so that a machine that slows down moves none."""
    loops = {
        OURS: {str(count): make_rounds(100, 50) for count in CLIENTS},
        THEIRS: {str(count): make_rounds(110, 55, p50_ms=9) for count in CLIENTS},
    }

    text = publish_interop(
        {"machine": MACHINE, "settings": {**SETTINGS, "precision": "int8"}, "loops": loops}, tmp_path
    )

    assert text.count(f"| {THEIRS} | 82 (55 to 110) | 1.10 (1.10 to 1.10) | 9.0 (9.0 to 9.0) | 0.90 ") == len(CLIENTS)
    assert text in (tmp_path / "interop.md").read_text()
    assert json.loads((tmp_path / "interop.json").read_text())["loops"] == loops


def test_neighbour_that_is_not_installed_is_told_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of a traceback from somewhere else."""
    monkeypatch.setattr(neighbours, "FOLDER", tmp_path)

    with pytest.raises(FileNotFoundError, match="make install-neighbours"):
        start_command()


def test_library_that_is_missing_is_told_with_the_package_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian's, so no environment of Python can bring it."""
    folder = tmp_path / "perf_analyzer" / "bin"
    folder.mkdir(parents=True)
    said = "perf_analyzer: error while loading shared libraries: libb64.so.0d: cannot open shared object file"
    for program in ("python", "perf_analyzer"):
        (folder / program).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
        (folder / program).chmod(0o755)
    monkeypatch.setattr(neighbours, "FOLDER", tmp_path)

    with pytest.raises(
        LibraryMissingError, match=r"^perf_analyzer needs libb64\.so\.0d \(Debian: apt install libb64-0d"
    ):
        start_command()


def test_figures_are_read_from_perf_analyzer(tiny_models: Path) -> None:
    """From its own file, after so many requests; what else it can ask is in ``test_server_oip_clients``."""
    try:
        start_command()
    except LibraryMissingError as error:
        pytest.skip(f"{error}: whether it works here is not known")

    with run_server(tiny_models) as server:
        figures = run_perf_analyzer(server.address, "tiny", [encode(make_slice(200))], 4, Until(requests=20))

    assert figures["rate"] > 0
    assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
