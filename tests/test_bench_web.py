"""The benchmark of HTTP beside gRPC: its budgets, its page, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.report.web import FORM, OFF, ON, OURS, RAW, THEIRS, list_budgets, render_web
from tests.fakes import run_module
from tests.test_bench_report import MACHINE, SETTINGS, judge


def make_way(*rates: float, cpu: float = 1) -> dict[str, list[dict[str, float]]]:
    """Rounds of one way of asking; the same for each number of clients."""
    rounds = [
        {
            "rate": rate,
            "p50_ms": 8000 / rate,
            "p99_ms": 9000 / rate,
            "server_cpu_ms": cpu * 900 / rate,
            "client_cpu_ms": 100 / rate,
            "others": 0.1,
        }
        for rate in rates
    ]
    return {"1": rounds, "4": rounds, "8": rounds}


def make_section() -> dict[str, Any]:
    """Two rounds, the second on a machine that had become twice as slow."""
    seed = {OURS: make_way(160, 80), THEIRS: make_way(10, 5)}
    return {
        "machine": MACHINE,
        "settings": {**SETTINGS, "precision": "int8", "seed_rounds": 2},
        "ways": {
            OFF: make_way(200, 100),
            ON: make_way(200, 100, cpu=1.02),
            RAW: make_way(220, 110),
            FORM: make_way(180, 90),
        },
        "resident_mb": {OFF: 100.0, ON: 110.0},
        "seed": {"setting": "2 workers, 1 thread a run", "keras_is_trained": False, "ways": seed},
    }


def test_http_is_judged_by_what_it_costs_those_who_do_not_use_it() -> None:
    """Round by round, so that a machine that slows down moves no ratio."""
    budgets = judge(list_budgets(make_section()))

    figure, is_met = budgets["gRPC, 8 clients: server's CPU an image with `--http` over without"]
    assert (figure, is_met) == (pytest.approx(1.02), True)
    assert budgets["gRPC, 1 client: p50 with `--http` over without"] == (1.0, True)


def test_http_is_judged_beside_the_seed_system() -> None:
    """Sixteen times its throughput; a sixteenth of its latency."""
    budgets = judge(list_budgets(make_section()))

    assert budgets["form, 8 clients: throughput over the seed system's"] == (16, True)
    assert budgets["form, 8 clients: p50 over the seed system's"] == (pytest.approx(1 / 16), True)


def test_page_has_a_row_for_each_way_of_asking() -> None:
    """With the server's CPU time, and the clients' apart from it."""
    text = render_web(make_section())

    assert f"| {RAW} | 165 (110 to 220) | 1.10 (1.10 to 1.10) |" in text
    assert f"| {THEIRS}, 8 clients | 7.5 (5.0 to 10.0) |" in text
    assert "the one with HTTP 110 MB" in text


def test_without_the_seed_system_nothing_is_said_of_it() -> None:
    """It takes two gigabytes to install."""
    assert "seed" not in render_web({**make_section(), "seed": None})


def test_web_benchmark_runs(tmp_path: Path) -> None:
    """A short run writes figures and page; what it measures is not judged here."""
    words = ("--rounds", "1", "--seconds", "0.1", "--seed-rounds", "0", "--out", str(tmp_path))
    result = run_module("bench.serving.web", *words)

    assert result.returncode == 0, result.stderr
    assert f"| {FORM} |" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.json", "performance.md"]
