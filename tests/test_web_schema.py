"""Requests that the document of the API allows, and such that it does not, made by Schemathesis: each answer is as the
document says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.explaining import write_explained
from tests.fakes import ROOT
from tests.studies import STUDY_SPEC
from tests.test_web_worklist import STUDY as WAITING
from tests.test_web_worklist import describe, put
from tests.web_calls import serve_web

EXCLUDED = {
    "positive_data_acceptance": "what the document allows may be an image that cannot be judged, or name a model that "
    "is not served, or give an option in query and form: the statuses say so, and no schema can",
}
"""Checks that do not hold, with their reasons; all others do."""


def test_answers_are_as_the_document_says(tmp_path: Path) -> None:
    """Status, headers, content type and schema; what it forbids is refused, other methods are with ``Allow``."""
    write_explained(tmp_path / "models", STUDY_SPEC)
    put(tmp_path / "worklist.json", describe(WAITING))
    with serve_web(tmp_path / "models", tmp_path, explain=True, worklist=tmp_path / "worklist.json") as web:
        found = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{web.port}/openapi.json"),
                *("--no-color", "--generation-deterministic", "--max-examples=20", "--phases=coverage,fuzzing"),
                f"--exclude-checks={','.join(EXCLUDED)}",
            ],
            cwd=tmp_path,  # it makes a folder of its own
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.web_images", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        operations = sum(len(verbs) for verbs in web.document["paths"].values())

    assert found.returncode == 0, found.stdout
    assert f"Tested: {operations}" in found.stdout
    generated = re.search(r"(\d+) generated", found.stdout)
    assert generated is not None
    assert int(generated[1]) > 150
