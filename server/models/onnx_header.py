"""What an ONNX file says of itself, read from its bytes: metadata, inputs, and weights that lie in another file.

The contract is taken from the very bytes that were verified, not from what a runtime made of them, or found in a cache.
The serving box has no ``onnx`` package, and needs little of the format (protobuf's wire format, ``onnx.proto3``): a few
nested messages, of which all else is skipped. Every length is checked before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from server.errors import ModelFileError
from server.models.engines.engine import Port

MOST_FIELDS = 2_000_000
"""Of one walk. ResNet-50 has some 2,000; a file of empty fields would keep the start busy for hours."""

MOST_DEPTH = 32
"""Of graphs within graphs; a network has none, one with loops a few."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
DTYPES = {FLOAT: "float32", UINT8: "uint8", INT8: "int8", INT32: "int32", INT64: "int64"}
"""NumPy's names of ``TensorProto.DataType``; other types are no concern of the contract."""


class MalformedError(ValueError):
    """The bytes are not of the format."""


@dataclass(frozen=True)
class Header:
    """What is read of a ``ModelProto``."""

    metadata: dict[str, str]
    inputs: list[Port]
    is_complete: bool
    """False when values lie in another file, which no digest of this one covers."""


class ExternalTensor(NamedTuple):
    """A weight whose values are in a file beside the graph."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int


def read_header(data: bytes, source: str) -> Header:
    """Reads metadata and inputs.

    Args:
        data: an ONNX file.
        source: what to call it in errors.

    Raises:
        ModelFileError: reason MODEL_FILE_INVALID.
    """
    try:
        metadata: dict[str, str] = {}
        graphs: list[memoryview] = []
        for number, value in iterate(memoryview(data)):
            if number == 14:  # metadata_props
                entry = dict(iterate(as_bytes(value)))
                key = as_text(entry.get(1, b""))
                if key in metadata:
                    raise MalformedError(f"two metadata entries {key[:100]!r}")
                metadata[key] = as_text(entry.get(2, b""))
            elif number == 7:  # graph
                graphs.append(as_bytes(value))
        if len(graphs) != 1:
            raise MalformedError("it has no graph, or several")
        functions = [as_bytes(value) for number, value in iterate(memoryview(data)) if number == 25]
        is_complete = not any(map(has_external, graphs)) and not any(map(has_external_nodes, functions))
        return Header(metadata, read_inputs(graphs[0]), is_complete)
    except MalformedError as error:
        raise ModelFileError(
            "MODEL_FILE_INVALID",
            f"{source}: is not an ONNX file ({error}); copy the model folder again from where it was made, or convert "
            "the model again (python -m converter)",
        ) from None


def read_inputs(graph: memoryview) -> list[Port]:
    """The inputs of a ``GraphProto``, less those that are weights, as old files list them too."""
    ports: list[Port] = []
    weights: set[str] = set()
    for number, value in iterate(graph):
        if number == 11:  # input
            ports.append(read_port(as_bytes(value)))
        elif number == 5:  # initializer
            weights.update(as_text(name) for field, name in iterate(as_bytes(value)) if field == 8)
    return [port for port in ports if port.name not in weights]


def read_port(info: memoryview) -> Port:
    """A ``ValueInfoProto``: name, and element type and shape of its tensor."""
    name, dtype, shape = "", "unknown", []
    for number, value in iterate(info):
        if number == 1:
            name = as_text(value)
        elif number == 2:
            for tensor in select(as_bytes(value), 1):
                for field, part in iterate(tensor):
                    if field == 1:
                        dtype = DTYPES.get(as_number(part), f"type {part}")
                    elif field == 2:
                        shape = [read_dimension(dimension) for dimension in select(as_bytes(part), 1)]
    return Port(name, dtype, tuple(shape))


def read_dimension(dimension: memoryview) -> int | None:
    """A size, or None where any goes."""
    sizes = [as_number(value) for number, value in iterate(dimension) if number == 1]
    return sizes[-1] if sizes and 0 < sizes[-1] < 2**31 else None


def has_external(graph: memoryview, depth: int = 0) -> bool:
    """Whether any tensor of a ``GraphProto`` has its values in another file: weights, sparse ones, and those in
    attributes of nodes and in graphs within them."""
    if depth > MOST_DEPTH:
        raise MalformedError(f"graphs within graphs, more than {MOST_DEPTH} deep")
    for number, value in iterate(graph):
        if number == 5 and is_external(as_bytes(value)):  # initializer
            return True
        if number == 15 and any(map(is_external, list_messages(as_bytes(value), 1, 2))):  # sparse_initializer
            return True
        if number == 1 and has_external_attribute(as_bytes(value), depth):  # node
            return True
    return False


def has_external_nodes(function: memoryview) -> bool:
    """Whether a node of a ``FunctionProto`` has."""
    return any(has_external_attribute(node, 0) for node in select(function, 7))


def has_external_attribute(node: memoryview, depth: int) -> bool:
    """Whether an attribute of a ``NodeProto`` has: tensors, sparse ones, graphs."""
    for attribute in select(node, 5):
        sparse = [part for one in list_messages(attribute, 22, 23) for part in list_messages(one, 1, 2)]
        if any(map(is_external, [*list_messages(attribute, 5, 10), *sparse])):
            return True
        if any(has_external(graph, depth + 1) for graph in list_messages(attribute, 6, 11)):
            return True
    return False


def is_external(tensor: memoryview) -> bool:
    """Whether the values of a ``TensorProto`` are in another file, as either of its two fields says."""
    return any(number == 13 or (number == 14 and value == 1) for number, value in iterate(tensor))


def list_messages(message: memoryview, *wanted: int) -> list[memoryview]:
    """The fields of some numbers, which are messages themselves."""
    return [as_bytes(value) for number, value in iterate(message) if number in wanted]


def list_external(data: bytes) -> list[ExternalTensor]:
    """The weights of a file's graph that lie in another file.

    Raises:
        MalformedError: it is no ONNX file, or a weight is not one that a buffer can be taken for.
    """
    found = []
    for graph in select(memoryview(data), 7):
        for tensor in select(graph, 5):
            fields = list(iterate(tensor))
            if any(number == 14 and value == 1 for number, value in fields):  # data_location: external
                found.append(read_external(fields))
    return found


def has_inner_graph(data: bytes) -> bool:
    """Whether a node of a file's graph has a graph of its own, such as an If.

    Raises:
        MalformedError: it is no ONNX file.
    """
    nodes = (node for graph in select(memoryview(data), 7) for node in select(graph, 1))
    return any(list_messages(attribute, 6, 11) for node in nodes for attribute in select(node, 5))


def read_external(fields: list[tuple[int, int | memoryview]]) -> ExternalTensor:
    """One ``TensorProto`` without values of its own."""
    name, dtype, shape, places = "", "", list[int](), dict[str, str]()
    for number, value in fields:
        if number == 1:
            shape += [as_number(value)] if isinstance(value, int) else iterate_varints(value)
        elif number == 2:
            dtype = DTYPES.get(as_number(value), "")
        elif number == 8:
            name = as_text(value)
        elif number == 13:
            entry = dict(iterate(as_bytes(value)))
            places[as_text(entry.get(1, b""))] = as_text(entry.get(2, b""))
    numbers = (places.get("offset", "0"), places.get("length", ""))
    if not dtype or not all(text.isascii() and text.isdigit() and len(text) < 20 for text in numbers):
        raise MalformedError(f"weight {name[:100]!r} is of an unknown kind")
    return ExternalTensor(name, dtype, tuple(shape), int(numbers[0]), int(numbers[1]))


def iterate(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a message in their order: number, and value as a number or as its bytes."""
    position, end = 0, len(message)
    for _ in range(MOST_FIELDS):
        if position == end:
            return
        tag, position = read_varint(message, position)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise MalformedError("a field has no number")
        if kind == VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if kind == BYTES:
            length, position = read_varint(message, position)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise MalformedError(f"a field of wire type {kind}")
        if length > end - position:
            raise MalformedError("it ends within a field")
        yield number, message[position : position + length]
        position += length
    raise MalformedError(f"more than {MOST_FIELDS:,} fields")


def iterate_varints(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    position = 0
    while position < len(packed):
        value, position = read_varint(packed, position)
        yield value


def read_varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of at most 64 bits, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise MalformedError("it ends within a number")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), position
    raise MalformedError("a number has more than 64 bits")


def select(message: memoryview, wanted: int) -> Iterator[memoryview]:
    """The fields of one number, which are messages themselves."""
    return (as_bytes(value) for number, value in iterate(message) if number == wanted)


def as_bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise MalformedError("a number where a message should be")
    return value


def as_number(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise MalformedError("bytes where a number should be")
    return value


def as_text(value: int | memoryview | bytes) -> str:
    if isinstance(value, int):
        raise MalformedError("a number where a text should be")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise MalformedError("a text is not UTF-8") from None
