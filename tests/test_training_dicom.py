"""Training, its audit and evaluation, and the converter, on DICOM files: the server's pixels, and people kept apart
without their ids."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converter.errors import ConversionError
from converter.int8.patients import read_slices
from server.images.dicom.window import BRAIN, Window, apply_windows
from server.images.image_folder import list_folder
from server.images.preprocess import load_pixels
from server.models.contract import ModelSpec
from server.models.runtime import load_model
from tests.dicom_files import make_dicom, make_hu
from tests.fakes import BUNDLED, encode, make_slice, write_model
from tests.test_training_data import ignore_progress
from training.cli import main
from training.data.format import INPUT_FORMAT, make_format
from training.data.labels import list_images
from training.data.pixels import decode_images
from training.errors import TrainingError
from training.phantom.dataset import write_dataset
from training.settings.train import TrainConfig

WINDOWS = (BRAIN, Window(75, 215), Window(600, 2800))
SECRET = "SECRET-MRN"


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people with two slices each, told by what is in the files alone; the last has no suffix."""
    root = tmp_path_factory.mktemp("dicom") / "scans"
    for person in range(8):
        folder = root / ("normal", "stroke")[person % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for turn in range(2):
            hu = make_hu(64, seed=10 * person + turn)
            if person % 2:
                hu[20:30, 25:35] = 75
            data = make_dicom(
                hu,
                PatientID=f"{SECRET}{person}",
                PatientName=f"{SECRET}^NAME",
                StudyInstanceUID=f"1.2.{person}",
                SOPInstanceUID=f"1.2.{person}.{turn}",
            )
            (folder / f"{2 * person + turn:03d}{'.dcm' if person < 7 else ''}").write_bytes(data)
    return root


def test_people_are_told_by_the_files_and_named_by_hashes(scans: Path) -> None:
    """Two slices of each of eight people; a pattern that is given is for those files whose ids are all the same."""
    images = list_images(scans)
    assert len(images.files) == 16
    assert len(set(images.patients)) == len(set(images.studies)) == 8
    assert images.has_patients
    assert [images.patients[index] == images.patients[index + 1] for index in range(0, 16, 2)] == [True] * 8
    assert "16 DICOM files say whose they are: 8 patients, named by hashes" in images.notes
    assert SECRET not in repr(images)
    by_name = list_images(scans, patient_pattern=r"(\d\d)\d(\.dcm)?")
    assert set(by_name.patients) == {"00", "01"}
    assert set(list_images(scans, one_image_per_patient=True).patients) == set(images.files)


def test_a_table_counts_more_than_the_files(scans: Path, tmp_path: Path) -> None:
    """Who wrote a patient into labels.csv knows better; the study is still the file's where the table has none."""
    rows = [
        f"{path.relative_to(scans)},{path.parent.name},P{int(path.stem) // 4}" for path in list_folder(scans).images
    ]
    (tmp_path / "data").symlink_to(scans)
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient", *(f"data/{row}" for row in rows)]))
    images = list_images(tmp_path)
    assert set(images.patients) == {"P0", "P1", "P2", "P3"}
    assert len(set(images.studies)) == 8


def test_the_converter_keeps_the_same_people_apart(scans: Path) -> None:
    """Calibration takes the hashes that training takes."""
    slices = read_slices(scans, list_folder(scans), ("normal", "stroke"))
    images = list_images(scans)
    assert [item.patient for item in slices] == list(images.patients)
    assert [item.label for item in slices] == [images.labels[target] for target in images.targets]


@pytest.mark.parametrize("windows", [(BRAIN,), (Window(75, 215),), WINDOWS])
def test_networks_see_ct_values_in_the_windows_of_the_run(
    scans: Path, tmp_path: Path, windows: tuple[Window, ...]
) -> None:
    """The store has the server's pixels: a plane a window."""
    images = list_images(scans)
    store, _ = decode_images(images, tmp_path, ignore_progress, make_format(windows))
    with store:
        pixels = store.read(np.array([3]))[0]
    assert pixels.shape == (256, 256, len(windows))
    seen = load_pixels((images.root / images.files[3]).read_bytes(), make_format(windows))
    assert np.array_equal(pixels, seen.array)
    brain = apply_windows(np.full((1, 1), 35, np.float32), windows)[0, 0]
    assert np.abs(np.median(pixels[96:160, 96:160], axis=(0, 1)) - brain).max() < 12


def test_masks_of_dicom_files_are_png(tmp_path: Path) -> None:
    """The masks that --dicom writes are found: the same as those of the PNG files of the same slices."""
    planes = []
    for name, options in {"ct": {"dicom": True}, "png": {"window": BRAIN}}.items():
        write_dataset(tmp_path / name, 4, 5, size=64, processes=1, **options)  # type: ignore[arg-type]
        images = list_images(tmp_path / name)
        store, _ = decode_images(images, tmp_path, ignore_progress)
        with store:
            assert store.planes == 2
            planes.append(store.read(np.arange(4)))
    assert np.array_equal(*planes)
    assert planes[0][2:, ..., 1].any()
    assert not planes[0][:2, ..., 1].any()


def test_audit_reads_them(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sizes and kind are those of the header, people are counted, and no id is in any output."""
    assert main(["audit", str(scans), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["sizes"], document["modes"], document["unreadable"]) == ({"64 x 64": 16}, {"CT": 16}, [])
    assert [count["patients"] for count in document["classes"]] == [4, 4]
    assert SECRET not in told.out + told.err + (tmp_path / "out" / "audit.md").read_text()


def test_evaluation_sees_them_in_the_models_window(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And refuses them all where the model has none."""
    spec = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5, windows=(BRAIN,))
    folder = write_model(tmp_path, spec)
    assert main(["evaluate", str(folder), "--data", str(scans), "--json", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    whole = json.loads(told.out)["evaluations"]["all images"]
    assert (whole["slices"]["count"], whole["patients"]["count"]) == (16, 8)
    written = [path.read_bytes() for path in (tmp_path / "out").iterdir()]
    assert SECRET.encode() not in b"".join([told.out.encode(), told.err.encode(), *written])
    folder = write_model(tmp_path / "without", replace(spec, windows=()))
    assert main(["evaluate", str(folder), "--data", str(scans)]) == 2
    assert "does not say in which window" in capsys.readouterr().err


def test_the_bundled_model_answers_a_png_in_its_window_as_the_dicom_file(tmp_path: Path) -> None:
    """What the phantom writes as PNG in the brain window and as DICOM is the same slice to the model."""
    model = load_model(BUNDLED)
    input_format = replace(model.input_format, windows=(BRAIN,))
    answers = []
    for name, options in {"ct": {"dicom": True}, "png": {"window": BRAIN}}.items():
        write_dataset(tmp_path / name, 6, 12, size=300, processes=1, **options)  # type: ignore[arg-type]
        files = list_folder(tmp_path / name).images
        pixels = [load_pixels(path.read_bytes(), input_format).array for path in files]
        answers.append(np.concatenate([model.run(one[np.newaxis]) for one in pixels]))
    assert np.abs(answers[0] - answers[1]).max() < 1e-3
    assert np.ptp(answers[0][:, 1]) > 0.1


def test_without_pydicom_it_is_said_where_to_have_it(scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, by training; folders of PNG need none."""
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(TrainingError, match=r"has DICOM files, for which pydicom is needed: make install$"):
        list_images(scans)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (("40",), "--window '40' is not LEVEL,WIDTH"),
        (("40,0",), "--window '40,0' is not"),
        (("nan,80",), "is not LEVEL,WIDTH"),
        (("40,80", "75,215"), "--window must be one or three, not 2"),
    ],
)
def test_senseless_windows_are_refused(window: tuple[str, ...], message: str) -> None:
    """By the name of the flag."""
    with pytest.raises(ValueError, match=message):
        TrainConfig(data=Path("a"), out=Path("b"), window=window)


@pytest.mark.tensorflow
def test_three_windows_reach_the_network_as_three_channels(scans: Path, tmp_path: Path) -> None:
    """Batches for fitting and for judging, with and without masks and variations."""
    from training.fit.augment import AUGMENTATIONS
    from training.fit.pipeline import make_batches, make_training_batches

    images = list_images(scans)
    store, _ = decode_images(images, tmp_path, ignore_progress, make_format(WINDOWS))
    with store:
        (batch,) = make_batches(store, np.arange(4), 4)
        assert np.array_equal(batch.numpy(), store.read(np.arange(4)))
        ((varied, _, _),) = make_training_batches(
            store,
            np.arange(4),
            images.targets[:4],
            4,
            seed=1,
            epochs=range(1),
            augmentation=AUGMENTATIONS["head-ct"],
        )
    assert varied.shape == (4, 256, 256, 3)
    assert not np.array_equal(varied[..., 0], varied[..., 2])


@pytest.mark.tensorflow
def test_a_run_says_its_windows_and_names_nobody(scans: Path, tmp_path: Path) -> None:
    """The spec has windows, colour and the rule for studies; no file of the run has an id in it."""
    from training.run.train import train

    config = TrainConfig(
        data=scans,
        out=tmp_path / "run",
        epochs=1,
        batch_size=8,
        validation=0.3,
        test=0.3,
        near_duplicates="report",
        window=("40,80", "75,215", "600,2800"),
    )
    train(config)
    spec = ModelSpec.from_json((config.out / "spec.json").read_text())
    assert (spec.windows, spec.colour) == (WINDOWS, "rgb")
    assert spec.study_top_k >= 1
    assert "--window 40,80 75,215 600,2800" in spec.provenance["flags"]
    for path in config.out.rglob("*"):
        assert SECRET.encode() not in path.read_bytes()
    assert INPUT_FORMAT.windows == (BRAIN,)


@pytest.mark.tensorflow
def test_the_converter_proves_parity_on_what_the_model_sees(scans: Path, tmp_path: Path) -> None:
    """DICOM files among others are left out, and said, where the model has no window; alone they are an error."""
    from converter.verify import load_images

    notes: list[str] = []
    assert load_images(scans, make_format((BRAIN,)), notes.append).shape == (16, 256, 256, 1)
    assert not notes
    blind = replace(INPUT_FORMAT, windows=())
    with pytest.raises(ConversionError, match="all DICOM files, which the model sees in no window: --window"):
        load_images(scans, blind)
    (tmp_path / "data").symlink_to(scans)
    (tmp_path / "a.png").write_bytes(encode(make_slice()))
    assert len(load_images(tmp_path, blind, notes.append)) == 1
    assert notes == [f"left out: 16 DICOM files of {tmp_path}, which the model sees in no window (--window)"]
