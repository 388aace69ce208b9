"""Optimised graphs on disk: used when whole, made again when damaged, done without where there is no place."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converter.int8.cascade import Band, join
from server.errors import ModelFileError
from server.machine import processors
from server.models import runtime
from server.models.contract import METADATA_KEY
from server.models.engines import graph_cache, onnxruntime_engine
from server.models.engines.cache_upkeep import ENTRY_FILE
from server.models.engines.engine import EngineOptions
from server.models.engines.graph_cache import GRAPH_FILE, WEIGHTS_FILE
from server.models.manifest import MODEL_FILE
from server.models.runtime import OnnxModel, load_model
from tests.fakes import SIDE, SPEC, build_tiny_graph, sha256_hex, write_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder; the model counts as large, and has a weight that is large enough for the weights' file."""
    monkeypatch.setattr(onnxruntime_engine, "LARGE_MODEL_BYTES", 1)
    graph = build_tiny_graph()
    graph.graph.initializer.append(numpy_helper.from_array(np.arange(1024, dtype=np.float32).reshape(2, 512), "large"))
    graph.graph.node[3].output[0] = "narrow"
    graph.graph.node.insert(4, onnx_node("MatMul", ["narrow", "large"], "wide"))
    graph.graph.node.insert(5, onnx_node("MatMul", ["wide", "back"], "scaled"))
    back = np.zeros((512, 2), np.float32)
    back[1] = (0, 1 / 513)
    graph.graph.initializer.append(numpy_helper.from_array(back, "back"))
    return write_model(tmp_path / "models", data=graph.SerializeToString())


def onnx_node(kind: str, inputs: list[str], output: str) -> object:
    from onnx import helper

    return helper.make_node(kind, inputs, [output])


def list_graphs(cache: Path) -> list[Path]:
    return sorted(cache.glob(f"graphs/*/{GRAPH_FILE}"))


def ask(model: OnnxModel) -> np.ndarray:
    return model.run(np.full((1, SIDE, SIDE, 3), 150, np.uint8))


def test_cached_graph_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """Made at the first load, used at the next; the digest stays that of the model's file."""
    plain = load_model(folder)
    first = load_model(folder, EngineOptions(cache=tmp_path / "cache", threads=2, busy_threads=1))
    (graph,) = list_graphs(tmp_path / "cache")
    written = graph.stat().st_mtime_ns
    second = load_model(folder, EngineOptions(cache=tmp_path / "cache"))

    assert list_graphs(tmp_path / "cache") == [graph]
    assert graph.stat().st_mtime_ns == written
    assert np.allclose(ask(plain), ask(first))
    assert np.allclose(ask(plain), ask(second))
    assert {model.digest for model in (plain, first, second)} == {sha256_hex((folder / MODEL_FILE).read_bytes())}


def test_graph_with_a_graph_within_it_is_optimised_at_each_start(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as a cascade of two networks: weights of the inner one cannot be given as values, so nothing is kept."""
    path = folder / MODEL_FILE
    inner = onnx.load_from_string(path.read_bytes())
    joined = join(onnx.load_from_string(path.read_bytes()), inner, SPEC, Band(((0.0, 1.0),), 1.0))
    large = write_model(tmp_path / "joined", data=joined.SerializeToString())

    model = load_model(large, EngineOptions(cache=tmp_path / "cache"))

    assert np.allclose(ask(model), ask(load_model(folder)))
    assert list_graphs(tmp_path / "cache") == []
    assert not caplog.records


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def add_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def let_others_write(path: Path) -> None:
    path.chmod(0o666)


def give_away(path: Path) -> None:
    os.chown(path, 12345, -1)


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def become_link(path: Path) -> None:
    path.rename(path.parent.parent.parent / "aside")
    path.symlink_to(path.parent.parent.parent / "aside")


def add_file(path: Path) -> None:
    (path.parent / f"{path.name}.more").touch()


DAMAGES = [
    *(flip, cut, add_byte, Path.unlink, let_others_write, become_pipe, become_endless, become_link, add_file),
    pytest.param(give_away, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")),
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [GRAPH_FILE, WEIGHTS_FILE, ENTRY_FILE])
def test_damaged_entry_is_made_again(
    folder: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever happened to whichever of its files; the answers are the model's, and the next start finds it whole."""
    cache = tmp_path / "cache"
    wanted = ask(load_model(folder, EngineOptions(cache=cache)))
    (graph,) = list_graphs(cache)
    damage(graph.with_name(name))

    assert np.array_equal(ask(load_model(folder, EngineOptions(cache=cache))), wanted)
    assert "damaged" in caplog.text
    caplog.clear()
    assert np.array_equal(ask(load_model(folder, EngineOptions(cache=cache))), wanted)
    assert not caplog.records
    assert sorted(path.name for path in graph.parent.iterdir()) == [ENTRY_FILE, GRAPH_FILE, WEIGHTS_FILE]


def test_entry_that_others_may_write_is_made_again(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its files may be those that were written, or not a moment later."""
    cache = tmp_path / "cache"
    load_model(folder, EngineOptions(cache=cache))
    (graph,) = list_graphs(cache)
    entry = graph.parent
    entry.chmod(0o777)

    load_model(folder, EngineOptions(cache=cache))

    assert "damaged" in caplog.text
    assert stat.S_IMODE(entry.stat().st_mode) == 0o700


@pytest.mark.parametrize("place", [".", "graphs"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_cache_that_others_may_write_is_not_used(
    folder: Path, tmp_path: Path, place: str, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What lies there is not read, nothing is written there, and one line says so."""
    cache = tmp_path / "cache"
    (cache / "graphs").mkdir(parents=True)
    (cache / place).chmod(mode)

    model = load_model(folder, EngineOptions(cache=cache))

    assert np.allclose(ask(model), ask(load_model(folder)))
    assert list((cache / "graphs").iterdir()) == []
    (record,) = caplog.records
    assert "others may write" in record.getMessage()
    assert "optimised in memory" in record.getMessage()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_cache_of_another_user_is_not_used(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever owns it can write there."""
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 12345, -1)

    load_model(folder, EngineOptions(cache=cache))

    assert list(cache.iterdir()) == []
    assert "belongs to another user" in caplog.text


def forge(cache: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    """Rewrites the cached graph and all that is recorded of it, as somebody who knows the format could."""
    (path,) = list_graphs(cache)
    graph = onnx.load(path, load_external_data=False)
    change(graph)
    path.write_bytes(graph.SerializeToString())
    entry = path.with_name(ENTRY_FILE)
    document = json.loads(entry.read_text())
    for name in (GRAPH_FILE, WEIGHTS_FILE):
        data = path.with_name(name).read_bytes()
        document["files"][name] = {"size": len(data), "sha256": sha256_hex(data)}
    entry.write_text(json.dumps(document, indent=1, sort_keys=True))
    return path


def swap_labels(graph: onnx.ModelProto) -> None:
    del graph.metadata_props[:]
    spec = replace(SPEC, labels=("stroke", "normal"), threshold=0.9)
    onnx.helper.set_model_props(graph, {METADATA_KEY: spec.to_json()})


def test_labels_and_threshold_are_the_models_own(folder: Path, tmp_path: Path) -> None:
    """A cached graph that says otherwise is not asked."""
    cache = tmp_path / "cache"
    load_model(folder, EngineOptions(cache=cache))
    path = forge(cache, swap_labels)
    forged = path.read_bytes()

    model = load_model(folder, EngineOptions(cache=cache))

    assert path.read_bytes() == forged  # it was used
    assert model.spec == SPEC


def change_bias(graph: onnx.ModelProto) -> None:
    for tensor in graph.graph.initializer:
        if tensor.name == "bias":
            tensor.CopyFrom(numpy_helper.from_array(np.array([5, 0], np.float32), "bias"))


def rename_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].name = "other"


def resize_input(graph: onnx.ModelProto) -> None:
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_value = SIDE + 1


def lengthen_weight(graph: onnx.ModelProto) -> None:
    for tensor in graph.graph.initializer:
        for place in tensor.external_data:
            if place.key == "length":
                place.value = "99999999"


def drop_graph(graph: onnx.ModelProto) -> None:
    graph.ClearField("graph")


@pytest.mark.parametrize("change", [change_bias, rename_input, resize_input, lengthen_weight, drop_graph])
def test_forged_graph_does_not_keep_the_model_from_being_served(
    folder: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It is found out by its answers, or as it loads; the model itself is served, and the graph removed."""
    cache = tmp_path / "cache"
    wanted = ask(load_model(folder, EngineOptions(cache=cache)))
    path = forge(cache, change)

    assert np.allclose(ask(load_model(folder, EngineOptions(cache=cache))), wanted)
    assert "removed" in caplog.text
    assert not path.exists()
    assert np.allclose(ask(load_model(folder, EngineOptions(cache=cache))), wanted)
    assert path.exists()


def test_nothing_that_happens_to_the_files_reaches_a_loaded_model(folder: Path, tmp_path: Path) -> None:
    """Weights are in memory, for both numbers of threads: neither altered nor cut files change an answer."""
    cache = tmp_path / "cache"
    load_model(folder, EngineOptions(cache=cache))
    model = load_model(folder, EngineOptions(cache=cache, threads=2, busy_threads=1))
    wanted = ask(model)
    (path,) = list_graphs(cache)
    weights = path.with_name(WEIGHTS_FILE)
    assert weights.stat().st_size > 4096
    with weights.open("r+b") as file:
        file.write(b"\0" * weights.stat().st_size)
    assert np.array_equal(ask(model), wanted)
    os.truncate(weights, 0)
    path.unlink()

    assert np.array_equal(ask(model), wanted)
    assert np.array_equal(model.run(np.full((1, SIDE, SIDE, 3), 150, np.uint8), busy=True), wanted)
    assert str(cache) not in Path("/proc/self/maps").read_text()


def test_no_model_hangs_on_a_cache_that_is_something_else(folder: Path, tmp_path: Path) -> None:
    """A named pipe or a link in a circle in its place, a path that cannot be."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for cache in ("pipe", "circle", "a\0b", "\ud800"):
        assert load_model(folder, EngineOptions(cache=tmp_path / cache)).spec == SPEC


def test_graph_of_another_processor_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layout is made for one kind of processor; a cache can be on a shared disk."""
    load_model(folder, EngineOptions(cache=tmp_path / "cache"))
    monkeypatch.setattr(graph_cache, "describe_processor", lambda: "another")
    load_model(folder, EngineOptions(cache=tmp_path / "cache"))

    assert len(list_graphs(tmp_path / "cache")) == 2
    assert processors.describe_processor() != "another"


def test_cache_that_cannot_be_written_is_done_without(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, and the model is served."""
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        model = load_model(folder, EngineOptions(cache=tmp_path / "file"))

    assert np.allclose(ask(model), ask(load_model(folder)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_fault_of_a_small_model_is_not_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has no graph in the cache, whatever folder there is for one: it is loaded once, and refused as it is."""
    folder = write_model(tmp_path / "models")
    monkeypatch.setattr(runtime, "measure_golden_difference", lambda model, golden: 1.0)
    opened = []
    open_engine = runtime.open_engine
    monkeypatch.setattr(runtime, "open_engine", lambda *values: opened.append(values) or open_engine(*values))

    with caplog.at_level(logging.WARNING), pytest.raises(ModelFileError) as refusal:
        load_model(folder, EngineOptions(cache=tmp_path / "cache"))

    assert refusal.value.reason == "MODEL_ANSWERS_WRONG"
    assert len(opened) == 1
    assert not caplog.records


def test_small_model_is_not_cached(tmp_path: Path) -> None:
    """There is nothing to gain."""
    load_model(write_model(tmp_path), EngineOptions(cache=tmp_path / "cache"))

    assert not (tmp_path / "cache").exists()
