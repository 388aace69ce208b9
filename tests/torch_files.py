"""Files as ``torch.save`` wrote them before PyTorch 1.6, made without PyTorch."""

from __future__ import annotations

import io
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

MAGIC = 0x1950A86A20F9469CFC6C


class FloatStorage:
    """Stands for PyTorch's, by name."""


class LongStorage:
    """The same, of int64."""


def _rebuild_tensor_v2(*arguments: object) -> None:
    """Stands for PyTorch's, by name."""


class Tensor:
    """Is written as PyTorch writes a tensor."""

    def __init__(self, key: str, array: NDArray[Any], strides: tuple[int, ...] | None) -> None:
        kind = LongStorage if array.dtype == np.int64 else FloatStorage
        self.identity = ("storage", kind, key, "cpu", array.size, None)
        self.view = (0, array.shape, strides or tuple(step // array.itemsize for step in array.strides))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, (Identity(self.identity), *self.view, False, OrderedDict())


class Identity:
    """Is written as a persistent id."""

    def __init__(self, value: tuple[Any, ...]) -> None:
        self.value = value


class Pickler(pickle.Pickler):
    """Knows identities."""

    def persistent_id(self, thing: Any) -> Any:
        """That of a storage."""
        return thing.value if isinstance(thing, Identity) else None


def write_torch_file(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    *,
    strides: Mapping[str, tuple[int, ...]] | None = None,
    extra: Any = None,
) -> Path:
    """Writes arrays by name, float32 or int64; ``extra`` is one more entry, whatever it is."""
    fake, utilities = ModuleType("torch"), ModuleType("torch._utils")
    stream = io.BytesIO()
    with mock.patch.dict(sys.modules, {"torch": fake, "torch._utils": utilities}):
        for thing, module in ((FloatStorage, fake), (LongStorage, fake), (_rebuild_tensor_v2, utilities)):
            setattr(module, thing.__name__, thing)
        with (
            mock.patch.object(FloatStorage, "__module__", "torch"),
            mock.patch.object(LongStorage, "__module__", "torch"),
            mock.patch.object(_rebuild_tensor_v2, "__module__", "torch._utils"),
        ):
            state: dict[str, Any] = OrderedDict(
                (name, Tensor(str(place), array, (strides or {}).get(name)))
                for place, (name, array) in enumerate(arrays.items())
            )
            if extra is not None:
                state["extra"] = extra
            for part in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}, state):
                Pickler(stream, protocol=2).dump(part)
    pickle.dump([str(place) for place in range(len(arrays))], stream, protocol=2)
    for array in arrays.values():
        stream.write(array.size.to_bytes(8, "little") + array.tobytes())
    path.write_bytes(stream.getvalue())
    return path
