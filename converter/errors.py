"""What can go wrong in a conversion. Each message says what was found, what was wanted, and what to do.

ConversionError
├── SourceError            the model to convert cannot be used
├── InputRangeError        the model and --preprocess do not fit together
├── TargetError            the result cannot be written where it should be
├── OutputNamesError       parity: names or types differ from the contract
├── OutputShapeError       parity: shapes differ from the source model's
├── OutputValuesError      parity: values differ by more than the tolerance
├── ExplainError           there is no heatmap of the network
├── AccuracyError          the INT8 variant does not pass the accuracy gate
└── FusionError            ONNX Runtime does not fuse the INT8 variant
"""

from __future__ import annotations

import re

TERMINAL_CODES = re.compile(r"\x1b\[[\d;]*m")
CALLED = re.compile(r"Exception encountered when calling ([^\n]*?)\.?\n\s*")
DESCRIPTION = re.compile(r"\s*(?:Full object config:|using config=|config=\{)")
"""What a network's description begins with."""


class ConversionError(Exception):
    """Base of all errors of the converter."""


class SourceError(ConversionError):
    """The model to convert cannot be used."""


class InputRangeError(ConversionError):
    """The model and --preprocess do not fit together."""


class TargetError(ConversionError):
    """The result cannot be written where it should be."""


class OutputNamesError(ConversionError):
    """Input or output of the graph do not have the names, types or dimensions of the contract."""


class OutputShapeError(ConversionError):
    """The converted model answers in another shape than the source model."""


class OutputValuesError(ConversionError):
    """The converted model answers other values than the source model."""


class ExplainError(ConversionError):
    """There is no heatmap of the network."""


class AccuracyError(ConversionError):
    """The INT8 variant does not decide as the fp32 model does."""


class FusionError(ConversionError):
    """ONNX Runtime leaves conversions between integers and floats in the INT8 variant."""


def describe(error: Exception) -> str:
    """The line of an exception's text that has the reason, without the descriptions of networks around it.

    Keras puts the outer failure first, with the whole network's description, and the reason last.
    """
    text = TERMINAL_CODES.sub("", str(error))
    text = CALLED.sub(r"\1: ", text.rpartition("Exception encountered: ")[2])
    lines = DESCRIPTION.split(text)[0].strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
