"""Studies from folders of DICOM files, by the client's command line and library, on a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client import AsyncStrokeClient, ImageTooLargeError, InvalidImageError, StrokeClient
from client.cli.main import main
from tests.dicom_files import make_enhanced
from tests.fakes import ServerProcess, encode, run_server, write_model
from tests.fakes import make_slice as make_pixels
from tests.studies import STUDY_SPEC, make_scan, make_slice


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes studies of 40 slices."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, STUDY_SPEC)
    with run_server(root, "--study-slices", "40") as server:
        yield server


@pytest.fixture
def study(running: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study as a scanner exports it: two series in folders of their own, files called by numbers, and an index."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STROKE_SERVER", running.address)
    folder = tmp_path / "DOE^JANE"
    for name, tags in {"SE1": {}, "SE2": {"series": "1.2.9", "ConvolutionKernel": "B70f"}}.items():
        (folder / name).mkdir(parents=True)
        for number in range(12):
            level = 60.0 if number == 9 else 20.0
            (folder / name / f"IM{number}").write_bytes(make_slice(number, level, **tags))  # type: ignore[arg-type]
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    return folder


def test_exported_study_is_judged(study: Path, running: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """The slice to look at first by its path, the other series with its reason; no name reaches the server's log."""
    assert main(["--recursive", "DOE^JANE", "--slices"]) == 0

    out, err = capsys.readouterr()
    answer, first, left_out, _, *rows = out.splitlines()
    assert answer.startswith("DOE^JANE: ")
    assert answer.endswith("(tiny 1, threshold 0.5, mean of 3 of 12 slices)")
    assert first.startswith("DOE^JANE: look first at DOE^JANE/SE1/IM9: slice 10 of 12, P(stroke) 0.")
    assert left_out.startswith("DOE^JANE: left out: a series of 12 slices [BONE_KERNEL] ")
    assert [row.split()[-1] for row in rows] == [f"DOE^JANE/SE1/IM{number}" for number in range(12)]
    assert err == "note: left out: 1 DICOM directory (DOE^JANE/DICOMDIR)\n"
    assert not any("DOE" in line for line in running.log)


def test_library_says_the_same(study: Path, running: ServerProcess) -> None:
    """Both clients, of a folder, of paths in any order, and of bytes."""
    paths = [*study.rglob("IM*")]

    async def ask() -> list[float]:
        async with AsyncStrokeClient(running.address) as client:
            return [(await client.predict_study(images)).score for images in (study, paths[::-1])]

    with StrokeClient(running.address) as client:
        answers = [client.predict_study(images) for images in (study, paths, (path.read_bytes() for path in paths))]
    assert {answer.score for answer in answers} | set(asyncio.run(ask())) == {answers[0].score}
    assert [len(answer.slices) for answer in answers] == [12] * 3
    assert answers[0].first_look is not None
    assert answers[0].first_look.source == str(study / "SE1" / "IM9")


def test_broken_file_is_a_failure_of_its_study(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are judged; exit 1."""
    whole = (study / "SE1" / "IM3").read_bytes()
    (study / "SE1" / "IM3").write_bytes(whole[: len(whole) // 2])

    assert main(["--recursive", "DOE^JANE", "--json"]) == 1

    out, err = capsys.readouterr()
    answer = json.loads(out)
    failed = [one for one in (*answer["slices"], *answer["failures"]) if "error" in one]
    assert [(one["file"], one["reason"]) for one in failed] == [("DOE^JANE/SE1/IM3", "DICOM_TRUNCATED")]
    assert [one["status"] for one in answer["slices"]].count("ANALYSED") == 11
    assert err.startswith("DOE^JANE/SE1/IM3: error: ")


def test_frames_are_slices_or_are_chosen(study: Path, running: ServerProcess) -> None:
    """Of one file with several: all for a study, one for a single answer."""
    levels = np.stack([make_scan(10.0 + 5 * number) for number in range(9)])
    (study.parent / "enhanced.dcm").write_bytes(make_enhanced(levels, intercepts=[0.0] * 9))

    with StrokeClient(running.address) as client:
        answer = client.predict_study("enhanced.dcm")
        assert answer.first_look is not None
        assert (answer.first_look.frame, len(answer.slices)) == (9, 9)
        alone = client.predict("enhanced.dcm", frame=9)
        assert (alone.frame, alone.positive_probability) == (9, answer.first_look.positive_probability)
        with pytest.raises(InvalidImageError) as caught:
            client.predict("enhanced.dcm")
    assert caught.value.reason == "IMAGE_MULTI_FRAME"


def test_slices_of_png_are_one_series_in_natural_order(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the names are counted, not spelt."""
    Path("pngs").mkdir()
    for number in (1, 2, 10, 11):
        Path(f"pngs/s{number}.png").write_bytes(encode(make_pixels(seed=number)))

    assert main(["--study", "pngs", "--json"]) == 0

    answer = json.loads(capsys.readouterr().out)
    assert [one["file"] for one in answer["slices"]] == [f"pngs/s{number}.png" for number in (1, 2, 10, 11)]
    assert "UNORDERED" in [warning["reason"] for warning in answer["warnings"]]


def test_too_large_study_is_said(study: Path, running: ServerProcess) -> None:
    """With the server's limit, while it is being sent, and once."""
    with StrokeClient(running.address) as client, pytest.raises(ImageTooLargeError, match="40") as caught:
        client.predict_study([study / "SE1" / "IM1"] * 60)
    assert caught.value.reason == "STUDY_TOO_LARGE"
