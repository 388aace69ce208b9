"""Which series go to the server: what a site sets, and why each of the others does not."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main
from gateway.judge.selection import MOST_TEXT, select
from gateway.judge.settings import SelectionSettings
from gateway.listen.command import build_parser
from gateway.reasons import Doubt, LeftOut, Unasked
from gateway.settings import read_several
from tests.dicom_files import PATIENT
from tests.fakes import ROOT
from tests.studies import SERIES, make_slice
from tests.test_gateway_judge import Bench

PAGE = (ROOT / "docs" / "hospital.md").read_text("utf-8")
HEAD = {"SeriesDescription": "Head 5.0 H31s", "SliceThickness": 5, "BodyPartExamined": "HEAD"}


def write_series(folder: Path, *, count: int = 2, series: str = SERIES, **tags: Any) -> list[Path]:
    """Files of a series."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{series}-{number}.dcm")
        paths[-1].write_bytes(make_slice(number, series=series, **HEAD | tags))
    return paths


def choose(paths: list[Path], **settings: Any) -> list[tuple[str, int, str]]:
    """What is left out: series, slices, reason. Nothing of the others is missing."""
    chosen, left_out = select(paths, SelectionSettings(**settings))
    assert len(chosen) == len(paths) - sum(one.slices for one in left_out)
    return [(one.series_instance_uid, one.slices, one.reason) for one in left_out]


def test_without_settings_everything_goes(tmp_path: Path) -> None:
    """The server chooses, by its own rules; not even a header is read."""
    paths = [tmp_path / "no such file.dcm"]

    assert select(paths, SelectionSettings()) == (paths, [])


@pytest.mark.parametrize(
    ("settings", "tags", "reason"),
    [
        ({"series_description": ("head*", "*brain*")}, {"SeriesDescription": "Thorax"}, "OTHER_DESCRIPTION"),
        ({"series_description": ("head*",)}, {"SeriesDescription": None}, "OTHER_DESCRIPTION"),
        ({"series_not_description": ("*bone*",)}, {"SeriesDescription": "Head BONE"}, "EXCLUDED_DESCRIPTION"),
        ({"series_original": True}, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "LOCALIZER"),
        ({"series_original": True}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "DERIVED"),
        ({"series_body_part": ("head", "brain")}, {"BodyPartExamined": "CHEST"}, "OTHER_BODY_PART"),
        ({"series_kernel": ("H3*", "J30*")}, {"ConvolutionKernel": ["H60s", "2"]}, "OTHER_KERNEL"),
        ({"series_most_mm": 2.5}, {"SliceThickness": 5}, "SLICE_THICKNESS"),
        ({"series_least_mm": 1.0}, {"SliceThickness": 0.625}, "SLICE_THICKNESS"),
        ({"series_least_slices": 3}, {}, "TOO_FEW_SLICES"),
    ],
)
def test_series_that_a_setting_does_not_want_is_left_out(
    tmp_path: Path, settings: dict[str, Any], tags: dict[str, Any], reason: str
) -> None:
    """With its own reason; without the setting it would go."""
    assert choose(write_series(tmp_path, **tags), **settings) == [(SERIES, 2, reason)]


@pytest.mark.parametrize(
    ("settings", "tags"),
    [
        ({"series_description": ("HEAD*",)}, {"SeriesDescription": "head 5.0"}),
        ({"series_not_description": ("*bone*",)}, {}),
        ({"series_original": True}, {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}),
        ({"series_original": True}, {"ImageType": ["DERIVED", "PRIMARY"], "LossyImageCompression": "01"}),
        ({"series_body_part": ("HEAD",)}, {"BodyPartExamined": None}),
        ({"series_kernel": ("H3*",)}, {"ConvolutionKernel": ["H31s", "3"]}),
        ({"series_kernel": ("H3*",)}, {"ConvolutionKernel": None}),
        ({"series_most_mm": 5.0, "series_least_mm": 5.0}, {"SliceThickness": "5.0004"}),
        ({"series_most_mm": 2.0}, {"SliceThickness": None}),
        ({"series_least_slices": 2}, {}),
    ],
)
def test_series_that_fits_or_does_not_say_goes(tmp_path: Path, settings: dict[str, Any], tags: dict[str, Any]) -> None:
    """Many files do not state a part of the body or a kernel; the server looks at them as ever."""
    assert choose(write_series(tmp_path, **tags), **settings) == []


def test_each_series_is_judged_by_itself(tmp_path: Path) -> None:
    """Two of three are left out, for different reasons, and none is lost."""
    head = write_series(tmp_path)
    thin = write_series(tmp_path, series="1.2.9", SliceThickness=0.6, count=3)
    scout = write_series(tmp_path, series="1.2.8", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], count=1)
    left_out = choose([*scout, *head, *thin], series_original=True, series_least_mm=1.0)

    assert sorted(left_out) == [("1.2.8", 1, "LOCALIZER"), ("1.2.9", 3, "SLICE_THICKNESS")]


def test_series_of_which_a_slice_fits_goes_whole(tmp_path: Path) -> None:
    """A scout in the same series is the server's to leave out: it looks at each slice."""
    paths = write_series(tmp_path)
    paths[0].write_bytes(make_slice(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))

    assert choose(paths, series_original=True) == []


def test_frames_count_as_slices(tmp_path: Path) -> None:
    """Of enhanced files, where they say how many there are."""
    assert choose(write_series(tmp_path, count=1, NumberOfFrames=30), series_least_slices=30) == []


def test_file_that_cannot_be_read_goes(tmp_path: Path) -> None:
    """The server says what is wrong with it."""
    (tmp_path / "broken.dcm").write_bytes(b"no DICOM")

    assert choose([tmp_path / "broken.dcm"], series_least_slices=100) == []


def test_hostile_values_take_no_time(tmp_path: Path) -> None:
    """A description that no screen shows, a pattern of stars, numbers that are none."""
    paths = write_series(tmp_path, SeriesDescription="a" * 60_000, SliceThickness=None)
    star = "*a" * 31 + "*b"

    assert choose(paths, series_description=(star,) * 32) == [(SERIES, 2, "OTHER_DESCRIPTION")]
    assert MOST_TEXT < 1000


def test_what_files_say_is_not_repeated(tmp_path: Path) -> None:
    """Descriptions may name people."""
    tags = {"SeriesDescription": "Xyzzy Jane", "BodyPartExamined": "XYZZY", "ConvolutionKernel": "XYZZY"}
    for settings in ({"series_description": ("x",)}, {"series_body_part": ("x",)}, {"series_kernel": ("x",)}):
        _, (one,) = select(write_series(tmp_path, **tags), SelectionSettings(**settings))  # type: ignore[arg-type]
        assert "xyzzy" not in one.message.lower()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--series-description", ""], "--series-description is at most 32 patterns of 1 to 64 printable characters"),
        (["--series-kernel", "x" * 65], "--series-kernel is at most 32 patterns"),
        (["--series-not-description", *"x" * 33], "--series-not-description is at most 32 patterns"),
        (
            ["--series-least-mm", "6", "--series-most-mm", "5"],
            "--series-least-mm must not be above --series-most-mm (5)",
        ),
        (["--series-least-slices", "0"], "--series-least-slices must be 1 to 1000"),
    ],
)
def test_settings_that_cannot_be_used_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    """With exit code 2, one line, and no queue."""
    with pytest.raises(SystemExit) as stopped:
        main(["listen", "--queue", str(tmp_path / "queue"), "--folder-to", ".", *flags])

    assert stopped.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_results_name_each_series_that_was_left_out(tmp_path: Path) -> None:
    """And the server has not been asked for it."""
    bench = Bench(tmp_path, SelectionSettings(series_least_mm=1.0))
    job = bench.add()
    thin = write_series(bench.folder.waiting / job, series="1.2.9", SliceThickness=0.6)
    bench.judge.judge(job)
    bench.folder.close()

    assert [len(paths) for paths in bench.client.asked] == [3]
    said = (bench.folder.sending / job / "answer.txt").read_text()
    assert f"'1.2.9', slices={len(thin)}, reason=<LeftOut.SLICE_THICKNESS" in said


def test_study_of_which_nothing_is_wanted_has_a_result_that_says_so(tmp_path: Path) -> None:
    """NOT_ANALYSED, without asking the server; it is no failure."""
    bench = Bench(tmp_path, SelectionSettings(series_description=("no such",)))
    job = bench.add()
    bench.judge.judge(job)
    bench.folder.close()

    assert bench.client.asked == []
    assert bench.count("failed") == 0
    said = (bench.folder.sending / job / "answer.txt").read_text()
    assert "NO_SERIES" in said
    assert "OTHER_DESCRIPTION" in said


def test_all_that_was_left_out_is_told(tmp_path: Path) -> None:
    """By settings, and what is no CT."""
    bench = Bench(tmp_path, SelectionSettings(series_least_mm=1.0))
    job = bench.add(not_kept=2)
    write_series(bench.folder.waiting / job, series="1.2.9", SliceThickness=0.6)
    bench.judge.judge(job)
    bench.folder.close()

    said = (bench.folder.sending / job / "answer.txt").read_text()
    assert re.findall(r"LeftOut\.([A-Z_]+)", said) == ["SLICE_THICKNESS", "NOT_CT"]


def test_command_of_the_page_is_understood() -> None:
    """Its patterns are what is chosen by."""
    (line,) = re.findall(r"^    python -m gateway listen (.*--series-description.*)$", PAGE, re.MULTILINE)
    parser = build_parser()
    (selection,) = read_several(parser, parser.parse_args(shlex.split(line)), SelectionSettings)

    assert selection == SelectionSettings(series_description=("HEAD*", "*BRAIN*"), series_original=True)


def test_page_has_every_reason_once() -> None:
    """In its table, and none that there is not."""
    reasons = [*LeftOut, *Doubt, *Unasked]

    assert re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE) == [str(one) for one in reasons]
    assert PATIENT["PatientName"] not in PAGE
