"""A ``ModelInferRequest`` from its bytes: what protobuf would make of them, but bounded and with tensors left in place.

An empty input takes two bytes to send and eighty to hold, a pixel in ``uint_contents`` one and four. So of a message
within its bound protobuf would make something that is not. Here fields are counted, and there are views of tensors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from server.api.messages import read_varint
from server.errors import RequestError, malformed_request
from server.oip.request import Elements, InferRequest, InputTensor, Parameter, WantedOutput, invalid_tensor
from server.oip.tensors import BYTES, MOST_DIMENSIONS, UINT8

Value: TypeAlias = int | float | memoryview

MOST_FIELDS = 1024
"""Of a request, with all that is in it: 32 images and every output with parameters take about 200."""

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
"""Wire types of protobuf's encoding; the two that there are besides were groups, which proto3 does not have."""

MOST_PACKED_BYTES = 4 * 1024 * 1024
"""Of pixels that are packed as numbers: unpacking that takes 25 ms, in which the server does nothing else."""

FORMATS = {FIXED_64: "<d", FIXED_32: "<f"}
"""These messages have no other numbers of fixed size."""

CONTENTS = {1: "BOOL", 2: "INT32", 3: "INT64", 4: UINT8, 5: "UINT64", 6: "FP32", 7: "FP64", 8: BYTES}
"""Fields of ``InferTensorContents``, each by one of its datatypes."""


def read_request(data: bytes) -> InferRequest:
    """Reads a message. Fields that are not known are passed over.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, and TENSOR_INVALID where elements are given twice or not in one way.
    """
    return RequestReader().read(data)


class RequestReader:
    """Reads one message, of no more than ``MOST_FIELDS``."""

    def __init__(self) -> None:
        self._fields_left = MOST_FIELDS

    def read(self, data: bytes) -> InferRequest:
        """See ``read_request``."""
        texts: dict[int, str] = {}
        parameters: dict[str, Parameter] = {}
        inputs: list[InputTensor] = []
        outputs: list[WantedOutput] = []
        raw: list[memoryview] = []
        for number, value in self._walk(memoryview(data)):
            match number, value:
                case 1 | 2 | 3, memoryview():
                    texts[number] = read_text(value)
                case 4, memoryview():
                    self._add_parameter(parameters, value)
                case 5, memoryview():
                    inputs.append(self._read_input(value))
                case 6, memoryview():
                    outputs.append(self._read_wanted(value))
                case 7, memoryview():
                    raw.append(value)
        return InferRequest(
            model_name=texts.get(1, ""),
            model_version=texts.get(2, ""),
            id=texts.get(3, ""),
            parameters=parameters,
            inputs=join_raw(inputs, raw) if raw else inputs,
            outputs=outputs,
            is_raw=bool(raw),
        )

    def _walk(self, data: memoryview) -> Iterator[tuple[int, Value]]:
        """Yields number and value of each field: varints as int, those of fixed size as float, others as views."""
        position = 0
        while position < len(data):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise malformed_request()
            tag, position = read_varint(data, position)
            number, kind = tag >> 3, tag & 7
            if kind in (VARINT, LENGTH_DELIMITED):
                size, position = read_varint(data, position)
                if kind == VARINT:
                    yield number, size
                    continue
            elif kind in FORMATS:
                size = struct.calcsize(FORMATS[kind])
            else:
                raise malformed_request()
            if size > len(data) - position:
                raise malformed_request()
            part = data[position : position + size]
            position += size
            yield number, struct.unpack(FORMATS[kind], part)[0] if kind in FORMATS else part

    def _add_parameter(self, parameters: dict[str, Parameter], entry: memoryview) -> None:
        """Reads an entry of a map from text to ``InferParameter``."""
        name, parameter = "", memoryview(b"")
        for number, value in self._walk(entry):
            match number, value:
                case 1, memoryview():
                    name = read_text(value)
                case 2, memoryview():
                    parameter = value
        for number, value in self._walk(parameter):
            match number, value:
                case 1, int():
                    parameters[name] = bool(value)
                case 2, int():
                    parameters[name] = read_signed(value)
                case 3, memoryview():
                    parameters[name] = read_text(value)
                case 4, float():
                    parameters[name] = value
                case 5, int():
                    parameters[name] = value

    def _read_wanted(self, message: memoryview) -> WantedOutput:
        """Reads an ``InferRequestedOutputTensor``."""
        name = ""
        parameters: dict[str, Parameter] = {}
        for number, value in self._walk(message):
            match number, value:
                case 1, memoryview():
                    name = read_text(value)
                case 2, memoryview():
                    self._add_parameter(parameters, value)
        return WantedOutput(name, parameters)

    def _read_input(self, message: memoryview) -> InputTensor:
        """Reads an ``InferInputTensor``."""
        texts: dict[int, str] = {}
        shape: list[int] = []
        parameters: dict[str, Parameter] = {}
        contents: list[tuple[int, Value]] = []
        for number, value in self._walk(message):
            match number, value:
                case 1 | 2, memoryview():
                    texts[number] = read_text(value)
                case 3, int():
                    shape.append(read_signed(value))
                case 3, memoryview():
                    shape += read_sizes(value)
                case 4, memoryview():
                    self._add_parameter(parameters, value)
                case 5, memoryview():
                    contents += self._walk(value)
        name, datatype = texts.get(1, ""), texts.get(2, "")
        return InputTensor(name, datatype, tuple(shape), find_elements(name, datatype, contents), parameters)


def read_text(value: memoryview) -> str:
    """A string field."""
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise malformed_request() from None


def read_signed(number: int) -> int:
    """An int64 from its varint, which has all 64 bits where it is negative."""
    return number - (1 << 64) if number >> 63 else number


def read_sizes(packed: memoryview) -> list[int]:
    """The numbers of a shape, of which one more is read than a shape may have."""
    sizes: list[int] = []
    position = 0
    while position < len(packed) and len(sizes) <= MOST_DIMENSIONS:
        size, position = read_varint(packed, position)
        sizes.append(read_signed(size))
    return sizes


def join_raw(inputs: list[InputTensor], raw: list[memoryview]) -> list[InputTensor]:
    """Gives each input its raw elements."""
    if any(tensor.elements is not None for tensor in inputs):
        raise RequestError("TENSOR_INVALID", "The request has contents and raw_input_contents; expected one of them.")
    if len(inputs) != len(raw):
        raise RequestError(
            "TENSOR_INVALID",
            f"The request has {len(inputs)} inputs and {len(raw)} raw_input_contents; expected one for each.",
        )
    return [replace(tensor, elements=elements) for tensor, elements in zip(inputs, raw, strict=True)]


def find_elements(name: str, datatype: str, contents: list[tuple[int, Value]]) -> Elements | None:
    """Returns the elements in that field of ``InferTensorContents`` that is for a datatype; None: it is not there.

    Raises:
        RequestError: reason TENSOR_INVALID: another field has elements.
    """
    if datatype not in (BYTES, UINT8):
        return None  # which is wrong with it
    others = {CONTENTS[number] for number, _ in contents if CONTENTS.get(number, datatype) != datatype}
    if others:
        raise invalid_tensor("Input", name, f"contents of {datatype}", f"contents of {', '.join(sorted(others))}")
    values = [value for number, value in contents if number in CONTENTS and isinstance(value, memoryview)]
    if datatype == BYTES:
        return values or None
    return unpack_pixels(name, values[0]) if len(values) == 1 else None


def unpack_pixels(name: str, packed: memoryview) -> NDArray[np.uint8]:
    """Reads numbers from 0 to 255 that are packed as varints: from 128 on with a second byte, which is 1.

    Raises:
        RequestError: reason TENSOR_INVALID: one is larger, or they are too many.
    """
    if len(packed) > MOST_PACKED_BYTES:
        most = f"at most {MOST_PACKED_BYTES:,} bytes of uint_contents (raw_input_contents may be longer)"
        raise invalid_tensor("Input", name, most, f"{len(packed):,}")
    data = np.frombuffer(packed, np.uint8)
    goes_on = data >= 128
    is_second = np.zeros_like(goes_on)
    is_second[1:] = goes_on[:-1]
    if goes_on[-1:].any() or (data[is_second] != 1).any():
        raise invalid_tensor("Input", name, "elements from 0 to 255", "others")
    return data[~is_second]
