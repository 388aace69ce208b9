"""How files begin, and whether they are DICOM files then: one table for client and server, which share no code."""

from __future__ import annotations

PREAMBLE = bytes(128)
CLASS = b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00"
CLASS_WITHOUT_VR = b"\x08\x00\x16\x00\x1a\x00\x00\x001.2.840.10008.5.1.4.1.1.2\x00"

DICOM_STARTS = {
    "preamble": PREAMBLE + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00\x00",
    "preamble alone": PREAMBLE + b"DICM",
    "preamble of a TIFF": b"II*\x00" + bytes(124) + b"DICM",
    "file meta": b"\x02\x00\x00\x00UL\x04\x00\xb0\x00\x00\x00" + b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
    "file meta without its length": b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\x00" + CLASS,
    "explicit character set": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + CLASS,
    "explicit image type": b"\x08\x00\x08\x00CS\x16\x00ORIGINAL\\PRIMARY\\AXIAL" + CLASS,
    "explicit class": CLASS + b"\x08\x00\x18\x00UI\x04\x001.2\x00",
    "explicit sequence first": b"\x08\x00\x06\x00SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0",
    "implicit group length": b"\x08\x00\x00\x00\x04\x00\x00\x00\x9e\x01\x00\x00" + CLASS_WITHOUT_VR,
    "implicit image type": b"\x08\x00\x08\x00\x16\x00\x00\x00ORIGINAL\\PRIMARY\\AXIAL" + CLASS_WITHOUT_VR,
    "implicit class": CLASS_WITHOUT_VR + b"\x08\x00\x18\x00\x04\x00\x00\x001.2\x00",
    "big endian": b"\x00\x08\x00\x05CS\x00\x0aISO_IR 100" + b"\x00\x08\x00\x16UI\x00\x041.2\x00",
}

OTHER_STARTS = {
    "nothing": b"",
    "zeros": bytes(200),
    "half a preamble": bytes(100),
    "preamble cut within the letters": PREAMBLE + b"DIC",
    "preamble and other letters": PREAMBLE + b"MOCID" + bytes(20),
    "letters without a preamble": b"DICM" + bytes(200),
    "PNG": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "PNG with the letters in it": b"\x89PNG\r\n\x1a\n" + bytes(120) + b"DICM",
    "JPEG": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(200),
    "JPEG with the letters in it": b"\xff\xd8\xff\xe0" + bytes(124) + b"DICM",
    "TIFF": b"II*\x00" + bytes(200),
    "text": b"Patient  Age  Finding\n" * 20,
    "icon of Windows": b"\x00\x00\x01\x00\x01\x00\x20\x20" + bytes(200),
    "group alone": b"\x08\x00",
    "tag alone": b"\x08\x00\x05\x00CS",
    "element alone": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    "nothing plausible behind": b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + b"A" * 40,
    "elements that go back": CLASS + b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100",
    "odd length": b"\x08\x00\x08\x00\x15\x00\x00\x00ORIGINAL\\PRIMARY\\AXIA" + CLASS_WITHOUT_VR,
    "length of a megabyte": b"\x08\x00\x08\x00\x00\x00\x10\x00" + b"A" * 200,
    "group length of two bytes": b"\x08\x00\x00\x00\x02\x00\x00\x00\x9e\x01" + CLASS_WITHOUT_VR,
    "first element too far back": b"\x08\x00\x70\x00LO\x08\x00SCANNER " + b"\x08\x00\x90\x00PN\x02\x00A^",
    "group of the patient": b"\x10\x00\x10\x00PN\x04\x00A^B " + b"\x10\x00\x20\x00LO\x02\x0012",
    "another group": b"\x20\x00\x0d\x00UI\x04\x001.2\x00" + b"\x20\x00\x0e\x00UI\x04\x001.2\x00",
}
