"""``labels.csv``: which images there are, what they are and whom they show, and one clear line for what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.data.labels import find_patients, list_data, list_images
from training.errors import TrainingError
from training.settings.listing import DEFAULT_PATIENT_PATTERN, ListingConfig


def write_table(root: Path, table: str, *files: str) -> Path:
    """Writes a labels.csv and empty files beside it; nothing here is decoded."""
    (root / "labels.csv").write_text(table, encoding="utf-8")
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"")
    return root


def test_patients_are_read_from_file_names() -> None:
    """The default pattern reads ``<patient> (<slice>).jpg``, whatever the folder, and nothing else."""
    files = ["a/58 (1).jpg", "b/58 (2).png", "a/P 7 (12).jpg", "a/scan.png"]
    assert find_patients(files, DEFAULT_PATIENT_PATTERN) == ["58", "58", "P 7", None]


def test_first_group_of_a_pattern_is_the_patient() -> None:
    """A pattern without a group named patient uses its first group."""
    assert find_patients(["P12_003.png"], r"(P\d+)_.*") == ["P12"]


def test_table_gives_labels_and_patients(tmp_path: Path) -> None:
    """The table says what each image is and whom it shows; an empty patient is not known."""
    table = "file,label,patient\nb.png,stroke,P2\nx/a.png,normal,P1\nc.png,stroke,\n"
    images = list_images(write_table(tmp_path, table, "x/a.png", "b.png", "c.png"))
    assert images.labels == ("normal", "stroke")
    assert images.files == ("b.png", "c.png", "x/a.png")
    assert images.targets.tolist() == [1, 1, 0]
    assert images.patients == ("P2", None, "P1")
    assert not images.has_patients


def test_more_than_two_labels_are_classes_of_their_own(tmp_path: Path) -> None:
    """In alphabetical order, whatever the table's."""
    write_table(tmp_path, "file,label\nc.png,normal\na.png,ischaemia\nb.png,bleed\n", "a.png", "b.png", "c.png")
    images = list_images(tmp_path)
    assert images.labels == ("bleed", "ischaemia", "normal")
    assert images.targets.tolist() == [1, 0, 2]


def test_table_wins_over_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is a table, the folders' names mean nothing, and the terminal says so."""
    table = "file,label\none/1.png,stroke\ntwo/2.png,stroke\none/3.png,normal\n"
    write_table(tmp_path, table, "one/1.png", "two/2.png", "one/3.png")
    assert list_data(ListingConfig(data=tmp_path)).labels == ("normal", "stroke")
    assert "labels.csv, column label; the names of folders are not looked at" in capsys.readouterr().err


def test_patients_come_from_names_where_the_table_has_none(tmp_path: Path) -> None:
    """Without a column the file names are searched, as in class folders."""
    table = "file,label\n7 (1).png,stroke\n8 (1).png,normal\n"
    images = list_images(write_table(tmp_path, table, "7 (1).png", "8 (1).png"))
    assert images.patients == ("7", "8")
    assert images.has_patients


def test_one_image_per_patient_makes_each_image_a_patient(tmp_path: Path) -> None:
    """Where that is stated, people are known without any name."""
    images = list_images(
        write_table(tmp_path, "file,label\na.png,0\nb.png,1\n", "a.png", "b.png"), one_image_per_patient=True
    )
    assert images.patients == ("a.png", "b.png")


def test_study_stands_for_a_patient_that_is_not_given(tmp_path: Path) -> None:
    """Studies are groups where patients are not known, which is said; where they are, studies do not matter."""
    files = ("a.png", "b.png")
    images = list_images(write_table(tmp_path, "file,label,study\na.png,0,S1\nb.png,1,S2\n", *files))
    assert images.patients == ("S1", "S2")
    assert "each study is taken for a patient" in images.notes[-1]
    images = list_images(write_table(tmp_path, "file,label,study,patient\na.png,0,S1,P\nb.png,1,S2,P\n", *files))
    assert images.patients == ("P", "P")


def test_other_columns_can_hold_label_and_exclusion(tmp_path: Path) -> None:
    """A set's own table is used as it is: labels 0 and 1 in its column, blank slices left out by another."""
    table = "file,hemorrhage,blank\na.png,0,0\nb.png,1,0\nc.png,1,1\n"
    write_table(tmp_path, table, "images/a.png", "images/b.png", "images/c.png")
    images = list_images(tmp_path, label_column="hemorrhage", exclude_column="blank")
    assert images.labels == ("0", "1")
    assert images.files == ("images/a.png", "images/b.png")
    assert images.ignored == 0
    assert "left out: 1 image whose blank is 1" in images.notes


def test_images_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    """They are left out with a warning; other files and hidden ones do not matter."""
    table = "file,label\na.png,0\nb.png,1\n"
    images = list_images(write_table(tmp_path, table, "a.png", "b.png", "c.png", "readme.txt", ".masks/a.png"))
    assert images.ignored == 1
    assert images.warnings == ("left out: 1 image not named in labels.csv",)


def test_table_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Byte order mark, Windows line ends, quotes and spaces around values do not matter."""
    table = '\ufefffile,label\r\n"a, left.png",0 \r\nb.png, 1\r\n'
    assert list_images(write_table(tmp_path, table, "a, left.png", "b.png")).labels == ("0", "1")


def test_table_of_a_german_spreadsheet_is_read(tmp_path: Path) -> None:
    """Byte order mark, semicolons, Windows line ends, empty rows at the end, and yes and no in any case."""
    table = "\ufefffile;patient;label\r\na.png;P1;Yes\r\nb, c.png;P2;no\r\nd.png;P3;yes\r\n;;\r\n"
    images = list_images(write_table(tmp_path, table, "a.png", "b, c.png", "d.png"))
    assert images.labels == ("Yes", "no")
    assert images.targets.tolist() == [0, 1, 0]
    assert images.patients == ("P1", "P2", "P3")
    assert "taken for the same label whatever their case: yes" in images.notes


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("yes", "no"), ("TRUE", "FALSE"), ("x", ""), ("1.0", "0.0")])
def test_exclusion_is_marked_in_words_too(tmp_path: Path, yes: str, no: str) -> None:
    """A blank slice that is marked otherwise than with 1 is not trained on."""
    table = f"file,label,blank\na.png,0,{no}\nb.png,1,{no}\nc.png,1,{yes}\n"
    images = list_images(write_table(tmp_path, table, "a.png", "b.png", "c.png"), exclude_column="blank")
    assert images.files == ("a.png", "b.png")
    assert "left out: 1 image whose blank is 1" in images.notes


def test_exclusion_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    """It is not taken for no."""
    write_table(tmp_path, "file,label,blank\na.png,0,perhaps\nb.png,1,0\n", "a.png", "b.png")
    with pytest.raises(TrainingError, match="line 2: blank is 'perhaps', neither 1 nor 0, yes nor no"):
        list_images(tmp_path, exclude_column="blank")


def test_other_files_beside_a_table_are_told(tmp_path: Path) -> None:
    """With their number; they do not matter."""
    write_table(tmp_path, "file,label\na.png,0\nb.png,1\n", "a.png", "b.png", "readme.txt", ".masks/a.png")
    images = list_images(tmp_path)
    assert images.notes[1:] == (
        "left out: 1 file besides the images",
        "left out: 1 hidden or system file",
    )
    assert images.warnings == ()


def test_rows_that_agree_count_once(tmp_path: Path) -> None:
    """The same row twice is one image."""
    table = "file,label\na.png,0\na.png,0\nb.png,1\n"
    assert list_images(write_table(tmp_path, table, "a.png", "b.png")).files == ("a.png", "b.png")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "has no column file and no column label; it has nothing at all"),
        ("file,label\n", "lists no images"),
        ("file,class\na.png,0\n", "has no column label; it has file, class"),
        ("file,label\na.png,0\nb.png,0\n", r"has 1 class \(0\)"),
        ("file,label\na.png,0\nb.png,\n", "line 3: b.png has no label"),
        ("file,label\na.png,0\n,1\n", "line 3: '' is not a path below the data folder"),
        ("file,label\na.png,0\n../b.png,1\n", "line 3: '../b.png' is not a path below the data folder"),
        ("file,label\n/a.png,0\nb.png,1\n", "line 2: '/a.png' is not a path below the data folder"),
        ("file,label\na.png,0\nx\\b.png,1\n", "is not a path below the data folder with forward slashes"),
        ("file,label\na.png,0\nb.png,1\na.png,1\n", "line 4: a.png is there already, with another label or patient"),
        ("file,label,patient\na.png,0,P\nb.png,1,Q\na.png,0,Q\n", "line 4: a.png is there already"),
        ("file,label\na.png,0\nd.png,1\n", "line 3: d.png is not there, and 2 files have its name"),
        ("file,label\na.png,0\nn.png,1\n", "missing below .*: 1 image: n.png"),
        (
            "file,label\n1.png,0\n2.png,1\n3.png,1\n4.png,1\n",
            r"missing below .*: 4 images: 1.png, 2.png, 3.png, …",
        ),
        ("file,label\n\ud800,0\n", "is not a CSV file in UTF-8"),
    ],
)
def test_unusable_table_is_one_clear_line(tmp_path: Path, table: str, message: str) -> None:
    """Each says what is wrong, and where."""
    write_table(tmp_path, "", "a.png", "b.png", "c.png", "x/d.png", "y/d.png")
    (tmp_path / "labels.csv").write_bytes(table.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(TrainingError, match=message) as raised:
        list_images(tmp_path)
    assert "\n" not in str(raised.value)


def test_column_flag_without_a_table_is_an_error(tmp_path: Path) -> None:
    """A flag about a table that is not there is not dropped silently."""
    with pytest.raises(TrainingError, match=r"has no labels\.csv, which --label-column and --exclude-column are about"):
        list_images(tmp_path, label_column="hemorrhage")
