"""``--version`` on every program: the project's one version, at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proto import __version__
from server.flags import LineParser, parse_settings
from tests.fakes import ROOT
from training.settings.train import TrainConfig

PROGRAMS = {
    "server.cli": ("", "tune"),
    "client.cli.main": ("", "health", "models", "bench", "completion"),
    "training.cli": ("", "audit", "phantom", "evaluate", "card"),
    "gateway.cli": ("", "fetch", "judge", "listen", "mercure", "perform", "worklist"),
    "converter.cli": ("", "report", "key", "sign", "verify"),
    "cluster.cli": ("",),
    "bench.conversion.__main__": ("",),
    "bench.conversion.whole": ("",),
    "bench.faults.__main__": ("",),
    "bench.faults.flood": ("",),
    "bench.dicom.gateway": ("",),
    "bench.dicom.study": ("",),
    "bench.dicom.syntaxes": ("",),
    "bench.onebox.__main__": ("",),
    "bench.onebox.servers": ("",),
    "bench.outliers.__main__": ("",),
    "bench.serving.__main__": ("",),
    "bench.serving.client": ("",),
    "bench.serving.client_load": ("",),
    "bench.serving.decode": ("",),
    "bench.serving.interop": ("",),
    "bench.serving.load": ("",),
    "bench.serving.noop_server": ("",),
    "bench.serving.peak": ("",),
    "bench.serving.protection": ("",),
    "bench.serving.web": ("",),
    "bench.training.__main__": ("",),
    "bench.training.ablation": ("",),
    "bench.training.exports": ("",),
    "bench.training.findings": ("",),
    "bench.training.realism.__main__": ("",),
    "bench.training.transfer": ("",),
    "bench.peers.__main__": ("",),
    "bench.peers.runtimes": ("",),
}
"""Commands by the module whose ``main`` reads them."""

ASK_ALL = f"""
import importlib, sys
for module, commands in {PROGRAMS!r}.items():
    for command in commands:
        print(module, command or "-", end=" ", flush=True)
        try:
            importlib.import_module(module).main([*filter(None, [command]), "--version"])
        except SystemExit as exit:
            assert not exit.code, exit.code
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""


def test_every_program_says_its_version_without_tensorflow() -> None:
    """Sub-commands do, too; whatever else they need is not asked for."""
    result = subprocess.run([sys.executable, "-c", ASK_ALL], cwd=ROOT, capture_output=True, text=True, timeout=60)

    *lines, imported = result.stdout.splitlines()
    programs = [(module, command or "-") for module, commands in PROGRAMS.items() for command in commands]
    assert [line.split() for line in lines] == [[*program, __version__] for program in programs], result.stderr
    assert imported == "False False"


def test_list_of_programs_is_complete() -> None:
    """Whatever reads a command line of its own is in it."""
    paths = [path for path in (ROOT / "bench").rglob("*.py") if "LineParser(" in path.read_text("utf-8")]

    assert {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths} <= PROGRAMS.keys()


@pytest.mark.parametrize("arguments", [["--version"], ["--data", "x", "--version"], ["--version", "--data", "x"]])
def test_version_alone_is_that_of_the_program(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Where a program has a setting of that name, such as the version of the model that it makes."""
    with pytest.raises(SystemExit) as exit_:
        parse_settings(LineParser("x", "y"), TrainConfig, arguments)

    assert not exit_.value.code
    assert capsys.readouterr().out == f"{__version__}\n"


def test_version_with_a_value_is_the_setting() -> None:
    """As before."""
    config = parse_settings(LineParser("x", "y"), TrainConfig, ["--data", "x", "--out", "y", "--version", "2"])

    assert config.version == "2"
    assert parse_settings(LineParser("x", "y"), TrainConfig, ["--data", "x", "--out", "y"]).version == "1"
