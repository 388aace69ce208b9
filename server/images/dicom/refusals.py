"""Why DICOM files are not judged: each reason once, with what to do about it. None quotes what a file says in text."""

from __future__ import annotations

from server.errors import ImageError


def no_library() -> ImageError:
    return ImageError(
        "DICOM_NOT_SUPPORTED",
        "This server reads no DICOM files: install what it needs with `make install-dicom`, or send PNG or JPEG.",
    )


def no_window() -> ImageError:
    return ImageError(
        "DICOM_WINDOW_MISSING",
        "The model does not say in which window it sees CT values, so it takes no DICOM files: "
        "send PNG or JPEG, or convert the model again with its --window.",
    )


def damaged() -> ImageError:
    return ImageError("DICOM_DAMAGED", "The DICOM file is damaged and cannot be read. Copy or export it again.")


def truncated() -> ImageError:
    return ImageError("DICOM_TRUNCATED", "The DICOM file ends too early. Copy or export it again.")


def no_pixels() -> ImageError:
    return ImageError(
        "DICOM_NO_PIXELS",
        "The DICOM file has no pixels: it is a report, a document or a directory, or was cut off. Send the CT slices.",
    )


def other_modality(modality: str) -> ImageError:
    """``modality`` is shown where it is one of ``MODALITIES``."""
    kind = MODALITIES.get(modality, "of another modality")
    return ImageError("DICOM_MODALITY", f"The DICOM file is {kind}, not CT: send slices of a head CT.")


MODALITIES = {
    "MR": "magnetic resonance (MR)",
    "PT": "positron emission (PT)",
    "NM": "nuclear medicine (NM)",
    "CR": "a radiograph (CR)",
    "DX": "a radiograph (DX)",
    "MG": "a mammogram (MG)",
    "US": "ultrasound (US)",
    "XA": "angiography (XA)",
    "RF": "fluoroscopy (RF)",
    "OT": "of no stated kind (OT)",
    "SC": "a screen shot (SC)",
    "SEG": "a segmentation (SEG)",
    "SR": "a report (SR)",
    "PR": "a presentation state (PR)",
    "": "of no stated modality",
}


def big_endian() -> ImageError:
    return ImageError(
        "DICOM_BIG_ENDIAN",
        "The DICOM file is big endian, which was retired: convert it to Explicit VR Little Endian.",
    )


def deflated() -> ImageError:
    return ImageError(
        "DICOM_DEFLATED",
        "The DICOM file's data set is deflated, so its size is unknown until it is unpacked: "
        "convert it to Explicit VR Little Endian.",
    )


def jpeg_12_bit() -> ImageError:
    return ImageError(
        "DICOM_JPEG_12_BIT",
        "The DICOM file's pixels are JPEG Extended (1.2.840.10008.1.2.4.51), which no decoder here reads: "
        "convert it to Explicit VR Little Endian.",
    )


def no_decoder(name: str, *, can_be_installed: bool) -> ImageError:
    """``name`` is that of the transfer syntax as the standard has it, or empty."""
    stated = f"compressed as {name}" if name else "compressed in an unknown way"
    remedy = "install the decoders with `make install-dicom-codecs` on the server, or " if can_be_installed else ""
    return ImageError(
        "DICOM_NO_DECODER",
        f"The DICOM file's pixels are {stated}, for which the server has no decoder: "
        f"{remedy}convert it to Explicit VR Little Endian.",
    )


def undecodable(name: str) -> ImageError:
    """``name`` is that of the transfer syntax, here and below."""
    return ImageError(
        "DICOM_UNDECODABLE",
        f"The DICOM file's pixels ({name}) are damaged and cannot be decoded. Copy or export it again.",
    )


def contradictory(name: str) -> ImageError:
    return ImageError(
        "DICOM_UNDECODABLE",
        f"The DICOM file's pixels ({name}) are of another size, depth or sign than its header says, so its values "
        "cannot be told: export it again, uncompressed.",
    )


def too_costly(name: str) -> ImageError:
    return ImageError(
        "DICOM_UNDECODABLE",
        f"The DICOM file's pixels ({name}) take more memory to decode than a slice may: export it uncompressed.",
    )


def broken_items() -> ImageError:
    return ImageError(
        "DICOM_UNDECODABLE",
        "The DICOM file's compressed pixels are not in the items that DICOM has for them: export it uncompressed.",
    )


def coloured() -> ImageError:
    return ImageError(
        "DICOM_COLOUR", "The DICOM file holds a colour image, a screen shot or a rendering: send the CT slice itself."
    )


def other_bit_depth() -> ImageError:
    return ImageError(
        "DICOM_BIT_DEPTH", "CT values take 12 to 16 bits of 16, and those of this DICOM file do not: send the CT slice."
    )


def high_bit() -> ImageError:
    return ImageError(
        "DICOM_HIGH_BIT",
        "The DICOM file's high bit is not its bits stored less one, so its values cannot be told: export it again.",
    )


def other_length() -> ImageError:
    return ImageError(
        "DICOM_PIXEL_LENGTH",
        "The DICOM file has more or fewer pixels than its rows, columns and frames make: export it again.",
    )


def no_rescale() -> ImageError:
    return ImageError(
        "DICOM_RESCALE_MISSING",
        "The DICOM file has no usable rescale slope and intercept, so its values are no Hounsfield units: "
        "send the slice as the scanner made it.",
    )


def not_hounsfield() -> ImageError:
    return ImageError(
        "DICOM_NOT_HOUNSFIELD",
        "The DICOM file's values are no Hounsfield units (Rescale Type): send the CT slice itself.",
    )


def too_large(frames: int, size: int) -> ImageError:
    return ImageError(
        "DICOM_TOO_LARGE",
        f"The DICOM file unfolds to {frames:,} frames of {size:,} bytes in all, more than is accepted. "
        "Send its slices one by one.",
    )


def too_many_elements() -> ImageError:
    return ImageError(
        "DICOM_TOO_LARGE",
        "The DICOM file has more elements before its pixels than are read. Send its slices one by one.",
    )
