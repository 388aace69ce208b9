"""A whole run: slices that are easy to tell apart, trained on, converted with INT8, served and asked."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.conversion import whole as command
from bench.conversion.obvious import BLEED_LEVEL, make_resnet50, write_slices
from bench.conversion.page import FIGURES, PAGE, publish_conversion, put_section
from bench.conversion.whole_page import KEY, TITLE, publish_whole, render_whole
from server.models.manifest import Manifest
from tests.backbones import use_tiny_backbone
from tests.fakes import ROOT
from tests.test_bench_conversion import FP32
from tests.test_bench_report import MACHINE

TAKEN = {"seconds": 200.0, "cpu_seconds": 60.0, "peak_mb": 2048.0}
COMPARED = {
    "slices": 200,
    "agreement_at_threshold": 0.995,
    "agreement_at_half": 1.0,
    "mean_difference": 0.004,
    "largest_difference": 0.03,
}
VARIANT = {"size": 24_000_000, "method": "min-max", "fp32_layers": ["one"], "held_out": COMPARED}
FIGURES_OF_RUN: dict[str, Any] = {
    "slices": 300,
    "training": {**TAKEN, "auc": {"value": 0.95, "low": 0.9, "high": 0.99}, "test_slices": 44},
    "conversion": {
        **TAKEN,
        "parity": FP32["parity"],
        "size": 94_000_000,
        "recorded": 16,
        "int8": VARIANT,
        "int8_failure": "",
    },
    "served": {
        "fp32": {"slices": 44, "largest_difference": 3e-6, "same_label": 44},
        "int8": {"slices": 44, "largest_difference": 0.02, "same_label": 43},
    },
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As few as an INT8 variant can be judged on."""
    folder = tmp_path_factory.mktemp("whole") / "slices"
    write_slices(folder, 100)
    return folder


def test_every_stroke_has_a_bleed_and_nothing_else_is_there(slices: Path) -> None:
    """Half of the slices each; a bleed is brighter than brain and darker than bone."""
    bright = {}
    for label in ("normal", "stroke"):
        files = sorted((slices / label).iterdir())
        assert len(files) == 50
        pixels = np.stack([np.asarray(Image.open(path)) for path in files])
        bright[label] = ((pixels >= BLEED_LEVEL) & (pixels < 250)).mean(axis=(1, 2))

    assert sorted(path.name for path in slices.iterdir()) == ["normal", "stroke"]
    assert list(slices.parent.iterdir()) == [slices]
    assert (bright["stroke"] > 0.03).all()
    assert np.median(bright["normal"]) < 0.02


@pytest.mark.tensorflow
@pytest.mark.usefixtures("blank_plots", "steady_speed")
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_a_trained_head_is_converted_with_int8_and_served_as_keras_answered(slices: Path, tmp_path: Path) -> None:
    """With all commands of a whole run, on a backbone of five stages: the gate passes, and what is served in fp32 is
    Keras's to 1e-5 on every held-out file."""
    from converter.cli import main as convert
    from training.cli import main as train

    run, out = tmp_path / "run", tmp_path / "models" / "stroke-resnet50" / "1"
    with use_tiny_backbone():
        make_resnet50(slices).save(tmp_path / "weights.keras")
        flags = ["--model", "resnet50", "--weights", str(tmp_path / "weights.keras"), "--views", "1"]
        flags += ["--augment", "none", "--epochs", "30", "--learning-rate", "1e-2", "--one-image-per-patient"]
        assert train(["--data", str(slices), "--out", str(run), *flags]) == 0
        flags = ["--images", str(slices), "--int8", "--calibrate", str(slices)]
        assert convert([str(run / "brain_stroke_model.keras"), "-o", str(out), *flags]) == 0

    with (run / "history.csv").open() as history:
        losses = [float(row["loss"]) for row in csv.DictReader(history)]
    assert min(losses) < 0.9 * losses[0]
    gate = Manifest.from_json((out / "manifest.json").read_text()).files["model.int8.onnx"].gate
    assert gate["held_out"]["agreement_at_threshold"] >= 0.98
    fp32, int8 = (command.ask(tmp_path / "models", run, slices, precision) for precision in ("fp32", "int8"))
    expected = command.read_predictions(run)
    assert fp32["slices"] == fp32["same_label"] == len(expected) >= 14
    assert max(expected.values()) - min(expected.values()) > 0.1
    assert fp32["largest_difference"] <= 1e-5
    assert 0 < int8["largest_difference"] < 0.2


def test_steps_that_are_done_are_not_done_again(tmp_path: Path) -> None:
    """What was half made when a run was stopped is."""
    (tmp_path / "training" / "half").mkdir(parents=True)
    made = []

    def make(folder: Path) -> dict[str, Any]:
        assert not folder.exists()
        folder.mkdir()
        made.append(folder.name)
        return {"seconds": 1.5}

    assert command.once(tmp_path, "training", make) == {"seconds": 1.5}
    assert command.once(tmp_path, "training", make) == {"seconds": 1.5}
    assert made == ["training"]


def test_command_runs_all_steps_and_writes_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 is served and asked, too, where there is a variant; the next run measures anew."""
    monkeypatch.setattr(command, "FOLDER", tmp_path / "bench")
    monkeypatch.setattr(command, "make_apart", lambda count: (tmp_path / f"{count}", tmp_path / "weights.keras"))
    monkeypatch.setattr(command, "train", lambda *_: FIGURES_OF_RUN["training"])
    monkeypatch.setattr(command, "convert", lambda *_: FIGURES_OF_RUN["conversion"])
    monkeypatch.setattr(command, "ask", lambda *given: FIGURES_OF_RUN["served"][given[-1]])
    (tmp_path / PAGE).write_text("# Page\n", "utf-8")

    assert command.main(["--out", str(tmp_path)]) == 0

    document = json.loads((tmp_path / FIGURES).read_text())[KEY]
    assert {key: document[key] for key in FIGURES_OF_RUN} == FIGURES_OF_RUN
    assert list((tmp_path / "bench").iterdir()) == []
    assert (tmp_path / PAGE).read_text("utf-8") == f"# Page\n\n{render_whole(document)}"


def test_section_shows_what_came_out_and_whether_it_is_what_was_wanted() -> None:
    """Of INT8 the gate's figures."""
    text = render_whole({**FIGURES_OF_RUN, "machine": MACHINE})

    assert text.startswith(f"{TITLE}\n\n")
    assert "300 synthetic slices" in text
    assert "| training | 200 | 60 | 2,048 |" in text
    assert "| AUC on held-out slices | 0.950 (0.900 to 0.990) |" in text
    assert "same label | 99.50% at the threshold, 100.00% at 0.5 |" in text
    assert "| served int8, asked for 44 files | 43 with Keras's label, largest difference 2.0e-02 |" in text
    assert "| served fp32, difference from Keras | at most 1e-05 | 3.0e-06 (3.0e-06 to 3.0e-06) | met |" in text
    assert "missed" not in text


def test_a_refused_variant_and_a_missed_target_are_told() -> None:
    """With the gate's words; only fp32 is served then."""
    whole = {**copy.deepcopy(FIGURES_OF_RUN), "machine": MACHINE}
    whole["conversion"].update(int8=None, int8_failure="the INT8 variant is not written: same label 93 % (ranges by …)")
    del whole["served"]["int8"]
    whole["training"]["auc"]["value"] = 0.65

    text = render_whole(whole)

    assert "| INT8 | none: same label 93 % |" in text
    assert "| AUC on held-out slices | at least 0.9 | 0.650 (0.650 to 0.650) | missed |" in text
    assert "served int8" not in text


def test_sections_of_one_page_keep_each_other(tmp_path: Path) -> None:
    """Figures, too, whichever is measured last."""
    (tmp_path / PAGE).write_text("# Page\n\n## After\n\nText.\n", "utf-8")

    publish_whole(FIGURES_OF_RUN, MACHINE, tmp_path)
    publish_conversion("VGG16", {"fp32": FP32}, MACHINE, tmp_path)
    publish_whole({**FIGURES_OF_RUN, "slices": 400}, MACHINE, tmp_path)

    document = json.loads((tmp_path / FIGURES).read_text())
    assert document[KEY]["slices"] == 400
    assert list(document["networks"]) == ["VGG16"]
    page = (tmp_path / PAGE).read_text("utf-8")
    assert page.startswith("# Page\n\n## After\n\nText.\n\n")
    assert page.count(TITLE) == 1
    assert "400 synthetic slices" in page
    assert "| VGG16 |" in page


def test_committed_section_is_that_of_the_committed_figures() -> None:
    """Nobody has edited one of the two by hand."""
    document = json.loads((ROOT / "docs" / FIGURES).read_text("utf-8"))
    page = (ROOT / "docs" / PAGE).read_text("utf-8")

    assert (KEY in document) == (TITLE in page)
    assert KEY not in document or put_section(page, render_whole(document[KEY])) == page
