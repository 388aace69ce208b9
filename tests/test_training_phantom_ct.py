"""Synthetic slices as CT values: valid DICOM files, Hounsfield units, and studies of a whole head."""

from __future__ import annotations

import csv
import io
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import FileDataset

from server.images.dicom.window import BRAIN, Window
from tests.dicom_iod import find_faults
from tests.fakes import ROOT
from tests.test_training_phantom import digest_folder, read_labels
from training.phantom import dicom_file
from training.phantom.ct import PICTURE_PARTS
from training.phantom.dataset import write_dataset
from training.phantom.head import AIR, BONE
from training.phantom.lesions import KINDS
from training.phantom.patient import Patient
from training.phantom.recipe import Recipe
from training.phantom.slice import generate_ct_slice, generate_ct_slice_at, generate_slice
from training.phantom.study import plan_study

PLAIN = Recipe().leave_out([*PICTURE_PARTS, "noise", "streaks", "kernel", "metal", "surgery", "sinuses"])


def read_ct(path: Path) -> tuple[FileDataset, NDArray[np.int64]]:
    """A file and its CT values in HU, by the words of the standard."""
    file = dcmread(path)
    stored = np.frombuffer(file.PixelData, "<u2").reshape(file.Rows, file.Columns).astype(np.int64)
    return file, stored * int(file.RescaleSlope) + int(file.RescaleIntercept)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two studies of 12 slices, the second with a stroke."""
    out = tmp_path_factory.mktemp("phantom") / "studies"
    write_dataset(out, 24, 7, size=128, processes=1, slices_per_patient=12, dicom=True)
    return out


def test_files_are_valid_ct_images(studies: Path) -> None:
    """Each file has what the modules of the CT Image IOD ask for, with the right VR, and a right File Meta group."""
    files = sorted(studies.rglob("*.dcm"))
    assert len(files) == 24
    assert [find_faults(path.read_bytes()) for path in files] == [[]] * 24


def test_the_check_finds_what_is_wrong(studies: Path) -> None:
    """The check is not blind: an attribute that lacks, a wrong VR, a wrong length, another instance."""
    path = next(iter(sorted(studies.rglob("*.dcm"))))

    def spoil(name: str, value: object) -> list[str]:
        file = dcmread(path)
        if value is None:
            delattr(file, name)
        else:
            file[name].value = value
        stream = io.BytesIO()
        file.save_as(stream)
        return find_faults(stream.getvalue())

    assert spoil("KVP", None) == ["CT Image lacks KVP"]
    assert spoil("PixelSpacing", "") == ["Image Plane lacks PixelSpacing"]
    assert spoil("SOPInstanceUID", "2.25.1") == ["File Meta names another instance"]
    assert spoil("HighBit", 15) == ["bits are not those of a CT image"]
    assert spoil("PixelData", bytes(100)) == ["PixelData has another length than its rows and columns"]
    assert spoil("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]) == [
        "orientation is not two directions at a right angle"
    ]


def test_a_study_is_the_whole_head_in_order(studies: Path) -> None:
    """One study and one series a patient; positions go up by the same step, and the table tells who and what."""
    rows = read_labels(studies)
    assert [row["file"] for row in rows[:2]] == ["00000/001.dcm", "00000/002.dcm"]
    for patient in ("00000", "00001"):
        files = [dcmread(path) for path in sorted((studies / patient).iterdir())]
        assert {str(file.PatientName) for file in files} == {f"PHANTOM^{patient}"}
        assert {file.PatientID for file in files} == {patient} == {r["patient"] for r in rows if patient in r["file"]}
        assert len({(file.StudyInstanceUID, file.SeriesInstanceUID, file.FrameOfReferenceUID) for file in files}) == 1
        assert len({file.SOPInstanceUID for file in files}) == 12
        assert [file.InstanceNumber for file in files] == list(range(1, 13))
        heights = [float(file.ImagePositionPatient[2]) for file in files]
        assert np.diff(heights) == pytest.approx(10.0, abs=0.02)
        assert {float(file.SliceThickness) for file in files} < {1.25, 2.5, 3.75, 5.0, 6.0}
        assert len({float(file.SliceThickness) for file in files}) == 1
        assert {len({str(part) for part in file.ImagePositionPatient[:2]} | {str(file.PixelSpacing)}) for file in files}
    assert dcmread(studies / "00000/001.dcm").StudyInstanceUID != dcmread(studies / "00001/001.dcm").StudyInstanceUID


def test_every_other_study_has_a_stroke_on_slices_that_lie_together(studies: Path) -> None:
    """The lesion reaches some neighbouring slices; masks lie where training looks for them."""
    kinds = [row["kind"] for row in read_labels(studies)]
    assert set(kinds[:12]) == {"none"}
    shown = np.flatnonzero([kind != "none" for kind in kinds[12:]])
    assert 0 < len(shown) < 12
    assert len({*kinds[12:]} - {"none"}) == 1
    assert shown[-1] - shown[0] == len(shown) - 1
    masks = sorted(path.relative_to(studies / ".lesions").as_posix() for path in (studies / ".lesions").rglob("*.png"))
    assert masks == [f"00001/{turn + 1:03d}.png" for turn in shown]


@pytest.mark.parametrize("kind", KINDS)
def test_lesions_stay_at_levels_where_they_are_seen(kind: str) -> None:
    """At least one slice has the lesion, all that have it lie together, and a normal study has none."""
    for key in range(20):
        study = plan_study(Patient(key), kind, 24)
        shown = np.flatnonzero([found == kind for found in study.kinds])
        assert len(shown)
        assert shown[-1] - shown[0] == len(shown) - 1
        assert np.diff(study.levels) == pytest.approx(study.levels[1] - study.levels[0])
        assert set(plan_study(Patient(key), None, 24).kinds) == {None}


def count_bone(recipe: Recipe, level: float, low: float, high: float) -> int:
    """Pixels of eight heads at that level whose CT value lies between the two."""
    slices = (
        generate_ct_slice_at(np.random.default_rng(key), level, kind=None, size=256, patient=Patient(key, recipe))
        for key in range(8)
    )
    return int(sum(((low <= item.values) & (item.values < high)).sum() for item in slices))


@pytest.mark.parametrize(
    ("level", "least", "most"), [(0.1, 1.1, 3.0), (0.25, 1.1, 3.0), (0.55, 0.95, 1.1), (0.9, 1.3, 3.0)]
)
def test_bone_fades_into_a_thick_slice_where_it_is_slanted(level: float, least: float, most: float) -> None:
    """Base, face and vertex have more pixels that are bone in part; the vault is upright at the ventricles."""
    thick, thin = Recipe(), Recipe(partial_volume=False)
    assert least < count_bone(thick, level, 100, 900) / count_bone(thin, level, 100, 900) < most
    assert {Patient(key, thin).look.thickness for key in range(8)} == {0.0}


def test_tissues_have_their_hounsfield_units() -> None:
    """Air, bone and brain are what textbooks say; a bleed is denser than brain."""
    patient = Patient(3, PLAIN)
    item = generate_ct_slice(np.random.default_rng(5), kind="intraparenchymal", size=256, patient=patient)
    assert item.values.dtype == np.int16
    assert np.median(item.values[:20, :20]) == pytest.approx(AIR, abs=5)
    assert np.percentile(item.values, 98) == pytest.approx(BONE, abs=30)
    brain = item.values[(item.values > 15) & (item.values < 50) & ~item.lesion]
    assert 25 < np.median(brain) < 40
    assert np.median(item.values[item.lesion]) > np.median(brain) + 5


def test_brain_is_as_dense_as_in_the_picture_of_the_same_slice() -> None:
    """Where a picture is neither black nor white, its grey is that of the CT value in the picture's own window."""
    for key in range(4):
        patient = Patient(key, Recipe().leave_out(PICTURE_PARTS))
        picture = generate_slice(np.random.default_rng(key), kind="epidural", size=128, patient=patient)
        ct = generate_ct_slice(np.random.default_rng(key), kind="epidural", size=128, patient=patient)
        assert np.array_equal(picture.lesion, ct.lesion)
        assert picture.level == ct.level
        look = patient.look
        shown = (ct.values - (look.level - look.width / 2)) * 255 / look.width
        inside = (picture.pixels > 5) & (picture.pixels < 200) & (shown < 250)
        assert inside.sum() > 1000
        difference = np.abs(shown - picture.pixels)[inside]
        assert np.percentile(difference, 90) < 255 / look.width + 1  # CT values are whole numbers


def test_a_dicom_file_and_a_png_in_a_window_are_the_same_slice(tmp_path: Path) -> None:
    """--window writes the CT values that --dicom writes, as grey levels of that window, and both the same masks."""
    write_dataset(tmp_path / "ct", 4, 9, size=96, processes=1, dicom=True)
    write_dataset(tmp_path / "png", 4, 9, size=96, processes=1, window=Window(75, 215))
    for row in read_labels(tmp_path / "ct"):
        _, values = read_ct(tmp_path / "ct" / row["file"])
        wanted = np.clip((values - (75 - 107.5)) * (255 / 215), 0, 255)
        with Image.open(tmp_path / "png" / row["file"].replace(".dcm", ".png")) as image:
            assert np.abs(np.asarray(image) - wanted).max() < 0.501
    assert (tmp_path / "ct/labels.csv").read_text().replace(".dcm", ".png") == (tmp_path / "png/labels.csv").read_text()
    masks = digest_folder(tmp_path / "ct" / ".lesions")
    assert masks == digest_folder(tmp_path / "png" / ".lesions")
    assert len(masks) == 2


def test_one_slice_a_patient_are_the_heads_of_the_pictures(tmp_path: Path) -> None:
    """Labels, kinds and levels are those of the pictures of the same seed; what happens to pictures is no finding."""
    write_dataset(tmp_path / "ct", 8, 3, size=64, processes=1, dicom=True)
    write_dataset(tmp_path / "pictures", 8, 3, size=64, processes=1)
    for ct, picture in zip(read_labels(tmp_path / "ct"), read_labels(tmp_path / "pictures"), strict=True):
        assert [ct[name] for name in ("label", "kind", "level", "patient")] == [
            picture[name] for name in ("label", "kind", "level", "patient")
        ]
        assert set(ct["findings"].split()) == set(picture["findings"].split()) - set(PICTURE_PARTS)


def test_the_same_seed_gives_the_same_files(tmp_path: Path, studies: Path) -> None:
    """UIDs included, whatever the number of processes."""
    write_dataset(tmp_path / "again", 24, 7, size=128, processes=2, slices_per_patient=12, dicom=True)
    assert digest_folder(tmp_path / "again") == digest_folder(studies)
    write_dataset(tmp_path / "other", 24, 8, size=64, processes=1, slices_per_patient=12, dicom=True)
    uids = [dcmread(root / "00001/001.dcm").SOPInstanceUID for root in (studies, tmp_path / "other")]
    assert len(set(uids)) == 2
    assert all(uid.startswith("2.25.") and uid.is_valid for uid in uids)


def test_the_sample_is_what_its_command_draws(tmp_path: Path) -> None:
    """`make samples` draws it; another processor may round a value the other way."""
    write_dataset(tmp_path / "out", 8, 2, size=512, processes=1, dicom=True)
    drawn, values = read_ct(tmp_path / "out" / "stroke" / "00007.dcm")
    sample, kept = read_ct(ROOT / "samples" / "stroke-4.dcm")
    for file in (drawn, sample):
        del file.PixelData
    assert drawn == sample
    assert np.abs(values - kept).max() <= 1
    assert "--count 8 --seed 2 --size 512 --dicom\n\tcp build/samples/stroke/00007.dcm samples/stroke-4.dcm" in (
        ROOT / "Makefile"
    ).read_text(encoding="utf-8")


def test_facts_say_how_the_files_were_made(studies: Path) -> None:
    """dataset.json has the command."""
    assert "--slices-per-patient 12 --dicom" in (studies / "dataset.json").read_text(encoding="utf-8")


def test_without_pydicom_it_is_said_where_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, before anything is drawn; pictures need no pydicom."""

    def find_nothing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(dicom_file, "find_spec", find_nothing)
    with pytest.raises(ValueError, match="need pydicom: make install"):
        write_dataset(tmp_path / "ct", 2, 1, size=64, dicom=True)
    assert not list(tmp_path.iterdir())
    write_dataset(tmp_path / "png", 2, 1, size=64, processes=1, window=BRAIN)
    with (tmp_path / "png" / "labels.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 2
