"""Conversion with an INT8 variant (test_converter_quantize.py has the details), and the report of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from converter.cli import main
from converter.int8.watch import Watch
from server.machine.processors import find_target
from server.models.manifest import EXPLAIN_FILE, INT8_FILE, MANIFEST_FILE, MODEL_FILE, Manifest
from server.models.runtime import load_model
from tests.converting import LABELS, convert
from tests.fakes import sha256_hex

if TYPE_CHECKING:
    from converter.convert import ConversionReport, ConvertOptions

pytestmark = [pytest.mark.tensorflow, pytest.mark.usefixtures("steady_speed")]


@pytest.fixture(scope="module")
def converted(
    keras_file: Path,
    converter_images: Path,
    calibration_slices: Path,
    tmp_path_factory: pytest.TempPathFactory,
    steady_speed: None,
) -> ConversionReport:
    """A model with its INT8 variant, which the tests share; do not change its files."""
    from converter.convert import ConvertOptions

    return convert(
        ConvertOptions(
            model=keras_file,
            out=tmp_path_factory.mktemp("int8") / "models" / "small" / "1",
            labels=LABELS,
            positive=("stroke",),
            threshold=0.05,
            preprocess="0..255",
            images=converter_images,
            colour="grey",
            int8=True,
            calibrate=calibration_slices,
        )
    )


def test_int8_variant_is_written_beside_its_source_with_its_figures(converted: ConversionReport) -> None:
    """The manifest has digest, target, own answers and the gate's figures; the report has them too."""
    report = converted

    manifest = Manifest.from_json((report.out / MANIFEST_FILE).read_text())
    record = manifest.files[INT8_FILE]
    assert record.sha256 == sha256_hex((report.out / INT8_FILE).read_bytes())
    assert record.target == find_target()
    assert len(record.probabilities) == len(manifest.golden)
    assert record.gate["held_out"]["slices"] == 80
    assert record.gate["held_out"]["agreement_at_half"] >= 0.995
    assert report.int8 == {"size": record.size, "target": record.target, **record.gate}


def test_variant_that_fails_the_gate_leaves_the_model_alone(
    keras_file: Path, converter_options: ConvertOptions, calibration_slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fp32 model, which is proven, is installed and loads; the report has the figures of the failure."""
    monkeypatch.setattr("converter.int8.gate.MOST_MEAN_DIFFERENCE", -1.0)

    report = convert(replace(converter_options, model=keras_file, int8=True, calibrate=calibration_slices))

    assert report.int8 is None
    assert "mean |Δp|" in report.int8_failure
    assert sorted(path.name for path in report.out.iterdir()) == [MANIFEST_FILE, EXPLAIN_FILE, MODEL_FILE]
    assert load_model(report.out)


@pytest.mark.parametrize(("given", "minutes"), [(None, 10), (2.5, 2.5)])
def test_variant_takes_the_minutes_that_are_given(
    converter_options: ConvertOptions, monkeypatch: pytest.MonkeyPatch, given: float | None, minutes: float
) -> None:
    """Ten where nothing is said; loading of slices is part of them."""
    from converter.convert import make_int8

    watches: list[Watch] = []
    monkeypatch.setattr("converter.convert.load_sets", lambda *_: Mock())
    monkeypatch.setattr("converter.convert.quantise", lambda *_, watch, target: watches.append(watch))
    options = replace(converter_options, int8=True, int8_minutes=given)

    make_int8(options, Mock(), Mock(), lambda step: None)

    assert [watch.minutes for watch in watches] == [minutes]


def test_command_without_its_variant_says_why_and_exits_with_3(
    keras_file: Path,
    converter_options: ConvertOptions,
    calibration_slices: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line on the error output, behind the report of what is installed."""
    monkeypatch.setattr("converter.int8.gate.MOST_MEAN_DIFFERENCE", -1.0)
    options = converter_options

    flags = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.05", "--images", options.images]
    code = main([*map(str, [keras_file, "-o", options.out, *flags, "--int8", "--calibrate", calibration_slices])])

    printed = capsys.readouterr()
    assert code == 3
    assert printed.out.startswith(f"{options.out}: ")
    assert "installed in fp32 alone" in printed.err.splitlines()[-1]
    assert options.out.exists()


def test_report_tells_what_was_measured(
    converted: ConversionReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parity and gate of an installed model; a damaged file is found before anything is told."""
    damaged = Path(shutil.copytree(converted.out, tmp_path / "models" / "small" / "1"))
    (damaged / INT8_FILE).write_bytes(b"damaged")

    assert main(["report", str(converted.out)]) == 0
    told = capsys.readouterr().out
    assert main(["report", str(damaged)]) == 1

    for words in (
        "image difference",
        "calibrated by",
        "no convolution",
        "speed        2 times fp32's",
        "held out     80 slices: same label",
        "AUC drop",
    ):
        assert words in told
    assert "MODEL_FILE_TRUNCATED" in capsys.readouterr().err
