"""The model card, from a run to whoever asks a server."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from client import StrokeClient
from server.models.contract import ModelSpec
from tests.fakes import run_server, write_model
from tests.training_fakes import EVALUATION, SPEC, without_patients
from training.cli import main
from training.errors import TrainingError
from training.evaluation.summary import SUMMARY_KEY, from_document, summarise, to_document
from training.report.card import FACTS, copy_facts, write_card

HEADINGS = (
    "Intended use",
    "Model",
    "Warnings",
    "Data",
    "Population",
    "How labelled",
    "Exclusion",
    "Metrics",
    "Calibration",
    "Operating point",
    "Subgroups",
    "Failure modes",
    "Ethical notes",
    "Licence of the data",
    "Maintenance",
    "Notes",
)

DATA_FACTS = {key: f"fact of {key.replace('_', ' ')}" for key in FACTS}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder that has recorded nothing but its spec."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.json").write_text(ModelSpec("stroke-cnn", "1", SPEC.labels, ("stroke",), 0.2).to_json())
    return folder


@pytest.fixture
def full_run(run: Path) -> Path:
    """A run folder that has recorded everything."""
    (run / "spec.json").write_text(SPEC.to_json())
    (run / "metrics.json").write_text(json.dumps({SUMMARY_KEY: to_document(EVALUATION)}))
    (run / "split.csv").write_text("file,label,patient,sha256,split\na.png,normal,1,x,train\n")
    (run / "dataset.json").write_text(json.dumps(DATA_FACTS))
    return run


def read_sections(path: Path) -> dict[str, str]:
    """The card by its headings."""
    parts = path.read_text().split("\n## ")[1:]
    return {heading: text.strip() for heading, text in (part.split("\n", 1) for part in parts)}


def test_what_is_not_recorded_is_not_known(run: Path) -> None:
    """Every heading is there, and none of them invents anything."""
    sections = read_sections(write_card(run))

    assert tuple(sections) == HEADINGS
    for heading in HEADINGS[4:8] + HEADINGS[10:]:
        assert sections[heading] == "not known", heading
    assert "**Validated for:** not known" in sections["Intended use"]
    assert "| contact | not known |" in sections["Model"]
    assert "| source | not known |" in sections["Data"]
    assert sections["Warnings"] == "- not known"
    assert "Chosen by: not known." in sections["Operating point"]


def test_what_is_recorded_is_stated(full_run: Path) -> None:
    """Facts of the data set, figures with intervals, baselines, calibration, threshold and split."""
    card = write_card(full_run)
    sections = read_sections(card)

    assert "not known" not in card.read_text()
    assert all(fact in card.read_text() for fact in DATA_FACTS.values())
    assert sections["Population"] == "fact of population"
    assert sections["How labelled"] == DATA_FACTS["labelled_by"]
    for stated in ("0.831 (0.781 to 0.874)", "0.917 (0.700 to 1.000)", "0.712 (0.600 to 0.800)", "1-NN 0.931"):
        assert stated in sections["Metrics"]
    assert sections["Calibration"].startswith("The graph divides its logits by the temperature 1.25, fitted")
    assert "0.061 (0.020 to 0.100)" in sections["Calibration"]
    assert "sensitivity=0.95, chosen on 30 validation images" in sections["Operating point"]
    assert "| train | 1 | 1 |" in sections["Data"]
    assert sections["Warnings"] == "The training had none."


def test_older_run_shows_the_figures_of_its_spec(run: Path) -> None:
    """A run from before there were evaluations has flat figures with the ends of their intervals."""
    metrics = {"test_auc": 0.8, "test_auc_low": 0.7, "test_auc_high": 0.9}
    (run / "spec.json").write_text(replace(SPEC, metrics=metrics).to_json())

    assert "| test auc | 0.800 (0.700 to 0.900) |" in read_sections(write_card(run))["Metrics"]


def test_added_facts_are_kept_and_go_first(full_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes the card again; the next time it needs no file."""
    added = tmp_path / "facts.json"
    added.write_text(json.dumps({"population": "nobody", "validated_for": "bleeds", "site <b>": "a | b"}))

    assert main(["card", str(full_run), "--facts", str(added)]) == 0
    assert capsys.readouterr().out == f"{full_run / 'model_card.md'}\n"
    first = (full_run / "model_card.md").read_text()
    assert main(["card", str(full_run)]) == 0

    sections = read_sections(full_run / "model_card.md")
    assert (full_run / "model_card.md").read_text() == first
    assert sections["Population"] == "nobody"
    assert "**Validated for:** bleeds" in sections["Intended use"]
    assert sections["How labelled"] == DATA_FACTS["labelled_by"]
    assert "| site &lt;b&gt; | a \\| b |" in sections["Other facts"]
    assert json.loads((full_run / "dataset.json").read_text())["population"] == "fact of population"


def test_facts_of_the_data_set_come_into_the_run(tmp_path: Path) -> None:
    """Training copies them; a data set without any is no fault."""
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    run.mkdir()

    copy_facts(data, run)
    assert list(run.iterdir()) == []

    (data / "dataset.json").write_text('{"population": "82 Menschen, Köln"}')
    copy_facts(data, run)
    assert json.loads((run / "dataset.json").read_text()) == {"population": "82 Menschen, Köln"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.json", "{", r"dataset\.json: cannot be read as JSON"),
        ("dataset.json", "[]", r"dataset\.json: must be a JSON object"),
        ("dataset.json", '{"population": 82}', "'population' must be text in quotation marks"),
        ("metrics.json", '{"evaluation": {"slices": 1}}', r"metrics\.json: 'evaluation' is not what"),
        ("spec.json", '{"schema": 1}', r"spec\.json: .* is missing"),
        ("dataset.json", json.dumps({"notes": "x" * 70_000}), "'model_card' has 7.,... bytes, at most 65,536"),
    ],
)
def test_unusable_facts_change_nothing(
    full_run: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, message: str
) -> None:
    """One line, exit code 2, and the card and spec that were there stay as they were."""
    write_card(full_run)
    (full_run / name).write_text(content)
    before = {path.name: path.read_bytes() for path in full_run.iterdir()}

    with pytest.raises(TrainingError, match=message):
        write_card(full_run)

    assert main(["card", str(full_run)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in full_run.iterdir()} == before


def test_folder_or_facts_that_are_not_there_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says what to name instead."""
    assert main(["card", str(run / "missing")]) == 2
    assert "missing is no run folder" in capsys.readouterr().err
    assert main(["card", str(run), "--facts", str(run / "none.json")]) == 2
    assert "none.json: there is no such file" in capsys.readouterr().err
    assert not (run / "model_card.md").exists()


@pytest.mark.tensorflow
def test_card_travels_from_the_run_to_the_client(full_run: Path, tmp_path: Path) -> None:
    """Training, spec, converter, model file, server, GetModel, client: letter by letter."""
    from converter.convert import ConvertOptions, build_spec

    card = write_card(full_run).read_text()
    options = ConvertOptions(model=full_run / "model.keras", out=tmp_path / "models" / "stroke-cnn" / "1", images=None)

    spec = build_spec(options)
    write_model(tmp_path / "models", spec)
    with run_server(tmp_path / "models") as server, StrokeClient(server.address) as client:
        info = client.model_info()
        (listed,) = client.list_models()

    assert ModelSpec.from_json((full_run / "spec.json").read_text()).model_card == card
    assert info.model_card == card
    assert listed.model_card == ""


@pytest.mark.parametrize("evaluation", [EVALUATION, without_patients()])
def test_figures_survive_the_way_through_json(evaluation: object) -> None:
    """NaN is null there, as JSON has no word for it."""
    document = json.loads(json.dumps(to_document(evaluation), allow_nan=False))

    summary = from_document(document)

    assert repr(summary) == repr(summarise(evaluation))  # NaN is not equal to itself
    if summary.patients is not None:
        assert math.isnan(summary.patients.figures["ppv"].value)
        assert document["patients"]["figures"]["ppv"]["value"] is None
