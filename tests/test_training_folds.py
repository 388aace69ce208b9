"""Cross-validation by patient, and the random split beside the honest figures."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.test_training_data import write_discs
from training.cli import main
from training.settings.train import TrainConfig

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.usefixtures("blank_plots"),
]

FOLDS = 2
MODEL_FILES = {"brain_stroke_model.h5", "brain_stroke_model.keras"}


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("training") / "discs", patients=16, slices=1)


@pytest.fixture(scope="module")
def config(discs: Path) -> TrainConfig:
    return TrainConfig(
        data=discs, out=discs.parent / "run", epochs=1, batch_size=8, validation=0.2, folds=FOLDS, random_split=True
    )


@pytest.fixture(scope="module")
def stopped(config: TrainConfig) -> Path:
    """What Ctrl-C in the second fold leaves."""
    from training.fit.monitor import Monitor
    from training.run.train import train

    end_epoch, ended = Monitor.on_epoch_end, []

    def end_or_interrupt(*arguments: object) -> None:
        end_epoch(*arguments)  # type: ignore[arg-type]
        ended.append(1)
        if len(ended) == FOLDS:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "on_epoch_end", end_or_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    return Path(shutil.copytree(config.out.with_name("run.partial"), config.out.with_name("stopped")))


@pytest.fixture(scope="module")
def run(config: TrainConfig, stopped: Path) -> Path:
    """The folder of the same run, gone on with to its end."""
    from training.run.train import train

    return train(replace(config, resume=True))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_ctrl_c_among_folds_keeps_finished_folds(stopped: Path) -> None:
    """A fold that was cut short is not pooled with whole ones: the run stops, with what it has."""
    assert (stopped / "fold-1" / "metrics.json").exists()
    assert (stopped / "fold-2.partial" / "checkpoint.npz").exists()
    assert not (stopped / "metrics.json").exists()


def test_finished_fold_is_not_trained_again(run: Path, stopped: Path) -> None:
    """A fold that was complete is the same file for file after --resume."""
    names = {path.name for path in (stopped / "fold-1").iterdir()}
    assert names == {path.name for path in (run / "fold-1").iterdir()}
    for name in names:
        assert (run / "fold-1" / name).read_bytes() == (stopped / "fold-1" / name).read_bytes()


def test_folder_of_folds_is_complete(run: Path) -> None:
    """Each fold is a run folder with its model; the figures over all are beside them, and nothing else is left."""
    names = {path.name for path in run.iterdir()}
    tables = {"metrics.json", "predictions.csv", "run.json", "split.csv"}
    assert names - {name for name in names if name.endswith(".png")} == tables | {
        "fold-1",
        "fold-2",
        "report.html",
        "report.md",
    }
    assert all({path.name for path in (run / f"fold-{fold}").iterdir()} >= MODEL_FILES for fold in (1, 2))
    assert not list(run.rglob("checkpoint*"))


def test_every_image_is_answered_once_by_a_network_that_never_saw_its_person(run: Path) -> None:
    """The pooled answers are those of the fold in which the image was a test image."""
    rows = read_csv(run / "predictions.csv")
    assert len(rows) == len({row["file"] for row in rows}) == 16
    for row in rows:
        split = {line["file"]: line for line in read_csv(run / f"fold-{row['fold']}" / "split.csv")}
        assert split[row["file"]]["split"] == "test"
        assert row["patient"] not in {line["patient"] for line in split.values() if line["split"] != "test"}
        answers = {line["file"]: line["probability"] for line in read_csv(run / f"fold-{row['fold']}/predictions.csv")}
        assert answers[row["file"]] == row["probability"]


def test_figures_are_those_of_the_pooled_answers(run: Path) -> None:
    """The AUC of the run is the AUC of all held-out answers together, with each fold's beside it."""
    from sklearn.metrics import roc_auc_score

    rows = read_csv(run / "predictions.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    auc = roc_auc_score([row["label"] == "stroke" for row in rows], [float(row["probability"]) for row in rows])
    assert metrics["evaluation"]["slices"]["figures"]["auc"]["value"] == pytest.approx(auc)
    assert [fold["evaluation"]["slices"]["count"] for fold in metrics["folds"]] == [8, 8]


def test_random_split_stands_beside_and_nothing_of_it_is_kept(run: Path) -> None:
    """Its figures are recorded beside the honest ones, and shown in the report; its network is gone."""
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["evaluation"]["baselines"]["random_split"]["auc"] <= 1
    assert "random" in (run / "report.md").read_text()
    assert not list(run.rglob("random*"))


def test_no_weights_leaves_numbers_only(config: TrainConfig, tmp_path: Path) -> None:
    """For data whose licence forbids it, no model stays anywhere; the answers and figures do."""
    from training.run.train import train

    run = train(replace(config, out=tmp_path / "run", no_weights=True, random_split=False))
    suffixes = {path.suffix for path in run.rglob("*") if path.is_file()}
    assert suffixes <= {".csv", ".json", ".md", ".png", ".html"}
    assert len(read_csv(run / "predictions.csv")) == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--folds", "1"], "--folds must be 2 to 100, got 1"), (["--no-weights"], "--no-weights needs --folds")],
)
def test_folds_flags_are_checked(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag that makes no sense is one line and exit code 2."""
    with pytest.raises(SystemExit) as exit_:
        main(["--data", "missing", "--out", "run", *flags])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_too_few_patients_for_the_folds(discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More folds than a class has people is one line, and nothing is left."""
    assert main(["--data", str(discs), "--out", str(tmp_path / "run"), "--folds", "9"]) == 2
    assert "too few patients" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
