"""``POST /render`` as callers see it: the pixels that the model sees, with the bounds of a judgement, and none made."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.images.picture import encode_picture
from server.images.preprocess import InputFormat, load_pixels
from tests.access import token_of, write_tokens
from tests.audit_logs import read_log
from tests.fakes import SPEC, encode, make_slice, sha256_hex, write_model
from tests.test_server_preprocess import REFUSED
from tests.web_calls import WebServer, serve_web

BRIGHT = encode(make_slice(200))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server of two models, one of which sees grey."""
    root = tmp_path_factory.mktemp("models")
    write_model(root)
    write_model(root, replace(SPEC, name="grey", colour="grey"))
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny,grey") as server:
        yield server


def read_picture(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


@pytest.mark.parametrize(("model", "colour"), [("tiny", "rgb"), ("grey", "grey")])
def test_the_pixels_are_those_that_the_model_sees(web: WebServer, model: str, colour: str) -> None:
    """In its size and colour."""
    answer = web.ask("POST", f"/render?model={model}", BRIGHT, content_type="image/png")

    seen = load_pixels(BRIGHT, InputFormat(64, 64, colour)).array
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(read_picture(answer.body), seen if colour == "rgb" else seen[:, :, 0])


@pytest.mark.parametrize("shape", [(3, 5, 1), (5, 3, 3)])
def test_a_picture_has_the_pixels_it_is_made_of(shape: tuple[int, ...]) -> None:
    """Grey or RGB, nothing lost."""
    array = np.random.RandomState(0).randint(0, 255, shape).astype(np.uint8)

    assert np.array_equal(read_picture(encode_picture(array)).reshape(shape), array)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_judged_is_not_shown_either(web: WebServer, name: str) -> None:
    """With the same reason."""
    make, reason = REFUSED[name]
    shown, judged = (web.post_form(path, ("file", make())) for path in ("/render", "/predict"))

    assert shown.outcome == judged.outcome
    assert shown.outcome[1] == reason


def test_options_are_those_of_a_judgement(web: WebServer) -> None:
    """Checked in the same way."""
    found = [
        web.post_form("/render", ("file", BRIGHT), *options).outcome
        for options in (
            [("image_sha256", "0" * 64)],
            [("model", "other")],
            [("id", "two\nlines")],
            [("frame", "-1")],
            [("frame", "2")],
            [("modell", "x")],
        )
    ]

    assert [reason for _, reason in found] == [
        *("IMAGE_ALTERED", "MODEL_NOT_FOUND", "ID_INVALID", "OPTION_INVALID", "IMAGE_FRAME_MISSING", "OPTION_INVALID"),
    ]


def test_a_picture_is_no_judgement(tiny_models: Path, tmp_path: Path) -> None:
    """The audit log has what was judged, and that alone; a client with limits has it among its images."""
    tokens = write_tokens(tmp_path / "tokens", few="roles=predict images=2")
    settings = {"audit": tmp_path / "audit", "audit_hash": "plain", "tokens": tokens}
    with serve_web(tiny_models, tmp_path, **settings) as web:
        authorization = f"Bearer {token_of('few')}"
        for path in ("/render", "/predict"):
            assert web.ask("POST", path, BRIGHT, content_type="image/png", authorization=authorization).status == 200
        assert web.ask("POST", "/render", BRIGHT, content_type="image/png").outcome == (401, "TOKEN_MISSING")
    lines = [line for line in read_log(tmp_path / "audit") if line["event"] == "image"]

    assert [(line["method"], line["image_sha256"]) for line in lines] == [("POST /predict", sha256_hex(BRIGHT))]
