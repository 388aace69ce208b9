"""What synthetic slices are like: measures on arrays whose answer is known, verdicts, and the page about them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from bench.training.realism import __main__ as command
from bench.training.realism.brain import BANDS, rank_shares
from bench.training.realism.heads import HEALTHY, draw_head, list_patients
from bench.training.realism.page import describe_values, judge, render_realism, write_realism
from bench.training.realism.published import PUBLISHED, SOURCES, Published
from bench.training.realism.scanner import SIDE, STEP, cut_middle, measure_spectrum, remove_plane
from bench.training.realism.shapes import (
    find_origin,
    measure_ball,
    measure_evans,
    measure_extent,
    measure_thickness,
    measure_width,
)
from bench.training.realism.tissues import average_regions, find_added, find_even, measure_tissues, name_age
from tests.fakes import ROOT
from tests.test_bench_report import MACHINE
from training.phantom.head import VENOUS_BLOOD
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe

ROWS, COLS = np.indices((101, 101), dtype=np.float32)
RADIUS = np.hypot(ROWS - 50, COLS - 50)
FIGURE = Published("something", "mm", ".1f", 4.0, 6.0, ("Common",), "`here`", 1.0)


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, -math.pi / 2, math.pi])
def test_thickness_of_a_ring_is_the_same_all_around(angle: float) -> None:
    """Finer than a pixel, by the shares of the pixels at its edges."""
    ring = np.clip(40.3 - RADIUS, 0, 1) * np.clip(RADIUS - 32.6, 0, 1)

    assert measure_thickness(ring, (50.0, 50.0), angle) == pytest.approx(6.7, abs=0.15)


def test_thickness_counts_bone_alone() -> None:
    """What is air inside of bone, as a sinus is, does not count; neither does what lies beyond the picture."""
    wall = np.zeros((101, 101), dtype=np.float32)
    wall[:, 80:84] = wall[:, 88:90] = 1

    assert measure_thickness(wall, (50.0, 50.0), 0.0) == pytest.approx(6, abs=0.3)
    assert measure_thickness(wall, (50.0, 50.0), math.pi) == 0


def test_evans_index_is_that_of_the_frontal_horns() -> None:
    """Horns of 30 pixels, with fluid further back that is wider, in a cavity of 100."""
    ventricle = np.zeros((101, 101), dtype=bool)
    ventricle[20, 35:40] = ventricle[20, 60:65] = True
    ventricle[80, 10:90] = True
    cavity = np.zeros((101, 101), dtype=bool)
    cavity[50, :100] = True

    assert measure_evans(ventricle, cavity, ROWS < 50) == pytest.approx(0.30)
    assert measure_width(np.zeros((4, 4), dtype=bool)) == measure_extent(np.zeros(4, dtype=bool)) == 0


def test_volume_of_a_ball_follows_from_its_section() -> None:
    """Of radius 2."""
    assert measure_ball(math.pi * 4) == pytest.approx(4 / 3 * math.pi * 8)


def test_regions_are_averaged_on_both_sides() -> None:
    """A region stands for both sides; what lies elsewhere is not looked at."""
    x, y = (COLS - 50) / 50, (ROWS - 50) / 50
    values = np.zeros((101, 101), dtype=np.float32)
    values[45:56, 20:31] = 30
    values[45:56, 70:81] = 50

    assert average_regions(values, x, y, ((0.5, 0.0),), radius=0.06) == pytest.approx(40)


def test_even_pixels_are_those_far_from_edges() -> None:
    """Both sides of an edge are left out."""
    values = np.where(COLS < 50, 0, 20).astype(np.float32)

    assert set(np.flatnonzero(~find_even(values, 5.0)[10])) == {49, 50}


def test_plane_is_no_noise() -> None:
    """A slope over the field is taken away whole, and noise stays."""
    noise = np.random.default_rng(1).normal(0, 3, (SIDE, SIDE)).astype(np.float32)
    rows, cols = np.indices(noise.shape, dtype=np.float32)

    assert np.abs(remove_plane(2 * rows - cols + 5)).max() < 1e-3
    assert remove_plane(noise + rows).std() == pytest.approx(3, rel=0.05)
    assert cut_middle(np.zeros((200, 171), dtype=np.float32)).shape == (SIDE, SIDE)


@pytest.mark.parametrize("pixel_mm", [0.5, 0.9])
def test_peak_of_a_wave_is_at_its_frequency(pixel_mm: float) -> None:
    """In line pairs per mm, whatever the size of a pixel."""
    frequency = 6 / (SIDE * pixel_mm)
    wave = np.sin(2 * np.pi * 6 * np.arange(SIDE) / SIDE)[None, :] * np.ones((SIDE, 1))
    frequencies, power = measure_spectrum(wave, pixel_mm)

    assert frequencies[np.argmax(power)] == pytest.approx(frequency, abs=STEP)


def test_white_noise_has_the_same_power_at_all_frequencies() -> None:
    """Variance times the area of a pixel; the frequencies end at two pixels."""
    spectra = [measure_spectrum(np.random.default_rng(k).normal(0, 2, (SIDE, SIDE)), 0.5) for k in range(20)]
    frequencies, power = spectra[0][0], np.mean([power for _, power in spectra], axis=0)

    assert power == pytest.approx(np.full(len(power), 4 * 0.25), rel=0.15)
    assert frequencies[-1] < 1.0


def test_amount_of_brain_is_ranked_by_level_and_kind() -> None:
    """Where strokes always have more brain the AUC is 1; a band with too few slices of a class has none."""
    kinds = np.array(["", "infarct"] * 40)
    levels = np.where(np.arange(80) < 40, 0.5, 0.8)
    ranked = rank_shares(np.where(kinds == "", 0.1, 0.5) + np.arange(80) * 1e-4, levels, kinds)

    assert ranked["all"] == {"auc": [1.0, 1.0, 1.0], "normal": 40, "stroke": 40}
    assert ranked["ventricles"]["stroke"] == ranked["above the ventricles"]["normal"] == 20
    assert ranked["posterior fossa"] == {"auc": None, "normal": 0, "stroke": 0}
    assert ranked["infarct"]["normal"] == 40
    assert ranked.keys() == {"all", "infarct", *BANDS}


def test_a_head_is_drawn_alike_with_a_finding_and_without() -> None:
    """So that what differs is the finding: the sinus under the skull, and nothing in the front of the brain."""
    added = [
        find_added(draw_head(patient, 0.5), draw_head(Patient(patient.key, HEALTHY.leave_out(["sinuses"])), 0.5))
        for patient in list_patients(6, parts=["sinuses"])
    ]

    assert any(mask.any() for mask in added)
    assert not any(mask[: len(mask) // 2].any() for mask in added)


def test_patients_have_the_parts_that_are_asked_for() -> None:
    """And those who are healthy have nothing in the regions of interest."""
    assert all("metal" in patient.parts for patient in list_patients(3, Recipe(), ["metal"]))
    assert not any(patient.parts & {"tumour", "calcification"} for patient in list_patients(20))


def test_tissues_are_measured_where_they_are() -> None:
    """Grey is denser than white matter, and venous blood has what it is drawn with, up to its spread of 12."""
    values = defaultdict(list)
    for name, value in measure_tissues(12):
        values[name].append(value)

    assert np.mean(values["grey less white matter"]) > 2
    assert all(abs(value - VENOUS_BLOOD) < 14 for value in values["superior sagittal sinus"])
    assert all(0 <= value <= 15 for value in values["cerebrospinal fluid"])


def test_origin_is_where_coordinates_are_nought() -> None:
    """Between pixels too."""
    x, y = np.meshgrid(np.arange(9.0) - 3.5, np.arange(7.0) - 2.0)

    assert find_origin(x.astype(np.float32), y.astype(np.float32)) == (2.0, 3.5)


def test_only_subdural_bleeds_grow_old() -> None:
    """A faint bleed elsewhere is a fresh one of the anaemic."""
    assert [name_age("subdural", density) for density in (60, 45, 20)] == ["acute", "subacute", "chronic"]
    assert name_age("epidural", 45) == "acute"


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([3.5, 5.0, 6.5], "inside"),
        ([5.0, 5.0, 5.1], "inside, too even"),
        ([-3.0, 5.0, 13.0], "inside, too uneven"),
        ([1.0, 3.0, 5.0], "**below**"),
        ([7.9, 8.0, 8.1], "**above**, too even"),
    ],
)
def test_verdict_is_where_the_median_lies_and_how_people_differ(values: list[float], verdict: str) -> None:
    """One standard deviation of people is 1, so their middle 90 % span 3.3."""
    assert judge(describe_values(values, FIGURE), FIGURE) == verdict


def test_a_figure_without_a_source_has_no_verdict() -> None:
    """And says how many values there were all the same."""
    unknown = Published("area", "cm²", ".1f", None, None, (), "`here`")
    figure = describe_values([1.0, 2.0, 3.0], unknown)

    assert figure["count"] == 3
    assert judge(figure, unknown) == ""


def test_shares_are_percent_of_heads_with_their_interval() -> None:
    """How many values are inside means nothing for them."""
    share = Published("calcified", "%", ".0f", 20, 30, ("Common",), "`here`", is_share=True)
    figure = describe_values([1.0] * 25 + [0.0] * 75, share)

    assert figure["spread"] == pytest.approx([17.5, 25.0, 34.3], abs=0.1)
    assert figure["inside"] is None
    assert judge(figure, share) == "inside"


def test_every_figure_has_a_source_or_no_range() -> None:
    """And no source is listed that nothing is taken from."""
    assert all(bool(entry.sources) == (entry.low is not None) for entry in PUBLISHED.values())
    assert {source for entry in PUBLISHED.values() for source in entry.sources} == SOURCES.keys()


def test_page_lists_what_to_change_and_where(tmp_path: Path) -> None:
    """What is inside is not in that list."""
    grey, sinus = PUBLISHED["grey matter"], PUBLISHED["superior sagittal sinus"]
    document = {
        "machine": MACHINE,
        "seed": 1,
        "heads": 60,
        "slices": 240,
        "figures": {
            "grey matter": describe_values([30.0, 33.0, 36.0], grey),
            "superior sagittal sinus": describe_values([58.0] * 3, sinus),
        },
        "brain": {"all": {"auc": [0.6, 0.55, 0.65], "normal": 120, "stroke": 120}},
    }
    write_realism(document, tmp_path)
    page = (tmp_path / "phantom.md").read_text("utf-8")
    changes = page.partition("## What to change next")[2].partition("##")[0]

    assert "VENOUS_BLOOD" in changes
    assert "GREY_MATTER" not in changes
    assert "**1 of 2 figures" in page
    assert "0.600 (0.550 to 0.650)" in page
    assert json.loads((tmp_path / "phantom.json").read_text("utf-8")) == document


def test_command_needs_pydicom(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It is said at once, not after all else has been measured."""

    def fail() -> None:
        raise ValueError("DICOM files need pydicom")

    monkeypatch.setattr(command, "require_pydicom", fail)
    with pytest.raises(SystemExit) as exit_:
        command.main(["--out", str(tmp_path / "docs")])

    assert exit_.value.code == 2
    assert "need pydicom" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_command_tells_at_once_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Not after minutes of measuring."""
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_:
        command.main(["--out", str(tmp_path / "file" / "docs")])

    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_committed_page_is_that_of_its_figures() -> None:
    """And they were judged by the ranges that are published today."""
    document = json.loads((ROOT / "docs" / "phantom.json").read_text("utf-8"))

    assert (ROOT / "docs" / "phantom.md").read_text("utf-8") == render_realism(document)
    ranges = {name: entry["range"] for name, entry in document["figures"].items()}
    assert ranges == {name: None if e.low is None else [e.low, e.high] for name, e in PUBLISHED.items()}
