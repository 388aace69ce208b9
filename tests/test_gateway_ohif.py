"""The structured report as OHIF opens it: by its parser and its own extension, where Node.js is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.results.settings import ResultSettings
from tests.fakes import ROOT
from tests.node_packages import Run, install_packages
from tests.results_of_studies import NEGATIVE, NOT_ANALYSED, make
from tests.studies import SERIES

FOLDER = ROOT / "tests" / "ohif"


@pytest.fixture(scope="module")
def node() -> Run:
    return install_packages(FOLDER, "reports are not opened by what OHIF opens them with")


def open_report(node: Run, folder: Path, **fields: Any) -> dict[str, Any]:
    """What OHIF knows of a report."""
    (report,) = make(folder, ResultSettings(results=("sr",)), **fields).objects
    path = folder / "report.dcm"
    path.write_bytes(report.data)
    done = node("node", str(FOLDER / "open_report.js"), str(path))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("fields", [{}, NEGATIVE, NOT_ANALYSED], ids=["positive", "negative", "none"])
def test_ohif_opens_the_report(node: Run, tmp_path: Path, fields: dict[str, Any]) -> None:
    """As an imaging measurement report about these images; its groups have no coordinates, so none is marked."""
    found = open_report(node, tmp_path, **fields)

    assert found["isImagingMeasurementReport"] is True
    assert found["isLoaded"] is True
    assert [one["ReferencedSOPInstanceUID"] for one in found["referencedImages"]] == [
        f"{SERIES}.{number}" for number in range(1, 7)
    ]
    groups = ["Whole study"] + ["Slice to look at first"] * ("first_look" not in fields)
    assert [one["TrackingIdentifier"] for one in found["measurements"]] == groups
    assert not any(one["coords"] for one in found["measurements"])


def test_packages_are_pinned() -> None:
    """Each by its digest, and no more of them than what opens a report needs."""
    packages = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    names = [name for name in packages if name]

    assert len(names) < 20
    assert all(packages[name]["integrity"].startswith("sha512-") for name in names)
