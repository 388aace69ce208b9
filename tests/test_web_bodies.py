"""What bodies hold: images as they are, forms as programs write them, and forms that nobody should write."""

from __future__ import annotations

import gzip
import logging
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.errors import RequestError
from server.web.bodies import FORM, IMAGES, BodyKind, read_image, read_kind
from server.web.forms import parse_form
from tests.fakes import encode, make_slice
from tests.web_calls import BOUNDARY, WebServer, make_form, read_answer, serve_web

IMAGE = encode(make_slice(200))
MIB = 1024 * 1024
TYPE = f"{FORM}; boundary={BOUNDARY}"
MARK = BOUNDARY.encode()
START = b"--" + MARK + b'\r\nContent-Disposition: form-data; name="file"; filename="scan.png"\r\n'
END = b"\r\n--" + MARK + b"--\r\n"


@pytest.fixture(scope="module")
def web(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with serve_web(tiny_models, tmp_path_factory.mktemp("web"), max_image_bytes=MIB) as server:
        yield server


def refusal(body: bytes, most_files: int = 1) -> str:
    with pytest.raises(RequestError) as caught:
        parse_form(body, MARK, most_files)
    return f"{caught.value.reason}: {caught.value.message}"


FORMS = {
    "curl": START + b"Content-Type: image/png\r\n\r\n" + IMAGE + END,
    "no type": START + b"\r\n" + IMAGE + END,
    "no line end behind": START + b"\r\n" + IMAGE + b"\r\n--" + MARK + b"--",
    "words before and behind": b"\r\n" + START + b"\r\n" + IMAGE + END + b"epilogue",
    "other case": START.replace(b"Content-Disposition", b"CONTENT-DISPOSITION") + b"\r\n" + IMAGE + END,
    "no quotes": START.replace(b'"file"', b"file") + b"\r\n" + IMAGE + END,
    "a name in another script": START.replace(b"scan.png", 'снимок".png'.encode()) + b"\r\n" + IMAGE + END,
    "a transfer encoding": START + b"Content-Transfer-Encoding: binary\r\n\r\n" + IMAGE + END,
    "name of a path": START.replace(b"scan.png", b"../../etc/passwd") + b"\r\n" + IMAGE + END,
}


@pytest.mark.parametrize("case", FORMS)
def test_forms_as_programs_write_them(case: str) -> None:
    """The image comes out as it was; how its file was called is nobody's business."""
    form = parse_form(FORMS[case], MARK, 1)

    assert form.files == (IMAGE,)
    assert form.options == ()


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"--" + MARK[:-1], b"\r\n--" + MARK[:-1], b"\r", b"\r\n--", bytes(300)]
)
def test_content_that_looks_like_an_end_is_content(content: bytes) -> None:
    """Byte for byte, in one of several as in one alone."""
    form = parse_form(make_form(("file", content + IMAGE), ("file", content), ("id", "x")), MARK, 2)

    assert form.files == (content + IMAGE, content)
    assert form.options == (("id", "x"),)


WRONG = "BATCH_SIZE_INVALID"
FAULTY = {
    "nothing": b"",
    "no form": IMAGE,
    "another boundary": make_form(("file", IMAGE)).replace(MARK, b"another"),
    "cut short in the image": START + b"\r\n" + IMAGE[:100],
    "cut short before its end": START + b"\r\n" + IMAGE + b"\r\n--" + MARK,
    "cut short in a header": START[:-20],
    "a header of 64 kB": START + b"X: " + b"a" * 65536 + b"\r\n\r\n" + IMAGE + END,
    "many headers": START + b"X: a\r\n" * 17 + b"\r\n" + IMAGE + END,
    "a null in a header": START + b"X\x00: a\r\n\r\n" + IMAGE + END,
    "no image": make_form(("id", "x")),
    "two images": make_form(("file", IMAGE), ("file", IMAGE)),
    "many fields": make_form(("file", IMAGE), *[("id", str(number)) for number in range(17)]),
    "ends that are none": START + b"\r\n" + (b"\r\n--" + MARK + b"!") * 1000 + END,
}


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_form_is_refused(case: str) -> None:
    """With a sentence that holds nothing of it."""
    said = refusal(FAULTY[case])

    assert said.startswith("REQUEST_MALFORMED: The form cannot be read: ")
    assert said.isascii()


@pytest.mark.parametrize("name", ["\x00", "a" * 5000, "constructor", "File", "file[]", "файл"])
def test_unknown_field_is_refused(web: WebServer, name: str) -> None:
    """Its name is shown in a form that can be printed, and not all of it."""
    answer = web.post_form("/predict", ("file", IMAGE), (name, "x"))

    assert answer.outcome in [(400, "OPTION_INVALID"), (400, "REQUEST_MALFORMED")]
    assert len(answer.body) < 600


@pytest.mark.parametrize("value", [b"x" * 1025, b"\xff\xfe"])
def test_field_that_is_no_short_text_is_refused(web: WebServer, value: bytes) -> None:
    """Nothing of it comes back."""
    body = make_form(("file", IMAGE), ("id", "@")).replace(b"@", value)
    answer = web.ask("POST", "/predict", body, content_type=TYPE)

    assert answer.outcome == (400, "OPTION_INVALID")
    assert value[:10] not in answer.body


@pytest.mark.parametrize("boundary", ["", "x" * 71, "x" * 5000])
def test_boundary_has_1_to_70_bytes(web: WebServer, boundary: str) -> None:
    """As RFC 2046 has it."""
    answer = web.ask("POST", "/predict", make_form(("file", IMAGE)), content_type=f"{FORM}; boundary={boundary}")

    assert answer.outcome == (400, "REQUEST_MALFORMED")


def test_what_is_no_end_takes_no_time() -> None:
    """8 MiB of them: they are counted, and not looked at one by one."""
    body = START + b"\r\n" + b"\r\n--XZ" * (8 * MIB // 6) + END
    started = time.process_time()
    with pytest.raises(RequestError):
        parse_form(body.replace(MARK, b"X"), b"X", 1)

    assert time.process_time() - started < 0.5


def test_damaged_form_leaves_nothing_in_the_log(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    """The parser would say at which of its bytes."""
    caplog.set_level(logging.DEBUG)
    for case in FAULTY:
        web.ask("POST", "/predict", FAULTY[case], content_type=TYPE)

    assert {record.name for record in caplog.records} <= {"server.core.outcomes", "asyncio"}


@pytest.mark.parametrize(
    "kind",
    [
        "image/tiff",
        "image/gif",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_other_content_types_learn_what_to_send(web: WebServer, path: str, kind: str) -> None:
    """With the names of what is taken."""
    answer = web.ask("POST", path, IMAGE, **{"content_type": kind} if kind else {})

    assert answer.outcome == (415, "CONTENT_TYPE_UNSUPPORTED")
    assert FORM in answer.json["detail"]
    assert ("image/png" in answer.json["detail"]) == (path == "/predict")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("kind", ["image/png", TYPE])
def test_body_may_be_compressed(web: WebServer, kind: str, pack: object) -> None:
    """Though images are already."""
    body = IMAGE if kind == "image/png" else make_form(("file", IMAGE))
    coding = "gzip" if pack is gzip.compress else "deflate"
    answer = web.ask("POST", "/predict", pack(body), content_type=kind, content_encoding=coding)  # type: ignore[operator]

    assert answer.outcome == (200, "stroke")


def test_compressed_body_is_bounded_by_what_comes_out(web: WebServer) -> None:
    """48 MiB of zeros in 48 kB; cut short, or not compressed at all, it is malformed."""
    bodies = [gzip.compress(bytes(48 * MIB)), gzip.compress(IMAGE)[:-9], IMAGE]
    found = [web.post_image(body, content_encoding="gzip").outcome for body in bodies]

    assert found == [(413, "MESSAGE_TOO_LARGE"), (400, "REQUEST_MALFORMED"), (400, "REQUEST_MALFORMED")]
    assert web.post_image(IMAGE, content_encoding="br").outcome == (415, "CONTENT_TYPE_UNSUPPORTED")
    assert web.post_image(gzip.compress(IMAGE)).outcome == (415, "IMAGE_UNDECODABLE"), "nobody said so"


def test_form_of_several_is_not_to_be_compressed(web: WebServer) -> None:
    """What would come out is held while it waits, and would not be counted."""
    body = gzip.compress(make_form(("file", IMAGE)))
    answer = web.ask("POST", "/predict/batch", body, content_type=TYPE, content_encoding="gzip")

    assert answer.outcome == (415, "CONTENT_TYPE_UNSUPPORTED")


def test_length_that_is_too_large_is_refused_before_the_body(web: WebServer) -> None:
    """Nothing of it need be sent; without a length it is refused as soon as it is too large."""
    with web.dial() as plain:
        plain.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999999\r\n\r\n"
        )
        assert plain.recv(100).startswith(b"HTTP/1.1 413")
    chunks = (bytes(MIB) for _ in range(5))
    assert web.ask("POST", "/predict", chunks, content_type="image/png").outcome == (413, "MESSAGE_TOO_LARGE")


def test_head_says_what_the_body_is() -> None:
    """Names and types in any case, parameters in any order."""
    kinds = [
        read_kind({"content-type": f'Multipart/Form-Data; charset=utf-8; Boundary="{BOUNDARY}"'}, (FORM,)),
        read_kind({"content-type": "IMAGE/PNG;x=y", "content-encoding": " GZip "}, IMAGES),
    ]

    assert kinds == [BodyKind(FORM, MARK), BodyKind("image/png", b"", is_compressed=True)]


def test_image_of_a_body_is_not_copied() -> None:
    """What was received is what is judged."""
    assert read_image(BodyKind("image/png"), {}, MIB, IMAGE).image is IMAGE


@pytest.mark.parametrize(("size", "outcome"), [(1, 400), (100, 400), (512, 200), (4000, 200)])
def test_chunks_are_of_a_size_that_is_worth_it(web: WebServer, size: int, outcome: int) -> None:
    """Each takes as long as a kilobyte, and somebody could send nothing but one byte in each."""
    chunks = (IMAGE[start : start + size] for start in range(0, len(IMAGE), size))
    connection = web.connect()
    try:
        connection.request("POST", "/predict", chunks, {"content-type": "image/png"})
    except (BrokenPipeError, ConnectionResetError):
        assert outcome == 400
    else:
        answer = read_answer(connection)
        assert answer.status == outcome
        assert outcome == 200 or "chunks of less than 512 bytes" in answer.json["detail"]
    finally:
        connection.close()
