"""What a conversion takes: the networks that are converted, what is measured of one, and the table of all."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.conversion import __main__ as command
from bench.conversion.networks import list_builders, make_network
from bench.conversion.page import FIGURES, PAGE, TITLE, publish_conversion, put_section, render_section
from tests.fakes import ROOT, encode, make_slice
from tests.test_bench_report import MACHINE

PARITY = {"image_difference": 2e-6, "random_difference": 3e-6, "source_variation": 1e-6, "allowed": 1.6e-5}
FP32 = {
    "seconds": 21.0,
    "cpu_seconds": 40.0,
    "peak_mb": 2048.0,
    "parity": PARITY,
    "size": 94_000_000,
    "int8": None,
    "int8_failure": "",
}
VARIANT = {"size": 24_000_000, "held_out": {"agreement_at_threshold": 0.995}}


@pytest.fixture
def slices(tmp_path: Path) -> Path:
    """Eight small slices; one class is brighter."""
    for label, level in (("normal", 60), ("stroke", 120)):
        (tmp_path / "slices" / label).mkdir(parents=True)
        for index in range(4):
            path = tmp_path / "slices" / label / f"{index}.png"
            path.write_bytes(encode(make_slice(level + 10 * index, side=48, seed=index)))
    return tmp_path / "slices"


def build_tiny() -> Any:
    """A network with a batch normalisation inside a nested one, as those of ``keras.applications`` are."""
    import keras
    from keras import layers

    base = keras.Sequential([keras.Input((48, 48, 3)), layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU()])
    pixels = keras.Input((48, 48, 3))
    features = layers.GlobalAveragePooling2D()(base(layers.Rescaling(1 / 127.5, offset=-1)(pixels)))
    return keras.Model(pixels, layers.Dense(2, activation="softmax")(features))


@pytest.mark.tensorflow
def test_network_has_seen_slices_and_is_converted(slices: Path, tmp_path: Path) -> None:
    """Statistics are those of the slices, scores are spread, and all that the table shows is measured."""
    network = make_network(build_tiny, slices)
    network.save(tmp_path / "tiny.keras")

    normalisation = network.layers[2].layers[1]
    assert not np.allclose(normalisation.moving_mean, 0, atol=0.01)
    assert normalisation.momentum == 0.99
    figures = command.measure_conversion(tmp_path / "tiny.keras", slices)
    assert 200 < figures["peak_mb"] < 3072
    assert figures["cpu_seconds"] > 0.5
    assert figures["parity"]["image_difference"] <= figures["parity"]["allowed"] <= 1e-4
    assert figures["size"] > 1000
    scores = network.predict(np.stack([np.full((48, 48, 3), level) for level in (0, 60, 120, 255)]), verbose=0)[:, 1]
    assert scores.min() < 0.2
    assert scores.max() > 0.8


def test_refusal_is_told_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that does not convert has a row, too."""
    refuse = "import sys; sys.exit('converter: exporting\\nconverter: error: no')"
    monkeypatch.setattr(command, "CONVERTER", (sys.executable, "-c", refuse))

    figures = command.measure_conversion(tmp_path / "missing.keras", tmp_path)

    assert figures["refused"] == "converter: error: no"
    assert "| refused: converter: error: no |" in render_section(
        {"machine": MACHINE, "networks": {"ResNet50": {"fp32": figures}}}
    )


def test_targets_are_met_or_missed() -> None:
    """Time and memory of ResNet-50 are held against what is wanted."""
    slow = {**FP32, "seconds": 55.0}

    text = render_section({"machine": MACHINE, "networks": {"VGG16": {"fp32": FP32}, "ResNet50": {"fp32": slow}}})

    assert "A Processor" in text
    assert "| VGG16 | 21 | 40 | 2,048 | 3.0e-06 | 1.6e-05 | 94.0 |  |  |" in text
    assert "| ResNet50, time | at most 30 s | 55 (55 to 55) s | missed |" in text
    assert "| ResNet50, peak | at most 3 GB | 2.00 (2.00 to 2.00) GB | met |" in text


@pytest.mark.parametrize(
    ("int8", "failure", "cells"), [(VARIANT, "", "99.50% | 24.0"), (None, "same label 93 %", "same label 93 % | ")]
)
def test_variant_or_the_reason_why_there_is_none(int8: Any, failure: str, cells: str) -> None:
    """A gate that refuses is no gap in the table."""
    figures = {"fp32": FP32, "int8": {**FP32, "int8": int8, "int8_failure": failure}}

    assert f"| 94.0 | {cells} |" in render_section({"machine": MACHINE, "networks": {"VGG16": figures}})


def test_section_is_replaced_and_the_page_around_it_stays(tmp_path: Path) -> None:
    """Networks are measured one by one, and what was measured before stays, INT8 too."""
    (tmp_path / PAGE).write_text(f"# Page\n\nBefore.\n\n{TITLE}\n\nold\n\n## After\n\nText.\n", "utf-8")

    publish_conversion("VGG16", {"fp32": FP32, "int8": {**FP32, "int8": VARIANT}}, MACHINE, tmp_path)
    publish_conversion("ResNet50", {"fp32": FP32}, MACHINE, tmp_path)
    publish_conversion("VGG16", {"fp32": {**FP32, "seconds": 11.0}}, MACHINE, tmp_path)

    page = (tmp_path / PAGE).read_text("utf-8")
    assert page.startswith("# Page\n\nBefore.\n\n## Public")
    assert page.endswith("\n\n## After\n\nText.\n")
    assert "old" not in page
    assert "| VGG16 | 11 | 40 | 2,048 | 3.0e-06 | 1.6e-05 | 94.0 | 99.50% | 24.0 |" in page
    assert page.count("| ResNet50 | 21 |") == 1


def test_page_without_the_section_gets_it_at_its_end() -> None:
    """For the first time."""
    assert put_section("# Page\n", f"{TITLE}\n\nnew\n") == f"# Page\n\n{TITLE}\n\nnew\n"


def test_each_network_is_published_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is cut short has left what it measured."""
    made: list[tuple[str, ...]] = []

    def measure(model: Path, slices: Path, *flags: str) -> dict[str, Any]:
        made.append((model.name, *flags))
        return {**FP32, "int8": VARIANT if flags else None}

    monkeypatch.setattr(command, "measure_conversion", measure)
    monkeypatch.setattr(command, "make_apart", lambda name: Path(f"{name}.keras"))
    monkeypatch.setattr(command, "find_plain", lambda count: tmp_path)
    (tmp_path / PAGE).write_text("# Page\n", "utf-8")

    command.main(["--only", "VGG16", "MobileNetV2", "--int8", "--out", str(tmp_path)])

    assert made == [
        ("VGG16.keras",),
        ("VGG16.keras", "--int8"),
        ("MobileNetV2.keras",),
        ("MobileNetV2.keras", "--int8"),
    ]
    assert list(json.loads((tmp_path / FIGURES).read_text())["networks"]) == ["VGG16", "MobileNetV2"]


def test_committed_section_is_that_of_the_committed_figures() -> None:
    """Nobody has edited one of the two by hand, and every network is one that is measured."""
    document = json.loads((ROOT / "docs" / FIGURES).read_text("utf-8"))

    page = (ROOT / "docs" / PAGE).read_text("utf-8")
    assert put_section(page, render_section(document)) == page
    assert document["networks"].keys() <= list_builders().keys()
