"""Conversion with an INT8 variant (test_converter_quantize.py has the details), and the report of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.cli import main
from converter.errors import (
    AccuracyError,
)
from server.machine.processors import find_target
from server.models.manifest import INT8_FILE, MANIFEST_FILE, Manifest
from tests.converting import LABELS, convert
from tests.fakes import sha256_hex

if TYPE_CHECKING:
    from converter.convert import ConversionReport, ConvertOptions

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def converted(
    keras_file: Path, converter_images: Path, calibration_slices: Path, tmp_path_factory: pytest.TempPathFactory
) -> ConversionReport:
    """A model with its INT8 variant, which the tests share; do not change its files."""
    from converter.convert import ConvertOptions

    return convert(
        ConvertOptions(
            model=keras_file,
            out=tmp_path_factory.mktemp("int8") / "models" / "small" / "1",
            labels=LABELS,
            positive="stroke",
            threshold=0.05,
            input_range="0..255",
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


def test_variant_that_fails_the_gate_leaves_nothing_behind(
    keras_file: Path, converter_options: ConvertOptions, calibration_slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the variant nor the model it was made from is written."""
    monkeypatch.setattr("converter.int8.gate.MOST_MEAN_DIFFERENCE", -1.0)

    with pytest.raises(AccuracyError):
        convert(replace(converter_options, model=keras_file, int8=True, calibrate=calibration_slices))

    assert not converter_options.out.exists()
    assert not converter_options.out.parent.exists()


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
        "held out     80 slices: same label",
        "AUC drop",
    ):
        assert words in told
    assert "MODEL_FILE_TRUNCATED" in capsys.readouterr().err
