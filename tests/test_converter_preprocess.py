"""What public code does to pixel values before ``predict``, in the graph: the served model takes bytes all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converter.cli import main
from converter.pixels.preprocess import CHANNEL_ORDERS, PREPROCESS, Preprocess
from server.models.runtime import OnnxModel, load_model
from tests.converting import LABELS, SIDE, build_network, convert, save_network

if TYPE_CHECKING:
    from converter.convert import ConvertOptions

pytestmark = pytest.mark.tensorflow


def make_colours() -> Any:
    """Coloured noise, uint8 [2, SIDE, SIDE, 3] in RGB."""
    return np.random.RandomState(5).randint(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)


def expect_values(name: str, images: Any) -> Any:
    """What Keras itself makes of images in RGB."""
    from keras.applications.imagenet_utils import preprocess_input

    values = images.astype(np.float32)
    match name:
        case "0..1":
            return values / 255
        case "-1..1":
            return preprocess_input(values, mode="tf")
        case "caffe" | "torch":
            return preprocess_input(values, mode=name)
    return values


@pytest.fixture(scope="module")
def network() -> Any:
    """A small network without any scaling inside, with weights for values of one byte's size."""
    network = build_network(rescaling=False)
    network.layers[-1].set_weights([weight * 1e-2 for weight in network.layers[-1].get_weights()])
    return network


def export(network: Any, preprocess: Preprocess, colour: str) -> tuple[OnnxModel, list[str]]:
    """The exported model as it is served, and the operators in front."""
    from converter.export import export_model
    from converter.graph.edit import embed_spec
    from converter.source import SourceModel
    from server.models.contract import ModelSpec

    source = SourceModel(
        lambda images: network(images, training=False), SIDE, SIDE, 3, 2, None, "test", preprocess=preprocess
    )
    graph = export_model(source, channels=1 if colour == "grey" else 3, opset=17)
    data = embed_spec(graph, ModelSpec("x", "1", LABELS, ("stroke",), 0.5, colour=colour))
    return OnnxModel(data, source="test"), [node.op_type for node in graph.graph.node]


@pytest.mark.parametrize("order", CHANNEL_ORDERS)
@pytest.mark.parametrize("values", PREPROCESS)
def test_served_bytes_are_what_keras_makes_of_them(values: str, order: str, network: Any) -> None:
    """Means, deviations and order of channels included; in the graph they cost no operator of their own."""
    images = make_colours()
    read = images if order == "rgb" else images[..., ::-1]  # as cv2.imread reads it

    model, operators = export(network, Preprocess(values, order), "rgb")

    expected = np.asarray(network(expect_values(values, read), training=False))
    assert np.abs(model.run(images) - expected).max() <= 1e-5
    assert np.ptp(expected) > 1e-3
    assert [name for name in operators[: operators.index("Conv")] if name not in ("Cast", "Transpose", "Pad")] == []


@pytest.mark.parametrize("values", ["caffe", "torch"])
def test_grey_model_takes_one_channel_whatever_its_means(values: str, network: Any) -> None:
    """Three means of one grey channel are three values."""
    grey = make_colours()[..., :1]

    model, _ = export(network, Preprocess(values), "grey")

    expected = np.asarray(network(expect_values(values, np.repeat(grey, 3, axis=3)), training=False))
    assert np.abs(model.run(grey) - expected).max() <= 1e-5


def test_preprocess_is_in_the_spec_and_in_the_report(
    tmp_path: Path, converter_options: ConvertOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    """Values that begin with a minus can be typed; the older name of the flag means the same."""
    path, out = save_network(tmp_path, rescaling=False), converter_options.out
    stated = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.05"]
    command = [str(path), "-o", str(out), *stated, "--images", str(converter_options.images)]

    way = ["--preprocess", "-1..1", "--channel-order", "bgr", "--resample", "nearest", "--fit", "pad"]
    assert main([*command, *way]) == 0

    spec = load_model(out).spec
    assert (spec.resample, spec.fit) == ("nearest", "pad")
    assert (spec.provenance["preprocess"], spec.provenance["channel_order"]) == ("-1..1", "bgr")
    assert "pixels       -1..1 of bgr, rgb, resample nearest, fit pad" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*command, "--input-range", "0..2"])
    assert "--preprocess must be one of 0..255, 0..1, -1..1, caffe, torch" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("form", ["model.keras", "saved"])
def test_model_of_any_size_takes_the_one_that_is_said(
    form: str, tmp_path: Path, converter_options: ConvertOptions
) -> None:
    """Without it the message says which flag; where the size is fixed, another one is refused."""
    import keras

    from converter.errors import SourceError

    network = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    path = tmp_path / form
    network.save(path) if path.suffix else network.export(path, verbose=False)

    with pytest.raises(SourceError, match=r"any size .* --size"):
        convert(replace(converter_options, model=path))
    report = convert(replace(converter_options, model=path, size=32))

    assert load_model(report.out).input_format.height == 32
    with pytest.raises(SourceError, match=f"{SIDE} x {SIDE} pixels alone"):
        convert(replace(converter_options, model=save_network(tmp_path), size=32, force=True))
