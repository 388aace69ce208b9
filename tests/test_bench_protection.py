"""The benchmark of what protection costs: its sides, its budgets, and that it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.processes import run_server
from bench.report.protection import ALL, BASE, OFF, list_budgets, render_protection
from bench.serving.protection import ProtectionOptions, make_sides, scraping
from bench.serving.targets import NO_ACCESS
from tests.fakes import ROOT, run_module
from tests.scraping import find_free_port
from tests.test_bench_report import MACHINE, SETTINGS, judge


def make_side(*rates: float, extra_mb: float = 0, cpu: float = 1) -> dict[str, Any]:
    """Rounds on a machine that turns all its time into images."""
    rounds = [
        {
            "rate": rate,
            "server_cpu_ms": cpu * 900 / rate,
            "client_cpu_ms": 100 / rate,
            "p50_ms": 8000 / rate,
            "others": 0.1,
        }
        for rate in rates
    ]
    memory, cold = [100 + extra_mb] * len(rates), [50 / rate for rate in rates]
    return {"clients": {"1": rounds, "8": rounds}, "resident_mb": memory, "cold_s": cold}


def make_section() -> dict[str, Any]:
    """Two rounds, the second on a machine that had become twice as slow."""
    sides = {OFF: make_side(100, 50), ALL: make_side(90, 45, extra_mb=30, cpu=1.2), BASE: make_side(99, 49.5)}
    settings = {**SETTINGS, "precision": "int8", "scrape_seconds": 5.0}
    return {"machine": MACHINE, "settings": settings, "sides": sides}


def test_protection_is_judged_round_by_round() -> None:
    """A machine that slows down between rounds moves no ratio; memory counts as a difference."""
    budgets = judge(list_budgets(make_section()["sides"]))

    assert budgets["all on: images/s, 8 clients, ratio"] == (pytest.approx(0.9), True)
    assert budgets["all on: CPU of server and clients an image, ratio"] == (pytest.approx(1.18 / 0.9), False)
    assert budgets["all on: resident memory above"] == (30, False)


def test_server_with_nothing_on_is_judged_by_the_checkout_before() -> None:
    """One per cent faster than before is met, and so is the same memory."""
    budgets = judge(list_budgets(make_section()["sides"]))

    drift = {figure: judged for figure, judged in budgets.items() if figure.startswith(OFF)}
    assert len(drift) == 5
    assert all(is_met for _, is_met in drift.values())
    assert drift[f"{OFF}: cold start, ratio to the checkout before"][0] == pytest.approx(0.99)


def test_without_a_checkout_before_nothing_is_said_of_it() -> None:
    """There is nothing to judge by."""
    section = make_section()
    del section["sides"][BASE]

    assert "before" not in render_protection(section)


def test_section_has_a_row_for_each_server() -> None:
    """With what other processes took meanwhile, for whoever reads images a second."""
    text = render_protection(make_section())

    assert f"| {ALL} | 18.00 (12.00 to 24.00) | 1.33 (1.33 to 1.33) |" in text
    assert "+30.0 (+30.0 to +30.0)" in text
    assert "other processes took 0.10 (0.10 to 0.10) of the processors" in text


def test_protected_server_has_all_parts_and_its_clients_what_they_ask_for(tmp_path: Path) -> None:
    """The other has none of them; no two servers write to one audit log."""
    sides = make_sides(ProtectionOptions(each=True, base=ROOT), tmp_path)

    parts = ("mutual TLS", "tokens", "audit log", "metrics")
    assert list(sides) == [OFF, ALL, BASE, *parts]
    assert sides[OFF].flags == sides[BASE].flags == ()
    assert sides[OFF].access == NO_ACCESS
    flags = {word for word in sides[ALL].flags if word.startswith("--")}
    assert flags == {word for part in parts for word in sides[part].flags if word.startswith("--")}
    assert flags >= {"--tls-client-ca", "--tokens", "--audit", "--metrics-port"}
    assert sides[ALL].access.certs is not None
    assert sides[ALL].access.token is not None
    assert not set(sides["audit log"].flags) <= set(sides[ALL].flags)


def test_metrics_that_cannot_be_read_end_the_benchmark() -> None:
    """Figures without the reading would be of something else."""
    with pytest.raises(OSError, match="refused"), scraping(find_free_port()):
        pass


def test_base_without_a_server_is_no_checkout(tmp_path: Path) -> None:
    """Said before anything is measured."""
    with pytest.raises(ValueError, match="no checkout"):
        ProtectionOptions(base=tmp_path)


def test_other_checkout_is_what_runs(tmp_path: Path) -> None:
    """Its own code, whatever is installed here."""
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__main__.py").write_text('print("serving from before on 127.0.0.1:7")')

    with run_server(Path("models"), checkout=tmp_path) as service:
        assert service.address == "127.0.0.1:7"


def test_measured_server_keeps_its_compiled_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an installed one does; to compile all of them at each start would be measured as a slow start."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__main__.py").write_text("import sys; print('writes', not sys.dont_write_bytecode)")

    with run_server(Path("models"), checkout=tmp_path) as service:
        assert service.address == "True"


def test_protection_benchmark_runs(tmp_path: Path) -> None:
    """A short run writes figures and page; what it measures is not judged here."""
    result = run_module("bench.serving.protection", "--rounds", "1", "--seconds", "0.1", "--out", str(tmp_path))

    assert result.returncode == 0, result.stderr
    assert "| all on: resident memory above |" in result.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["performance.json", "performance.md"]
