"""What goes wrong in a watched folder: a file's fault is that file's, a disk's fault ends the watch."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from client.cli.main import main
from client.cli.watch.outcomes import Outcomes
from tests.client_fakes import FakeServer, wait_for
from tests.watching import make_png, wait_for_files, watching_here


def block_foreign_file(hot: Path, name: str) -> None:
    """Somebody else's file has the result's name."""
    (hot / f"{name}.json").write_text('{"patient": "none"}')


def block_nested_file(hot: Path, name: str) -> None:
    """Somebody else's file, at which a parser gives up."""
    (hot / f"{name}.json").write_text("[" * 100_000)


def block_folder(hot: Path, name: str) -> None:
    """A folder has the result's name."""
    (hot / f"{name}.json").mkdir()


def block_pipe(hot: Path, name: str) -> None:
    """A pipe has the result's name; opening it would block for ever."""
    os.mkfifo(hot / f"{name}.json")


def block_dangling_link(hot: Path, name: str) -> None:
    """A link to nowhere has the result's name."""
    (hot / f"{name}.json").symlink_to("nowhere")


@pytest.mark.parametrize(
    "block", [block_foreign_file, block_nested_file, block_folder, block_pipe, block_dangling_link]
)
def test_what_has_the_results_name_holds_up_its_image_alone(
    server: FakeServer, hot: Path, block: Callable[[Path, str], None]
) -> None:
    """It is left as it is and named once, the others are judged, now and after a restart."""
    (hot / "a.png").write_bytes(make_png(1))
    block(hot, "a.png")
    for round_ in range(2):
        (hot / f"b{round_}.png").write_bytes(make_png(2 + round_))
        with watching_here(hot, server.target) as watch:
            wait_for_files(hot / f"b{round_}.png.json")
            wait_for(lambda: "a.png: error: " in watch.log)
            watch.let_pass()
            assert watch.stop() == 0

        assert watch.log.count("a.png: error: the result cannot be written: ") == 1
        assert ": 1 answered (normal 1), 1 failed\n" in watch.log
    assert not (hot / "a.png.json").is_file() or b"sha256" not in (hot / "a.png.json").read_bytes()


@pytest.mark.parametrize("flags", [(), ("--move",)], ids=["beside", "move"])
def test_name_without_room_for_a_results_name_holds_up_nobody(
    server: FakeServer, hot: Path, flags: tuple[str, ...]
) -> None:
    """255 bytes are the most that a name has; the image stays in its place, with its judgement in the log."""
    long = "a" * 247 + ".png"
    (hot / long).write_bytes(make_png(1))
    (hot / "b.png").write_bytes(make_png(2))
    with watching_here(hot, server.target, *flags) as watch:
        wait_for_files(hot / "done" / "b.png.json" if flags else hot / "b.png.json")
        wait_for(lambda: f"{long}: error: " in watch.log)
        watch.let_pass()
        assert watch.stop() == 0

    assert len(server.servicer.images) == 2
    assert "File name too long (normal 0.990  P(stroke) 0.010" in watch.log
    assert (hot / long).exists()
    assert not list(hot.rglob(".strokeserve*"))


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("flags", [("--move",), ("--move", "--output", "r.jsonl")], ids=["beside", "journal"])
def test_name_that_a_share_does_not_take_holds_up_nobody(
    server: FakeServer, hot: Path, number: int, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever way the share says so: the image stays, the others move, and a restart tries it again."""
    monkeypatch.chdir(hot.parent)

    def refuse(step: Callable[..., None]) -> Callable[..., None]:
        def run(source: str, target: str) -> None:
            if "a:b" in target:
                raise OSError(number, os.strerror(number), source, None, target)
            step(source, target)

        return run

    (hot / "a:b.png").write_bytes(make_png(1))
    with monkeypatch.context() as patch:
        for step in ("link", "rename", "replace"):
            patch.setattr(os, step, refuse(getattr(os, step)))
        for round_ in range(2):
            (hot / f"c{round_}.png").write_bytes(make_png(2 + round_))
            with watching_here(hot, server.target, *flags) as watch:
                wait_for_files(hot / "done" / f"c{round_}.png")
                wait_for(lambda: "a:b.png: error: " in watch.log)
                watch.let_pass()
                assert watch.stop() == 0
            assert watch.log.count("a:b.png: error: ") == 1
            assert (hot / "a:b.png").exists()
    with watching_here(hot, server.target, *flags) as watch:
        wait_for_files(hot / "done" / "a:b.png")
        assert watch.stop() == 0


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_disk_that_fails_ends_it(
    server: FakeServer, hot: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No other image would fare better."""

    def fail(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number), source, None, target)

    (hot / "scan.png").write_bytes(make_png())
    monkeypatch.setattr(os, "replace", fail)

    assert main(["--watch", str(hot), "--server", server.target, "--settle", "0"]) == 1

    error = f"error: the result cannot be written: {hot}/scan.png.json: {os.strerror(number)}"
    assert error in capsys.readouterr().err.splitlines()


def test_folder_that_takes_nothing_any_more_ends_it(
    server: FakeServer, hot: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error that could be a file's is the folder's where it takes no other file either."""
    prepared = Outcomes.prepare
    calls: list[Outcomes] = []

    def prepare(outcomes: Outcomes) -> None:
        calls.append(outcomes)
        if len(calls) > 1:
            raise PermissionError(errno.EACCES, "Permission denied", str(hot))
        prepared(outcomes)

    (hot / "scan.png").write_bytes(make_png())
    (hot / "scan.png.json").mkdir()
    monkeypatch.setattr(Outcomes, "prepare", prepare)

    assert main(["--watch", str(hot), "--server", server.target, "--settle", "0"]) == 1

    assert "error: the result cannot be written: " in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
@pytest.mark.parametrize("flags", [(), ("--move",), ("--output", "r.jsonl", "--move")], ids=" ".join)
def test_share_without_fsync_is_no_fault(
    server: FakeServer, hot: Path, number: int, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are written as they are elsewhere."""
    monkeypatch.chdir(hot.parent)

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with watching_here(hot, server.target, *flags) as watch:
        (hot / "scan.png").write_bytes(make_png())
        wait_for(lambda: "scan.png: normal" in watch.log)
        assert watch.stop() == 0

    assert "error" not in watch.log
