"""Which share of each package's lines the tests reach: a pytest plugin that tests/conftest.py loads.

``make test`` asks for it (``--cov``, pytest-cov). It prints a line for each package, and a whole run fails when one is
below its least share; build/coverage.json has the lines, and ``coverage report -m`` prints them. Of the processes that
tests start, servers are traced, and what asks ``tests.tracing.traced``: it costs each of the hundreds that there are a
third of a second. In a test marked ``timed`` none is; one marked ``no_cover`` (pytest-cov) is not traced itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.tracing import COVERING

LEAST = {"server": 95.0, "client": 95.0, "converter": 0.0, "training": 0.0, "gateway": 90.0}
"""Percent of the lines of each package that a run of all tests must reach."""

REPORT = Path("build") / "coverage.json"
SHARES = pytest.StashKey["list[Share]"]()


class Share(NamedTuple):
    """How many of a package's lines were reached."""

    package: str
    files: int
    lines: int
    missed: int

    @property
    def percent(self) -> float:
        return 100.0 * (self.lines - self.missed) / self.lines if self.lines else 100.0

    @property
    def is_low(self) -> bool:
        return self.percent < LEAST[self.package]


def add_up(files: Mapping[str, Mapping[str, Any]]) -> list[Share]:
    """Sums coverage's figures of files by package."""
    shares = []
    for package in LEAST:
        summaries = [file["summary"] for name, file in files.items() if Path(name).parts[0] == package]
        lines, missed = (sum(one[key] for one in summaries) for key in ("num_statements", "missing_lines"))
        shares.append(Share(package, len(summaries), lines, missed))
    return shares


def format_shares(shares: Iterable[Share]) -> list[str]:
    lines = [f"{'package':<10} {'files':>5} {'lines':>6} {'missed':>6} {'reached':>8}"]
    for share in shares:
        line = f"{share.package:<10} {share.files:>5} {share.lines:>6} {share.missed:>6} {share.percent:>6.1f} %"
        lines.append(line + (f"  (at least {LEAST[share.package]:g} %)" if LEAST[share.package] else ""))
    return lines


def is_whole(config: pytest.Config) -> bool:
    """True where no test was left out: neither files nor names nor marks were asked for."""
    chosen = (config.option.keyword, config.option.markexpr, config.getoption("lf", False))
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not any(chosen)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("cov_source", None):
        os.environ[COVERING] = "1"  # for this process and those that it starts


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Hides from a test that measures time that lines are counted: its processes are as they are elsewhere."""
    hidden = os.environ.pop(COVERING, "") if item.get_closest_marker("timed") else ""
    try:
        return (yield)
    finally:
        if hidden:
            os.environ[COVERING] = hidden


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Reads the figures when pytest-cov, which this wraps, has put those of all processes together."""
    result = yield
    config = session.config
    plugin = config.pluginmanager.getplugin("_cov")
    controller = plugin and plugin.cov_controller
    if controller is None or hasattr(config, "workerinput") or config.option.collectonly:
        return result
    path = config.rootpath / REPORT
    path.parent.mkdir(exist_ok=True)
    controller.cov.json_report(outfile=str(path))
    shares = add_up(json.loads(path.read_text())["files"])
    config.stash[SHARES] = shares
    if is_whole(config) and any(share.is_low for share in shares):
        session.testsfailed += 1  # as pytest-cov does
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    shares = config.stash.get(SHARES, [])
    if not shares:
        return
    terminalreporter.write_sep("=", "lines reached")
    for line in format_shares(shares):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"by file: {REPORT}")
    if is_whole(config):
        for share in shares:
            if share.is_low:
                terminalreporter.write_line(f"ERROR: too few lines of {share.package} are reached", red=True)
