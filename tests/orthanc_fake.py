"""An Orthanc that is none, for tests of its plugin, and a gateway's command that does as it is told."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes import ROOT

PLUGIN = ROOT / "deploy" / "orthanc"
STUDY = "-".join(["0123abcd"] * 5)
HOSTILE = '"><script>alert(1)</script>'

COMMAND = """
import json, pathlib, sys, time
here = pathlib.Path(__file__).parent
plan = json.loads((here / "plan.json").read_text())
source, out = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[4])
with open(here / "calls", "a") as calls:
    calls.write(json.dumps({"images": len(list(source.iterdir())), "arguments": sys.argv[5:]}) + "\\n")
time.sleep(plan["seconds"])
if plan["status"] == 0:
    out.mkdir()
    name = f"{len(list(source.iterdir()))}.dcm"
    (out / name).write_text(f"result of {name}")
    entry = {"status": "ANALYSED", "urgency": "positive", "label": "stroke", "probability": 0.9, "reasons": []}
    files = [{"name": name, "sop_instance_uid": "1.2"}, {"name": "fhir.json"}]
    entry |= {"model": "tiny", "version": "1", "files": files}
    print(json.dumps({"studies": [entry], "errors": []}))
elif plan["reason"]:
    print(json.dumps({"studies": [], "errors": [{"reason": plan["reason"]}]}))
else:
    print("Doe^Jane\\ngateway judge: error: --server is wrong", file=sys.stderr)
sys.exit(plan["status"])
"""


@dataclass
class FakeOrthanc:
    """Studies, the log of changes, and what the plugin has written."""

    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    series: dict[str, dict[str, Any]] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    properties: dict[int, str] = field(default_factory=dict)
    stored: list[bytes] = field(default_factory=list)

    def add(self, study: str, images: int = 3, *, modality: str = "CT", stable: bool = True) -> None:
        """Images of a study come, and perhaps no more."""
        series = f"{study}-{modality}"
        found = self.studies.setdefault(
            study, {"ID": study, "PatientMainDicomTags": {}, "MainDicomTags": {}, "Series": []}
        )
        found["IsStable"] = stable
        if series not in found["Series"]:
            found["Series"].append(series)
            self.series[series] = {"MainDicomTags": {"Modality": modality}, "Instances": []}
        instances = self.series[series]["Instances"]
        for _ in range(images):
            instances.append(f"{series}-{len(instances)}")
            self._log("NewInstance", instances[-1])
        if stable:
            self._log("StableStudy", study)

    def _log(self, kind: str, resource: str) -> None:
        self.changes.append({"Seq": len(self.changes) + 1, "ChangeType": kind, "ID": resource})

    def get(self, path: str) -> Any:
        if path == "/changes?last":
            return {"Last": len(self.changes)}
        if path.startswith("/changes?"):
            since, limit = (int(part.partition("=")[2]) for part in path.partition("?")[2].split("&"))
            page = self.changes[since : since + limit]
            last = page[-1]["Seq"] if page else since
            return {"Changes": page, "Last": last, "Done": last >= len(self.changes)}
        kind, name, *rest = path.strip("/").split("/")
        if rest == ["metadata?expand"]:
            return self.metadata.get(name, {})
        if rest == ["study"]:
            return self.studies.get(name.partition("-")[0])
        return (self.studies if kind == "studies" else self.series).get(name)

    def read_dicom(self, instance: str) -> bytes:
        return instance.encode()

    def store(self, data: bytes) -> str:
        self.stored.append(data)
        return f"stored-{len(self.stored)}"

    def write_metadata(self, study: str, name: str, value: str) -> None:
        self.metadata.setdefault(study, {})[name] = value

    def read_property(self, number: int) -> str:
        return self.properties.get(number, "")

    def write_property(self, number: int, value: str) -> None:
        self.properties[number] = value


@dataclass
class FakeGateway:
    """The folder of an installation whose command does as it is told."""

    folder: Path

    def plan(self, status: int = 0, seconds: float = 0.0, reason: str = "SERVER_UNREACHABLE") -> None:
        """What the command does from now on."""
        (self.folder / "gateway").mkdir(parents=True, exist_ok=True)
        (self.folder / "gateway" / "__main__.py").write_text(COMMAND)
        (self.folder / "gateway" / "plan.json").write_text(
            json.dumps({"status": status, "seconds": seconds, "reason": reason})
        )

    def list_calls(self) -> list[dict[str, Any]]:
        """Each call: how many images it was given, and the arguments behind them."""
        calls = self.folder / "gateway" / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    @property
    def command(self) -> tuple[str, ...]:
        return (sys.executable, "--server", "box:1")


class FakeWorker:
    """Who judges."""

    def __init__(self) -> None:
        self.pending: dict[str, tuple[bool, str]] = {}
        self.asked: list[str] = []
        self.has_room = True

    def ask(self, study: str) -> bool:
        self.asked.append(study)
        return self.has_room

    def list_pending(self) -> dict[str, tuple[bool, str]]:
        return self.pending

    def list_recent(self) -> list[str]:
        return [STUDY, "gone"]


class Site:
    """The plugin's page of an archive with one study."""

    def __init__(self, page: Any) -> None:
        self.page, self.orthanc, self.worker = page, FakeOrthanc(), FakeWorker()
        self.orthanc.add(STUDY)
        self.orthanc.studies[STUDY]["MainDicomTags"] = {"AccessionNumber": HOSTILE, "StudyDate": "20261129"}
        self.orthanc.studies[STUDY]["PatientMainDicomTags"] = {"PatientID": HOSTILE, "PatientName": "Doe^Jane"}
        self.keep(state="judged", entry={"urgency": "positive", "label": HOSTILE, "probability": 0.9, "model": "tiny"})

    def keep(self, **outcome: Any) -> None:
        self.orthanc.write_metadata(STUDY, "4713", json.dumps({"at": "2026-11-30T04:00:00+00:00", **outcome}))

    def ask(self, path: str, method: str = "GET", **request: Any) -> Any:
        return self.page.answer(self.orthanc, self.worker, method, path, request)

    def read_row(self) -> dict[str, Any]:
        (row,) = json.loads(self.ask("studies").body)
        return row
