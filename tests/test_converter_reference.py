"""The author's own answers decide what is done to pixels; where there are none, answers stand side by side."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from converter.cli import main
from converter.errors import InputRangeError, OutputValuesError, SourceError
from server.images.preprocess import InputFormat, load_pixels
from server.models.contract import ModelSpec
from server.models.manifest import read_manifest
from tests.converting import LABELS
from tests.fakes import ROOT

if TYPE_CHECKING:
    from converter.config import ConvertOptions
    from converter.pixels.search import Found
    from converter.source import SourceModel

pytestmark = pytest.mark.tensorflow

SIDE = 16
SPEC = ModelSpec("x", "1", LABELS, ("stroke",), 0.5)
COUNT = 10


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured pictures of several shapes, in folders."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.RandomState(4)
    for index in range(COUNT):
        coarse = random.randint(0, 256, (9, 9 + index % 3 * 4, 3)).astype(np.uint8)
        path = folder / f"patient{index % 2}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(coarse).resize((60 + index % 3 * 20, 60), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def source() -> SourceModel:
    """A model that reacts to each pixel and each channel, whatever its values are."""
    import tensorflow as tf

    from converter.source import SourceModel

    weights = np.random.RandomState(0).normal(size=(SIDE * SIDE * 3, 1)).astype(np.float32) / 8
    weights -= weights.mean()  # no answer is saturated

    def call(images: Any) -> Any:
        logits = tf.matmul(tf.reshape(tf.tanh(images / 2) + images / 255, (-1, SIDE * SIDE * 3)), weights)
        return tf.concat([tf.sigmoid(-logits), tf.sigmoid(logits)], axis=1)

    return SourceModel(call, SIDE, SIDE, 3, 2, None, "test")


def list_pictures(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def answer_as_author(source: SourceModel, folder: Path, way: InputFormat, values: str, order: str) -> Any:
    """What the author of a model got for some files, in one way of pixels."""
    from converter.pixels.preprocess import Preprocess

    author = replace(source, preprocess=Preprocess(values, order))
    pixels = np.stack([load_pixels(path.read_bytes(), way).array for path in list_pictures(folder)])
    return author.predict(pixels)


def write_table(path: Path, folder: Path, columns: Sequence[str], answers: Any) -> Path:
    rows = [",".join(columns)]
    for file, row in zip(list_pictures(folder), answers, strict=True):
        rows.append(",".join([file.relative_to(folder).as_posix(), *(f"{value:.9g}" for value in row)]))
    path.write_text("\n".join(rows) + "\n")
    return path


def search(source: SourceModel, table: Path, folder: Path, **flags: Any) -> Found:
    from converter.config import ConvertOptions
    from converter.pixels.reference import read_reference
    from converter.pixels.search import search_pixels

    options = ConvertOptions(model=Path("m.keras"), out=Path("models/x/1"), **flags)
    reference = read_reference(table, folder, SPEC, outputs=2, activation=None)
    spec = replace(SPEC, **{name: flags[name] for name in ("resample", "fit", "colour") if name in flags})
    return search_pixels(source, reference, spec, options)


@pytest.mark.parametrize(
    ("values", "order", "colour", "resample", "fit"),
    [
        ("-1..1", "rgb", "rgb", "nearest", "stretch"),
        ("0..1", "bgr", "rgb", "bicubic", "pad"),
        ("torch", "rgb", "grey", "bilinear", "pad"),
        ("caffe", "rgb", "rgb", "lanczos", "stretch"),
        ("0..255", "bgr", "rgb", "box", "stretch"),
    ],
)
def test_search_finds_what_the_author_did(
    values: str, order: str, colour: str, resample: str, fit: str, source: SourceModel, pictures: Path, tmp_path: Path
) -> None:
    """Whatever it was, from the answers alone."""
    way = InputFormat(SIDE, SIDE, colour, resample, fit)
    answers = answer_as_author(source, pictures, way, values, order)
    table = write_table(tmp_path / "predictions.csv", pictures, ("file", *LABELS), answers)

    found = search(source, table, pictures)

    assert found.best.preprocess.values == values
    assert found.best.input_format == way
    assert found.ranking[0].close.largest_difference < 1e-5
    assert found.ranking[1].close.mean_difference > 1e-4
    assert found.best.preprocess.channel_order == order or colour == "grey"


def test_what_is_said_is_not_searched(source: SourceModel, pictures: Path, tmp_path: Path) -> None:
    """A flag that the author's answers contradict is refused, with how near its best comes."""
    answers = answer_as_author(source, pictures, InputFormat(SIDE, SIDE, "rgb", "nearest"), "-1..1", "rgb")
    table = write_table(tmp_path / "predictions.csv", pictures, ("file", *LABELS), answers)

    found = search(source, table, pictures, preprocess="-1..1", resample="nearest", colour="rgb", channel_order="rgb")

    assert found.ranking[0].close.is_close
    assert {one.combinations[0].input_format.resample for one in found.ranking} == {"nearest"}
    with pytest.raises(OutputValuesError, match=r"no way of pixels gives .* .needed: .* 99%"):
        search(source, table, pictures, preprocess="0..1")


def test_grey_pictures_say_nothing_of_colours(source: SourceModel, pictures: Path, tmp_path: Path) -> None:
    """So neither colour nor order of channels is searched, and what is taken is the usual."""
    for path in list_pictures(pictures):
        grey = tmp_path / "grey" / path.name
        grey.parent.mkdir(exist_ok=True)
        Image.open(path).convert("L").save(grey)
    answers = answer_as_author(source, tmp_path / "grey", InputFormat(SIDE, SIDE, "grey"), "torch", "rgb")
    table = write_table(tmp_path / "predictions.csv", tmp_path / "grey", ("file", *LABELS), answers)

    found = search(source, table, tmp_path / "grey")

    assert found.best.preprocess.values == "torch"
    assert {one.combinations[0].preprocess.channel_order for one in found.ranking} == {"rgb"}
    assert {one.combinations[0].input_format.colour for one in found.ranking} == {"rgb"}


def test_table_may_be_as_people_have_it(source: SourceModel, pictures: Path, tmp_path: Path) -> None:
    """Names alone or with folders, the other system's separators, a byte order mark, columns by label or in order."""
    from converter.pixels.reference import read_reference

    answers = np.stack([np.linspace(0.9, 0.1, COUNT), np.linspace(0.1, 0.9, COUNT)], axis=1)
    files = [file.relative_to(pictures).as_posix() for file in list_pictures(pictures)]
    forms: list[tuple[str, Callable[[str, Any], str]]] = [
        ("file,normal,stroke", lambda file, p: f"{file},{p[0]},{p[1]}"),
        ("filename,p_stroke,p_normal", lambda file, p: f"{file},{p[1]},{p[0]}"),
        ("path,0,1", lambda file, p: f"./{file},{p[0]},{p[1]}"),
        ("image;Normal;Stroke", lambda file, p: f"{file.replace('/', chr(92))};{p[0]};{p[1]}".replace(".", ",", 0)),
        ("stroke\tfile", lambda file, p: f"{p[1]}\t{file.rpartition('/')[2]}"),
    ]
    for number, (header, write) in enumerate(forms):
        table = tmp_path / f"{number}.csv"
        rows = [header, *(write(file, p) for file, p in zip(files, answers, strict=True))]
        table.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode() + b"\r\n")

        read = read_reference(table, pictures, SPEC, outputs=2, activation=None)

        assert [path.relative_to(pictures).as_posix() for path in read.files] == files
        assert np.allclose(read.answers, answers)
        assert read.missing == 0


def test_lines_for_a_notebook_write_such_a_table(
    source: SourceModel, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of docs/convert.md, as they stand there."""
    from converter.pixels.reference import read_reference

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "convert.md").read_text("utf-8"), re.DOTALL)

    class Model:
        def predict(self, images: Any, verbose: int) -> Any:
            return source.predict(images)

    way = InputFormat(SIDE, SIDE)
    exec(lines, {"model": Model(), "prepare": lambda path: load_pixels(path.read_bytes(), way).array})

    read = read_reference(tmp_path / "predictions.csv", pictures, SPEC, outputs=2, activation=None)
    assert list(read.files) == list_pictures(pictures)
    assert np.allclose(read.answers, answer_as_author(source, pictures, way, "0..255", "rgb"), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header and a row"),
        ("name of it,normal,stroke\n0.png,1,0\n", "no column 'file'"),
        ("file,normal,bleeding\n0.png,1,0\n" * 5, "must be one for each of normal, stroke"),
        ("file,normal,stroke,other\n0.png,a,0,0\n", "no number for each"),
        ("file,normal,stroke\n" + "elsewhere.png,1,0\n" * 9, "0 of its 9 files"),
        ("file,normal,stroke\n" + "".join(f"{i}.png,3.5,-2\n" for i in range(8)), "are not probabilities"),
        ("\xff\xfe\x00", "is no CSV"),
    ],
)
def test_table_that_is_none_is_told_in_a_line(text: str, message: str, pictures: Path, tmp_path: Path) -> None:
    """With what is wrong, and where."""
    from converter.pixels.reference import read_reference

    table = tmp_path / "predictions.csv"
    table.write_bytes(text.encode("latin-1"))

    with pytest.raises(SourceError, match=message):
        read_reference(table, pictures, SPEC, outputs=2, activation=None)


def test_logits_in_the_table_become_probabilities(pictures: Path, tmp_path: Path) -> None:
    """As the model's own do."""
    from converter.pixels.reference import read_reference

    table = write_table(tmp_path / "p.csv", pictures, ("file", "output"), np.zeros((COUNT, 1)))

    read = read_reference(table, pictures, SPEC, outputs=1, activation="sigmoid")

    assert np.allclose(read.answers, 0.5)


def test_conversion_takes_what_was_found_and_proves_it_on_what_is_served(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Spec, manifest and report say what was found and how near the served answers come."""
    import keras

    keras.utils.set_random_seed(3)
    layers = [keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")]
    network = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    network.save(tmp_path / "model.keras")
    way = InputFormat(SIDE, SIDE, "rgb", "bicubic")
    pixels = np.stack([load_pixels(path.read_bytes(), way).array for path in list_pictures(pictures)])
    answers = network.predict(pixels / 127.5 - 1, verbose=0)
    table = write_table(tmp_path / "predictions.csv", pictures, ("file", *LABELS), answers)
    out = tmp_path / "models" / "x" / "1"
    threshold = (answers[:, 1].min() + answers[:, 1].max()) / 2
    command = [str(tmp_path / "model.keras"), "-o", str(out), "--labels", "normal,stroke", "--positive", "stroke"]
    command += ["--threshold", str(threshold), "--images", str(pictures), "--reference", str(table)]

    with table.open("a") as file:
        file.write("gone.png,0.5,0.5\n")

    assert main([*command, "--json"]) == 0

    told = capsys.readouterr()
    report = json.loads(told.out)
    assert "note: left out: 1 files of" in told.err
    assert report["reference"]["files_missing"] == 1
    assert (report["preprocess"], report["spec"]["resample"]) == ("-1..1", "bicubic")
    assert report["reference"]["served"]["largest_difference"] < 1e-4
    recorded = read_manifest(out).reference
    assert recorded["found"]["resample"] == "bicubic"
    assert len(recorded["candidates"]) > 1
    assert main(["report", str(out)]) == 0
    assert "same label for 100.0%" in capsys.readouterr().out
    assert main([*command, "--force", "--resample", "nearest", "--preprocess", "torch"]) == 1
    captured = capsys.readouterr()
    assert "no way of pixels" in captured.err
    assert read_manifest(out).reference == recorded


def test_served_answers_far_from_the_authors_are_refused(source: SourceModel, pictures: Path, tmp_path: Path) -> None:
    """All files count, not the few that the search has looked at."""
    from converter.pixels.reference import check_served, read_reference

    answers = np.tile([0.3, 0.7], (COUNT, 1))
    answers[-1] = 0.5, 0.5
    table = write_table(tmp_path / "predictions.csv", pictures, ("file", *LABELS), answers)
    reference = read_reference(table, pictures, SPEC, outputs=2, activation=None)

    class Served:
        spec, input_format = SPEC, InputFormat(SIDE, SIDE)

        def run(self, images: Any) -> Any:
            return np.array([[0.3, 0.7]])

    model: Any = Served()
    with pytest.raises(OutputValuesError, match=r"largest 0\.2 on 10 files"):
        check_served(model, reference)


def choose(source: SourceModel, values: str | None, told: list[str]) -> Any:
    from converter.pixels.evidence import choose_preprocess

    images = np.random.RandomState(1).randint(0, 256, (8, SIDE, SIDE, 3)).astype(np.uint8)
    return choose_preprocess(source, images, SPEC, values=values, channel_order="rgb", tell=told.append)


def test_answers_for_each_choice_stand_side_by_side_where_nothing_shows(source: SourceModel) -> None:
    """Whether it is said or not: only the author knows."""
    told: list[str] = []

    assert choose(source, "-1..1", told).values == "-1..1"
    with pytest.raises(InputRangeError, match="--reference"):
        choose(source, None, told)

    for text, taken in zip(told, ("-1..1", None), strict=True):
        first, *rows = text.splitlines()
        assert "only its author knows" in first
        assert [row.split()[0] for row in rows] == ["0..255", "0..1", "-1..1", "caffe", "torch"]
        assert [row.split()[0] for row in rows if "<- taken" in row] == ([taken] if taken else [])


def test_what_the_model_shows_is_believed(source: SourceModel) -> None:
    """And nothing is said of it."""
    told: list[str] = []
    shown = replace(source, input_range="-1..1")

    assert choose(shown, None, told).values == "-1..1"
    assert told == []


@pytest.mark.parametrize(
    ("shown", "said"), [("0..255", "caffe"), ("0..255", "-1..1"), ("0..1", "-1..1"), ("-1..1", "0..1")]
)
def test_flag_that_the_model_contradicts_is_refused(shown: str, said: str, source: SourceModel) -> None:
    """By the values that it shows."""
    from converter.pixels.evidence import check_flag

    with pytest.raises(InputRangeError, match=f"--preprocess {shown}"):
        check_flag(replace(source, input_range=shown), said)


def test_saturated_answers_are_called_no_proof(
    tmp_path: Path, converter_options: ConvertOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    """However small the difference: another model would hardly answer otherwise."""
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
    last = keras.layers.Dense(2, activation="softmax", bias_initializer=keras.initializers.Constant([90.0, 0.0]))
    keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, last]).save(tmp_path / "model.keras")
    stated = ["--labels", "normal,stroke", "--positive", "stroke", "--threshold", "0.5"]

    code = main(
        [str(tmp_path / "model.keras"), "-o", str(converter_options.out), *stated, "--images", str(ROOT / "samples")]
    )

    assert code == 0
    assert "parity is no proof here" in capsys.readouterr().err
    assert read_manifest(converter_options.out).parity["images_not_saturated"] == 0
