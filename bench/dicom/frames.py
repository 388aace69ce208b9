"""DICOM files in the compressed transfer syntaxes that are read, made of words whose values are known."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import pydicom
from numpy.typing import NDArray

from server.images.dicom.header import FrameShape

JPEG = "1.2.840.10008.1.2.4"
RLE, PROCESS_14, SV1 = "1.2.840.10008.1.2.5", f"{JPEG}.57", f"{JPEG}.70"
JPEG_LS, NEAR_LOSSLESS = f"{JPEG}.80", f"{JPEG}.81"
JPEG_2000, JPEG_2000_LOSSY = f"{JPEG}.90", f"{JPEG}.91"
LOSSLESS = (RLE, PROCESS_14, SV1, JPEG_LS, JPEG_2000)


def make_words(shape: FrameShape, seed: int = 1) -> NDArray[np.uint16]:
    """Words as a file has them, uint16 [rows, columns]: a disc with grain on air, the largest and smallest values too.

    All in whole numbers, so that they are the same everywhere: files that others have written hold them.
    """
    half = 1 << (shape.bits_stored - 1)
    rows, columns = np.mgrid[: shape.rows, : shape.columns]
    grain = (rows * 7919 + columns * 104_729 + rows * columns * 31 + seed * 17) % 61 - 30
    across, down = 2 * columns - shape.columns, 2 * rows - shape.rows
    is_inside = 25 * (across**2 + down**2) < 16 * min(shape.rows, shape.columns) ** 2
    values = np.where(is_inside, half // 8 + half * across // (12 * shape.columns), -half // 2) + grain
    values[0, :4] = -half, half - 1, -1, 0
    words: NDArray[np.uint16] = (values + (0 if shape.is_signed else half)).astype(np.uint16)
    return words


def encode(syntax: str, words: NDArray[np.uint16], shape: FrameShape, precision: int = 0) -> bytes:
    """Encodes words as a file of ``shape`` has them; ``precision`` bits of each, those stored unless given."""
    precision = precision or shape.bits_stored
    if syntax == RLE:
        return encode_rle(words)
    if syntax in (PROCESS_14, SV1):
        return encode_jpeg_lossless(syntax, words, precision)
    if syntax in (JPEG_LS, NEAR_LOSSLESS):
        import jpeg_ls

        # JPEG-LS knows no sign: the bits are encoded as they are
        bits = words & ((1 << precision) - 1)
        loss = 0 if syntax == JPEG_LS else 2
        return bytes(jpeg_ls.encode_buffer(bits.astype("<u2").tobytes(), *words.shape, 1, precision, loss))
    from openjpeg.utils import encode_array

    array = words.view(np.int16) if shape.is_signed else words
    ratios = [3.0] if syntax == JPEG_2000_LOSSY else []
    return bytes(encode_array(array, bits_stored=precision, photometric_interpretation=0, compression_ratios=ratios))


def encode_rle(words: NDArray[np.uint16]) -> bytes:
    """RLE (PS3.5 G), as pydicom writes it."""
    from pydicom.pixels.encoders.native import _encode_segment

    segments = []
    for byte in (words >> 8, words & 0xFF):
        segments.append(bytes(_encode_segment(byte.astype(np.uint8).tobytes(), words.shape[1])))
    offsets = [64, 64 + len(segments[0])]
    return struct.pack("<16I", len(segments), *offsets, *[0] * 13) + b"".join(segments)


def encode_jpeg_lossless(syntax: str, words: NDArray[np.uint16], precision: int) -> bytes:
    """JPEG Lossless, as GDCM writes it."""
    import gdcm

    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((words.shape[1], words.shape[0], 1))
    grey = gdcm.PhotometricInterpretation.MONOCHROME2
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ImplicitVRLittleEndian))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, precision, precision - 1, 0))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue((words & ((1 << precision) - 1)).astype("<u2").tobytes())
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(image)
    assert change.Change()
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    assert fragments.GetNumberOfFragments() == 1
    encoded: bytes = fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    return encoded


def encapsulate(fragments: Sequence[bytes], offsets: Sequence[int] = ()) -> bytes:
    """The value of Pixel Data with these fragments (PS3.5 A.4), each padded to an even length."""
    values = [struct.pack(f"<{len(offsets)}I", *offsets), *(one + b"\0" * (len(one) % 2) for one in fragments)]
    items = [b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value for value in values]
    return b"".join(items) + b"\xfe\xff\xdd\xe0" + bytes(4)


def compress(data: bytes, syntax: str, called: str = "") -> bytes:
    """An uncompressed DICOM file in another transfer syntax, which it calls ``called`` if that is given."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    shape = FrameShape(dataset.Rows, dataset.Columns, dataset.BitsStored, bool(dataset.PixelRepresentation))
    frames = np.frombuffer(dataset.PixelData, "<u2").reshape(-1, shape.rows, shape.columns)
    return put_in(data, called or syntax, [encode(syntax, words, shape) for words in frames])


def put_in(data: bytes, syntax: str, frames: Sequence[bytes]) -> bytes:
    """A DICOM file with frames that were encoded in place of its own."""
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.PixelData = encapsulate(frames)[:-8]
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def make_file(words: NDArray[np.uint16], shape: FrameShape) -> bytes:
    """A DICOM file with a CT slice, uncompressed: what a decoder looks at, and no more."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("2.25.1")
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.2", "2.25.3"
    dataset.Modality, dataset.PhotometricInterpretation, dataset.SamplesPerPixel = "CT", "MONOCHROME2", 1
    dataset.Rows, dataset.Columns = shape.rows, shape.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, shape.bits_stored, shape.bits_stored - 1
    dataset.PixelRepresentation = int(shape.is_signed)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, -1024, "HU"
    dataset.PixelData = words.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
