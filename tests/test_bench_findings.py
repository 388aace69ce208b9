"""What each part of the generator does to a model: pairs of slices, and the page about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bench.training.findings import Pair, draw_pair, find_key, find_slices, judge_pairs, main, render_findings
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model
from tests.fakes import BUNDLED, ROOT
from training.phantom.patient import Patient


def test_slices_are_those_whose_patient_has_the_part() -> None:
    """A rare part is looked for among many slices, and nothing is judged that does not have it."""
    found = list(find_slices("metal", 5))

    assert len(found) == 5
    assert all("metal" in Patient(find_key(index)).parts for index in found)
    assert found[-1] > 5


def test_a_pair_differs_in_the_part_alone() -> None:
    """A head rest changes pixels outside the head, and leaves the head as it was."""
    pair = next(draw_pair("table", index) for index in find_slices("table", 1))
    changed = pair.with_part != pair.without

    assert 0 < changed.mean() < 0.2
    assert not changed[100:140, 100:140].any()


def test_shift_and_shares_are_those_of_the_answers() -> None:
    """The same slices on both sides shift nothing; turned round, the shift changes its sign."""
    model = load_model(BUNDLED, EngineOptions(precision="fp32"))
    pairs = [draw_pair("pose", index) for index in find_slices("pose", 6)]
    same = [Pair(pair.positive, pair.without, pair.without) for pair in pairs]
    turned = [Pair(pair.positive, pair.without, pair.with_part) for pair in pairs]

    assert judge_pairs(model, same)["normal"]["shift"] == [0.0, 0.0, 0.0]
    forwards, backwards = judge_pairs(model, pairs), judge_pairs(model, turned)
    assert forwards["stroke"]["slices"] == 3
    assert np.isclose(forwards["stroke"]["shift"][0], -backwards["stroke"]["shift"][0])
    assert forwards["normal"]["called_with"] == backwards["normal"]["called_without"]


def test_page_names_model_and_parts(tmp_path: Path) -> None:
    """The command writes a row for each part, with the digest of the model that answered."""
    assert main(["--pairs", "12", "--only", "jpeg", "table", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "findings.md").read_text("utf-8")

    assert load_model(BUNDLED, EngineOptions(precision="fp32")).digest[:12] in page
    assert "| `jpeg` |" in page
    assert "| `table` |" in page


def test_committed_page_is_of_the_bundled_model() -> None:
    """The page is what its figures say, and they are of the model that is here."""
    document = json.loads((ROOT / "docs" / "findings.json").read_text("utf-8"))

    assert document["digest"] == load_model(BUNDLED, EngineOptions(precision="fp32")).digest
    assert render_findings(document) == (ROOT / "docs" / "findings.md").read_text("utf-8")
