"""How many files somebody must read to follow one image from ``client.predict`` to the answer."""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, FunctionType, MethodType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import client
import server
from client import StrokeClient
from server.config import ServerConfig
from server.lifecycle.app import Application
from tests.fakes import ROOT, encode, make_slice
from tests.test_architecture import PAGE

MOST_FILES = 12
MARK_BYTES = 48
LEAST_PIXELS = 1024
DEPTH = 3
"""A frame holds what its variables hold: the fields of our objects, and what a prepared call carries."""

FOLDERS = tuple(str(Path(package.__path__[0])) for package in (client, server))


class Watch:
    """Sees every frame of client and server, in all threads, and notes the files of those that hold the image."""

    def __init__(self, image: bytes) -> None:
        middle = len(image) // 2
        self._mark = image[middle : middle + MARK_BYTES]  # coded pixels: in the file, a request, a stream cut from it
        self.files: dict[str, None] = {}

    def look(self, frame: FrameType, event: str, argument: object) -> None:
        """For ``sys.setprofile``."""
        path = frame.f_code.co_filename
        if path.startswith(FOLDERS):
            name = str(Path(path).relative_to(ROOT))
            values = [*frame.f_locals.values(), argument if event == "return" else None]
            if name not in self.files and any(self._holds(value, DEPTH) for value in values):
                self.files[name] = None

    def _holds(self, value: Any, depth: int) -> bool:
        if isinstance(value, bytes | bytearray | memoryview):
            return self._mark in bytes(value)
        if isinstance(value, np.ndarray):
            return value.dtype == np.uint8 and value.size >= LEAST_PIXELS
        if isinstance(value, Image.Image):
            return bool(value.width * value.height >= LEAST_PIXELS)
        return depth > 0 and any(self._holds(part, depth - 1) for part in list_parts(value))


def list_parts(value: Any) -> list[Any]:
    """What an object carries along."""
    if isinstance(value, list | tuple):
        return list(value[:100])
    if isinstance(value, dict):
        return list(value.values())[:100]
    if isinstance(value, functools.partial):
        return [*value.args, *value.keywords.values(), value.func]
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        cells = value.__closure__ or ()
        return [cell.cell_contents for cell in cells if cell != type(cell)()]
    kind = type(value)
    if kind.__module__ == "stroke_pb2" or kind.__module__.endswith(".stroke_pb2"):
        return [field_value for _, field_value in value.ListFields()]
    if not kind.__module__.startswith(("client.", "server.")):
        return []
    names = [field.name for field in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else []
    return [getattr(value, name, None) for name in {*names, *getattr(value, "__dict__", {})}]


@contextmanager
def watch_frames(watch: Watch) -> Iterator[None]:
    """Watches this thread, and those that are started meanwhile."""
    threading.setprofile(watch.look)
    sys.setprofile(watch.look)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def list_files(image: bytes, models: Path, folder: Path) -> list[str]:
    """The files of client and server in which a frame holds the image, in the order in which it comes to them."""
    path = folder / "scan.image"
    path.write_bytes(image)
    watch = Watch(image)
    address = f"unix:{folder / 'socket'}"
    with watch_frames(watch):
        application = Application(ServerConfig(models=models, host=address))
        thread = threading.Thread(target=application.run)
        thread.start()
        try:
            with StrokeClient(address) as stroke_client:
                stroke_client.wait_until_ready()
                watch.files.clear()  # the golden vectors of the model's check
                stroke_client.predict(path)
            return list(watch.files)
        finally:
            application.stop()
            thread.join()


@pytest.mark.parametrize("image_format", ["PNG", "JPEG"])
def test_way_of_an_image_is_short(image_format: str, tiny_models: Path, tmp_path: Path) -> None:
    """The bytes of a file pass few files of ours, so that their way can be read in one go."""
    files = list_files(encode(make_slice(side=96), image_format), tiny_models, tmp_path)

    print(f"{image_format}: {len(files)}", *files, sep="\n  ")
    assert len(files) <= MOST_FILES
    way = re.search(r"^\*\*One image\*\*.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert way is not None
    assert set(files) <= set(re.findall(r"`([a-z_0-9/]+\.py)`", way[0]))
