"""The one lister of folders: what is an image, what is left out, and that links never lead astray."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from client.files.folder import LeftOut, walk_folder
from server.images.image_folder import list_folder
from tests.dicom_starts import DICOM_STARTS

DICOM = bytes(128) + b"DICM...."


def write_files(root: Path, *names: str, data: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def list_names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_folder(root).images]


def test_images_are_listed_at_any_depth(tmp_path: Path) -> None:
    """PNG and JPEG files, whatever the case of their suffix, sorted."""
    write_files(tmp_path, "b/c/2.JPEG", "b/1.PNG", "a.jpg")

    assert list_names(tmp_path) == ["a.jpg", "b/1.PNG", "b/c/2.JPEG"]


def test_hidden_and_system_files_are_counted(tmp_path: Path) -> None:
    """Masks in a hidden folder, resource forks of macOS and previews of Windows are no slices."""
    write_files(
        tmp_path,
        *("a/1.png", "a/._1.png", ".lesions/a/1.png", ".lesions/a/2.png", "__MACOSX/a/._1.png", "a/Thumbs.db"),
        *("@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",),
    )

    found = list_folder(tmp_path)

    assert list_names(tmp_path) == ["a/1.png"]
    assert found.describe_left_out() == "left out: 6 hidden or system files"
    assert found.others == 0


def test_other_files_are_counted_by_kind(tmp_path: Path) -> None:
    """By their suffix; what looks like DICOM by its name or place and is none is told from the rest."""
    write_files(tmp_path, "1.png", "2.ima", "3.tif", "4.TIF", "README", "1.2.840.7")
    write_files(tmp_path, "DICOMDIR", data=DICOM)

    found = list_folder(tmp_path)

    assert found.describe_left_out() == (
        "left out: 2 .tif files, 1 DICOM directory, 1 file called DICOM that does not begin so, "
        "2 files without a suffix"
    )
    assert found.others == 5


def test_dicom_files_are_images(tmp_path: Path) -> None:
    """By their name, or by how they begin where archives name them by numbers or not at all."""
    write_files(tmp_path, "1.dcm", "2.DCM")
    write_files(tmp_path, "3.ima", "4.dicom", "5.2.840.113", "IM0001", "headless/1.2.3", data=DICOM)
    write_files(tmp_path, "headless/IM0002", data=DICOM_STARTS["explicit character set"])

    assert list_names(tmp_path) == [
        *("1.dcm", "2.DCM", "3.ima", "4.dicom", "5.2.840.113", "IM0001", "headless/1.2.3", "headless/IM0002")
    ]
    assert list_folder(tmp_path).left_out == {}


def test_linked_folders_are_followed(tmp_path: Path) -> None:
    """A class folder may be a link to where the images lie."""
    write_files(tmp_path / "disk", "1.png", "2.png")
    root = write_files(tmp_path / "data", "a/0.png")
    (root / "b").symlink_to(tmp_path / "disk")

    assert list_names(root) == ["a/0.png", "b/1.png", "b/2.png"]
    assert list_folder(root).left_out == {}


@pytest.mark.parametrize("target", [".", "..", "data", "/"])
def test_loop_ends_and_is_counted(tmp_path: Path, target: str) -> None:
    """A link to the folder itself, or to what it lies in, is not followed."""
    root = write_files(tmp_path / "data", "a/1.png")
    (root / "loop").symlink_to({"data": root, "/": Path("/")}.get(target, Path(target)))

    assert list_names(root) == ["a/1.png"]
    assert list_folder(root).describe_left_out() == "left out: 1 link to what is listed already"


def test_loop_between_linked_folders_ends(tmp_path: Path) -> None:
    """Two folders elsewhere that lead to each other are listed once each."""
    write_files(tmp_path, "x/1.png", "y/2.png", "data/0.png")
    (tmp_path / "x" / "y").symlink_to(tmp_path / "y")
    (tmp_path / "y" / "x").symlink_to(tmp_path / "x")
    (tmp_path / "data" / "x").symlink_to(tmp_path / "x")

    assert list_names(tmp_path / "data") == ["0.png", "x/1.png", "x/y/2.png"]
    assert list_folder(tmp_path / "data").describe_left_out() == "left out: 1 link to what is listed already"


def test_own_name_goes_before_a_link(tmp_path: Path) -> None:
    """What lies in the folder is listed under its own name, and counts once."""
    root = write_files(tmp_path, "b/1.png", "b/2.png")
    (root / "a").symlink_to("b")
    (root / "0.png").symlink_to("b/1.png")

    assert list_names(root) == ["b/1.png", "b/2.png"]
    assert list_folder(root).describe_left_out() == "left out: 2 links to what is listed already"


def test_links_to_files_elsewhere_are_images(tmp_path: Path) -> None:
    """Each once, however many lead to it."""
    write_files(tmp_path / "pool", "1.png")
    (tmp_path / "data").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "pool" / "1.png")

    assert list_names(tmp_path / "data") == ["a.png"]


def test_what_cannot_be_an_image_is_counted(tmp_path: Path) -> None:
    """A link that leads nowhere or to itself, and a pipe, which would block for ever."""
    root = write_files(tmp_path, "1.png")
    (root / "2.png").symlink_to("gone.png")
    (root / "3.png").symlink_to("3.png")
    os.mkfifo(root / "4.png")

    assert list_names(root) == ["1.png"]
    assert list_folder(root).describe_left_out() == "left out: 2 dangling links, 1 pipe, socket or device"


def test_folder_that_cannot_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the folder it is said; the folder itself is an error."""
    root = write_files(tmp_path, "a/1.png", "b/2.png")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if path.name == "b":
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)

    assert list_names(root) == ["a/1.png"]
    assert list_folder(root).describe_left_out() == "left out: 1 folder that cannot be read"
    with pytest.raises(PermissionError):
        list_folder(root / "b")


def test_names_that_the_caller_reads_are_not_counted(tmp_path: Path) -> None:
    """Only directly in the folder."""
    write_files(tmp_path, ".lesions/1.png", "labels.csv", "a/labels.csv", "a/1.png")

    assert list_folder(tmp_path, own=(".lesions", "labels.csv")).left_out == {".csv file": 1}


def test_client_lists_what_training_lists(tmp_path: Path) -> None:
    """Each has its own lister, as a client is installed without the rest: images and counts are the same."""
    write_files(tmp_path, "b.png", "B.JPG", "sub/c.jpeg", "sub/deep/d.png", "z.dcm/e.png", "\u00fc.png")
    write_files(
        tmp_path, "1.2.840", "f.tif", "notes.txt", "._b.png", "THUMBS.DB", ".masks/b.png", "sub/lost+found/x.png"
    )
    write_files(tmp_path, "IM0001", data=bytes(128) + b"DICM")
    for link, target in {"l.png": "b.png", "folder": "sub", "up": "..", "loop": ".", "x.png": "folder/deep"}.items():
        (tmp_path / link).symlink_to(target)
    os.mkfifo(tmp_path / "pipe.png")
    left_out = LeftOut()
    faults: list[OSError] = []

    images = sorted(walk_folder(str(tmp_path), left_out, recursive=True, faults=faults))

    found = list_folder(tmp_path)
    assert (images, faults) == (sorted(map(str, found.images)), [])
    counts = {"TIFF file" if kind == ".tif file" else kind: count for kind, count in found.left_out.items()}
    described = re.findall(r"(?:: |, )(\d+) (\S+)", left_out.describe())
    assert sorted((int(count), word.rstrip("s,")) for count, word in described) == sorted(
        (count, kind.split()[0].rstrip("s,")) for kind, count in counts.items()
    )
