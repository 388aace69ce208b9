"""``POST /explain`` as callers see it: a judgement with a heatmap, or the picture alone; off by default."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.explaining import CELLS, make_corner, write_explained
from tests.fakes import SPEC, encode, write_model
from tests.web_calls import Answer, WebServer, serve_web

CORNER = encode(make_corner())
UNTIMED = ("timings", "id")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    """A server that explains: a model that has a heatmap, one that has none, and one that looks for heads."""
    root = tmp_path_factory.mktemp("models")
    write_explained(root)
    write_model(root, replace(SPEC, name="plain"))
    write_explained(root, replace(SPEC, name="careful", checks="head-ct"))
    with serve_web(root, tmp_path_factory.mktemp("web"), model="tiny,plain,careful", explain=True) as server:
        yield server


def post(web: WebServer, image: bytes, query: str = "", **headers: str) -> Answer:
    return web.ask("POST", f"/explain{query}", image, **{"content_type": "image/png", **headers})


def read_size(picture: bytes) -> tuple[str, tuple[int, int]]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.mode, image.size


def test_a_judgement_with_its_heatmap(web: WebServer) -> None:
    """The judgement is that of /predict; the heatmap has rows from the top, and lies in the picture where it says."""
    found, judged = post(web, CORNER).json, web.post_image(CORNER).json

    assert {key: value for key, value in found["prediction"].items() if key not in UNTIMED} == {
        key: value for key, value in judged.items() if key not in UNTIMED
    }
    heatmap = np.array(found["heatmap"])
    assert heatmap.shape == (CELLS, CELLS)
    assert np.argwhere(heatmap).tolist() == [[0, 0]]
    assert read_size(base64.b64decode(found["overlay_png"])) == ("RGB", (512, 512))
    assert found["box"] == {"left": 0, "top": 0, "right": 512, "bottom": 512}


@pytest.mark.parametrize("accept", ["image/png", "IMAGE/PNG;q=0.9, application/json;q=0.1"])
def test_the_picture_alone(web: WebServer, accept: str) -> None:
    """For those who ask for it; errors stay problems."""
    answer = post(web, CORNER, accept=accept)

    assert answer.headers["content-type"] == "image/png"
    assert read_size(answer.body) == ("RGB", (512, 512))
    assert post(web, b"x", accept=accept).outcome == (415, "IMAGE_UNDECODABLE")


def test_what_is_not_analysed_has_no_heatmap(web: WebServer) -> None:
    """The judgement says why; who wants the picture alone is told."""
    blank = encode(np.zeros((64, 64), np.uint8))
    found = post(web, blank, "?model=careful").json

    assert (found["prediction"]["status"], found["overlay_png"]) == ("NOT_ANALYSED", None)
    assert (found["heatmap"], found["box"]) == (None, None)
    refused = post(web, blank, "?model=careful", accept="image/png")
    assert refused.outcome == (422, "IMAGE_NOT_ANALYSED")
    assert "blank" in refused.json["detail"]


def test_model_without_a_heatmap_says_so(web: WebServer) -> None:
    """In its description as well."""
    assert post(web, CORNER, "?model=plain").outcome == (409, "MODEL_CANNOT_EXPLAIN")
    assert {one["name"]: one["explains"] for one in web.ask("GET", "/models").json["models"]} == {
        "tiny": True,
        "plain": False,
        "careful": True,
    }


def test_off_unless_the_server_is_told(tmp_path: Path) -> None:
    """Nothing of the image is read; the model does not claim it either."""
    write_explained(tmp_path / "models")
    with serve_web(tmp_path / "models", tmp_path) as web:
        assert post(web, CORNER).outcome == (501, "EXPLAIN_DISABLED")
        assert web.ask("GET", "/models/tiny").json["explains"] is False
