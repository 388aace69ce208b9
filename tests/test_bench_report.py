"""The report: what is made of figures, budgets included, and that no section costs another."""

from __future__ import annotations

import json
import statistics
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from bench.report.page import publish
from bench.report.peers import best_rates, render_peers
from bench.report.peers import list_budgets as list_peer_budgets
from bench.report.serving import list_budgets, render_serving
from bench.report.tables import Budget, render_budgets
from tests.fakes import run_module

MACHINE = {
    "date": "2026-01-02",
    "processor": "A Processor",
    "instructions": ["avx2"],
    "processors": 2,
    "python": "3.11.7",
    "packages": {"onnxruntime": "1.2.3"},
}
SETTINGS = {
    "model": "stroke-cnn 1",
    "gflop": 1.0,
    "images": "samples",
    "image_count": 6,
    "image_size": "256 x 256",
    "image_kb": 14.0,
    "rounds": 2,
    "seconds": 1.0,
    "flags": ["--profile", "throughput"],
    "keras_is_trained": False,
}


def make_rounds(*rates: float, p50_ms: float = 10, cpu_ms: float = 10) -> list[dict[str, float]]:
    """A list entry for each round, as the benchmarks write it."""
    figures = {"count": 100, "p50_ms": p50_ms, "p90_ms": 2 * p50_ms, "p99_ms": 3 * p50_ms, "cpu_ms": cpu_ms}
    return [{**figures, "rate": rate} for rate in rates]


def make_serving() -> dict[str, Any]:
    """Two rounds, the second on a machine that had become twice as slow."""
    return {
        "machine": MACHINE,
        "settings": SETTINGS,
        "precisions": {
            "int8": {
                "bare": {"1": make_rounds(100, 50), "2": make_rounds(200, 100)},
                "clients": {
                    "1": make_rounds(90, 45, p50_ms=12),
                    "8": make_rounds(170, 85, p50_ms=50, cpu_ms=11),
                },
                "open": {"0.5": [{**entry, "offered": 100, "failures": 1} for entry in make_rounds(0, 0)]},
                "run_ms": [5.0, 10.0],
                "peak_gops": [400.0, 200.0],
                "cold_s": [0.4, 0.6],
                "resident_mb": [100.0, 110.0],
            }
        },
        "client_help_s": [0.1, 0.1],
        "further": {"resnet50 int8": {"cold_s": [0.7, 0.9], "resident_mb": [180.0]}},
        "installed_mb": 200.0,
    }


def make_side(rate: float, *, ours: bool = False, precision: str = "fp32", pixels: str = "pillow") -> dict[str, Any]:
    """One server of the comparison, with a single client at 1000 / rate ms."""
    clients = {"8": make_rounds(rate)[0], "1": make_rounds(rate, p50_ms=1000 / rate)[0]}
    entry = {"cold_s": 1.0, "resident_mb": 100.0, "clients": clients}
    side: dict[str, Any] = {"ours": ours, "precision": precision, "pixels": pixels, "rounds": [entry, deepcopy(entry)]}
    return side if ours else {**side, "setting": "2 workers, 1 thread a run", "installed_mb": 300.0}


def make_peers() -> dict[str, Any]:
    """This server, the seed system and one more peer with both decoders."""
    return {
        "machine": {**MACHINE, "date": "2026-03-04"},
        "settings": SETTINGS,
        "sides": {
            "StrokeServe, int8": make_side(400, ours=True, precision="int8", pixels="strokeserve"),
            "StrokeServe, fp32": make_side(120, ours=True, pixels="strokeserve"),
            "Seed": {**make_side(10), "peer": "fastapi-keras"},
            "Other": {**make_side(90), "peer": "other"},
            "Other, same pixels": {**make_side(100, pixels="strokeserve"), "peer": "other"},
        },
        "installed_mb": 200.0,
    }


def judge(budgets: Any) -> dict[str, tuple[float, bool]]:
    """Figure → median over rounds, and whether the budget is met."""
    return {budget.figure: (statistics.median(budget.values), budget.is_met) for budget in budgets}


def test_budgets_compare_within_a_round() -> None:
    """A machine that slows down between rounds moves no ratio."""
    budgets = judge(list_budgets(make_serving()))

    assert budgets["int8, 8 clients: share of the limit"] == (pytest.approx(0.85), True)
    assert budgets["int8, 1 client: p50 over the bare loop's"] == (pytest.approx(1.2), False)
    assert budgets["int8, 8 clients: server CPU a request over the bare loop's"] == (pytest.approx(1.1), True)
    assert budgets["resnet50 int8: resident memory"] == (180, False)


def test_budgets_without_figures_are_left_out() -> None:
    """Clients that were not asked for are not judged."""
    section = make_serving()
    del section["precisions"]["int8"]["clients"]["8"]

    assert not any("8 clients" in budget.figure for budget in list_budgets(section))


def test_missed_budgets_are_called_missed() -> None:
    """A ceiling is missed from above, a floor from below."""
    table = render_budgets([Budget("rate", 2.0, [1.0]), Budget("time", 2.0, [1.0], at_least=False, unit=" s")])

    assert "| rate | at least 2 | 1.00 (1.00 to 1.00) | missed |" in table
    assert "| time | at most 2 s | 1.00 (1.00 to 1.00) s | met |" in table


def test_serving_section_shows_machine_settings_and_spread() -> None:
    """Medians with minimum and maximum, and what they were measured on."""
    text = render_serving(make_serving())

    assert "2026-01-02; A Processor (avx2), 2 processors" in text
    assert "server started with `--profile throughput`" in text
    assert "| server, 8 clients | 128 (85 to 170) | 0.85 (0.85 to 0.85) | 50.0" in text
    assert "| 0.5 | 100 (100 to 100) | 10.0 (10.0 to 10.0) |" in text
    assert text.index("bare loop, 2 threads") < text.index("server, 1 client")


def test_refused_requests_of_the_open_loop_are_counted() -> None:
    """Over all rounds."""
    (row,) = [line for line in render_serving(make_serving()).splitlines() if line.startswith("| 0.5 |")]

    assert row.endswith("| 2 |")


def test_model_is_set_against_the_peak_of_its_own_precision() -> None:
    """1 GFLOP in 5 ms is 200 GFLOP/s, half of 400."""
    assert "| int8 | 7.5 (5.0 to 10.0) | 150 (100 to 200) | 300 (200 to 400) | 0.50 (0.50 to 0.50) |" in render_serving(
        make_serving()
    )


def test_peers_are_judged_by_the_best_of_each_round() -> None:
    """With their own decoder for the served precision, with the same pixels for fp32."""
    section = make_peers()

    budgets = judge(list_peer_budgets(section["sides"]))

    assert best_rates(section["sides"], "pillow") == [90, 90]
    assert budgets["8 clients: throughput over the seed system's"] == (40, True)
    assert budgets["1 client: p50 over the seed system's"] == (pytest.approx(1 / 40), True)
    assert budgets["8 clients: throughput of int8 over the best peer's"] == (pytest.approx(400 / 90), True)
    assert budgets["8 clients: throughput of fp32 over the best peer's, same pixels"] == (pytest.approx(1.2), True)


def test_peers_section_names_each_setting() -> None:
    """So that its author can say whether it was the best, and that random weights were random."""
    text = render_peers(make_peers())

    assert "| Other | 90 (90 to 90) | 4.4 (4.4 to 4.4) |" in text
    assert "2 workers, 1 thread a run" in text
    assert "random weights" in text


def test_sections_keep_each_other(tmp_path: Path) -> None:
    """One benchmark's run leaves the other's figures as they were, in whichever order they come."""
    publish("peers", make_peers(), tmp_path)
    publish("serving", make_serving(), tmp_path)
    publish("peers", make_peers(), tmp_path)

    text = (tmp_path / "performance.md").read_text()
    assert list(json.loads((tmp_path / "performance.json").read_text())) == ["peers", "serving"]
    assert text.index("2026-01-02") < text.index("2026-03-04")
    assert "StrokeServe, int8" in text
    for plot in ("performance.png", "performance-peers.png"):
        assert plot in text
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short try does not replace the published figures."""
    monkeypatch.chdir(tmp_path)

    assert publish("serving", make_serving(), None).startswith("## Against the limit")
    assert not list(tmp_path.iterdir())


def test_serving_benchmark_runs(tmp_path: Path) -> None:
    """A short run writes figures, page and plot; what it measures is not judged here."""
    options = ("--rounds", "1", "--seconds", "0.3", "--clients", "1,8", "--loads", "0.5")

    result = run_module("bench.serving", *options, "--out", str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "| server, 8 clients |" in result.stdout
    assert "| 0.5 |" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.json", "performance.md", "performance.png"]
