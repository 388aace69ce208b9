"""The benchmark of the client library: its arithmetic, its report, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.report.client import list_budgets, render_client
from bench.serving.client import describe_cost, describe_endurance
from bench.serving.client_load import ClientLoad, make_noise, run_predict_many
from bench.serving.noop_server import run_noop_server
from tests.fakes import run_module
from tests.test_bench_report import MACHINE, SETTINGS

ROUND = {
    "rate": 170.0,
    "limit": 200.0,
    "bare_cpu_ms": 10.0,
    "server_cpu_ms": 11.0,
    "cpu_ms": 0.5,
    "extra_mb": 8.0,
    "others": 0.1,
}


def make_load(*resident_mb: float, failures: int = 0) -> ClientLoad:
    """A run with these readings of memory."""
    return ClientLoad(1000, failures, 2.0, 0.4, 50.0, 62.0, list(resident_mb))


def make_section(endurance: dict[str, float] | None = None) -> dict[str, Any]:
    """Two rounds, the second on a machine that had become twice as slow."""
    slow = {**ROUND, "rate": 90.0, "limit": 100.0, "bare_cpu_ms": 20.0, "server_cpu_ms": 22.0, "cpu_ms": 1.0}
    return {
        "machine": MACHINE,
        "settings": {**SETTINGS, "precision": "int8", "count": 1000, "in_flight": None, "noise_kb": 100.0},
        "share": [ROUND, slow],
        "noise": [{"cpu_ms": 0.6, "extra_mb": 9.0}] * 2,
        "noise_noop": [{"cpu_ms": 0.4, "extra_mb": 9.0}] * 2,
        "noise_singles": [{"cpu_ms": 0.6, "extra_mb": 1.0}] * 2,
        "endurance": endurance,
    }


def test_cost_is_above_the_idle_client() -> None:
    """Peak less what was there before."""
    assert describe_cost(make_load()) == {"cpu_ms": 0.4, "extra_mb": 12.0}


def test_failed_image_ends_the_benchmark() -> None:
    """An image that was refused is cheap, and would count as a fast one."""
    with pytest.raises(SystemExit, match="3 of 1000"):
        describe_cost(make_load(failures=3))


def test_growth_counts_from_a_tenth_of_the_run_to_the_highest_reading() -> None:
    """The first allocations are not growth; a rise that has gone by the end is."""
    readings = [55.0, 58.0, 60.0, *[60.0] * 10, 63.0, *[60.5] * 6]

    assert describe_endurance(make_load(*readings))["growth_mb"] == 3.0


def test_shares_are_taken_round_by_round() -> None:
    """A machine that slows down between rounds changes no share."""
    budgets = {budget.figure: budget for budget in list_budgets(make_section())}

    assert budgets["share of the limit"].values == [0.85, 0.9]
    assert budgets["share of the limit"].is_met
    assert not budgets["client's CPU for an image of 100 kB, the real server"].is_met
    assert budgets["client's CPU for an image of 100 kB, a server that judges nothing"].is_met


def test_section_says_where_the_processors_time_went() -> None:
    """Server and client together, over the bare loop, and the long run where there was one."""
    text = render_client(make_section(describe_endurance(make_load(*[60.0] * 20))))

    assert (
        "| server and client | 130 (90 to 170) | 0.88 (0.85 to 0.90) | 17.2 (11.5 to 23.0) | 1.15 (1.15 to 1.15) |"
        in text
    )
    assert "other processes took 0.10 (0.10 to 0.10) of the processors" in text
    assert "60.0 MB after a tenth" in text
    assert "growth of memory over 1,000 predictions" in text
    assert "tenth" not in render_client(make_section())


def test_noise_has_the_size_that_is_asked_for() -> None:
    """A budget for 100 kB is measured with 100 kB."""
    assert all(len(image) == pytest.approx(100_000, rel=0.01) for image in make_noise(100))


@pytest.mark.parametrize("flags", [(), ("--singles",)])
def test_run_counts_and_reads_memory(flags: tuple[str, ...]) -> None:
    """Every image is predicted by a server that judges nothing, and memory is read all along."""
    with run_noop_server(*flags) as address:
        load = run_predict_many(address, [b"one", b"two"], 100, in_flight=4)

    assert (load.count, load.failures, len(load.resident_mb)) == (100, 0, 20)
    assert load.cpu_ms > 0
    assert load.peak_mb >= max(load.resident_mb) - 1
    assert load.idle_mb > 10


def test_client_benchmark_runs(tmp_path: Path) -> None:
    """A short run writes figures and page; what it measures is not judged here."""
    options = ("--rounds", "1", "--seconds", "0.3", "--count", "50", "--endurance", "100")

    result = run_module("bench.serving.client", *options, "--out", str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "| server and client |" in result.stdout
    assert "Over 100 predictions of 100 kB" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.json", "performance.md"]
