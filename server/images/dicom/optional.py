"""``server.images.dicom.file`` where a DICOM file may come or not: pydicom is imported when the first one comes, and
where there is none the file is refused."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from types import ModuleType

from server.images.dicom import refusals
from server.images.dicom.header import SliceHeader
from server.images.dicom.window import Window
from server.images.image_file import DecodedImage, ImageLimits

CODECS = ("gdcm", "jpeg_ls", "openjpeg", "pylibjpeg")
_importing = threading.Lock()


def read_header(data: bytes, limits: ImageLimits) -> tuple[SliceHeader, ...]:
    """As ``server.images.dicom.file.read_header``; ImageError DICOM_NOT_SUPPORTED where there is no pydicom."""
    headers: tuple[SliceHeader, ...] = load_reader().read_header(data, limits)
    return headers


def decode_dicom(data: bytes, windows: Sequence[Window], limits: ImageLimits, frame: int = 0) -> DecodedImage:
    """As ``server.images.dicom.file.decode_dicom``; ImageError DICOM_NOT_SUPPORTED where there is no pydicom."""
    decoded: DecodedImage = load_reader().decode_dicom(data, windows, limits, frame)
    return decoded


def load_reader() -> ModuleType:
    """Imports what reads DICOM files.

    pydicom loads whatever codecs are installed, 20 MB of them: here they are hidden from it, since what they decode is
    decoded in processes of its own.
    """
    with _importing:
        hidden = [] if "pydicom" in sys.modules else [name for name in CODECS if name not in sys.modules]
        sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
        try:
            import pydicom  # noqa: F401
        except ImportError:
            raise refusals.no_library() from None
        finally:
            for name in hidden:
                del sys.modules[name]
    from server.images.dicom import file

    return file
