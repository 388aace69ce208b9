"""The generated messages of the API, and the project's version: the only module that knows where they come from.

In a checkout that is the package ``proto`` beside this one, which the server shares. The wheel, where nothing may
depend on a package of so general a name, has a copy of it in this module's place.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from proto import __version__ as __version__

if TYPE_CHECKING:
    from proto import stroke_pb2 as stroke_pb2


def __getattr__(name: str) -> object:
    # At first use, as from the package in the wheel: whoever asks for the version alone needs no protobuf.
    if name != "stroke_pb2":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("proto.stroke_pb2")
