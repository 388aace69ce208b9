"""What becomes of a run that is stopped, by kill -9, Ctrl-C, SIGTERM or a full disk, and how ``--resume`` goes on."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import ROOT
from tests.test_training_data import write_discs
from training.cli import main
from training.errors import TrainingError
from training.fit.checkpoint import CHECKPOINT, PREVIOUS, Checkpoint, read_checkpoint, write_checkpoint
from training.run.folder import open_run_folder
from training.settings.train import TrainConfig

pytestmark = pytest.mark.usefixtures("blank_plots")

EPOCHS = 4
FLAGS = ["--epochs", str(EPOCHS), "--batch-size", "8", "--validation", "0.2", "--test", "0.2"]
DEADLINE = 300.0


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("training") / "discs")


@pytest.fixture(scope="module")
def config(discs: Path) -> TrainConfig:
    return TrainConfig(data=discs, out=discs.parent / "whole", epochs=EPOCHS, batch_size=8, validation=0.2, test=0.2)


@pytest.fixture(scope="module")
def whole(config: TrainConfig) -> Path:
    """A run that nothing interrupted."""
    from training.run.train import train

    return train(config)


@pytest.fixture(scope="module")
def crashed(config: TrainConfig) -> Path:
    """What is left of the same run, killed with SIGKILL after its second epoch."""
    out = config.out.with_name("crashed")
    process = start_run(config, out)
    history = out.with_name("crashed.partial") / "history.csv"
    try:
        wait_for_epochs(process, history, 2)
    finally:
        process.kill()
        process.communicate()
    assert not out.exists()
    assert 2 <= len(read_csv(history)) < EPOCHS
    return history.parent


def start_run(config: TrainConfig, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "training", "--data", str(config.data), "--out", str(out), *FLAGS]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def wait_for_epochs(process: subprocess.Popen[str], history: Path, count: int) -> None:
    end = time.monotonic() + DEADLINE
    while not history.exists() or len(read_csv(history)) < count:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def copy_partial(crashed: Path, tmp_path: Path) -> Path:
    """Copies what a crash left to where a run of the name ``run`` looks for it."""
    return Path(shutil.copytree(crashed, tmp_path / "run.partial"))


def read_figures(run: Path) -> list[dict[str, str]]:
    """The history without what a clock says."""
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "images_per_second")}
        for line in read_csv(run / "history.csv")
    ]


def assert_same_run(run: Path, other: Path) -> None:
    """Asserts that two runs came to the same numbers, to the last bit."""
    import keras

    assert read_figures(run) == read_figures(other)
    assert (run / "split.csv").read_bytes() == (other / "split.csv").read_bytes()
    assert (run / "metrics.json").read_bytes() == (other / "metrics.json").read_bytes()
    weights, other_weights = (
        keras.models.load_model(folder / "brain_stroke_model.keras", compile=False).get_weights()
        for folder in (run, other)
    )
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(weights, other_weights, strict=True))


@pytest.mark.tensorflow
def test_resumed_run_is_the_same_as_a_whole_one(
    config: TrainConfig, whole: Path, crashed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After kill -9 a run goes on after its last epoch, and ends with the numbers of one that was never stopped.

    This is also the proof that the same seed gives the same numbers, in two processes.
    """
    from training.run.train import train

    copy_partial(crashed, tmp_path)
    run = train(replace(config, out=tmp_path / "run", resume=True))
    assert f"epoch {len(read_csv(crashed / 'history.csv'))}/{EPOCHS}" not in capsys.readouterr().err
    assert_same_run(run, whole)
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert not (tmp_path / "run.partial").exists()


@pytest.mark.tensorflow
def test_damaged_checkpoint_is_not_fatal(
    config: TrainConfig, whole: Path, crashed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the last checkpoint cannot be read, the run goes on from the one before, and says so."""
    from training.run.train import train

    checkpoint = copy_partial(crashed, tmp_path) / CHECKPOINT
    with checkpoint.open("r+b") as file:
        file.truncate(checkpoint.stat().st_size // 2)
    run = train(replace(config, out=tmp_path / "run", resume=True))
    assert f"{checkpoint} is damaged" in capsys.readouterr().err
    assert_same_run(run, whole)


@pytest.mark.tensorflow
def test_ctrl_c_while_results_are_written_loses_nothing(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trained weights stay, exit code and one line say so, and --resume writes the results without training."""
    from training.fit import monitor
    from training.run import held_out
    from training.run.train import train

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    config = replace(config, out=tmp_path / "run", epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "write_results", interrupt)
        flags = [*FLAGS, "--epochs", "1", "--out", str(config.out)]
        assert main(["--data", str(config.data), *flags]) == 130
    assert "run.partial; the same command with --resume goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(monitor.Monitor, "on_epoch_begin", interrupt)
    run = train(replace(config, resume=True))
    assert (run / "metrics.json").exists()
    assert len(read_csv(run / "history.csv")) == 1


@pytest.mark.tensorflow
def test_sigterm_keeps_what_was_done(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM ends the run at once with exit code 143; the last epoch stays, and a line says how to go on."""
    from training.fit.monitor import Monitor
    from training.run.train import train

    end_epoch = Monitor.on_epoch_end
    monkeypatch.setattr(
        Monitor, "on_epoch_end", lambda *arguments: (end_epoch(*arguments), signal.raise_signal(signal.SIGTERM))
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        train(replace(config, out=tmp_path / "run"))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert "--resume goes on from there" in capsys.readouterr().err
    checkpoint = read_checkpoint(tmp_path / "run.partial")
    assert checkpoint is not None
    assert len(checkpoint.history) == 1


@pytest.mark.tensorflow
def test_other_images_are_refused(config: TrainConfig, crashed: Path, tmp_path: Path) -> None:
    """A run does not go on with other images than it was begun with, and stays as it is."""
    from training.run.train import train

    partial = copy_partial(crashed, tmp_path)
    before = {path.name: path.read_bytes() for path in partial.iterdir()}
    data = write_discs(tmp_path / "data", patients=4, slices=1, size=64)
    with pytest.raises(TrainingError, match=r"is not what .*run\.partial was begun with"):
        train(replace(config, data=data, out=tmp_path / "run", resume=True))
    assert {path.name: path.read_bytes() for path in partial.iterdir()} == before


@pytest.mark.tensorflow
def test_finished_run_needs_no_resume(whole: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """--resume of a finished run changes nothing, says so, and is no error: scripts may repeat it."""
    before = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    assert main(["--data", str(config.data), "--out", str(whole), *FLAGS, "--resume"]) == 0
    captured = capsys.readouterr()
    assert "is finished: nothing to go on with" in captured.err
    assert captured.out == f"{whole}\n"
    assert {path.name: path.stat().st_mtime_ns for path in whole.iterdir()} == before


@pytest.fixture
def begun(tmp_path: Path) -> TrainConfig:
    """The settings of a run that was begun and left, without a network."""
    config = TrainConfig(data=tmp_path, out=tmp_path / "run", seed=7)
    folder = tmp_path / "run.partial"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"flags": {"seed": 7, "epochs": 20}, "data_fingerprint": "x"}))
    return config


def open_folder(config: TrainConfig) -> Path:
    with open_run_folder(config) as folder:
        return folder


def test_unfinished_run_is_not_written_over(begun: TrainConfig) -> None:
    """Without --resume an unfinished run is left alone, and the line says both ways on."""
    with pytest.raises(TrainingError, match=r"is an unfinished run; go on with --resume, or remove it to start anew"):
        open_folder(begun)


def test_other_flags_are_named(begun: TrainConfig) -> None:
    """A run goes on with the flags that it was begun with; the one that differs is named with both values."""
    with pytest.raises(TrainingError, match=r"--seed is 8 here and was 7 in .*; --resume needs the same flags"):
        open_folder(replace(begun, seed=8, resume=True))


def test_nothing_to_resume_starts_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A script can always give --resume."""
    open_folder(TrainConfig(data=tmp_path, out=tmp_path / "run", resume=True))
    assert "starting anew" in capsys.readouterr().err
    assert (tmp_path / "run").is_dir()


def make_checkpoint(steps: int) -> Checkpoint:
    return Checkpoint(np.ones((steps, 8)), steps, 1, [np.arange(12.0), np.array(steps)], [np.ones(2)])


def test_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    """Numbers, variables in their order, and best weights survive."""
    written = make_checkpoint(3)
    write_checkpoint(tmp_path, written)
    read = read_checkpoint(tmp_path)
    assert read is not None
    assert (read.steps, read.best_epoch, read.history.shape) == (3, 1, (3, 8))
    assert [variable.tolist() for variable in read.variables] == [list(range(12)), 3]
    assert [weights.tolist() for weights in read.best_weights] == [[1, 1]]


def test_crash_between_two_renames_loses_one_epoch_at_most(tmp_path: Path) -> None:
    """At every moment a whole checkpoint is there, under one of two names."""
    write_checkpoint(tmp_path, make_checkpoint(1))
    (tmp_path / CHECKPOINT).replace(tmp_path / PREVIOUS)
    read = read_checkpoint(tmp_path)
    assert read is not None
    assert read.steps == 1


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk on which nothing more fits."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield


def test_full_disk_leaves_the_checkpoint_before(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """No space in the middle of a training is one line, and the last checkpoint is as it was."""
    write_checkpoint(tmp_path, make_checkpoint(1))
    request.getfixturevalue("full_disk")
    with pytest.raises(TrainingError, match=r"checkpoint\.npz cannot be written: No space left on device"):
        write_checkpoint(tmp_path, make_checkpoint(2))
    read = read_checkpoint(tmp_path)
    assert read is not None
    assert read.steps == 1
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_share_without_fsync_takes_a_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of training do not end on a network share with everything written."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)

    with open_run_folder(TrainConfig(data=tmp_path, out=tmp_path / "run")) as folder:
        write_checkpoint(folder, make_checkpoint(1))

    assert (tmp_path / "run" / CHECKPOINT).exists()


def test_failed_run_keeps_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An error in the middle leaves the unfinished run where it is, and says how to go on."""
    config = TrainConfig(data=tmp_path, out=tmp_path / "run")

    def run_out_of_space() -> None:
        with open_run_folder(config) as folder:
            write_checkpoint(folder, make_checkpoint(1))
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        run_out_of_space()
    assert (tmp_path / "run.partial" / CHECKPOINT).exists()
    assert "--resume goes on from there" in capsys.readouterr().err
