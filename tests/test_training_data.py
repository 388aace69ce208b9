"""Listing, decoding and splitting the images of a training run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from server.images.preprocess import load_pixels
from training.data.format import INPUT_FORMAT
from training.data.labels import list_images
from training.data.pixels import compute_fingerprint, decode_images
from training.errors import TrainingError


def write_discs(root: Path, patients: int = 12, slices: int = 2, size: int = 256) -> Path:
    """Writes grey slices of made-up patients, every second one with a bright disc: ``stroke/2 (1).png``."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size]
    for patient in range(patients):
        label = ("normal", "stroke")[patient % 2]
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(1, slices + 1):
            pixels = rng.integers(60, 120, (size, size))
            if label == "stroke":
                centre = rng.integers(size // 4, 3 * size // 4, 2)
                pixels[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < (size // 8) ** 2] = 230
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{patient} ({number}).png")
    return root


def ignore_progress(done: int, total: int) -> None:
    """Stands in for a progress display."""


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_discs(tmp_path / "discs", patients=4, slices=1, size=64)


def test_labels_are_the_sorted_folder_names(discs: Path) -> None:
    """The order of the labels, and so of the model's output, is that of the sorted class folders."""
    images = list_images(discs)
    assert images.labels == ("normal", "stroke")
    assert images.files == ("normal/0 (1).png", "normal/2 (1).png", "stroke/1 (1).png", "stroke/3 (1).png")
    assert images.targets.tolist() == [0, 0, 1, 1]


def test_other_files_are_counted_and_hidden_ones_are_not(discs: Path) -> None:
    """A text file in a class folder is reported as ignored; files that the desktop hides do not matter."""
    (discs / "normal" / "notes.txt").write_text("x")
    (discs / "normal" / ".cache").mkdir()
    (discs / "normal" / ".cache" / "0.png").write_bytes(b"")
    images = list_images(discs)
    assert (len(images.files), images.ignored) == (4, 1)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "has neither a labels.csv nor PNG, JPEG or DICOM images"),
        ({"normal": 1}, r"has 1 class \(normal\)"),
        ({"normal": 1, "stroke": 0}, "class folder stroke has no"),
    ],
    ids=["empty", "one-class", "empty-class"],
)
def test_folder_without_two_classes_is_refused(tmp_path: Path, folders: dict[str, int], message: str) -> None:
    """What is not two folders or more with images says what it is instead."""
    for name, count in folders.items():
        (tmp_path / name).mkdir()
        for number in range(count):
            (tmp_path / name / f"{number}.png").write_bytes(b"")
    with pytest.raises(TrainingError, match=message):
        list_images(tmp_path)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is named."""
    with pytest.raises(TrainingError, match="missing is not a folder"):
        list_images(tmp_path / "missing")


def test_decoded_pixels_are_the_servers(discs: Path, tmp_path: Path) -> None:
    """A model learns from exactly what the server will show it."""
    images = list_images(discs)
    store, digests = decode_images(images, tmp_path, ignore_progress)
    with store:
        pixels = store.read(np.array([3]))[0]
    data = (discs / images.files[3]).read_bytes()
    assert np.array_equal(pixels, load_pixels(data, INPUT_FORMAT).array)
    assert digests[3] == hashlib.sha256(data).hexdigest()


def test_grey_images_are_stored_in_one_channel(discs: Path, tmp_path: Path) -> None:
    """Grey scans take a third of the disk and of the reading."""
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        assert store.read(np.array([0, 2])).shape == (2, 256, 256, 1)


def test_coloured_image_is_learned_from_in_grey(discs: Path, tmp_path: Path) -> None:
    """CT has no colours: a slice saved in them is brought to grey, as the server would bring it."""
    Image.new("RGB", (64, 64), (200, 10, 30)).save(discs / "stroke" / "3 (1).png")
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        (pixels,) = store.read(np.array([3]))
    luma = round(0.299 * 200 + 0.587 * 10 + 0.114 * 30)  # ITU-R BT.601
    assert (pixels == luma).all()


def test_sizes_and_modes_may_differ(discs: Path, tmp_path: Path) -> None:
    """Images of any size and 8-bit mode come out alike: the size and the channel that the network takes."""
    Image.new("RGBA", (90, 40), (80, 80, 80, 255)).save(discs / "normal" / "0 (1).png")
    Image.new("P", (300, 500)).save(discs / "normal" / "2 (1).png")
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        assert store.read(np.arange(4)).shape == (4, 256, 256, 1)


def test_store_is_read_in_any_order(discs: Path, tmp_path: Path) -> None:
    """A batch holds its images in the order that was asked for, repeated where asked for."""
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        alone = [store.read(np.array([index]))[0] for index in range(4)]
        for image, index in zip(store.read(np.array([3, 0, 3, 1])), (3, 0, 3, 1), strict=True):
            assert np.array_equal(image, alone[index])


def test_store_keeps_small_images(discs: Path, tmp_path: Path) -> None:
    """Beside the pixels there are 32 x 32 of each image in memory, to compare images with each other."""
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        means = store.read(np.array([2]))[0, :8, 8:16].mean()
    assert store.small[2, 1] == pytest.approx(means, abs=0.51)


def test_corrupt_image_names_itself(discs: Path, tmp_path: Path) -> None:
    """One damaged file among many is found by its name."""
    (discs / "stroke" / "1 (1).png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    with pytest.raises(TrainingError, match=r"stroke/1 \(1\)\.png: The image"):
        decode_images(list_images(discs), tmp_path, ignore_progress)


def test_all_images_that_cannot_be_decoded_are_counted(discs: Path, tmp_path: Path) -> None:
    """Once, by what is wrong with them, and not one after another; DICOM under another name is read as such."""
    for name in ("normal/0 (1).png", "normal/2 (1).png"):
        Image.fromarray(np.full((64, 64), 4000, np.uint16)).save(discs / name)
    (discs / "stroke" / "1 (1).png").write_bytes(bytes(128) + b"DICM" + bytes(300))
    message = r"3 of 4 images cannot be decoded \(2 x The image has 16 bits a channel, 1 x The .*\); the"
    with pytest.raises(TrainingError, match=message + r" first: .*normal/0 \(1\)\.png: The image has 16 bits"):
        decode_images(list_images(discs), tmp_path, ignore_progress)


def test_full_disk_is_noticed_before_decoding(discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set whose pixels will not fit says so at once, with both sizes."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TrainingError, match=r"need 0\.0 GB .* 0\.0 GB are free"):
        decode_images(list_images(discs), tmp_path, ignore_progress)


def test_decoding_leaves_no_file(discs: Path, tmp_path: Path) -> None:
    """The decoded pixels have no name on disk, so that nothing stays whatever happens."""
    before = sorted(tmp_path.iterdir())
    store, _ = decode_images(list_images(discs), tmp_path, ignore_progress)
    with store:
        assert sorted(tmp_path.iterdir()) == before


def test_fingerprint_is_that_of_sha256sum() -> None:
    """The fingerprint does not depend on the order, and anyone can compute it with sha256sum."""
    lines = b"aa  normal/1.png\nbb  stroke/2.png\n"
    assert compute_fingerprint(["stroke/2.png", "normal/1.png"], ["bb", "aa"]) == hashlib.sha256(lines).hexdigest()
