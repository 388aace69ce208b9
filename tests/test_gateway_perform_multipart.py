"""Parts of a multipart answer, wherever the pieces are cut in which it comes."""

from __future__ import annotations

import pytest

from gateway.perform.multipart import MultipartError, read_boundary, split_parts

PARTS = [b"one\r\n--cu", b"", b"\r\n\r\nthree--cut--"]
BODY = (
    b"a preamble, which nobody reads\r\n"
    b"--cut\r\nContent-Type: application/dicom\r\nContent-Length: 9\r\n\r\n" + PARTS[0] + b"\r\n"
    b"--cut  \r\nContent-Type: application/dicom\r\n\r\n" + PARTS[1] + b"\r\n"
    b"--cut\r\n\r\n" + PARTS[2] + b"\r\n"
    b"--cut--\r\nan epilogue"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_parts_are_found(size: int) -> None:
    """In pieces of any size; one without headers, one without content, one that looks like an end."""
    pieces = [BODY[start : start + size] for start in range(0, len(BODY), size)]

    assert list(split_parts(pieces, b"cut", 100)) == PARTS


def test_no_parts_are_none() -> None:
    """A body that ends where it begins."""
    assert list(split_parts([b"--cut--"], b"cut", 100)) == []


@pytest.mark.parametrize("end", range(0, len(BODY) - 20, 5))
def test_body_without_its_end_is_an_error(end: int) -> None:
    """Wherever it ends."""
    with pytest.raises(MultipartError, match="no end"):
        list(split_parts([BODY[:end]], b"cut", 100))


def test_part_is_bounded() -> None:
    """Also where it never ends."""
    endless = iter([b"--cut\r\n\r\n", *[b"x" * 50] * 1000])
    with pytest.raises(MultipartError, match="longer than 100"):
        list(split_parts(endless, b"cut", 100))
    assert sum(1 for _ in endless) > 900


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=cut', b"cut"),
        ('Multipart/Related;boundary="a b"; type="application/dicom"', b"a b"),
        ("multipart/related; BOUNDARY=x;start=1", b"x"),
        ("multipart/related; type=x", None),
        ("multipart/related; boundary=", None),
        ("application/dicom; boundary=cut", None),
        ("multipart/related; boundary=é", None),
        (f"multipart/related; boundary={'x' * 500}", None),
        ("", None),
    ],
)
def test_boundary_is_read(header: str, boundary: bytes | None) -> None:
    """Quoted or not, in any place; a header without one is an error."""
    if boundary is None:
        with pytest.raises(MultipartError):
            read_boundary(header)
    else:
        assert read_boundary(header) == boundary
