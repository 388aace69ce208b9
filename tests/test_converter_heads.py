"""The heads that models have: one output or several, probabilities or logits, all in the graph and proven."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converter.errors import OutputValuesError, SourceError
from server.models.runtime import load_model
from tests.converting import SIDE, build_network, convert

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow

THREE = ("haemorrhagic", "ischaemic", "normal")


def save_head(folder: Path, outputs: int, activation: str, form: str = "keras") -> tuple[Path, Any]:
    """The small network with another end, as a file or as a SavedModel."""
    model = build_network(outputs=outputs, activation=activation)
    path = folder / ("head.keras" if form == "keras" else "saved")
    model.save(path) if form == "keras" else model.export(str(path), verbose=False)
    return path, model


def answer_both(model: Any, out: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """What the trained model answers, raw, and what is served."""
    pixels = np.random.RandomState(0).randint(0, 256, (6, SIDE, SIDE, 3)).astype(np.uint8)
    return np.asarray(model(pixels.astype(np.float32))).astype(np.float64), load_model(out).run(pixels)


@pytest.mark.parametrize("form", ["keras", "saved_model"])
@pytest.mark.parametrize("outputs", [2, 3, 5])
def test_logits_get_their_softmax_in_the_graph(
    tmp_path: Path, converter_options: ConvertOptions, outputs: int, form: str
) -> None:
    """Of two, three and more classes."""
    path, model = save_head(tmp_path, outputs, "linear", form)
    labels = ("normal", "stroke", *THREE)[:outputs] if outputs != 5 else ("normal", "stroke", "a", "b", "c")

    report = convert(replace(converter_options, model=path, labels=labels, activation="softmax"))

    logits, served = answer_both(model, report.out)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert served == pytest.approx(powers / powers.sum(axis=1, keepdims=True), abs=1e-5)
    assert report.spec.provenance["activation_added"] == "softmax"


@pytest.mark.parametrize(("activation", "flag"), [("linear", "sigmoid"), ("sigmoid", None)])
def test_one_output_is_the_second_label_and_says_so(
    tmp_path: Path, converter_options: ConvertOptions, activation: str, flag: str | None
) -> None:
    """Class 0 may be the stroke; whoever trained it so gives the labels in that order."""
    path, model = save_head(tmp_path, 1, activation)

    report = convert(replace(converter_options, model=path, labels=("stroke", "normal"), activation=flag))

    raw, served = answer_both(model, report.out)
    second = (1 / (1 + np.exp(-raw)) if flag else raw)[:, 0]
    assert served == pytest.approx(np.stack([1 - second, second], axis=1), abs=1e-5)
    assert "probability of normal, and 1 minus it for that of stroke" in report.head
    assert "--labels normal,stroke" in report.head


def test_three_classes_with_softmax_are_served(tmp_path: Path, converter_options: ConvertOptions) -> None:
    """As they are, in the order of the labels."""
    path, model = save_head(tmp_path, 3, "softmax")

    report = convert(replace(converter_options, model=path, labels=THREE, positive=("ischaemic",)))

    raw, served = answer_both(model, report.out)
    assert served == pytest.approx(raw, abs=1e-5)
    assert report.head == "probabilities of 3 outputs, in the order of the labels"


@pytest.mark.parametrize("form", ["keras", "saved_model"])
@pytest.mark.parametrize(("outputs", "activation", "flag"), [(1, "sigmoid", "sigmoid"), (2, "softmax", "softmax")])
def test_second_activation_is_refused(
    tmp_path: Path, converter_options: ConvertOptions, outputs: int, activation: str, flag: str, form: str
) -> None:
    """It would squeeze all probabilities towards the middle, and parity would hold."""
    path, _ = save_head(tmp_path, outputs, activation, form)

    with pytest.raises(SourceError, match=f"ends with a {activation} already.*leave --activation out"):
        convert(replace(converter_options, model=path, activation=flag))


@pytest.mark.parametrize(("outputs", "flag", "advice"), [(1, "softmax", "sigmoid"), (2, "sigmoid", "softmax")])
def test_activation_that_does_not_fit_is_refused(
    tmp_path: Path, converter_options: ConvertOptions, outputs: int, flag: str, advice: str
) -> None:
    """With the one that does."""
    path, _ = save_head(tmp_path, outputs, "linear")

    with pytest.raises(SourceError, match=f"--activation {flag}: .*--activation {advice}"):
        convert(replace(converter_options, model=path, activation=flag))


@pytest.mark.parametrize(
    ("outputs", "activation", "advice"),
    [
        (1, "linear", "--activation sigmoid"),
        (3, "linear", "--activation softmax"),
        (2, "sigmoid", "exclude each other"),
    ],
)
def test_answers_that_are_no_probabilities_are_refused_with_the_flag(
    tmp_path: Path, converter_options: ConvertOptions, outputs: int, activation: str, advice: str
) -> None:
    """Logits and independent sigmoids."""
    path, _ = save_head(tmp_path, outputs, activation)
    labels = ("normal", "stroke", "other")[: max(outputs, 2)]

    with pytest.raises(OutputValuesError, match=advice):
        convert(replace(converter_options, model=path, labels=labels))
