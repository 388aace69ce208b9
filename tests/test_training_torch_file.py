"""Tensors of PyTorch's files without PyTorch: read as they are, and nothing of a hostile file is run."""

from __future__ import annotations

import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.torch_files import MAGIC, write_torch_file
from training.errors import TrainingError
from training.fit import torch_file
from training.fit.torch_file import read_torch_file

ARRAYS = {
    "kernel": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "count": np.array(5, np.int64),
    "bias": np.linspace(-1, 1, 7, dtype=np.float32),
}


def test_tensors_are_read_by_name(tmp_path: Path) -> None:
    """With their shapes and types, a number alone included."""
    tensors = read_torch_file(write_torch_file(tmp_path / "a.pth", ARRAYS))
    assert tensors.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert tensors[name].dtype == array.dtype
        assert np.array_equal(tensors[name], array)
        assert tensors[name].shape == array.shape


def test_order_of_the_numbers_is_the_tensors_own(tmp_path: Path) -> None:
    """A tensor that was transposed before it was saved is read as it was seen."""
    path = write_torch_file(tmp_path / "a.pth", ARRAYS, strides={"kernel": (1, 2, 6, 12)})
    flat = ARRAYS["kernel"].reshape(2, 2, 3, 2)
    assert np.array_equal(read_torch_file(path)["kernel"], flat.transpose(3, 2, 1, 0))


class Call:
    """Is written as a call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (Call(os.system, "touch hacked"), r"(posix|nt)\.system has no place"),
        (Call(eval, "open('hacked', 'w')"), r"__builtin__\.eval has no place"),
        (Call(print, "hacked"), r"__builtin__\.print has no place"),
        (1.5, "operation BINFLOAT has no place"),
        ({1: 2}, "a key that is not a text"),
        ("text", "not a dictionary of tensors"),
    ],
    ids=["system", "eval", "print", "float", "key", "text"],
)
def test_anything_else_is_refused_and_not_run(
    extra: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a pickle would call is a name, and one that is not known ends the reading."""
    monkeypatch.chdir(tmp_path)
    path = write_torch_file(tmp_path / "a.pth", ARRAYS, extra=extra)
    with pytest.raises(TrainingError, match=message) as raised:
        read_torch_file(path)
    assert str(path) in str(raised.value)
    assert os.listdir(tmp_path) == ["a.pth"]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "strides",
    [(12, 4, 2, 2), (100, 4, 2, 1), (12, -4, 2, 1), (1, 1, 1)],
    ids=["beyond", "far", "backwards", "few"],
)
def test_tensor_beyond_its_numbers_is_refused(strides: tuple[int, ...], tmp_path: Path) -> None:
    """No memory of the process is taken for weights."""
    with pytest.raises(TrainingError, match="a tensor"):
        read_torch_file(write_torch_file(tmp_path / "a.pth", ARRAYS, strides={"kernel": strides}))


def test_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """One line, whatever is missing."""
    whole = write_torch_file(tmp_path / "a.pth", ARRAYS).read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(TrainingError) as raised:
            read_torch_file(tmp_path / "cut.pth")
        assert "\n" not in str(raised.value)


def test_changed_bytes_are_read_or_refused(tmp_path: Path) -> None:
    """Never anything but tensors or one line."""
    whole = write_torch_file(tmp_path / "a.pth", ARRAYS).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        (tmp_path / "b.pth").write_bytes(data)
        try:
            tensors = read_torch_file(tmp_path / "b.pth")
        except TrainingError:
            continue
        assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


def test_large_claims_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place in the memo of 2 ** 32, a text of 4 GB, operations without end: bounded by what is there."""
    for body in (b"]r\xff\xff\xff\xff.", b"X\xff\xff\xff\xff", b"N" * 300_000):
        path = tmp_path / "a.pth"
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": True})) + body)
        with pytest.raises(TrainingError):
            read_torch_file(path)
    monkeypatch.setattr(torch_file, "MOST_BYTES", 1000)
    with pytest.raises(TrainingError, match="are more than 1,000"):
        read_torch_file(path)


def test_nothing_is_unpickled() -> None:
    """Operations are read by pickletools, which runs none of them."""
    assert not hasattr(torch_file, "pickle")
    assert torch_file.pickletools is pickletools


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a newer file", b"\x80\x02K\x01.", b"no pickle"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    """Among them those of newer versions of PyTorch, which are archives."""
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.pth"):
        read_torch_file(tmp_path / "a.pth")
