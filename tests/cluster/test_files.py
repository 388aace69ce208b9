"""Which files an archive has."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from cluster.archive.files import read_manifest, walk
from cluster.archive.storage import Storage, StorageError
from server.images.image_folder import list_folder
from tests.cluster.archives import make_archive


def test_a_walk_finds_what_training_finds(tmp_path: Path) -> None:
    """By the rules of the project's other folders, but that links are not followed: so nothing is found twice."""
    archive = make_archive(tmp_path)
    left_out: Counter[str] = Counter()

    paths = list(walk(Storage(str(archive)), left_out))

    listed = list_folder(archive)
    assert sorted(paths) == sorted(str(path.relative_to(archive)) for path in listed.images)
    assert left_out == {"hidden or system file": 1, "link": 1, ".txt file": 1}


def test_a_walk_ends_where_links_lead_back(tmp_path: Path) -> None:
    """To the archive itself."""
    archive = make_archive(tmp_path)
    (archive / "p0" / "again").symlink_to(archive)

    paths = list(walk(Storage(str(archive)), Counter()))

    assert len(paths) == len(set(paths)) == 16


@pytest.mark.parametrize("scheme", ["file://", "local://"])
def test_stores_by_pyarrow_and_by_fsspec_are_walked_alike(tmp_path: Path, scheme: str) -> None:
    """``file`` is pyarrow's own; ``local`` only fsspec knows."""
    archive = make_archive(tmp_path)
    (archive / "link.png").unlink()
    store = Storage(f"{scheme}{archive}")

    paths = list(walk(store, Counter()))

    assert paths == list(walk(Storage(str(archive)), Counter()))
    assert store.read(paths[0], 1 << 20) == Storage(str(archive)).read(paths[0], 1 << 20)


def test_an_unknown_store_is_refused_in_one_line() -> None:
    """By its name."""
    with pytest.raises(StorageError, match="nowhere://x: cannot be opened"):
        list(walk(Storage("nowhere://x"), Counter()))


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    """Whatever a folder holds; and a pipe, which never ends, is no file."""
    (tmp_path / "large.png").write_bytes(bytes(1000))
    os.mkfifo(tmp_path / "pipe.png")
    storage = Storage(str(tmp_path))

    assert len(storage.read("large.png", 100).data) == 100
    with pytest.raises(OSError, match="is no file"):
        storage.read("pipe.png", 100)


def test_a_manifest_names_files_in_its_order(tmp_path: Path) -> None:
    """In a column of a table that may have others."""
    table = tmp_path / "wanted.csv"
    table.write_text("patient,file\n1,b/2.png\n2,a/1.png\n", "utf-8")

    assert list(read_manifest(table)) == ["b/2.png", "a/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.png\nb.png\na.png\n", "names a.png 2 times"),
        ("path\na.png\n", "has no column file"),
        ("file\n../a.png\n", "line 2: must name a file by its path below INPUT"),
        ("file\n/etc/passwd\n", "line 2: must name a file"),
        ("file,x\n,1\n", "line 2: must name a file"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """Each file is to be judged exactly once, and nothing outside of INPUT is read."""
    table = tmp_path / "wanted.csv"
    table.write_text(text, "utf-8")

    with pytest.raises(StorageError, match=message):
        list(read_manifest(table))
