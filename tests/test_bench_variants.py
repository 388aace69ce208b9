"""How a benchmark names a precision."""

from __future__ import annotations

from pathlib import Path

from bench.serving.variants import list_precisions, load_bare, server_flags
from tests.fakes import SPEC, write_model


def test_a_model_in_one_precision_needs_no_wish(tmp_path: Path) -> None:
    """The server has nothing to choose from."""
    write_model(tmp_path)

    assert list_precisions(tmp_path) == ["fp32"]
    assert server_flags(tmp_path, "fp32") == []
    assert load_bare(tmp_path, "fp32").spec == SPEC


def test_a_model_in_two_precisions_is_asked_for_each(tmp_path: Path) -> None:
    """The one that the server prefers comes first."""
    (write_model(tmp_path) / "model.int8.onnx").write_bytes(b"")

    assert list_precisions(tmp_path) == ["int8", "fp32"]
    assert server_flags(tmp_path, "fp32") == ["--precision", "fp32"]
