"""What comes from others: listed, and asked for known vulnerabilities (pins: ``tests/test_project.py``)."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import ROOT

FOLDER = ROOT / "requirements"
LOCKS = sorted((*FOLDER.glob("*.lock"), *FOLDER.glob("extras/*.lock")))
SPECIFICATION = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
assert SPECIFICATION is not None
assert SPECIFICATION.loader is not None
audit: Any = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(audit)


def test_every_lock_is_audited() -> None:
    """A new purpose is not forgotten. Neighbours are no part of what is installed to serve, ask or train."""
    assert set(audit.LOCKS) == {str(lock.relative_to(FOLDER).with_suffix("")) for lock in LOCKS}


@pytest.mark.parametrize(
    ("dependencies", "code", "said"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, f"no known vulnerability in {len(audit.LOCKS)} packages"),
        (
            [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}],
            1,
            "a 1: CVE-1, mended in 2",
        ),
        ([{"name": "a", "skip_reason": "not found"}], 3, "no source of advisories can be reached"),
    ],
)
def test_audit_says_what_is_known(
    dependencies: list[dict[str, Any]],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And never that all is well where nobody could be asked."""

    def run(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, json.dumps({"dependencies": dependencies}), "")

    monkeypatch.setattr(audit.subprocess, "run", run)

    assert audit.main() == code
    assert said in capsys.readouterr().out.splitlines()[-1]


def test_list_of_materials_names_all_that_is_installed(tmp_path: Path) -> None:
    """As CycloneDX, the same whenever it is made."""
    written = tmp_path / "sbom.json"
    command = [Path(sys.executable).with_name("cyclonedx-py"), "requirements", ROOT / "requirements" / "server.lock"]
    command += ["--output-format", "JSON", "--output-reproducible", "--output-file", written]
    subprocess.run(command, check=True, capture_output=True, timeout=120)

    components = {item["name"]: item["version"] for item in json.loads(written.read_text())["components"]}

    locked = dict(
        re.findall(r"^([a-z0-9.\-]+)==(\S+)", (ROOT / "requirements" / "server.lock").read_text(), re.MULTILINE)
    )
    assert components == locked
