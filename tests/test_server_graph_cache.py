"""Optimised graphs on disk: used when whole, made again when damaged, done without where there is no place."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from server import graph_cache, onnxruntime_engine, processors
from server.graph_cache import GRAPH_FILE
from server.manifest import MODEL_FILE, sha256_hex
from server.runtime import OnnxModel, load_model
from tests.fakes import SIDE, build_tiny_graph, write_model


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
    first = load_model(folder, cache=tmp_path / "cache", threads=2, busy_threads=1)
    (graph,) = list_graphs(tmp_path / "cache")
    written = graph.stat().st_mtime_ns
    second = load_model(folder, cache=tmp_path / "cache")

    assert list_graphs(tmp_path / "cache") == [graph]
    assert graph.stat().st_mtime_ns == written
    assert np.allclose(ask(plain), ask(first))
    assert np.allclose(ask(plain), ask(second))
    assert {model.digest for model in (plain, first, second)} == {sha256_hex((folder / MODEL_FILE).read_bytes())}


@pytest.mark.parametrize("name", [GRAPH_FILE, graph_cache.WEIGHTS_FILE])
def test_damaged_graph_is_made_again(folder: Path, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """One flipped bit is found out by the digest, and is not served."""
    cache = tmp_path / "cache"
    load_model(folder, cache=cache)
    (graph,) = list_graphs(cache)
    damaged = graph.with_name(name)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)

    load_model(folder, cache=cache)

    (again,) = list_graphs(cache)
    assert again.with_name(name).read_bytes() != bytes(data)
    assert "damaged" in caplog.text


def test_graph_of_another_processor_is_not_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layout is made for one kind of processor; a cache can be on a shared disk."""
    load_model(folder, cache=tmp_path / "cache")
    monkeypatch.setattr(graph_cache, "describe_processor", lambda: "another")
    load_model(folder, cache=tmp_path / "cache")

    assert len(list_graphs(tmp_path / "cache")) == 2
    assert processors.describe_processor() != "another"


def test_cache_that_cannot_be_written_is_done_without(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log, and the model is served."""
    (tmp_path / "file").write_text("not a folder")
    with caplog.at_level(logging.WARNING):
        model = load_model(folder, cache=tmp_path / "file")

    assert np.allclose(ask(model), ask(load_model(folder)))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_small_model_is_not_cached(tmp_path: Path) -> None:
    """There is nothing to gain."""
    load_model(write_model(tmp_path), cache=tmp_path / "cache")

    assert not (tmp_path / "cache").exists()
