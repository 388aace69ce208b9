"""Tensors of a file that PyTorch wrote (``torch.save`` before version 1.6), without PyTorch, as NumPy arrays.

Such a file is made of pickles and, behind them, the numbers. A pickle is a program that may call anything, so none is
run: its operations are read one by one, and only those are known that a dictionary of tensors is made of. What looks
like a call to a function of PyTorch is a name here; nothing is imported. All sizes are held against the file's.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

MOST_BYTES = 512 << 20
"""Of a file: it is read as a whole."""

MOST_OPERATIONS = 200_000
"""Of a pickle: three hundred tensors take ten thousand."""

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
DICTIONARY = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
TYPES: dict[str, np.dtype[Any]] = {"torch FloatStorage": np.dtype("<f4"), "torch LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle names: of ``DICTIONARY``, ``TENSOR``, and the keys of ``TYPES``."""

    text: str


@dataclass(frozen=True)
class Storage:
    """Numbers that stand behind the pickles."""

    key: str
    kind: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class Tensor:
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements."""


class Mark:
    """On the stack, where the items of a tuple, list or dictionary begin."""


def read_torch_file(path: Path) -> dict[str, NDArray[Any]]:
    """Reads the tensors of a file by name: float32 or int64, C-contiguous.

    Raises:
        TrainingError: it cannot be read, or is not a plain dictionary of such tensors in PyTorch's older format.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"{size:,} bytes are more than {MOST_BYTES:,}")
        stream = io.BytesIO(path.read_bytes())
        magic, version, machine = (read_pickle(stream) for _ in range(3))
        if magic != MAGIC or version != VERSION or not isinstance(machine, dict) or not machine.get("little_endian"):
            raise ValueError("not a file of torch.save before PyTorch 1.6 on a little-endian machine")
        tensors = read_pickle(stream)
        if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
            raise ValueError("not a dictionary of tensors")
        numbers = read_numbers(stream, read_pickle(stream), {tensor.storage for tensor in tensors.values()})
        return {name: view_tensor(tensor, numbers[tensor.storage.key]) for name, tensor in tensors.items()}
    except OSError as error:
        raise TrainingError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise TrainingError(f"{path}: {' '.join(str(error).split())[:200]}") from None


def read_pickle(stream: io.BytesIO) -> Any:
    """Reads one pickle of protocol 2 into dictionaries, lists, tuples, strings, numbers and tensors.

    Raises:
        ValueError: it has anything else in it.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if number == MOST_OPERATIONS:
            raise ValueError(f"more than {MOST_OPERATIONS:,} operations")
        match opcode.name:
            case "STOP":
                (found,) = stack
                return found
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "PROTO":
                pass
            case "GLOBAL":
                stack.append(name_global(str(argument)))
            case "MARK":
                stack.append(Mark())
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case _ if opcode.name in BUILDERS:
                BUILDERS[opcode.name](stack)
            case _:
                raise ValueError(f"the operation {opcode.name} has no place in a dictionary of tensors")
    raise ValueError("cut short")


def name_global(text: str) -> Name:
    """Takes the name of a class or function down, if it is one of the few that are known."""
    if text not in (DICTIONARY, TENSOR, *TYPES):
        raise ValueError(f"{text.replace(' ', '.')} has no place in a dictionary of tensors")
    return Name(text)


def pop_items(stack: list[Any]) -> list[Any]:
    """Takes off what is above the last mark, and the mark."""
    place = max(index for index, item in enumerate(stack) if isinstance(item, Mark))
    items = stack[place + 1 :]
    del stack[place:]
    return items


def pop_count(stack: list[Any], count: int) -> tuple[Any, ...]:
    """Takes off the last so many items."""
    if len(stack) < count:
        raise ValueError("takes more than there is")
    items = tuple(stack[-count:])
    del stack[-count:]
    return items


def set_items(stack: list[Any], items: list[Any] | tuple[Any, ...]) -> None:
    """Puts keys and values, in turn, into the dictionary on top."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(stack[-1], dict) or not isinstance(key, str):
            raise ValueError("a key that is not a text")
        stack[-1][key] = value


def append_items(stack: list[Any]) -> None:
    """Puts items at the end of the list below them."""
    items = pop_items(stack)
    if not isinstance(stack[-1], list):
        raise ValueError("items of something that is not a list")
    stack[-1].extend(items)


def call(stack: list[Any]) -> None:
    """Does what a call of one of the two known functions would do."""
    function, arguments = pop_count(stack, 2)
    if function == Name(DICTIONARY) and arguments == ():
        stack.append({})
        return
    if function != Name(TENSOR) or not isinstance(arguments, tuple):
        raise ValueError("a call that has no place in a dictionary of tensors")
    storage, offset, shape, strides, *_ = arguments
    stack.append(Tensor(storage, offset, shape, strides))


def make_storage(stack: list[Any]) -> None:
    """Makes a storage of what names it: ("storage", type, key, device, number of elements, None)."""
    _, kind, key, _, count, view = stack.pop()
    if view is not None or not isinstance(key, str) or not is_count(count):
        raise ValueError("a storage that is described otherwise than PyTorch describes it")
    stack.append(Storage(key, TYPES[kind.text], count))


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


BUILDERS: dict[str, Callable[[list[Any]], None]] = {
    "NONE": lambda stack: stack.append(None),
    "NEWTRUE": lambda stack: stack.append(True),
    "NEWFALSE": lambda stack: stack.append(False),
    "EMPTY_DICT": lambda stack: stack.append({}),
    "EMPTY_LIST": lambda stack: stack.append([]),
    "EMPTY_TUPLE": lambda stack: stack.append(()),
    "TUPLE": lambda stack: stack.append(tuple(pop_items(stack))),
    "TUPLE1": lambda stack: stack.append(pop_count(stack, 1)),
    "TUPLE2": lambda stack: stack.append(pop_count(stack, 2)),
    "TUPLE3": lambda stack: stack.append(pop_count(stack, 3)),
    "SETITEM": lambda stack: set_items(stack, pop_count(stack, 2)),
    "SETITEMS": lambda stack: set_items(stack, pop_items(stack)),
    "APPENDS": append_items,
    "REDUCE": call,
    "BUILD": lambda stack: stack.pop(),  # versions of the modules, which say nothing of the numbers
    "BINPERSID": make_storage,
}


def read_numbers(stream: io.BytesIO, keys: Any, storages: set[Storage]) -> dict[str, NDArray[Any]]:
    """Reads the numbers of all storages, in the order of their keys: a count of eight bytes, then the numbers.

    Raises:
        ValueError: the file is cut short, or says different things of a storage.
    """
    known = {storage.key: storage for storage in storages}
    if not isinstance(keys, list) or sorted(keys) != sorted(known) or len(known) != len(storages):
        raise ValueError("tensors and numbers do not belong together")
    numbers: dict[str, NDArray[Any]] = {}
    for key in keys:
        storage = known[key]
        if int.from_bytes(stream.read(8), "little") != storage.count:
            raise ValueError(f"there are not {storage.count:,} numbers of storage {key}")
        data = stream.read(storage.count * storage.kind.itemsize)
        if len(data) != storage.count * storage.kind.itemsize:
            raise ValueError("cut short")
        numbers[key] = np.frombuffer(data, storage.kind)
    return numbers


def view_tensor(tensor: Tensor, numbers: NDArray[Any]) -> NDArray[Any]:
    """Returns a tensor as an array of its own.

    Raises:
        ValueError: it reaches beyond its numbers, or uses some of them often.
    """
    shape, strides = tensor.shape, tensor.strides
    if len(shape) != len(strides) or not all(map(is_count, (tensor.offset, *shape, *strides))):
        raise ValueError("a tensor whose shape makes no sense")
    reach = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 in shape or reach >= numbers.size or math.prod(shape) > numbers.size:
        raise ValueError("a tensor that reaches beyond its numbers")
    start = numbers[tensor.offset :]
    bytes_apart = [stride * numbers.itemsize for stride in strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(start, shape, bytes_apart)).reshape(shape)
