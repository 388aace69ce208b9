"""Which images the arguments of the command line name."""

from __future__ import annotations

import io
import json
import os
import threading
import tracemalloc
from pathlib import Path

import pytest

from client.cli.main import main
from client.cli.selection import list_images
from client.files.folder import LeftOut
from tests.client_fakes import FakeServer
from tests.command_lines import POSITIVE
from tests.fakes import encode, make_slice


def test_folder_is_walked_in_sorted_order(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PNG, JPEG and DICOM files in any case, no hidden ones, names as the user wrote them; below only on request."""
    assert main(["scans/"]) == 0
    flat = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]
    assert main(["--recursive", "scans"]) == 0
    deep = [line.split(": ")[0] for line in capsys.readouterr().out.splitlines()]

    assert flat == ["scans/B.PNG", "scans/a.JPG", "scans/b.png", "scans/c.jpeg"]
    assert deep == [*flat, "scans/sub/d.png"]


def test_folder_without_images_is_a_failure(
    cli_server: FakeServer, tmp_path: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said, in its place, while the others are answered."""
    (tmp_path / "empty").mkdir()

    assert main(["--json", "scans/b.png", "empty", "scans/c.jpeg"]) == 1

    out, err = capsys.readouterr()
    first, second, third = map(json.loads, out.splitlines())
    assert [first["file"], second["file"], third["file"]] == ["scans/b.png", "empty", "scans/c.jpeg"]
    assert second["reason"] == "IMAGE_UNREADABLE"
    assert "empty: error: no PNG, JPEG or DICOM file in this folder (--recursive looks into the folders below)" in err
    assert "2 images: 2 positive (stroke), 0 failed; " in err
    assert "; 1 folder or pattern without images\n" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_unreadable_folder_is_a_failure(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not open to the user is not taken for an empty one."""
    (scans / "sub").chmod(0)
    try:
        assert main(["--recursive", "scans"]) == 1
    finally:
        (scans / "sub").chmod(0o755)

    assert "scans/sub: error: the folder cannot be read: Permission denied" in capsys.readouterr().err


def test_one_image_beside_a_folder_without_any_is_summed_up(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As several would be: positive classes are called so."""
    (scans / "empty").mkdir()

    assert main(["scans/empty", "scans/b.png"]) == 1

    (_, summary) = capsys.readouterr().err.splitlines()
    assert summary.startswith("1 image: 1 positive (stroke), 0 failed; ")
    assert summary.endswith("by stroke-cnn 1; 1 folder or pattern without images")


def test_pipes_in_folders_are_left_alone(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A named pipe would block for ever; a dangling link is named."""
    os.mkfifo(scans / "pipe.png")
    (scans / "link.png").symlink_to("nowhere")

    assert main(["scans"]) == 1

    out, err = capsys.readouterr()
    assert "pipe.png" not in out + err
    assert "scans/link.png: error: the image cannot be read" in err


def test_dash_reads_standard_input(
    cli_server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`-` is one image from stdin, named `-`."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(POSITIVE)))

    assert main(["-"]) == 0

    assert capsys.readouterr().out.startswith("-: stroke 0.973  P(stroke) 0.973")
    assert cli_server.servicer.images == [POSITIVE]


def read_standard_input(data: bytes, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    return main(["-"])


DICOM = bytes(128) + b"DICM"
PNG, JPEG = encode(make_slice(side=16)), encode(make_slice(side=16), "JPEG")


@pytest.mark.parametrize("first", [PNG, JPEG, encode(make_slice(side=16), "JPEG", progressive=True)])
@pytest.mark.parametrize("between", [b"", b"\n", b"\0\0"])
@pytest.mark.parametrize("second", [PNG, JPEG])
def test_several_images_on_standard_input_are_told(
    cli_server: FakeServer,
    first: bytes,
    between: bytes,
    second: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`cat a.png b.png | ... -` would have one result and hide the other image."""
    assert read_standard_input(first + between + second, monkeypatch) == 1

    assert "-: error: the image cannot be read: standard input holds several images" in capsys.readouterr().err
    assert cli_server.servicer.images == []


@pytest.mark.parametrize(
    "data",
    [
        PNG + b"trailing",
        JPEG + bytes(1000),
        encode(make_slice(side=16), "JPEG", comment=JPEG),
        encode(make_slice(side=16), "JPEG", comment=b"MPF\0") + JPEG,
        b"text",
        b"",
    ],
    ids=["png", "jpeg", "thumbnail", "preview", "text", "nothing"],
)
def test_one_image_on_standard_input_is_sent_as_it_is(
    cli_server: FakeServer, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever follows it, and what cameras put into one file, belongs to it; other kinds are for the server."""
    read_standard_input(data, monkeypatch)

    assert cli_server.servicer.images == [data][: len(data)]


@pytest.mark.parametrize(("data", "sent"), [(PNG, [PNG]), (PNG + JPEG, [])])
def test_pipe_is_a_file_of_one_image(
    cli_server: FakeServer, tmp_path: Path, data: bytes, sent: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """As a shell makes one of `<(command)`; joined images are told as on standard input."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    status = main([str(path)])
    writer.join()

    assert (status, cli_server.servicer.images) == (0 if sent else 1, sent)
    assert sent or f"{path}: error: the image cannot be read: {path} holds several images" in capsys.readouterr().err


def test_list_with_line_ends_of_windows_names_files(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `xargs python -m client < list.txt` gives them; a file that is called so is that file."""
    (scans / "odd.png\r").write_bytes(POSITIVE)

    assert main(["scans/b.png\r", "scans/c.jpeg\r", "scans/odd.png\r", "no.png\r"]) == 1

    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == ["scans/b.png", "scans/c.jpeg", "scans/odd.png\\r"]
    assert err.startswith("no.png: error: the image cannot be read: No such file or directory\n")


def list_names(*arguments: str, recursive: bool = False) -> list[str]:
    return [entry.name for entry in list_images(list(arguments), recursive=recursive)]


def test_patterns_are_expanded_as_by_a_shell(scans: Path) -> None:
    """A quoted pattern gives sorted files, and the images of the folders that it matches; hidden files stay hidden."""
    assert list_names("scans/[ab].*") == ["scans/a.JPG", "scans/b.png"]
    assert list_names("scans/*") == [
        "scans/B.PNG",
        "scans/a.JPG",
        "scans/b.png",
        "scans/c.jpeg",
        "scans/notes.txt",
        "scans/sub/d.png",
    ]


def test_double_star_needs_recursive(scans: Path) -> None:
    """`**` matches any number of folders with --recursive; without it, what is missing is said."""
    assert list_names("scans/**/*.png", recursive=True) == ["scans/b.png", "scans/sub/d.png"]
    (missing,) = list_images(["nowhere/**/*.png"], recursive=False)
    assert missing.fault == "no image matches this pattern (** needs --recursive)"


def test_pattern_without_a_match_is_a_failure(scans: Path) -> None:
    """Neither no file nor a folder without images passes in silence."""
    (scans / "empty").mkdir()
    for pattern in ("scans/*.tif", "scans/emp*", "a\0*"):
        (entry,) = list_images([pattern], recursive=False)
        assert (entry.name, entry.image, entry.fault) == (pattern, None, "no image matches this pattern")


def test_file_whose_name_looks_like_a_pattern(scans: Path) -> None:
    """What exists is itself, not a pattern."""
    (scans / "b[1].png").write_bytes(POSITIVE)
    (scans / "b1.png").write_bytes(POSITIVE)

    assert list_names("scans/b[1].png") == ["scans/b[1].png"]


def test_file_named_twice_is_judged_once(scans: Path) -> None:
    """However it is spelt; the first spelling is what the results call it."""
    names = list_names("scans/b.png", "./scans/b.png", "scans/*.png", str(scans / "b.png"), "-", "-")

    assert names == ["scans/b.png", "-"]


@pytest.fixture
def mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an image, what other programs export, and what systems put there."""
    folder = tmp_path / "study"
    for name in ("a.png", "b.tif", "c.ima", "d.TIF", "._a.png", "__MACOSX/._a.png", "Thumbs.db", ".lesions/a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(POSITIVE)
    (folder / "DICOMDIR").write_bytes(DICOM)
    monkeypatch.chdir(tmp_path)
    return folder


LEFT_OUT = (
    "left out: 1 DICOM directory (study/DICOMDIR), 2 TIFF files (study/b.tif, study/d.TIF), "
    "1 file called DICOM that does not begin so (study/c.ima), 4 hidden or system files"
)


def test_what_folders_hold_beside_images_is_said(
    cli_server: FakeServer, mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many of each kind and the first names: in a line for one image, in the summary for several; exit 0."""
    assert main(["study"]) == 0
    assert capsys.readouterr().err == f"note: {LEFT_OUT}\n"

    (mixed / "e.png").write_bytes(POSITIVE)
    assert main(["study"]) == 0
    assert capsys.readouterr().err.endswith(f"; by stroke-cnn 1; {LEFT_OUT}\n")
    assert main(["study", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_strict_run_minds_what_was_left_out(cli_server: FakeServer, mixed: Path) -> None:
    """Exit 1 with --strict, but not for hidden and system files, nor for the run's own results."""
    assert main(["study", "--strict"]) == 1
    for name in ("b.tif", "c.ima", "d.TIF"):
        (mixed / name).unlink()
    assert main(["study", "--strict", "--output", "study/results.jsonl"]) == 0
    assert main(["study", "--strict", "--output", "study/results.jsonl", "--resume"]) == 0


def test_json_names_what_was_left_out(cli_server: FakeServer, mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After the results a record with the reason for each; a resumed run does not repeat them, nor count them."""
    assert main(["study", "--json"]) == 0
    first, *others = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["file"], first["label"]) == ("study/a.png", "stroke")
    assert [(record["file"], record["reason"], record["error"]) for record in others] == [
        ("study/b.tif", "LEFT_OUT", "left out of its folder: TIFF file"),
        ("study/c.ima", "LEFT_OUT", "left out of its folder: file called DICOM that does not begin so"),
        ("study/d.TIF", "LEFT_OUT", "left out of its folder: TIFF file"),
    ]

    for flag, name in (("--output", "r.jsonl"), ("--csv", "r.csv")):
        assert main(["study", flag, name]) == 0
        before = Path(name).read_bytes()
        assert main(["study", flag, name, "--resume"]) == 0
        assert Path(name).read_bytes() == before
        assert before.count(b"LEFT_OUT") == 3
        assert main(["study", "study/d.TIF", flag, name, "--resume"]) == 0
        assert Path(name).read_bytes().startswith(before)
        assert Path(name).read_bytes().count(b"study/d.TIF") == 2


def test_folders_below_are_counted_where_they_are_not_asked_for(
    cli_server: FakeServer, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --recursive they would hide images in silence."""
    assert main(["scans", "--strict"]) == 1
    others = "1 .txt file (scans/notes.txt), 1 folder that only --recursive looks into (scans/sub)"
    assert f"left out: {others}, 2 hidden or system files" in capsys.readouterr().err

    assert main(["scans", "--strict", "--recursive"]) == 0
    left_out = "; left out: 1 .txt file (scans/notes.txt), 2 hidden or system files\n"
    assert capsys.readouterr().err.endswith(left_out)


@pytest.mark.parametrize(
    ("name", "data", "is_minded"),
    [
        ("IM0001.dicom", b"", True),
        ("DICOMDIR", DICOM, False),
        ("1.2.840.5", b"\x89PNG\r\n\x1a\n", True),
        ("scan", b"\xff\xd8\xff\xe0", True),
        ("scan", b"II*\0", True),
        ("a.BMP", b"", True),
        ("head.nii.gz", b"", True),
        ("study.zip", b"", True),
        ("README", b"Text.", False),
        ("labels.csv", b"", False),
        ("run.py", b"", False),
    ],
)
def test_strict_run_minds_what_may_be_images(
    cli_server: FakeServer, scans: Path, name: str, data: bytes, is_minded: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name, or by the first bytes where the name says nothing; other files are counted, without a record."""
    (scans / name).write_bytes(data)

    assert main(["--recursive", "scans", "--strict", "--json"]) == int(is_minded)

    out, err = capsys.readouterr()
    assert f"scans/{name}" in err
    assert out.count("LEFT_OUT") == int(is_minded)


def test_links_are_followed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linked folders and files are taken, each under one name; loops and what is listed already are counted."""
    monkeypatch.chdir(tmp_path)
    for name in ("scans/a.png", "scans/z/b.png", "elsewhere/c.png", "elsewhere/d.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(POSITIVE)
    links = {"linked": "elsewhere", "again": "elsewhere", "a-z": "z", "loop": "scans", "up": "."}
    for name, target in links.items():
        Path("scans", name).symlink_to(tmp_path / ("scans/z" if target == "z" else target))
    Path("scans/e.png").symlink_to("a.png")
    Path("scans/f.png").symlink_to(tmp_path / "elsewhere" / "c.png")
    left_out = LeftOut()

    listed = [entry.name for entry in list_images(["scans"], recursive=True, left_out=left_out)]

    assert listed == ["scans/a.png", "scans/again/c.png", "scans/again/d.png", "scans/z/b.png"]
    assert left_out.describe() == "left out: 6 links to what is listed already"
    assert left_out.files == {}


def test_listing_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names only: below 400 bytes an image, so that 50,000 of them take less than 20 MB."""
    names = [f"{index:06}.png" for index in range(5_000)]
    monkeypatch.setattr("os.walk", lambda folder, onerror: iter([(folder, [], names)]))
    tracemalloc.start()
    try:
        listed = list_images([str(tmp_path)], recursive=False)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert len(listed) == 5_000
    assert held / len(listed) < 400
