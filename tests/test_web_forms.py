"""Forms that are taken apart as they come: the same parts wherever they are cut, and the same bounds."""

from __future__ import annotations

import time

import pytest

from server.errors import OverloadedError, RequestError
from server.web.forms import MOST_OPTION_BYTES, FormReader
from tests.test_web_bodies import END, FAULTY, FORMS, IMAGE, MARK, START
from tests.web_calls import make_form

MOST_BYTES = 100_000


def too_many() -> OverloadedError:
    return OverloadedError("TOO_MANY", "There are too many.")


def make_reader(most_parts: int = 20, most_bytes: int = MOST_BYTES, boundary: bytes = MARK) -> FormReader:
    return FormReader(boundary, most_parts, most_bytes, too_many)


def read_in_pieces(body: bytes, size: int, **bounds: int) -> list[tuple[str, bytes]]:
    """Names and contents of a form's parts."""
    reader = make_reader(**bounds)
    parts = [part for start in range(0, len(body), size) for part in reader.feed(body[start : start + size])]
    reader.finish()
    return [(part.name, part.join()) for part in parts]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000, 100_000])
def test_pieces_make_no_difference(size: int) -> None:
    """Also where a boundary, or what looks like one, is cut in the middle."""
    contents = [IMAGE, b"", b"\r\n--" + MARK[:-1], b"\r\n\r\n--" + MARK[:5], b"\r", bytes(300)]
    form = make_form(*[("file", content) for content in contents], ("id", "x"))

    assert read_in_pieces(form, size) == [*[("file", content) for content in contents], ("id", b"x")]


@pytest.mark.parametrize("case", FORMS)
def test_forms_as_programs_write_them_in_pieces(case: str) -> None:
    """As those that come at once."""
    assert read_in_pieces(FORMS[case], 5) == [("file", IMAGE)]


@pytest.mark.parametrize("case", sorted(set(FAULTY) - {"no image", "two images", "many fields", "ends that are none"}))
def test_faulty_form_is_refused_in_pieces(case: str) -> None:
    """At the piece that shows it, or at the end."""
    with pytest.raises(RequestError, match="The form cannot be read"):
        read_in_pieces(FAULTY[case], 64)


def test_a_part_is_handed_over_with_the_piece_that_ends_it() -> None:
    """So that it can be judged and let go while the next one comes."""
    reader = make_reader()
    head, _, rest = make_form(("file", IMAGE), ("file", IMAGE)).partition(IMAGE)

    assert reader.feed(head + IMAGE[:-1]) == []
    assert reader.size == len(IMAGE) - 1
    (part,) = reader.feed(IMAGE[-1:] + rest[:200])
    assert part.join() == IMAGE
    assert reader.size < 200


@pytest.mark.parametrize("size", [1, 3, 50, 1 << 16])
def test_parts_are_counted_wherever_they_are_cut(size: int) -> None:
    """One more than there may be is refused."""
    form = make_form(*[("file", b"x")] * 5)

    assert len(read_in_pieces(form, size, most_parts=5)) == 5
    with pytest.raises(OverloadedError, match="too many"):
        read_in_pieces(form, size, most_parts=4)


def test_a_file_that_is_too_large_is_refused_before_all_of_it_is_there() -> None:
    """And a field that is too long."""
    reader = make_reader(most_bytes=1000)
    reader.feed(START + b"\r\n" + bytes(1000))
    with pytest.raises(RequestError) as large:
        reader.feed(bytes(200))
    with pytest.raises(RequestError) as long:
        make_reader().feed(START.replace(b'"file"', b'"id"') + b"\r\n" + b"x" * (MOST_OPTION_BYTES + 100))

    assert [caught.value.reason for caught in (large, long)] == ["MESSAGE_TOO_LARGE", "OPTION_INVALID"]


def test_what_is_no_end_takes_no_time_in_pieces() -> None:
    """8 MiB of them: they are counted, and not looked at one by one."""
    body = START.replace(MARK, b"X") + b"\r\n" + b"\r\n--XZ" * (1 << 20)
    reader = make_reader(most_bytes=1 << 30, boundary=b"X")
    pieces = [body[start : start + (1 << 16)] for start in range(0, len(body), 1 << 16)]
    started = time.process_time()
    with pytest.raises(OverloadedError):
        list(map(reader.feed, pieces))

    assert time.process_time() - started < 0.5


def test_what_comes_behind_the_end_is_no_part() -> None:
    """However much it is."""
    assert read_in_pieces(START + b"\r\n" + IMAGE + END + b"epilogue\r\n" * 10_000, 4096) == [("file", IMAGE)]
