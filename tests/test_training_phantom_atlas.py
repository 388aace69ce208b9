"""The brain that is bent after an average of people's: it lies in the skull, its fluid where brains have it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.phantom.anatomy import atlas, make_atlas
from training.phantom.anatomy.atlas import DURA, STEPS, WALL, map_atlas
from training.phantom.anatomy.brain import draw_anatomy
from training.phantom.head import Head, Push
from training.phantom.patient import Patient
from training.phantom.recipe import PARTS, Recipe

PLAIN = Recipe().leave_out([part for part in PARTS if part != "atlas"])
SIZE = 192


def find_patient(key: int, has_atlas: bool = True) -> Patient:
    """The first from a key on whose brain is bent, or drawn by hand."""
    while ("atlas" in Patient(key, PLAIN).parts) != has_atlas:
        key += 1
    return Patient(key, PLAIN)


def draw_head(patient: Patient, level: float, seed: int = 0) -> Head:
    """A head upright in the middle of the field, 74 pixels to the half of its length."""
    traits = replace(patient.traits, level=level, contrast=1.0, brightness=0.0, atrophy=0.4, ventricles=1.2)
    centre = (SIZE / 2, SIZE / 2)
    return Head(
        np.random.default_rng([patient.key, seed]),
        patient.open_stream("skull"),
        traits,
        centre,
        0.385 * SIZE,
        0.0,
        SIZE,
        Push(),
    )


def draw_anatomy_of(patient: Patient, level: float, seed: int = 0) -> Head:
    head = draw_head(patient, level, seed)
    draw_anatomy(head, patient)
    return head


@pytest.mark.parametrize("level", [0.32, 0.5, 0.75, 0.92])
@pytest.mark.parametrize("key", [1, 20, 300])
def test_the_brain_fills_the_skull(level: float, key: int) -> None:
    """Most of the cavity is brain at each level, none of it lies outside."""
    head = draw_anatomy_of(find_patient(key), level)
    within = head.inside > 0.99
    brain = (head.hu > 20) & (head.hu < 48) & within
    assert brain.sum() > 0.6 * within.sum()
    mapped = map_atlas(head, find_patient(key))
    assert (mapped.grey + mapped.white)[head.depth < -0.05].mean() < 0.05


def test_fluid_lies_where_brains_have_it() -> None:
    """Ventricles between the thalami and above them, none near the vertex; the fourth behind the pons."""
    area = {
        level: np.mean([draw_anatomy_of(find_patient(key), level).ventricle.sum() for key in range(0, 200, 20)])
        for level in (0.3, 0.5, 0.62, 0.9)
    }
    assert area[0.5] > 100
    assert area[0.62] > 100
    assert area[0.9] < 10
    assert 20 < area[0.3] < area[0.62]
    head = draw_anatomy_of(find_patient(1), 0.62)
    rows, columns = np.nonzero(head.ventricle > 0.5)
    assert abs(float(head.x[rows, columns].mean())) < 0.06  # both sides alike
    assert float(np.abs(head.x[rows, columns]).max()) < 0.5  # deep in the brain


def test_grey_matter_is_denser_than_white() -> None:
    """By as much as is drawn by hand, where the atlas is sure of either."""
    patient = find_patient(5)
    head = draw_anatomy_of(patient, 0.75)
    fluid = np.maximum(head.cistern, head.ventricle) > 0.05
    brain = (head.depth > 0.03) & (head.off_midline > 0.06) & ~fluid
    near, deep = brain & (head.depth < 0.06), brain & (head.depth > 0.28)
    assert 2 < float(np.median(head.hu[near]) - np.median(head.hu[deep])) < 11


def test_no_two_slices_have_the_same_folds() -> None:
    """The same patient at the same level, drawn twice: outlines agree, folds do not."""
    patient = find_patient(8)
    one, two = (draw_anatomy_of(patient, 0.8, seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.inner_table, two.inner_table)
    inside = one.inside > 0.99
    assert np.abs(one.hu - two.hu)[inside].mean() > 0.5
    again = draw_anatomy_of(patient, 0.8, 1)
    np.testing.assert_array_equal(one.hu, again.hu)


def test_a_fifth_is_drawn_by_hand() -> None:
    """So that no network learns one brain; both kinds keep their skull and scalp."""
    share = np.mean(["atlas" in Patient(key).parts for key in range(2000)])
    assert share == pytest.approx(0.8, abs=0.04)
    head = draw_anatomy_of(find_patient(1, has_atlas=False), 0.5)
    assert head.ventricle.sum() > 20


def test_the_base_is_cut_with_the_brain_that_lies_in_it() -> None:
    """Below the vault the cavity is the atlas's: cerebellum behind, poles of the temporal lobes at the sides."""
    head = draw_anatomy_of(find_patient(3), 0.22)
    for x, y in ((0.25, 0.5), (-0.25, 0.5), (0.45, -0.12), (-0.45, -0.12)):
        spot = (np.abs(head.x - x) < 0.04) & (np.abs(head.y - y) < 0.04)
        assert 20 < float(np.median(head.hu[spot])) < 45, (x, y)
    assert head.inside[(np.abs(head.x) < 0.03) & (np.abs(head.y + 0.9) < 0.03)].max() < 0.5  # the nose


def test_the_file_says_whose_it_is() -> None:
    """The template's licence wants its copyright notice in all copies."""
    notice = atlas.FILE.with_suffix(".txt").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2004 Louis Collins, McConnell Brain Imaging Centre" in notice
    assert "Permission to use, copy, modify, and distribute" in notice
    lock = (Path(__file__).parents[1] / "requirements" / "extras" / "atlas.lock").read_text(encoding="utf-8")
    assert "nilearn==0.14.1" in lock
    assert "nilearn\n0.14.1" in notice


def test_a_template_becomes_an_atlas() -> None:
    """A ball of grey around a ball of white with a drop of fluid in it: shares, distances, the commissure."""
    x, y, z = (place - zero for place, zero in zip(np.indices((197, 233, 189)), make_atlas.COMMISSURE, strict=True))
    far = np.sqrt(x**2 + (y + 20.0) ** 2 + (z - 15.0) ** 2)
    drop = np.sqrt((np.abs(x) - 12.0) ** 2 + (y + 10.0) ** 2 + (z - 18.0) ** 2) < 8
    third = (np.abs(x) < 2) & (np.abs(y + 12) < 8) & (np.abs(z) < 8)
    fourth = (np.abs(x) < 6) & (np.abs(y + 43) < 5) & (np.abs(z + 32) < 8)
    fluid = drop | third | fourth
    white = ((far < 45) & ~fluid).astype(np.float32)
    grey = ((far >= 45) & (far < 60) & ~fluid).astype(np.float32)
    made = make_atlas.make_arrays(grey, white)
    right, front, up = made.origin
    assert made.white[right - 30, front - 20, up + 15] == STEPS
    assert made.grey[right - 50, front - 20, up + 15] == STEPS
    assert made.ventricles[right - 12, front - 10, up + 18] > WALL
    assert made.ventricles[right, front - 12, up] > WALL
    assert made.ventricles[right, front - 43, up - 32] > WALL
    assert made.ventricles[right - 40, front - 20, up + 15] < WALL
    assert made.cavity[right - 55, front - 20, up + 15] == pytest.approx(DURA + 5, abs=1)
    assert made.cavity[right - 65, front - 20, up + 15] == pytest.approx(DURA - 5, abs=1)
