"""Loading a model: nothing is served that is missing, damaged, altered or not made for this server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from server.errors import ModelFileError
from server.models.golden import GoldenVector, make_golden_input
from server.models.manifest import INT8_FILE, MANIFEST_FILE, MODEL_FILE, FileRecord, Manifest
from server.models.runtime import OnnxModel, load_model
from tests.fakes import SIDE, SPEC, build_tiny_graph, build_tiny_model, rewrite_manifest, sha256_hex, write_model


def replace_model(folder: Path, data: bytes) -> None:
    """Makes the digests right for other bytes, as somebody who alters a model on purpose would."""
    record = {"sha256": sha256_hex(data), "size": len(data)}
    rewrite_manifest(folder, lambda document: document["files"][MODEL_FILE].update(record))
    (folder / MODEL_FILE).write_bytes(data)


def refuse(folder: Path) -> ModelFileError:
    """Loads, and returns the refusal after checking that it names a file and what to do."""
    with pytest.raises(ModelFileError) as refusal:
        load_model(folder)
    assert str(folder) in refusal.value.message
    assert "converter" in refusal.value.message or "its place is" in refusal.value.message
    return refusal.value


def test_loaded_model_answers_and_describes_itself(tmp_path: Path) -> None:
    """Labels, size and digest come from the file."""
    folder = write_model(tmp_path)

    model = load_model(folder)

    assert model.spec == SPEC
    assert model.digest == sha256_hex((folder / MODEL_FILE).read_bytes())
    assert (model.input_format.height, model.input_format.width, model.input_format.channels) == (SIDE, SIDE, 3)
    answer = model.run(np.full((2, SIDE, SIDE, 3), 128, np.uint8))
    assert answer.dtype == np.float32
    assert np.allclose(answer, 0.5)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """The message says how to make a model."""
    assert refuse(tmp_path / "tiny" / "1").reason == "MODEL_NOT_FOUND"


def test_missing_files_are_refused(tmp_path: Path) -> None:
    """Neither the model nor its manifest may be missing."""
    folder = write_model(tmp_path)
    (folder / MODEL_FILE).unlink()
    assert refuse(folder).reason == "MODEL_FILE_MISSING"

    (folder / MANIFEST_FILE).unlink()
    assert refuse(folder).reason == "MANIFEST_MISSING"


ENTRY = '{"schema": 1, "files": {"model.onnx": {"sha256": "x", "size": %s, "tolerance": %s}}, "parity": {}, "golden": '
BAD_MANIFESTS = {
    "empty": "",
    "no schema": "{}",
    "a list": "[]",
    "another schema": '{"schema": 9}',
    "nothing in it": '{"schema": 1, "files": {}, "golden": [], "parity": {}}',
    "negative seed": ENTRY % ("1", "0.1") + '[{"seed": -1, "probabilities": [1]}]}',
    "endless size": ENTRY % ("Infinity", "0.1") + '[{"seed": 1, "probabilities": [1]}]}',
    "tolerance that allows everything": ENTRY % ("1", "Infinity") + '[{"seed": 1, "probabilities": [1]}]}',
    "fewer answers of a file than golden vectors": (ENTRY % ("1", '0.1, "probabilities": [[1], [1]]'))
    + '[{"seed": 1, "probabilities": [1]}]}',
    "gate that is no object": (ENTRY % ("1", '0.1, "gate": 1')) + '[{"seed": 1, "probabilities": [1]}]}',
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", BAD_MANIFESTS.values(), ids=BAD_MANIFESTS)
def test_unusable_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """A manifest that cannot be read verifies nothing."""
    folder = write_model(tmp_path)
    (folder / MANIFEST_FILE).write_text(text)

    assert refuse(folder).reason == "MANIFEST_INVALID"


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_truncated_model_is_refused(tmp_path: Path, kept: float) -> None:
    """The message says how much is there."""
    folder = write_model(tmp_path)
    data = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(data[: int(len(data) * kept)])

    error = refuse(folder)

    assert error.reason == "MODEL_FILE_TRUNCATED"
    assert f"of {len(data):,} bytes" in error.message


def test_flipped_bit_in_a_weight_is_refused_by_digest(tmp_path: Path) -> None:
    """ONNX Runtime loads such a file without a word."""
    folder = write_model(tmp_path)
    data = bytearray((folder / MODEL_FILE).read_bytes())
    weight = np.float32(0.05).tobytes()
    data[data.index(weight)] ^= 1
    OnnxModel(bytes(data), source="altered")
    (folder / MODEL_FILE).write_bytes(data)

    assert refuse(folder).reason == "MODEL_FILE_ALTERED"


def test_altered_weight_with_a_matching_digest_is_refused_by_golden_vectors(tmp_path: Path) -> None:
    """Who also rewrites the digest is found out by the answers."""
    folder = write_model(tmp_path)
    replace_model(folder, build_tiny_model(gain=0.051))

    assert refuse(folder).reason == "MODEL_ANSWERS_WRONG"


def test_weight_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    """NaN compares as neither close nor far; it must still fail."""
    folder = write_model(tmp_path)
    graph = build_tiny_graph()
    for tensor in graph.graph.initializer:
        if tensor.name == "weights":
            broken = np.full(tuple(tensor.dims), np.nan, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(broken, "weights"))
    replace_model(folder, graph.SerializeToString())

    assert refuse(folder).reason == "MODEL_ANSWERS_WRONG"


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\0" * 1000])
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """A download that brought something else is a clear error even when the manifest agrees."""
    folder = write_model(tmp_path)
    replace_model(folder, data)

    assert refuse(folder).reason == "MODEL_FILE_INVALID"


def test_model_without_spec_is_refused(tmp_path: Path) -> None:
    """Labels are never guessed."""
    folder = write_model(tmp_path)
    replace_model(folder, build_tiny_model(with_spec=False))

    assert refuse(folder).reason == "MODEL_SPEC_MISSING"


def test_model_with_garbage_for_a_spec_is_refused(tmp_path: Path) -> None:
    """The file is named as well."""
    folder = write_model(tmp_path)
    graph = build_tiny_graph()
    onnx.helper.set_model_props(graph, {"stroke.model": "{}"})
    replace_model(folder, graph.SerializeToString())

    assert refuse(folder).reason == "MODEL_SPEC_UNKNOWN_SCHEMA"


@pytest.mark.parametrize("options", [{"input_name": "input_1"}, {"input_type": TensorProto.FLOAT}])
def test_graph_that_breaks_the_contract_is_refused(tmp_path: Path, options: dict[str, object]) -> None:
    """Names and types are the contract's, so that preprocessing cannot go wrong silently."""
    folder = write_model(tmp_path)
    replace_model(folder, build_tiny_model(**options))

    error = refuse(folder)

    assert error.reason == "MODEL_GRAPH_UNSUITABLE"
    assert "image uint8" in error.message


def test_model_in_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    """A copied folder does not serve one version under the name of another."""
    folder = write_model(tmp_path)
    moved = folder.parent / "2"
    folder.rename(moved)

    assert refuse(moved).reason == "MODEL_MISPLACED"


def test_manifest_round_trip(tmp_path: Path) -> None:
    """What is written is read."""
    text = (write_model(tmp_path) / MANIFEST_FILE).read_text()

    assert Manifest.from_json(text).to_json() == text


def test_manifest_carries_what_belongs_to_a_variant() -> None:
    """Its processor, its own answers to the golden vectors, and the gate's figures survive a round trip."""
    golden = (GoldenVector(1, (0.25, 0.75)), GoldenVector(2, (0.5, 0.5)))
    own = ((0.26, 0.74), (0.5, 0.5))
    files = {
        MODEL_FILE: FileRecord("0" * 64, 1, 1e-4),
        INT8_FILE: FileRecord("1" * 64, 1, 1e-3, "x86-vnni", own, {"images": 100, "auc": {"fp32": 0.9, "int8": 0.9}}),
    }

    manifest = Manifest.from_json(Manifest(files, golden, {}).to_json())

    assert manifest.files == files
    assert manifest.list_golden(MODEL_FILE) == golden
    assert [vector.probabilities for vector in manifest.list_golden(INT8_FILE)] == list(own)


def test_golden_input_never_changes() -> None:
    """Anyone can make it again, on any machine and with any NumPy: this digest is part of the contract."""
    image = make_golden_input(1, 256, 256, 3)

    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert sha256_hex(image.tobytes()) == "becfc276dcb381b975aae9273a0a28228c5c89d42235c9b6ae72349c9f69ff63"
