"""How models stand other sources' exports: what an export changes, and the page about it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.training.exports import EXPORTS, draw_slice, judge_exports, main, render_exports
from server.models.engines.engine import EngineOptions
from server.models.runtime import load_model
from tests.fakes import BUNDLED, ROOT

OF_GREY_LEVELS = [name for name in EXPORTS if "window" in name or "level" in name or "gamma" in name]


def export(name: str, index: int) -> np.ndarray:
    return np.asarray(EXPORTS[name](Image.fromarray(draw_slice(index))))


@pytest.mark.parametrize("name", [name for name in EXPORTS if name != "as drawn"])
def test_an_export_changes_a_slice_and_keeps_its_form(name: str) -> None:
    """Each is a grey picture of the same size with other pixels."""
    changed = export(name, 1)

    assert (changed.shape, changed.dtype) == ((256, 256), np.uint8)
    assert (changed != draw_slice(1)).mean() > 0.02
    assert changed.std() > 20


@pytest.mark.parametrize("name", OF_GREY_LEVELS)
def test_air_stays_black_and_bone_white_in_every_window(name: str) -> None:
    """And what was brighter is nowhere darker after it."""
    drawn, changed = draw_slice(3), export(name, 3)

    assert set(changed[drawn == 0]) == {0}
    assert set(changed[drawn == 255]) == {255}
    levels = [changed[drawn == level][0] for level in np.unique(drawn)]
    assert (np.diff(np.asarray(levels, np.int64)) >= 0).all()


def test_a_head_that_is_larger_fills_more_and_one_cut_tight_reaches_all_edges() -> None:
    """The field changes, not only the pixels."""
    filled = {
        name: (export(name, 1) > 30).mean() for name in ("as drawn", *(name for name in EXPORTS if "head" in name))
    }
    assert filled["head 0.7 times as large"] < filled["as drawn"] < filled["head 1.25 times as large"]
    tight = export("cropped tight, stretched", 1) > 20
    assert all(edge.any() for edge in (tight[0], tight[-1], tight[:, 0], tight[:, -1]))


def test_the_first_export_is_compared_with_itself() -> None:
    """Slices as they are drawn differ from themselves by nothing, and shares are those of the threshold."""
    model = load_model(BUNDLED, EngineOptions(precision="fp32"))
    images, positive = [draw_slice(index) for index in range(8)], np.arange(8) % 2 == 1
    drawn = judge_exports(model, images, positive)["as drawn"]

    assert drawn["difference"] == (0.0, 0.0, 0.0)
    called = np.array([model.run(image[np.newaxis, :, :, np.newaxis])[0, 1] for image in images]) > model.spec.threshold
    assert drawn["called"] == [called[~positive].mean(), called[positive].mean()]
    assert 0 < called.sum() < 8


def test_page_has_a_table_for_each_model(tmp_path: Path) -> None:
    """With the digest of what answered."""
    assert main(["--slices", "8", "--models", str(BUNDLED), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "exports.md").read_text("utf-8")

    assert load_model(BUNDLED, EngineOptions(precision="fp32")).digest[:12] in page
    assert all(f"| {name} |" in page for name in EXPORTS)


def test_committed_page_is_of_the_bundled_models() -> None:
    """The page is what its figures say, and they are of the models that are here."""
    document = json.loads((ROOT / "docs" / "exports.json").read_text("utf-8"))

    for model, folder in zip(document["models"], (BUNDLED, ROOT / "models-imagenet/stroke-lite0/1"), strict=True):
        assert model["digest"] == load_model(folder, EngineOptions(precision=model["precision"])).digest
    assert render_exports(document) == (ROOT / "docs" / "exports.md").read_text("utf-8")
