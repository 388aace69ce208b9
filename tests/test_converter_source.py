"""Sources and options that cannot be converted: each gets a sentence, and nothing is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.errors import (
    ConversionError,
    SourceError,
)
from tests.converting import convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("name", ["missing.keras", "text.keras", "half.keras", "half.h5", "renamed.h5", "empty_folder"])
def test_source_that_is_no_model_is_refused(
    name: str, tmp_path: Path, keras_file: Path, converter_options: ConvertOptions
) -> None:
    """Each gets a sentence, and nothing is written."""
    data = keras_file.read_bytes()
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "half.keras").write_bytes(data[: len(data) // 2])
    (tmp_path / "half.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "renamed.h5").write_bytes(data)
    (tmp_path / "empty_folder").mkdir()

    with pytest.raises(SourceError, match=name):
        convert(replace(converter_options, model=tmp_path / name))
    assert not converter_options.out.exists()


def test_wrong_number_of_labels_is_refused(keras_file: Path, converter_options: ConvertOptions) -> None:
    """Labels and outputs must match."""
    with pytest.raises(SourceError, match="answers 2 classes, --labels names 3"):
        convert(replace(converter_options, model=keras_file, labels=("a", "b", "stroke")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ()}, "--labels"),
        ({"positive": "bleed"}, "bleed"),
        ({"threshold": 1.5}, "threshold"),
        ({"images": Path("nowhere")}, "--images"),
    ],
)
def test_unusable_option_is_named(
    change: dict[str, object], message: str, keras_file: Path, converter_options: ConvertOptions
) -> None:
    """The message names what to mend."""
    with pytest.raises(ConversionError, match=message):
        convert(replace(converter_options, model=keras_file, **change))  # type: ignore[arg-type]
