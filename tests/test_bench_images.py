"""The images of a benchmark: those that everybody else finds in a folder, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.images import MOST_IMAGES, read_images


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    """What a system or a data set hides is not judged; links to it are followed once."""
    for name in ("b.png", "a.JPG", "sub/c.jpeg", "._b.png", ".lesions/b.png", "__MACOSX/d.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")

    assert read_images(tmp_path) == [b"a.JPG", b"b.png", b"sub/c.jpeg"]


def test_first_images_by_name_are_taken(tmp_path: Path) -> None:
    """Of a large folder no more than are needed."""
    for number in range(MOST_IMAGES + 5):
        (tmp_path / f"{number:03}.png").write_bytes(b"%d" % number)

    assert read_images(tmp_path) == [b"%d" % number for number in range(MOST_IMAGES)]


@pytest.mark.parametrize(("name", "why"), [("", "no PNG or JPEG in "), ("missing", "No such file or directory")])
def test_folder_without_images_is_told_in_one_line(name: str, why: str, tmp_path: Path) -> None:
    """Be it empty or not there."""
    with pytest.raises(SystemExit, match=f"bench: .*{why}"):
        read_images(tmp_path / name)
