"""A request of the protocol, however it came: what gRPC and HTTP both read into, and what is told to who sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from server.errors import RequestError

Parameter: TypeAlias = bool | int | float | str
Parameters: TypeAlias = Mapping[str, Parameter]

Elements: TypeAlias = memoryview | Sequence[bytes | memoryview] | NDArray[np.uint8]
"""Of a tensor: as raw bytes, still in one piece; those of BYTES; or those of UINT8 in row-major order."""

SHOWN = 60
"""Characters of a caller's own text that an error message repeats."""

SHARED_MEMORY = "shared_memory_region"
"""The parameter of a tensor that lies in memory that client and server share (Triton's extension)."""


@dataclass(frozen=True)
class InputTensor:
    """A tensor as the caller describes it; nothing of it has been checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    elements: Elements | None
    """None: there are none, or not in a field for its type."""

    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class WantedOutput:
    """A tensor that the caller asks for."""

    name: str
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True)
class InferRequest:
    """What the caller asks."""

    model_name: str = ""
    model_version: str = ""
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    inputs: Sequence[InputTensor] = ()
    outputs: Sequence[WantedOutput] = ()
    """Empty: everything there is."""

    is_raw: bool = False
    """Whether the elements came as raw bytes; gRPC answers in the same way."""


def show(text: str) -> str:
    """A caller's own text, as a message repeats it."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def invalid_tensor(kind: str, name: str, expected: str, came: str) -> RequestError:
    """Says what is wrong with a tensor.

    Args:
        kind: ``Input`` or ``Output``.
        name: the tensor's.
        expected: what there should be.
        came: what there is.
    """
    return RequestError("TENSOR_INVALID", f"{kind} {show(name)}: expected {expected}; got {came}.")


def invalid_parameter(name: str, expected: str, came: Parameter) -> RequestError:
    shown = show(came) if isinstance(came, str) else str(came)[:SHOWN]
    return RequestError("PARAMETER_INVALID", f"Parameter {show(name)}: expected {expected}; got {shown}.")


def read_whole_number(parameters: Parameters, name: str, least: int, expected: str) -> int | None:
    """Returns a parameter that is a whole number; None where it is not given.

    Raises:
        RequestError: reason PARAMETER_INVALID: it is something else, or less than ``least``.
    """
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise invalid_parameter(name, expected, value)
    return value
