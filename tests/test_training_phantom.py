"""The synthetic head-CT slices: reproducible, fair between the classes, and written whole or not at all."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.lesions import HAEMORRHAGES, KINDS
from training.phantom import choose_kind, generate_slice, write_dataset


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
    assert list(rows[0]) == ["file", "label", "kind", "level", "seed", "patient", "study"]
    assert [row["file"] for row in rows[:2]] == ["normal/00000.png", "stroke/00001.png"]
    assert {row["label"] for row in rows} == {"normal", "stroke"}
    assert all((row["kind"] == "none") == (row["label"] == "normal") and row["seed"] == "4" for row in rows)
    for row in rows:
        with Image.open(tmp_path / "out" / row["file"]) as image:
            assert (image.mode, image.size) == ("L", (64, 64))


def test_progress_ends_at_the_count(tmp_path: Path) -> None:
    """The callback sees growing numbers up to (count, count)."""
    seen: list[tuple[int, int]] = []
    write_dataset(
        tmp_path / "out", 40, 1, size=64, processes=1, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


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
