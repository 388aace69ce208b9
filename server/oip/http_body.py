"""The protocol's bodies over HTTP: JSON, and behind it tensors as bytes (Triton's binary tensor data extension).

JSON takes many times its size once it is read, so what it may hold is bounded, too. Pixels as JSON are for small
things; encoded images are bytes, which JSON has not: they come behind it, or as base64 where their tensor says so.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from server.errors import RequestError
from server.models.strict_json import join_pairs, refuse
from server.oip.outputs import FP32, OutputTensor
from server.oip.request import (
    Elements,
    InferRequest,
    InputTensor,
    Parameters,
    WantedOutput,
    invalid_parameter,
    invalid_tensor,
    read_whole_number,
)
from server.oip.tensors import BYTES, MOST_DIMENSIONS, UINT8

HEADER_LENGTH = "inference-header-content-length"
"""The header that says how many bytes of a body are JSON; without it all are."""

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
"""Parameters: of a tensor that is behind the JSON; of an output that is to be there; of a request, for all outputs."""

BASE64 = ("content_type", "base64")
"""The parameter of a BYTES tensor, and its value, whose strings are base64 of the bytes (as MLServer's clients say)."""

MOST_VALUES = 300_000
"""In a document: 512 x 512 grey pixels are 262,144. Reading that takes 20 ms, in which the server does nothing else."""

MOST_NESTED = 10_000
"""Lists and objects in a document: each takes more time than a number."""

LARGE_DOCUMENT, MOST_VALUES_OF_LARGE = 2 * 1024 * 1024, 500
"""A document of more bytes holds images as base64, which are few: digits take longer to read than that."""

MOST_SIZE = 2**63


@dataclass(frozen=True)
class HttpAnswer:
    """A body and what its headers must say."""

    body: bytes
    json_length: int | None
    """Of its beginning; None: all of it is JSON."""

    @property
    def headers(self) -> dict[str, str]:
        """By name."""
        if self.json_length is None:
            return {"content-type": "application/json"}
        return {"content-type": "application/octet-stream", HEADER_LENGTH: str(self.json_length)}


def malformed_body(why: str) -> RequestError:
    return RequestError("REQUEST_MALFORMED", f"The body is not an inference request: {why}.")


def read_request(body: bytes, header_length: str | None, *, model_name: str, model_version: str = "") -> InferRequest:
    """Reads a body.

    Args:
        body: as it came, without compression.
        header_length: value of the header ``HEADER_LENGTH``; None: it is not there.
        model_name: as in the address.
        model_version: likewise; empty: none.

    Raises:
        RequestError: reasons REQUEST_MALFORMED, TENSOR_INVALID, and PARAMETER_INVALID.
    """
    length = len(body)
    if header_length is not None:
        is_number = header_length.isascii() and header_length.isdigit() and len(header_length) < 20
        if not is_number or int(header_length) > len(body):
            raise malformed_body(f"{HEADER_LENGTH} must be how many of its {len(body):,} bytes are JSON")
        length = int(header_length)
    document = parse_json(body[:length])
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise malformed_body('"id" must be a string')
    behind = memoryview(body)[length:]
    inputs = []
    for entry in list_objects(document, "inputs"):
        tensor, behind = read_input(entry, behind)
        inputs.append(tensor)
    if len(behind):
        raise malformed_body(f"{len(behind):,} bytes behind the JSON are of no input: check binary_data_size")
    return InferRequest(
        model_name=model_name,
        model_version=model_version,
        id=request_id,
        parameters=find_parameters(document),
        inputs=inputs,
        outputs=[WantedOutput(find_name(one), find_parameters(one)) for one in list_objects(document, "outputs")],
    )


def parse_json(text: bytes) -> dict[str, Any]:
    """Returns the object that a document is.

    Raises:
        RequestError: reason REQUEST_MALFORMED.
    """
    nested = text.count(b"[") + text.count(b"{")
    most_values = MOST_VALUES if len(text) <= LARGE_DOCUMENT else MOST_VALUES_OF_LARGE
    if nested > MOST_NESTED or nested + text.count(b",") > most_values:
        raise malformed_body("it holds too many values: send tensors as binary data, flat, or as encoded images")
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=join_pairs, parse_constant=refuse)
    except UnicodeDecodeError:
        raise malformed_body("it is not UTF-8") from None
    except RecursionError:
        raise malformed_body("it is nested too deeply") from None
    except json.JSONDecodeError:
        raise malformed_body("it is not JSON") from None
    except ValueError as error:
        why = str(error)
        raise malformed_body("a number is too large" if why.startswith("Exceeds the limit") else why) from None
    if not isinstance(document, dict):
        raise malformed_body("it is not an object")
    return document


def list_objects(document: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """The objects in a list of a document; none where there is no list."""
    entries = document.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise malformed_body(f'"{key}" must be a list of objects')
    yield from entries


def find_name(entry: Mapping[str, Any]) -> str:
    """The name of a tensor."""
    name = entry.get("name")
    if not isinstance(name, str):
        raise malformed_body('a tensor has no "name"')
    return name


def find_parameters(entry: Mapping[str, Any]) -> Parameters:
    """The parameters of a request or tensor; what cannot be one is none that is known."""
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise malformed_body('"parameters" must be an object')
    return {name: value for name, value in parameters.items() if isinstance(value, bool | int | float | str)}


def read_input(entry: Mapping[str, Any], behind: memoryview) -> tuple[InputTensor, memoryview]:
    """Returns a tensor and what is behind its elements."""
    name, parameters = find_name(entry), find_parameters(entry)
    datatype, shape, data = entry.get("datatype"), entry.get("shape"), entry.get("data")
    if not isinstance(datatype, str):
        raise invalid_tensor("Input", name, 'a "datatype"', "none")
    if not isinstance(shape, list) or not all(type(size) is int and abs(size) < MOST_SIZE for size in shape):
        raise invalid_tensor("Input", name, 'a "shape", a list of whole numbers', "another")
    size = read_whole_number(parameters, BINARY_SIZE, 0, "a number of bytes")
    elements: Elements | None
    if size is None:
        elements = None if data is None else read_data(name, datatype, data, parameters)
    elif data is not None:
        raise invalid_tensor("Input", name, f'"data" or {BINARY_SIZE}', "both")
    elif size > len(behind):
        raise invalid_tensor("Input", name, f"{size:,} bytes behind the JSON, as stated", f"{len(behind):,}")
    else:
        elements, behind = behind[:size], behind[size:]
    return InputTensor(name, datatype, tuple(shape), elements, parameters), behind


def read_data(name: str, datatype: str, data: object, parameters: Parameters) -> Elements | None:
    """The elements of a tensor from its list, which may be nested; None where the datatype has no place here."""
    flat = flatten(data)
    if flat is None:
        raise invalid_tensor("Input", name, '"data" as a list', "another")
    if datatype == UINT8:
        if not all(type(value) is int for value in flat):
            raise invalid_tensor("Input", name, "elements from 0 to 255", "others")
        try:
            return np.frombuffer(bytes(flat), np.uint8)
        except ValueError:
            raise invalid_tensor("Input", name, "elements from 0 to 255", "others") from None
    if datatype != BYTES:
        return None
    if not all(isinstance(value, str) for value in flat):
        raise invalid_tensor("Input", name, "elements that are strings", "others")
    try:
        if parameters.get(BASE64[0]) == BASE64[1]:
            return [binascii.a2b_base64(value, strict_mode=True) for value in flat]
        return [value.encode() for value in flat]
    except (binascii.Error, ValueError):
        raise invalid_tensor("Input", name, "UTF-8, or base64 where content_type says so", "another text") from None


def flatten(data: object) -> Sequence[Any] | None:
    """A list of lists, as deep as a tensor has dimensions, as one list; None: it is no list."""
    if not isinstance(data, list):
        return None
    for _ in range(MOST_DIMENSIONS):
        if not data or not all(type(entry) is list for entry in data):
            break
        data = list(chain.from_iterable(data))
    return data


def check_binary(request: InferRequest) -> None:
    """Looks at what is said of the form of the outputs.

    Raises:
        RequestError: reason PARAMETER_INVALID.
    """
    for name, parameters in [(ALL_BINARY, request.parameters), *((BINARY, one.parameters) for one in request.outputs)]:
        if not isinstance(parameters.get(name, False), bool):
            raise invalid_parameter(name, "true or false", parameters[name])


def write_answer(
    request: InferRequest, outputs: Sequence[OutputTensor], *, model: tuple[str, str], parameters: Parameters
) -> HttpAnswer:
    """Makes the body of an answer.

    Args:
        request: what is answered.
        outputs: the tensors.
        model: name and version of the one that judged.
        parameters: of the answer.
    """
    wishes = {output.name: output.parameters.get(BINARY) for output in request.outputs}
    usual = request.parameters.get(ALL_BINARY, False)
    entries: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for output in outputs:
        entry: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        wish = wishes.get(output.name)
        if usual if wish is None else wish:
            behind.append(output.to_raw())
            entry["parameters"] = {BINARY_SIZE: len(behind[-1])}
        else:
            entry["data"] = list_elements(output)
        entries.append(entry)
    document: dict[str, Any] = {"model_name": model[0], "model_version": model[1]}
    if request.id:
        document["id"] = request.id
    document |= {"parameters": dict(parameters), "outputs": entries}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return HttpAnswer(b"".join([text, *behind]), len(text) if behind else None)


def list_elements(output: OutputTensor) -> list[Any]:
    """The elements as JSON has them."""
    if isinstance(output.elements, list):
        return [text.decode() for text in output.elements]
    assert output.datatype == FP32
    return list(output.elements.tolist())
