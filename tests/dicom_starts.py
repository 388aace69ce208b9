"""How files begin, and whether they are DICOM files then: one table for client and server, which share no code."""

from __future__ import annotations

PREAMBLE = bytes(128)

DICOM_STARTS = {
    "preamble": PREAMBLE + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00",
    "preamble of a TIFF": b"II*\x00" + bytes(124) + b"DICM",
    "headless, file meta": b"\x02\x00\x00\x00UL\x04\x00\xb0\x00\x00\x00" + b"\x02\x00\x01\x00OB\x00\x00",
    "headless, file meta without its length": b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00",
    "headless, explicit character set": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    "headless, explicit image type": b"\x08\x00\x08\x00CS\x16\x00ORIGINAL\\PRIMARY\\AXIAL",
    "headless, explicit class": b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00",
    "headless, implicit group length": b"\x08\x00\x00\x00\x04\x00\x00\x00\x9e\x01\x00\x00",
    "headless, implicit image type": b"\x08\x00\x08\x00\x16\x00\x00\x00ORIGINAL\\PRIMARY\\AXIAL",
    "headless, implicit class": b"\x08\x00\x16\x00\x1a\x00\x00\x001.2.840.10008.5.1.4.1.1.2\x00",
}

OTHER_STARTS = {
    "nothing": b"",
    "zeros": bytes(200),
    "half a preamble": bytes(100),
    "preamble cut within the letters": PREAMBLE + b"DIC",
    "preamble and other letters": PREAMBLE + b"DICOM"[::-1] + bytes(20),
    "letters without a preamble": b"DICM" + bytes(200),
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200),
    "TIFF": b"II*\x00" + bytes(200),
    "text": b"Patient  Age  Finding\n" * 20,
    "icon of Windows": b"\x00\x00\x01\x00\x01\x00\x20\x20" + bytes(200),
    "group alone": b"\x08\x00",
    "tag alone": b"\x08\x00\x05\x00CS",
    "odd length": b"\x08\x00\x08\x00\x15\x00\x00\x00ORIGINAL\\PRIMARY",
    "length of a megabyte": b"\x08\x00\x08\x00\x00\x00\x10\x00" + b"A" * 200,
    "first element too far back": b"\x08\x00\x70\x00LO\x08\x00SCANNER ",
    "group of the patient": b"\x10\x00\x10\x00PN\x04\x00A^B ",
    "another group": b"\x20\x00\x0d\x00UI\x04\x001.2\x00",
}
