"""perf_analyzer beside this project's own bench: the page, and that the unmodified program runs on this server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import neighbours
from bench.report.interop import BEGIN, CLIENTS, END, OURS, THEIRS, THEIRS_HTTP, embed, publish_interop
from bench.serving import interop
from bench.serving.perf_analyzer import LibraryMissingError, start_command
from tests.fakes import encode, make_slice
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


def test_perf_analyzer_runs_on_this_server(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unmodified, over gRPC and HTTP, with encoded slices and several requests on their way, beside our own bench."""
    try:
        start_command()
    except LibraryMissingError as error:
        pytest.skip(f"{error}: whether it works here is not known")
    (tmp_path / "scan.png").write_bytes(encode(make_slice(200)))
    monkeypatch.setattr(interop, "CLIENTS", (4,))

    found = interop.measure(
        interop.InteropOptions(models=tiny_models, images=tmp_path, rounds=1, seconds=interop.LEAST_SECONDS)
    )

    assert set(found) == {OURS, THEIRS, THEIRS_HTTP}
    for loop in found.values():
        (figures,) = loop["4"]
        assert figures["rate"] > 0
        assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
