"""``python -m training``: flags, help, and one clear line for whatever is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from server.flags import list_settings
from tests.test_training_data import write_discs
from training.cli import main
from training.settings.audit import AuditConfig
from training.settings.card import CardConfig
from training.settings.compare import CompareConfig
from training.settings.evaluate import EvaluateConfig
from training.settings.phantom import PhantomConfig
from training.settings.threshold import ThresholdConfig
from training.settings.train import TrainConfig
from training.settings.tune_up import TuneUpConfig

CONFIGS = (
    TrainConfig,
    AuditConfig,
    PhantomConfig,
    EvaluateConfig,
    TuneUpConfig,
    CompareConfig,
    ThresholdConfig,
    CardConfig,
)


def require_usage_error(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs a command, which has to end with exit code 2 and one line that says this."""
    with pytest.raises(SystemExit) as exit_:
        main(command)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("config", CONFIGS)
def test_every_setting_is_described(config: type) -> None:
    """Each has a sentence, which is the help of its flag."""
    assert all(setting.details.text.endswith(".") for setting in list_settings(config))


@pytest.mark.parametrize(
    "command",
    [[], ["audit"], ["phantom"], ["evaluate"], ["tune-up"], ["compare"], ["threshold"], ["card"]],
    ids=["train", "audit", "phantom", "evaluate", "tune-up", "compare", "threshold", "card"],
)
def test_help_has_an_example_and_needs_no_tensorflow(command: list[str]) -> None:
    """Help answers without loading TensorFlow, which takes seconds."""
    code = (
        "import sys; from training.cli import main\n"
        f"try: main({[*command, '--help']!r})\n"
        "finally: assert not {'tensorflow', 'keras'} & sys.modules.keys(), 'TensorFlow was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "examples:\n  python -m" in done.stdout


def test_package_runs_as_a_module() -> None:
    """``python -m training`` without flags says what it needs."""
    done = subprocess.run([sys.executable, "-m", "training"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the following arguments are required: --data, --out" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 to 100000, got 0"),
        (["--learning-rate", "0"], "--learning-rate must be positive"),
        (["--validation", "0.7"], "--validation must be 0 to 0.5, got 0.7"),
        (["--test", "0.5"], "--test must be between 0 and 0.5"),
        (["--model", "vgg"], "--model must be one of cnn, resnet50, efficientnet-lite0, got 'vgg'"),
        (["--operating-point", "5"], "--operating-point '5' is not paper, youden, sensitivity=0.95"),
        (["--name", "a/b"], "--name must be made of letters"),
        (["--patient-pattern", "("], "--patient-pattern is not a regular expression"),
        (["--patient-pattern", r"\d+"], "--patient-pattern needs a group"),
    ],
)
def test_bad_flag_is_named(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value out of range gives one line with the flag, and exit code 2."""
    require_usage_error(["--data", "missing", "--out", "run", *flags], message, capsys)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "missing"], "missing is not a folder"),
        (["--positive", "bleed"], "--positive bleed is not among the labels: normal, stroke"),
        (["--out", "data"], "data exists; name another run folder"),
        (["--out", "data/normal/0 (1).png/run"], "data/normal/0 (1).png"),
    ],
    ids=["no-data", "unknown-label", "run-exists", "run-below-a-file"],
)
def test_bad_data_is_one_line(
    flags: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong with the data or the run folder is one line, and exit code 2."""
    write_discs(tmp_path / "data", patients=2, slices=1, size=64)
    monkeypatch.chdir(tmp_path)
    assert main(["--data", "data", "--out", "run", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_phantom_writes_slices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Synthetic slices come as a folder per class, with progress on the terminal."""
    out = tmp_path / "phantom"
    assert main(["phantom", "--out", str(out), "--count", "4", "--seed", "1", "--size", "64", "--processes", "1"]) == 0
    assert len(list(out.glob("*/*.png"))) == 4
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "drawing: 4/4 (100 %)" in captured.err


def test_phantom_leaves_out_what_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--without and --slices-per-patient reach the generator, and an unknown part is refused with those there are."""
    flags = ["--count", "4", "--size", "64", "--processes", "1", "--slices-per-patient", "2"]
    assert main(["phantom", "--out", str(tmp_path / "a"), *flags, "--without", "drain", "jpeg"]) == 0
    assert "--slices-per-patient 2 --without drain jpeg" in (tmp_path / "a" / "dataset.json").read_text()
    capsys.readouterr()
    command = ["phantom", "--out", str(tmp_path / "b"), *flags, "--without", "halo"]
    require_usage_error(command, "--without must be one of calcification, ", capsys)


def test_phantom_takes_three_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--classes`` puts the slices into folders of these names; others are refused with exit code 2."""
    flags = ["--count", "10", "--seed", "1", "--size", "64", "--processes", "1"]
    out = tmp_path / "kinds"
    assert main(["phantom", "--out", str(out), *flags, "--classes", "normal,haemorrhage,ischaemia"]) == 0
    assert [len(list((out / name).iterdir())) for name in ("normal", "haemorrhage", "ischaemia")] == [5, 4, 1]

    for classes, complaint in (
        ("normal,tumour", "--classes must be one of normal, stroke, haemorrhage, ischaemia, got 'tumour'"),
        ("normal,ischaemia", "--classes must be normal,stroke or normal,haemorrhage,ischaemia, not normal,ischaemia"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["phantom", "--out", str(tmp_path / "b"), *flags, "--classes", classes])
        assert stop.value.code == 2
        assert complaint in capsys.readouterr().err


def test_phantom_does_not_write_into_a_full_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with something in it is left alone."""
    (tmp_path / "mine.txt").write_text("x")
    assert main(["phantom", "--out", str(tmp_path), "--count", "4", "--processes", "1"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--epochs", "1000000000"], "--epochs must be 1 to 100000, got 1000000000"),
        (["--learning-rate", "inf"], "--learning-rate must be a number, 0 to 10, got 'inf'"),
        (["--learning-rate", "nan"], "--learning-rate must be a number, 0 to 10, got 'nan'"),
        (["--lesion-weight", "nan"], "--lesion-weight must be a number, 0 to 1000"),
        (["--validation", "nan"], "--validation must be a number, 0 to 0.5"),
        (["--batch-size", "99999999"], "--batch-size must be 1 to 65536"),
        (["--seed", "-1"], "--seed must be 0 to 4294967295, got -1"),
    ],
)
def test_numbers_have_both_ends(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is beyond them is said before anything is read."""
    require_usage_error(["--data", "missing", "--out", "run", *flags], message, capsys)


def test_prevalence_is_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    """Each of several numbers is looked at."""
    command = ["evaluate", "model", "--data", "missing", "--prevalence", "0.1", "2"]
    require_usage_error(command, "--prevalence must be 0 to 1, got 2", capsys)


def test_drawing_does_not_start_any_number_of_processes(capsys: pytest.CaptureFixture[str]) -> None:
    """As few as a machine may have."""
    command = ["phantom", "--out", "x", "--count", "4", "--processes", "100000"]
    require_usage_error(command, "--processes must be 1 to 1024, got 100000", capsys)


def test_usage_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The usage is in the help, which it names."""
    for command in ([], ["audit"], ["phantom"], ["evaluate"], ["card"]):
        with pytest.raises(SystemExit) as exit_:
            main([*command, "--no-such-flag"])
        assert exit_.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        program = " ".join(["training", *command])
        assert line.startswith(f"{program}: error: ")
        assert line.endswith(f"(python -m {program} --help shows all settings)")


@pytest.mark.parametrize("redirections", [">/dev/full", ">&-", "2>/dev/full", "2>&-", ">&- 2>&-"])
def test_run_is_done_whatever_the_outputs_are(tmp_path: Path, redirections: str) -> None:
    """What was written is there, and the exit code says so."""
    command = [sys.executable, "-m", "training", "phantom", "--out", str(tmp_path / "out"), "--count", "4"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {redirections}', "sh", *command], timeout=60, check=False)

    assert done.returncode == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) >= 4
