"""The explain file of a model: verified as the others, loaded when it is asked for, and changed with its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.core.explanation import explain
from server.errors import ModelFileError
from server.models.activation import Activator
from server.models.engines.engine import EngineOptions
from server.models.family import CANARY, SHADOW
from server.models.manifest import EXPLAIN_FILE, read_manifest
from server.models.registry import ModelRegistry
from server.models.runtime import load_model
from tests.explaining import CELLS, add_explain_file, build_explain_graph, make_corner, write_explained
from tests.fakes import SIDE, build_tiny_model, rewrite_manifest, sha256_hex, with_version, write_model

EXPLAINING = EngineOptions(explains=True, threads=2, busy_threads=1)
CORNER = np.repeat(make_corner()[np.newaxis, :, :, np.newaxis], 3, axis=3)


def test_it_is_loaded_only_when_it_is_asked_for(tmp_path: Path) -> None:
    """Plain answers cost no memory for it."""
    folder = write_explained(tmp_path)

    assert load_model(folder).explainer is None
    explainer = load_model(folder, EXPLAINING).explainer
    assert explainer is not None
    heatmap = explainer.run(CORNER)
    assert heatmap.shape == (1, CELLS, CELLS)
    assert np.argmax(heatmap) == 0


def test_model_without_one_is_served_without(tmp_path: Path) -> None:
    """Models from before it, and those that cannot have one."""
    assert load_model(write_model(tmp_path), EXPLAINING).explainer is None


def test_variant_is_explained_by_the_same_file(tmp_path: Path) -> None:
    """Whatever the numbers are that answer."""
    folder = write_model(tmp_path, int8=build_tiny_model(gain=0.06))
    add_explain_file(folder)

    model = load_model(folder, EngineOptions(precision="int8", explains=True))

    assert model.options.precision == "int8"
    assert model.explainer is not None


@pytest.mark.parametrize("options", [EngineOptions(), EXPLAINING])
def test_altered_file_keeps_the_model_from_being_served(tmp_path: Path, options: EngineOptions) -> None:
    """As any other file of the folder, asked for or not: somebody may ask the next time."""
    folder = write_explained(tmp_path)
    path = folder / EXPLAIN_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, options)

    assert refusal.value.reason == "MODEL_FILE_ALTERED"


def spoil_heatmap(document: dict[str, Any]) -> None:
    document["files"][EXPLAIN_FILE]["heatmap_sums"][1] += 0.01


def drop_heatmap(document: dict[str, Any]) -> None:
    del document["files"][EXPLAIN_FILE]["heatmap_sums"]


def shorten_heatmap(document: dict[str, Any]) -> None:
    document["files"][EXPLAIN_FILE]["heatmap_sums"].pop()


@pytest.mark.parametrize("change", [spoil_heatmap, drop_heatmap, shorten_heatmap])
def test_other_answers_than_where_it_was_made_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """A cell that differs, and answers that nobody has written down."""
    folder = write_explained(tmp_path)
    rewrite_manifest(folder, change)

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EXPLAINING)

    assert refusal.value.reason == "MODEL_ANSWERS_WRONG"
    assert EXPLAIN_FILE in refusal.value.message


def test_file_of_another_model_is_refused(tmp_path: Path) -> None:
    """It must have the probabilities of the model that it explains."""
    folder = write_model(tmp_path, data=build_tiny_model(gain=0.06))
    add_explain_file(folder, build_explain_graph().SerializeToString())

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EXPLAINING)

    assert refusal.value.reason == "MODEL_ANSWERS_WRONG"


@pytest.mark.parametrize(
    "data",
    [
        build_tiny_model(),
        build_explain_graph(area=(0, 0, 0, SIDE)).SerializeToString(),
        build_explain_graph(area=(0, 0, SIDE)).SerializeToString(),
    ],
    ids=["no heatmap", "no width", "three edges"],
)
def test_unsuitable_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """With a sentence that names it, whatever the manifest says."""
    folder = write_explained(tmp_path)
    record = read_manifest(folder).files[EXPLAIN_FILE].to_document()
    (folder / EXPLAIN_FILE).write_bytes(data)
    record |= {"sha256": sha256_hex(data), "size": len(data)}
    rewrite_manifest(folder, lambda document: document["files"].update({EXPLAIN_FILE: record}))

    with pytest.raises(ModelFileError) as refusal:
        load_model(folder, EXPLAINING)

    assert refusal.value.reason == "MODEL_GRAPH_UNSUITABLE"
    assert EXPLAIN_FILE in refusal.value.message


def test_heatmap_that_is_no_number_is_a_fault_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a picture of it, whose colours would mean nothing."""
    model = load_model(write_explained(tmp_path), EXPLAINING)
    monkeypatch.setattr(model.explainer, "run", lambda pixels: np.full((1, CELLS, CELLS), np.nan, np.float32))

    with pytest.raises(ArithmeticError, match="not finite"):
        explain(model, CORNER[0])


def test_it_follows_the_version_that_answers(tmp_path: Path) -> None:
    """Through activation, canary, promotion and the way back; a shadow answers nobody, and loads none."""
    write_model(tmp_path)
    registry = ModelRegistry()
    registry.load(tmp_path, "tiny", EXPLAINING)
    activator = Activator(registry, tmp_path, EXPLAINING)
    write_explained(tmp_path, with_version("2"))
    assert registry.get().explainer is None

    activator.activate("tiny", "2", SHADOW)
    assert registry.shadows[0].model.explainer is None
    activator.unload("tiny")
    activator.activate("tiny", "2", CANARY, 10)
    canary = registry.get("tiny", "canary")
    assert canary.explainer is not None

    activator.promote("tiny")
    assert registry.get().explainer is canary.explainer
    activator.roll_back("tiny")
    assert (registry.get().spec.version, registry.get().explainer) == ("1", None)
