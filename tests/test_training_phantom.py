"""The synthetic head-CT slices: reproducible, fair between the classes, and written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from server.images.dicom.window import Window
from training.phantom.dataset import choose_kind, encode_png, generate_slice, write_dataset
from training.phantom.lesions import HAEMORRHAGES, KINDS
from training.phantom.patient import Patient
from training.phantom.recipe import FINDINGS, PARTS, Recipe
from training.settings.listing import DEFAULT_PATIENT_PATTERN


def digest_folder(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_lesion_is_visible_against_its_surroundings(kind: str) -> None:
    """Every kind of stroke changes the grey of its own mask: brighter for most bleeds, darker for infarcts."""
    differences = []
    for seed in range(6):
        item = generate_slice(np.random.default_rng([3, seed]), kind=kind)
        assert item.lesion.mean() >= 0.0007
        brain = (item.pixels > 40) & (item.pixels < 200) & ~item.lesion
        differences.append(float(item.pixels[item.lesion].mean()) - float(np.median(item.pixels[brain])))
    typical = np.median(differences)
    assert typical < -5 if kind == "infarct" else typical > 5


def test_a_normal_slice_has_no_lesion() -> None:
    """Kind None leaves the lesion mask empty."""
    item = generate_slice(np.random.default_rng(1), kind=None)
    assert item.kind is None
    assert not item.lesion.any()


@pytest.mark.parametrize("size", [64, 128, 256])
def test_a_slice_has_the_size_asked_for(size: int) -> None:
    """Pixels are 8-bit grey, the mask is boolean, and both are square."""
    item = generate_slice(np.random.default_rng(2), kind="subdural", size=size)
    assert item.pixels.shape == item.lesion.shape == (size, size)
    assert item.pixels.dtype == np.uint8
    assert item.lesion.dtype == np.bool_


def test_the_same_stream_gives_the_same_slice() -> None:
    """A slice is a function of its random stream."""
    first, second = (generate_slice(np.random.default_rng([5, 8]), kind="infarct", size=128) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)


def test_an_unknown_kind_is_refused_by_name() -> None:
    """The message names the kind and what is allowed."""
    with pytest.raises(ValueError, match="not 'migraine'"):
        generate_slice(np.random.default_rng(0), kind="migraine")


def test_kinds_are_spread_as_promised() -> None:
    """Half the slices are strokes, a fifth of those infarcts, and the bleeds are even."""
    kinds = [choose_kind(index) for index in range(500)]
    assert kinds.count(None) == 250
    assert kinds.count("infarct") == 50
    assert {kinds.count(kind) for kind in HAEMORRHAGES} == {40}


def test_the_amount_of_brain_does_not_give_the_class_away() -> None:
    """Ranking slices by their share of brain-grey pixels separates the classes little better than chance."""
    share = {True: [], False: []}  # type: dict[bool, list[float]]
    for index in range(240):
        kind = choose_kind(index)
        pixels = generate_slice(np.random.default_rng([11, index]), kind=kind, size=96).pixels
        share[kind is not None].append(float(((pixels >= 60) & (pixels < 170)).mean()))
    wins = np.mean([stroke > normal for stroke in share[True] for normal in share[False]])
    assert 0.35 < wins < 0.65


def test_files_do_not_depend_on_processes_or_count(tmp_path: Path) -> None:
    """The same seed writes the same bytes with one process or two, and a longer run begins with a shorter one."""
    write_dataset(tmp_path / "one", 40, 7, size=64, processes=1)
    write_dataset(tmp_path / "two", 40, 7, size=64, processes=2)
    write_dataset(tmp_path / "short", 6, 7, size=64, processes=1)
    one, two, short = (digest_folder(tmp_path / name) for name in ("one", "two", "short"))
    assert one == two
    short.pop("labels.csv")
    short.pop("dataset.json")
    assert short.items() <= one.items()


def test_labels_describe_the_files(tmp_path: Path) -> None:
    """labels.csv has one row a file, in order, with the class folder, kind, level and seed."""
    write_dataset(tmp_path / "out", 12, 4, size=64, processes=1)
    with (tmp_path / "out" / "labels.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["file", "label", "kind", "level", "seed", "patient", "study", "findings"]
    assert all(set(row["findings"].split()) <= set(FINDINGS) for row in rows)
    assert any(row["findings"] for row in rows)
    assert [row["file"] for row in rows[:2]] == ["normal/00000.png", "stroke/00001.png"]
    assert {row["label"] for row in rows} == {"normal", "stroke"}
    assert all((row["kind"] == "none") == (row["label"] == "normal") and row["seed"] == "4" for row in rows)
    for row in rows:
        with Image.open(tmp_path / "out" / row["file"]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))


THREE = ("normal", "haemorrhage", "ischaemia")


@pytest.mark.parametrize(
    ("options", "count", "suffix"),
    [
        ({}, 20, ".png"),
        ({"window": Window(40, 80)}, 20, ".png"),
        ({"dicom": True}, 20, ".dcm"),
        ({"slices_per_patient": 2}, 24, ".png"),
        ({"slices_per_patient": 4, "dicom": True}, 48, ".dcm"),
    ],
    ids=["pictures", "window", "dicom", "patients", "studies"],
)
def test_three_classes_have_the_slices_of_two(
    tmp_path: Path, options: dict[str, object], count: int, suffix: str
) -> None:
    """Same pixels, masks, kinds and patients; bleeds and infarcts under labels of their own."""
    write_dataset(tmp_path / "two", count, 7, size=64, processes=1, **options)  # type: ignore[arg-type]
    write_dataset(tmp_path / "three", count, 7, size=64, processes=1, classes=THREE, **options)  # type: ignore[arg-type]
    two, three = read_labels(tmp_path / "two"), read_labels(tmp_path / "three")
    assert {row["label"] for row in three} == set(THREE)
    for before, after in zip(two, three, strict=True):
        wanted = {"none": "normal", "infarct": "ischaemia"}.get(before["kind"], "haemorrhage")
        assert after == {**before, "label": wanted, "file": after["file"]}
        assert before["file"].replace("stroke/", f"{wanted}/") == after["file"]
        assert (tmp_path / "two" / before["file"]).read_bytes() == (tmp_path / "three" / after["file"]).read_bytes()
    masks = [
        sorted(path.read_bytes() for path in (tmp_path / name / ".lesions").rglob("*.png")) for name in ("two", "three")
    ]
    assert masks[0] == masks[1]
    assert {Path(row["file"]).suffix for row in three} == {suffix}


def test_the_data_set_says_how_its_classes_were_made(tmp_path: Path) -> None:
    """The command in dataset.json has the classes where they are not the usual two, whatever order they came in."""
    write_dataset(tmp_path / "two", 10, 7, size=64, processes=1, classes=("stroke", "normal"))
    write_dataset(tmp_path / "three", 10, 7, size=64, processes=1, classes=THREE[::-1])
    two, three = (json.loads((tmp_path / name / "dataset.json").read_text("utf-8")) for name in ("two", "three"))
    assert "--classes" not in two["source"]
    assert three["source"].endswith("--classes normal,haemorrhage,ischaemia")


@pytest.mark.parametrize(
    ("classes", "count", "message"),
    [
        (("normal",), 10, "classes must be normal,stroke or normal,haemorrhage,ischaemia, not normal"),
        (("normal", "haemorrhage"), 10, "not normal,haemorrhage"),
        (("normal", "stroke", "stroke"), 10, "not normal,stroke,stroke"),
        ((*THREE, "stroke"), 10, "not normal,haemorrhage,ischaemia,stroke"),
        (THREE, 9, "no slice is of the class ischaemia"),
    ],
)
def test_classes_that_no_slices_fit_are_refused(
    tmp_path: Path, classes: tuple[str, ...], count: int, message: str
) -> None:
    """A slice would have no class, or two, or a class no slice; nothing is left behind."""
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "out", count, 7, size=64, processes=1, classes=classes)
    assert not list(tmp_path.iterdir())


def test_progress_ends_at_the_count(tmp_path: Path) -> None:
    """The callback sees growing numbers up to (count, count)."""
    seen: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "out", 40, 1, size=64, processes=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


def read_labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def draw_normal(key: int, recipe: Recipe) -> NDArray[np.uint8]:
    return generate_slice(np.random.default_rng([9, key]), kind=None, size=96, patient=Patient(key, recipe)).pixels


@pytest.mark.parametrize("name", PARTS)
def test_a_switch_changes_what_it_names_and_nothing_else(name: str) -> None:
    """Without a part, slices of patients who have it differ, and those of all others stay the same byte for byte."""
    all_parts, without = Recipe(), Recipe().leave_out([name])
    having = [key for key in range(600) if name in Patient(key).parts][:30]
    lacking = [key for key in range(600) if name not in Patient(key).parts][:2]
    assert any(not np.array_equal(draw_normal(key, all_parts), draw_normal(key, without)) for key in having)
    assert all(np.array_equal(draw_normal(key, all_parts), draw_normal(key, without)) for key in lacking)


def test_a_part_left_out_leaves_the_others_of_the_patient() -> None:
    """Which findings somebody has does not depend on which are left out."""
    for key in range(30):
        whole = Patient(key).parts
        assert Patient(key, Recipe().leave_out(["tumour", "jpeg"])).parts == whole - {"tumour", "jpeg"}


def test_an_unknown_part_is_refused_by_name() -> None:
    """The message has the name and those that there are."""
    with pytest.raises(ValueError, match="called 'halo'; there are calcification, bright_dura"):
        Recipe().leave_out(["halo"])


def test_findings_are_as_frequent_in_either_class() -> None:
    """A finding says nothing about the class: its share among strokes is its share among normals."""
    count = 4000
    shares = {True: dict.fromkeys(FINDINGS, 0), False: dict.fromkeys(FINDINGS, 0)}
    for index in range(count):
        parts = Patient(int(np.random.default_rng([7, index]).integers(1 << 62))).parts
        for name in parts & FINDINGS.keys():
            shares[choose_kind(index) is not None][name] += 1
    for name, probability in FINDINGS.items():
        spread = 4 * (probability * (1 - probability) / (count / 2)) ** 0.5
        for strokes in (True, False):
            assert shares[strokes][name] / (count / 2) == pytest.approx(probability, abs=spread), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_covers_what_the_lesion_changed(kind: str) -> None:
    """Grey inside the mask differs from the brain's usual grey far more than brain outside the mask does."""
    plain = Recipe().leave_out(["noise", "jpeg", "motion", "resampling", "streaks", "kernel", "gamma", "wide_window"])
    inside, outside = [], []
    for key in range(8):
        item = generate_slice(np.random.default_rng([2, key]), kind=kind, size=128, patient=Patient(key, plain))
        brain = (item.pixels > 70) & (item.pixels < 190) & ~item.lesion
        usual = float(np.median(item.pixels[brain]))
        inside.append(abs(float(item.pixels[item.lesion].mean()) - usual))
        outside.append(abs(float(item.pixels[brain].mean()) - usual))
    assert np.median(inside) > 3 * np.median(outside)


def test_slices_of_a_patient_share_the_head_and_the_name(tmp_path: Path) -> None:
    """With several slices each, names carry the patient, and the slices of one head were imaged alike."""
    write_dataset(tmp_path / "out", 24, 3, size=64, processes=1, slices_per_patient=4)
    rows = read_labels(tmp_path / "out")
    assert [row["patient"] for row in rows] == [f"{index // 4:05d}" for index in range(24)]
    assert all(row["study"] == row["patient"] for row in rows)
    for row in rows:
        match = re.fullmatch(DEFAULT_PATIENT_PATTERN, Path(row["file"]).name)
        assert match is not None
        assert match["patient"] == row["patient"]
        assert (tmp_path / "out" / row["file"]).is_file()
    assert len({row["level"] for row in rows}) > 20


def test_a_stroke_patient_has_slices_without_the_lesion(tmp_path: Path) -> None:
    """A patient has one kind of lesion at most, not on every slice; about half of all slices show one."""
    write_dataset(tmp_path / "out", 96, 3, size=64, processes=1, slices_per_patient=6)
    kinds: dict[str, list[str]] = {}
    for row in read_labels(tmp_path / "out"):
        kinds.setdefault(row["patient"], []).append(row["kind"])
    assert all(len({*row} - {"none"}) <= 1 for row in kinds.values())
    strokes = [row for row in kinds.values() if {*row} != {"none"}]
    assert len(strokes) == 12
    assert all("none" in row for row in strokes)
    assert sum(kind != "none" for row in kinds.values() for kind in row) == 48


def test_each_slice_is_a_patient_unless_told(tmp_path: Path) -> None:
    """By default no two slices show the same head."""
    write_dataset(tmp_path / "out", 12, 3, size=64, processes=1)
    rows = read_labels(tmp_path / "out")
    assert [row["patient"] for row in rows] == [row["study"] for row in rows] == [f"{i:05d}" for i in range(12)]


def test_the_data_set_states_its_facts(tmp_path: Path) -> None:
    """dataset.json has what a model card asks for, and the command that draws the same slices again."""
    recipe = Recipe().leave_out(["metal", "jpeg"])
    write_dataset(tmp_path / "out", 8, 5, size=64, processes=1, slices_per_patient=2, recipe=recipe)
    facts = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert list(facts) == ["name", "source", "population", "labelled_by", "excluded", "licence", "notes"]
    assert all(isinstance(value, str) and value for value in facts.values())
    assert facts["source"] == (
        "python -m training phantom --count 8 --seed 5 --size 64 --slices-per-patient 2 --without metal jpeg"
    )
    assert facts["population"] == "no people: drawn heads"
    assert facts["excluded"].endswith("metal, jpeg")


def test_a_png_reads_back(tmp_path: Path) -> None:
    """The fast PNG writer loses nothing, whatever the shape."""
    pixels = np.random.default_rng(3).integers(0, 256, (7, 13)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(pixels))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), pixels)


def test_less_than_one_slice_a_patient_is_refused(tmp_path: Path) -> None:
    """The message names the setting, and nothing is written."""
    with pytest.raises(ValueError, match="slices_per_patient must be at least 1, not 0"):
        write_dataset(tmp_path / "out", 4, 0, size=64, slices_per_patient=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("count", "size", "message"), [(1, 64, "count must be at least 2"), (4, 63, "size must be at least 64")]
)
def test_senseless_requests_are_refused(tmp_path: Path, count: int, size: int, message: str) -> None:
    """Too few slices or too small ones are refused before anything is written."""
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "out", count, 0, size=size)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_files_is_never_overwritten(tmp_path: Path) -> None:
    """An output folder that holds anything is refused and left as it was."""
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="not empty"):
        write_dataset(tmp_path, 2, 0, size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """An output folder that exists but is empty is accepted."""
    out = tmp_path / "out"
    out.mkdir()
    write_dataset(out, 2, 0, size=64, processes=1)
    assert (out / "labels.csv").is_file()


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    """When the run is stopped half-way, neither the folder nor its half-made sibling remains."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "out", 4, 0, size=64, processes=1, progress=stop)
    assert not list(tmp_path.iterdir())
