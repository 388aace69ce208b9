"""``--watch``: what is judged when, where it goes, and what is said."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from pathlib import Path

import grpc
import pytest

from client.cli.main import main
from tests.client_fakes import FakeServer, RefusalError, make_refusal_to_judge, make_response, serve, wait_for
from tests.fakes import ServerProcess, encode, make_slice
from tests.watching import make_png, read_result, wait_for_files, watching, watching_here


def test_arrival_is_judged_and_its_result_written_beside(server: FakeServer, hot: Path) -> None:
    """A file renamed into place is answered: a line with the time, and scan.png.json with the whole record."""
    with watching(hot, server.target) as watch:
        (hot / ".upload").write_bytes(data := make_png())
        (hot / ".upload").rename(hot / "scan.png")
        wait_for_files(hot / "scan.png.json")
        assert watch.stop() == 0

    result = read_result(hot / "scan.png.json")
    assert result["label"] == "normal"
    assert result["image_sha256"] == hashlib.sha256(data).hexdigest()
    assert result["file"] == str(hot / "scan.png")
    assert result["file_bytes"] == len(data)
    assert f"{hot}/scan.png: normal 0.990  P(stroke) 0.010  (stroke-cnn 1, threshold 0.05)\n" in watch.log
    assert " s: 1 answered (normal 1), 0 failed\n" in watch.log
    assert sorted(path.name for path in hot.iterdir()) == ["scan.png", "scan.png.json"]


def test_not_analysed_is_done(server: FakeServer, hot: Path) -> None:
    """It is an answer: the image goes to done/, is counted by itself, and is not judged again after a restart."""
    server.servicer.judge = make_refusal_to_judge
    with watching(hot, server.target, "--move") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for_files(hot / "done" / "scan.png", hot / "done" / "scan.png.json")
        assert watch.stop() == 0

    result = read_result(hot / "done" / "scan.png.json")
    assert (result["label"], result["status"]) == (None, "NOT_ANALYSED")
    assert f"{hot}/scan.png: not analysed [NO_HEAD] There is no head.  (stroke-cnn 1)\n" in watch.log
    assert " s: 1 answered (not analysed 1), 0 failed\n" in watch.log


def test_slow_writer_is_never_judged_half(server: FakeServer, hot: Path) -> None:
    """Pieces that come with pauses far longer than --settle are one image, judged once, whole."""
    data = make_png()
    with watching_here(hot, server.target) as watch:
        with (hot / "scan.png").open("wb", buffering=0) as file:
            for start in range(0, len(data), len(data) // 4):
                watch.let_pass()
                file.write(data[start : start + len(data) // 4])
        wait_for_files(hot / "scan.png.json")
        assert watch.stop() == 0

    assert server.servicer.images == [data]


def test_reserved_space_is_not_taken_for_an_image(server: FakeServer, hot: Path) -> None:
    """A writer that sets the size first, as file managers do on shares, is waited for."""
    data = make_png()
    with watching_here(hot, server.target) as watch:
        with (hot / "scan.png").open("wb", buffering=0) as file:
            file.truncate(len(data))
            watch.let_pass()
            file.write(data[:100])
            watch.let_pass()
            file.write(data[100:])
        wait_for_files(hot / "scan.png.json")
        assert watch.stop() == 0

    assert server.servicer.images == [data]


def test_burst_is_judged_once_each(server: FakeServer, hot: Path) -> None:
    """200 files at once: 200 requests, 200 results, and nothing is left in the folder with --move."""
    with watching(hot, server.target, "--move") as watch:
        for index in range(200):
            (hot / f"{index:03}.png").write_bytes(make_png(index))
        wait_for(lambda: len(list((hot / "done").glob("*.png"))) == 200)
        assert watch.stop() == 0

    assert set(Counter(server.servicer.images).values()) == {1}
    assert len(list((hot / "done").glob("*.json"))) == len(server.servicer.images) == 200
    assert list(hot.glob("*.png")) == []


def test_hidden_temporary_and_other_files_are_left_alone(server: FakeServer, hot: Path) -> None:
    """Names of uploads under way and other kinds are ignored; links and folders with an image's name are named once."""
    for name in (".scan.png", "~scan.png", "scan.png.filepart", "notes.txt"):
        (hot / name).write_bytes(make_png())
    (hot / "folder.png").mkdir()
    (hot / "link.png").symlink_to("notes.txt")
    os.mkfifo(hot / "pipe.png")
    with watching_here(hot, server.target) as watch:
        (hot / "scan.JPG").write_bytes(make_png())
        wait_for_files(hot / "scan.JPG.json")
        assert watch.stop() == 0

    assert len(server.servicer.images) == 1
    for name in ("folder.png", "link.png", "pipe.png"):
        assert watch.log.count(f"{hot}/{name}: left alone: a link, a folder or a device, not a file") == 1


def test_what_is_no_image_is_counted_and_named(server: FakeServer, hot: Path) -> None:
    """At the start, when the first of a kind arrives, and in the end: nobody waits for results of TIFF files."""
    for name in ("a.ima", "b.ima", "c.tif", "DICOMDIR"):
        (hot / name).write_bytes(b"II*\0")
    (hot / "patient").mkdir()
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "scan.png").write_bytes(make_png())
        (hot / "d.tif").touch()
        (hot / "e.nii").touch()
        (hot / "f.nii").touch()
        wait_for_files(hot / "done" / "scan.png")
        wait_for(lambda: ".nii file" in watch.log)
        (hot / "c.tif").unlink()
        watch.let_pass()
        assert watch.stop() == 0

    start, end = watch.log.splitlines()[0], watch.log.splitlines()[-1]
    index, dicoms = f"1 DICOM directory ({hot}/DICOMDIR)", "2 files called DICOM that do not begin so"
    others = f"{dicoms} ({hot}/a.ima, {hot}/b.ima), 1 folder ({hot}/patient)"
    assert f"0 wait; left out: {index}, 1 TIFF file ({hot}/c.tif), {others}; Ctrl-C ends" in start
    assert watch.log.count("left out, as all like it: ") == 1
    nii = f"2 .nii files ({hot}/e.nii, {hot}/f.nii)"
    assert f"0 failed, left out: {nii}, {index}, 1 TIFF file ({hot}/d.tif), {others}" in end


def test_own_files_of_a_watch_are_not_counted(server: FakeServer, hot: Path) -> None:
    """Results, their folders and journals, and uploads under way are nothing that somebody misses a result of."""
    for name in (".upload", "~scan.png", "scan.png.filepart", "a.png.part"):
        (hot / name).touch()
    for flags in ((), ("--move",), ("--output", str(hot / "r.jsonl"))):
        (hot / "scan.png").write_bytes(make_png())
        with watching_here(hot, server.target, *flags) as watch:
            wait_for(lambda watch=watch: "scan.png: normal" in watch.log or "1 images have results" in watch.log)
            watch.let_pass()
            assert watch.stop() == 0
        assert "left out" not in watch.log


def test_image_at_fault_fails_at_once(server: FakeServer, hot: Path) -> None:
    """It goes to failed/ with the reason beside it, and the watch goes on."""

    def judge(request):
        if request.image == b"text":
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_UNDECODABLE", "The file is text.")
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "bad.png").write_bytes(b"text")
        wait_for_files(hot / "failed" / "bad.png")
        (hot / "good.png").write_bytes(make_png())
        wait_for_files(hot / "done" / "good.png")
        assert watch.stop() == 0

    result = read_result(hot / "failed" / "bad.png.json")
    assert (result["error"], result["reason"]) == ("The file is text.", "IMAGE_UNDECODABLE")
    assert f"{hot}/bad.png: error: The file is text.\n" in watch.log
    assert " s: 1 answered (normal 1), 1 failed\n" in watch.log


def test_nothing_is_overwritten_in_done(server: FakeServer, hot: Path) -> None:
    """A second and a third scan.png, even of the same bytes, become scan-1.png and scan-2.png with their results."""
    contents = [make_png(1), make_png(2), make_png(2)]
    with watching_here(hot, server.target, "--move") as watch:
        for index, data in enumerate(contents):
            (hot / "scan.png").write_bytes(data)
            moved = hot / "done" / (f"scan-{index}.png" if index else "scan.png")
            wait_for_files(moved)
            wait_for(lambda: not (hot / "scan.png").exists())
            assert moved.read_bytes() == data
            assert read_result(Path(f"{moved}.json"))["image_sha256"] == hashlib.sha256(data).hexdigest()
        assert watch.stop() == 0

    assert len(list((hot / "done").iterdir())) == 6


def test_move_to_another_file_system(hot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where done/ is elsewhere, the image is copied whole before it goes from its place."""
    elsewhere = Path("/dev/shm") / f"strokeserve-{os.getpid()}"
    try:
        elsewhere.mkdir()
    except OSError:
        pytest.skip("/dev/shm is not here")
    try:
        if elsewhere.stat().st_dev == hot.stat().st_dev:
            pytest.skip("/dev/shm is not another file system")
        (hot / "done").symlink_to(elsewhere)
        (hot / "scan.png").write_bytes(data := make_png())
        (elsewhere / "scan.png").write_bytes(b"another")
        with serve() as server, watching_here(hot, server.target, "--move") as watch:
            wait_for_files(elsewhere / "scan-1.png", elsewhere / "scan-1.png.json")
            wait_for(lambda: not (hot / "scan.png").exists())
            assert watch.stop() == 0

        assert (elsewhere / "scan-1.png").read_bytes() == data
        assert (elsewhere / "scan.png").read_bytes() == b"another"
        assert len(list(elsewhere.iterdir())) == 3
    finally:
        shutil.rmtree(elsewhere)


def test_server_away_and_back(hot: Path) -> None:
    """It is said once, nothing fails for it, and what waited is judged when the server is back."""
    with serve() as first:
        port, target = first.port, first.target
    with watching_here(hot, target, "--move") as watch:
        for index in range(3):
            (hot / f"{index}.png").write_bytes(make_png(index))
        wait_for(lambda: "images wait until it answers" in watch.log)
        watch.let_pass(0, looks=2)  # one try more
        assert len(list(hot.glob("*.png"))) == 3
        with serve(port=port) as second:
            wait_for(lambda: len(list((hot / "done").glob("*.png"))) == 3)
            assert watch.stop() == 0
            assert len(second.servicer.images) == 3

    assert watch.log.count("images wait until it answers") == 1
    assert watch.log.count("the server answers again") == 1
    assert list((hot / "failed").iterdir()) == []


def test_overloaded_server_is_waited_for(server: FakeServer, hot: Path) -> None:
    """RESOURCE_EXHAUSTED says nothing about the image."""
    refusals = [RefusalError(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "The queue is full.")] * 6

    def judge(request):
        if refusals:
            raise refusals.pop()
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for_files(hot / "done" / "scan.png")
        assert watch.stop() == 0

    assert "0 failed" in watch.log


def test_image_that_breaks_a_healthy_server_is_given_up(server: FakeServer, hot: Path) -> None:
    """After three tries it goes to failed/, so that it does not hold up the others."""

    def judge(request):
        if request.image == b"poison":
            raise RefusalError(grpc.StatusCode.INTERNAL, "INTERNAL", "Fault 42.")
        return make_response(request)

    server.servicer.judge = judge
    with watching_here(hot, server.target, "--move") as watch:
        (hot / "a.png").write_bytes(b"poison")
        (hot / "b.png").write_bytes(make_png())
        wait_for_files(hot / "failed" / "a.png", hot / "done" / "b.png")
        assert watch.stop() == 0

    assert server.servicer.images.count(b"poison") == 3
    assert read_result(hot / "failed" / "a.png.json")["reason"] == "INTERNAL"


def test_deleted_while_it_waits_is_no_failure(hot: Path) -> None:
    """What goes away before it could be judged is forgotten."""
    with serve() as server:
        target, port = server.target, server.port
    with watching_here(hot, target) as watch:
        (hot / "gone.png").write_bytes(make_png())
        wait_for(lambda: "images wait" in watch.log)
        (hot / "gone.png").unlink()
        (hot / "stays.png").write_bytes(make_png())
        with serve(port=port):
            wait_for_files(hot / "stays.png.json")
            assert watch.stop() == 0

    assert "1 answered (normal 1), 0 failed\n" in watch.log


def test_folder_that_vanishes_is_waited_for(server: FakeServer, hot: Path) -> None:
    """A share that is away for a moment is said once, and taken up again."""
    with watching_here(hot, server.target) as watch:
        hot.rename(hot.parent / "away")
        wait_for(lambda: "the folder cannot be read: No such file or directory: waiting for it" in watch.log)
        (hot.parent / "away").rename(hot)
        (hot / "scan.png").write_bytes(make_png())
        wait_for_files(hot / "scan.png.json")
        assert watch.stop() == 0

    assert watch.log.count("cannot be read") == watch.log.count("the folder is back") == 1


def test_second_watch_of_a_folder_is_refused(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two would judge each image twice."""
    with watching(hot, server.target):
        assert main(["--watch", str(hot), "--server", server.target]) == 2

    assert capsys.readouterr().err == f"error: another watch of {hot} is running: end it first\n"


def test_wrong_settings_are_one_line(
    server: FakeServer, hot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No such folder, a file instead of one, a model that nobody serves, two places for results."""
    (tmp_path / "file").touch()

    assert main(["--watch", str(tmp_path / "none")]) == 1
    assert main(["--watch", str(tmp_path / "file")]) == 1
    assert main(["--watch", str(hot), "--beside", "--csv", "x.csv"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        f"error: {tmp_path}/none cannot be used: No such file or directory",
        f"error: {tmp_path}/file cannot be used: Not a directory",
        "error: --beside does not go with --csv and --output: choose one place for results",
    ]


def test_model_that_is_not_served_ends_it(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything was judged that is a typing mistake, not a fault of the images."""

    def judge(request):
        raise RefusalError(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", "There is no model 'typo'.")

    server.servicer.judge = judge
    (hot / "scan.png").write_bytes(make_png())

    assert main(["--watch", str(hot), "--server", server.target, "--model", "typo", "--settle", "0"]) == 1

    assert "error: There is no model 'typo'." in capsys.readouterr().err
    assert (hot / "scan.png").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_said_at_once(server: FakeServer, hot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is judged in vain."""
    hot.chmod(0o555)
    try:
        assert main(["--watch", str(hot), "--server", server.target]) == 1
    finally:
        hot.chmod(0o755)

    assert "cannot be used: Permission denied" in capsys.readouterr().err


def test_json_on_standard_output(server: FakeServer, hot: Path) -> None:
    """--json prints the object that is written beside the image instead of a line; --quiet leaves out the notes."""
    with watching_here(hot, server.target, "--json", "--quiet") as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for(lambda: "}" in watch.log)
        assert watch.stop() == 0

    assert watch.log == (hot / "scan.png.json").read_text()


def test_real_server(tiny_server: ServerProcess, hot: Path) -> None:
    """A good slice is answered; what is cut off or no image is refused with the server's reason."""
    with watching_here(hot, tiny_server.address, "--move") as watch:
        (hot / "good.png").write_bytes(encode(make_slice()))
        (hot / "text.png").write_bytes(b"This is no image at all.")
        wait_for_files(hot / "done" / "good.png", hot / "failed" / "text.png")
        assert watch.stop() == 0

    assert read_result(hot / "done" / "good.png.json")["model"]
    assert read_result(hot / "failed" / "text.png.json")["reason"].startswith("IMAGE_")
