"""``python -m training threshold``: another operating point, chosen on labelled slices, as a new version."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client import StrokeClient
from server.models.contract import ModelSpec
from server.models.manifest import EXPLAIN_FILE, INT8_FILE, MODEL_FILE
from server.models.runtime import OnnxModel, Scores, load_model
from tests.administration import operate
from tests.fakes import ROOT, encode, make_slice, run_module, run_server, write_model
from training.cli import main
from training.data.format import INPUT_FORMAT
from training.own.slices import judge_slice

SPEC = ModelSpec("tiny", "1", ("normal", "stroke"), ("stroke",), 0.5)
SLICES = 6


def make_head(level: int, seed: int = 0, side: int = 96) -> np.ndarray:
    """A slice that could be a head: brain of a grey level within bone, on black ground; uint8 [side, side]."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    radius = np.hypot(x / 0.75, y / 0.9)
    return np.select([radius < 0.9, radius < 1], [make_slice(level, side, seed).astype(int), 255]).astype(np.uint8)


def write_studies(root: Path, seed: int, patients: int = 12) -> Path:
    """Studies of six slices; of every other patient two are bright, and of all one is a little, by chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        (root / f"{patient}").mkdir(parents=True)
        for turn in range(SLICES):
            is_stroke = patient % 2 == 1 and turn in (2, 3)
            level = int(rng.integers(110, 125) if is_stroke else 98 if turn == 5 else rng.integers(70, 85))
            file = f"{patient}/{turn}.png"
            (root / file).write_bytes(encode(make_head(level, seed=seed * 1000 + patient * 10 + turn)))
            rows.append([file, "stroke" if is_stroke else "normal", f"P{patient}"])
    write_table(root, rows)
    return root


def write_table(root: Path, rows: list[list[str]], *columns: str) -> None:
    with (root / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file", "label", "patient", *columns], *rows])


def read_rows(root: Path) -> list[list[str]]:
    with (root / "labels.csv").open(newline="") as stream:
        return list(csv.reader(stream))[1:]


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_studies(tmp_path_factory.mktemp("studies") / "validation", seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models"), SPEC)


def choose(capsys: pytest.CaptureFixture[str], model: Path, data: Path, *flags: str) -> dict[str, Any]:
    """What would be chosen for a sensitivity of 0.95, unless other flags say otherwise; nothing is written."""
    rule = () if flags[:1] and flags[0] in RULES else ("--sensitivity", "0.95")
    assert main(["threshold", str(model), "--data", str(data), "--json", "--dry-run", *rule, *flags]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


RULES = ("--sensitivity", "--specificity", "--youden", "--number")


def test_new_version_stands_beside_the_old_one(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights and answers, another operating point, and where that comes from; the old one is as it was."""
    shutil.copytree(model.parent, tmp_path / "tiny")
    (tmp_path / "tiny" / "1" / "signature.json").write_text("of version 1")
    before = {path.name: path.read_bytes() for path in (tmp_path / "tiny" / "1").iterdir()}
    assert main(["threshold", str(tmp_path / "tiny" / "1"), "--data", str(studies), "--sensitivity", "0.95"]) == 0
    page = capsys.readouterr().out
    old, new = (load_model(tmp_path / "tiny" / version) for version in "12")
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny" / "1").iterdir()} == before
    assert sorted(path.name for path in (tmp_path / "tiny" / "2").iterdir()) == ["manifest.json", "model.onnx"]
    assert (new.spec.name, new.spec.version) == ("tiny", "2")
    assert 0 < new.spec.threshold < 0.5 == old.spec.threshold
    assert new.spec.study_top_k >= 1
    facts = new.spec.provenance
    assert facts["threshold_from"] == f"tiny 1, SHA-256 {old.digest}; weights unchanged"
    assert facts["operating_point"] == "sensitivity=0.95, chosen on 72 slices of 12 people"
    assert len(facts["threshold_data_fingerprint"]) == 64
    assert facts["threshold_data"] == "validation"
    assert "slices of validation: sensitivity 0.000 (0.000 to 0.390) before, 1.000 (" in facts["threshold_figures"]
    assert new.spec.metrics["threshold_sensitivity"] == 1
    assert f"written to {tmp_path / 'tiny' / '2'}" in page
    assert "| sensitivity |" in page


@pytest.mark.parametrize("name", ["test_sensitivity", "test_auc", "test_patient_auc"])
def test_figures_of_another_threshold_do_not_stay(
    studies: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ranks the slices stays true; what the old threshold reached, and the old rule of studies, does not."""
    metrics = {f"{name}{end}": 0.5 for end in ("", "_low", "_high")}
    folder = write_model(tmp_path, replace(SPEC, metrics=metrics, model_card="# Card\n"))
    assert main(["threshold", str(folder), "--data", str(studies), "--youden"]) == 0
    spec = load_model(folder.with_name("2")).spec
    assert (name in spec.metrics) == (f"{name}_low" in spec.metrics) == (name == "test_auc")
    assert spec.model_card.startswith("> tiny 2 is tiny 1 with the same weights and another operating point: threshold")
    assert spec.model_card.endswith("# Card\n")


def test_every_file_of_the_bundled_model_comes_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """INT8 variant and heatmap too, each with the new spec and its old answers; a server would serve it."""
    from training.phantom.dataset import write_dataset

    (bundled,) = (ROOT / "models" / "stroke-cnn").iterdir()
    folder = tmp_path / "stroke-cnn" / bundled.name
    shutil.copytree(bundled, folder)
    write_dataset(tmp_path / "slices", 16, 5, processes=1)
    capsys.readouterr()
    flags = ["--data", str(tmp_path / "slices"), "--one-image-per-patient", "--number", "0.25", "--json"]
    assert main(["threshold", str(folder), *flags]) == 0
    out = Path(json.loads(capsys.readouterr().out)["out"])
    assert out == folder.with_name(str(int(bundled.name) + 1))
    for name in (MODEL_FILE, INT8_FILE):
        old, new = (OnnxModel((where / name).read_bytes(), source=name) for where in (folder, out))
        assert new.spec.threshold == 0.25
        assert new.spec.outlier_threshold == old.spec.outlier_threshold > 0
        assert new.spec.study_top_k == old.spec.study_top_k  # one slice each says nothing of studies
        assert new.spec.windows == old.spec.windows
    assert (out / EXPLAIN_FILE).exists()
    done = run_module("converter", "verify", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("golden vectors differ by 0 ") == 3


def test_running_server_takes_it(studies: Path, model: Path, tmp_path: Path) -> None:
    """An operator activates it, and slices of the same score are answered by the new threshold."""
    shutil.copytree(model.parent, tmp_path / "models" / "tiny")
    with run_server(tmp_path / "models", "--admin", str(tmp_path / "admin")) as server:
        command = ["threshold", str(tmp_path / "models" / "tiny" / "1"), "--data", str(studies), "--number", "0.03"]
        assert main(command) == 0
        with StrokeClient(server.address) as client:
            before = client.predict(encode(make_head(85)))
            assert operate(tmp_path / "admin", "activate", "tiny", "2")[0] == 0
            after = client.predict(encode(make_head(85)))
    assert before.positive_probability == after.positive_probability
    assert 0.03 < after.positive_probability < 0.5
    assert (before.label, before.version) == ("normal", "1")
    assert (after.label, after.version) == ("stroke", "2")


def test_specificity_is_a_rule_too(studies: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As few false alarms as asked for, and no fewer strokes than that costs."""
    found = choose(capsys, model, studies, "--specificity", "0.9")["figures"]["slices of validation"]
    assert found["figures"]["specificity"]["second"]["value"] >= 0.9
    lower = choose(capsys, model, studies, "--specificity", "0.5")
    assert lower["threshold"] < choose(capsys, model, studies, "--specificity", "0.9")["threshold"]


@pytest.mark.parametrize("flags", [[], ["--youden", "--number", "0.5"], ["--sensitivity", "0.9", "--specificity", "1"]])
def test_one_rule_is_asked_for(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two would contradict each other, and none is nobody's choice."""
    with pytest.raises(SystemExit) as exit_:
        main(["threshold", "model", "--data", "missing", *flags])
    assert exit_.value.code == 2
    assert "give one of --sensitivity, --specificity, --youden, --number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("version", "out", "message"),
    [
        ("1", "{root}/tiny/1", "exists already; take the next version"),
        ("1", "{root}/tiny/a b", "must end in NAME/VERSION"),
        ("first", "", "the version after 'first' is not known; give --out NAME/VERSION"),
        ("1", "/proc/tiny/2", "cannot be written"),
    ],
)
def test_place_that_cannot_be_is_one_line(
    version: str, out: str, message: str, studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written, there or anywhere."""
    folder = write_model(tmp_path, replace(SPEC, version=version))
    flags = ["--out", out.format(root=tmp_path)] if out else []
    assert main(["threshold", str(folder), "--data", str(studies), "--youden", *flags]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [version]
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_studies_are_told_apart(studies: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of slices and a threshold between the studies with and without a stroke."""
    document = choose(capsys, model, studies)
    assert document["study_top_k"] >= 1
    found = document["figures"]["studies of validation"]
    assert (found["count"], found["positives"]) == (12, 6)
    now = {name: found["figures"][name]["second"] for name in ("sensitivity", "specificity", "auc")}
    assert [figure["value"] for figure in now.values()] == [1, 1, 1]
    assert now["sensitivity"]["low"] < 0.7  # of six studies
    assert document["before"] == {"threshold": 0.5, "study_top_k": 0, "study_threshold": 0}
    assert document["out"] is None
    assert [path.name for path in model.parent.iterdir()] == ["1"]


def test_other_studies_are_beside_those_that_chose(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tables of their own, since what was chosen on slices fits them a little too well."""
    others = write_studies(tmp_path / "others", seed=2, patients=10)
    command = ["threshold", str(model), "--data", str(studies), "--youden", "--test", str(others), "--dry-run"]
    assert main(command) == 0
    page = capsys.readouterr().out
    titles = [line for line in page.splitlines() if line.startswith("## ")]
    assert titles == [f"## {kind} of {where}" for where in ("validation", "others") for kind in ("slices", "studies")]
    assert "are a little too good" in page
    assert "nothing was written (--dry-run)" in page


def test_less_sensitivity_is_a_higher_threshold(studies: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of slices and of studies."""
    high, low = (choose(capsys, model, studies, "--sensitivity", share) for share in ("0.99", "0.5"))
    assert low["threshold"] > high["threshold"]
    assert low["study_threshold"] > high["study_threshold"]
    for title in ("slices of validation", "studies of validation"):
        assert low["figures"][title]["figures"]["sensitivity"]["second"]["value"] >= 0.5


def test_slices_that_a_server_would_not_analyse_have_no_part(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blank, inverted and damaged ones: the rule stays what it is without them, and they are counted."""
    before = choose(capsys, model, studies)
    (tmp_path / "data").symlink_to(studies)
    rows = [[f"data/{file}", label, patient] for file, label, patient in read_rows(studies)]
    (tmp_path / "blank.png").write_bytes(encode(np.full((64, 64), 200, np.uint8)))
    (tmp_path / "inverted.png").write_bytes(encode(255 - make_head(100)))
    (tmp_path / "damaged.png").write_bytes(encode(make_head(100))[:-20])
    write_table(tmp_path, [*rows, *([f"{name}.png", "normal", "P0"] for name in ("blank", "inverted", "damaged"))])
    after = choose(capsys, model, tmp_path)
    assert (before.pop("slices_left_out"), after.pop("slices_left_out")) == (0, 3)
    for document in (before, after):
        document["figures"] = list(document["figures"].values())
    assert after == before


@pytest.mark.parametrize(
    ("probability", "outlier", "refusal"),
    [(0.9, 0.5, ""), (0.9, 2.5, "unlike those that the model knows"), (0.52, 0.5, ""), (np.nan, 0.5, "not a number")],
)
def test_slices_that_the_model_does_not_know_have_no_part(
    tmp_path: Path, probability: float, outlier: float, refusal: str
) -> None:
    """As a server judges; that a probability is near to the old threshold says nothing of a new one."""
    (tmp_path / "a.png").write_bytes(encode(make_head(80)))
    said = Scores(np.array([[1 - probability, probability]], np.float32), np.array([outlier], np.float32))
    model = SimpleNamespace(
        spec=replace(SPEC, outlier_threshold=2.0, indeterminate_margin=0.05),
        input_format=INPUT_FORMAT,
        score=lambda pixels: said,
    )
    digest, answer, _ = judge_slice(tmp_path / "a.png", [model])  # type: ignore[list-item]
    assert len(digest) == 64
    assert refusal in answer.refusal
    assert bool(answer.refusal) == bool(refusal) == np.isnan(answer.score)


def test_slices_within_the_margin_have_no_part_in_studies(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They would get no label at the new threshold; how many is said."""
    folder = write_model(tmp_path, replace(SPEC, indeterminate_margin=0.005))
    flags = ["--data", str(studies), "--number", "0.03", "--dry-run"]
    assert main(["threshold", str(folder), *flags]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "no label" in line]
    assert int(line.split()[1]) > 0
    folder = write_model(tmp_path / "wide", replace(SPEC, indeterminate_margin=1.0))
    assert main(["threshold", str(folder), *flags]) == 2
    assert "every slice is within the model's margin" in capsys.readouterr().err


def test_two_studies_of_a_person_are_two(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the table tells studies; where it does not, a person's slices are one. Intervals are over people."""
    (tmp_path / "data").symlink_to(studies)
    rows = [
        [f"data/{file}", label, f"P{int(patient[1:]) // 2}", patient] for file, label, patient in read_rows(studies)
    ]
    write_table(tmp_path, rows, "study")
    name = f"studies of {tmp_path.name}"
    found = choose(capsys, model, tmp_path)["figures"][name]
    assert (found["count"], found["people"]) == (12, 6)
    only = [row[:3] for row in rows if row[2] != "P0"]
    write_table(tmp_path, [*only, ["data/0/1.png", "normal", "P9"], ["data/0/2.png", "normal", "P9"]])
    assert choose(capsys, model, tmp_path)["figures"][name]["count"] == 6


def test_studies_keep_their_rule_where_none_can_be_chosen(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One slice a study, studies of one class, nobody known: the threshold of slices is chosen alone."""
    folder = write_model(tmp_path / "models", replace(SPEC, study_top_k=2, study_threshold=0.4))
    (tmp_path / "data").symlink_to(studies)
    rows = [[f"data/{file}", label, file] for file, label, _ in read_rows(studies)]
    for people in (lambda file: file, lambda file: "P1", lambda file: ""):
        write_table(tmp_path, [[file, label, people(file)] for file, label, _ in rows])
        found = choose(capsys, folder, tmp_path)
        assert (found["study_top_k"], found["study_threshold"]) == (2, 0.4)
        assert found["threshold"] != 0.5
        assert list(found["figures"]) == [f"slices of {tmp_path.name}"]


def test_unusable_input_is_one_line(
    studies: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No image that can be judged, one class among those that can, no model folder."""
    refused = ["threshold", str(model), "--youden", "--data"]
    for index in range(4):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    rows = [[f"{index}.png", ("normal", "stroke")[index % 2], "P1"] for index in range(4)]
    write_table(tmp_path, rows)
    assert main([*refused, str(tmp_path)]) == 2
    assert "no slice could be judged; the first: The file is" in capsys.readouterr().err
    (tmp_path / "0.png").write_bytes(encode(make_head(90)))
    assert main([*refused, str(tmp_path)]) == 2
    assert "the slices that could be judged are all of one class" in capsys.readouterr().err
    assert main(["threshold", str(tmp_path / "none"), "--youden", "--data", str(studies)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
