"""The rig of the fault bench, on tiny models: golden answers, load, witness, supervisor; and that verdicts count."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bench.faults import __main__ as program
from bench.faults.callers import Caller
from bench.faults.flood import summarise
from bench.faults.golden import Golden, find_options
from bench.faults.history import OK, Ended, History
from bench.faults.images import damage, make_slow_images
from bench.faults.load import HeldLoad
from bench.faults.matrix import FAULTS
from bench.faults.models import make_version
from bench.faults.page import HEAD, TAIL, publish, render
from bench.faults.rig import Fault, Rig, Scale, Shared
from bench.faults.server import Server, measure_gaps
from bench.faults.soak import find_slopes
from bench.faults.verdict import Verdict
from bench.faults.witness import Check, Sample, Witness
from server.models.runtime import OnnxModel, load_model
from tests.fakes import BUNDLED, ROOT, encode, make_slice
from tests.test_bench_report import MACHINE

IMAGES = [encode(make_slice(level)) for level in (60, 100, 140)]
SCALE = Scale(is_smoke=True, room=10.0, seed=7)


def do_nothing(rig: Rig) -> None:
    """A fault that is none."""


def make_fault(inject: object = do_nothing, name: str = "test") -> Fault:
    return Fault(name, "something", "nothing happens", inject)  # type: ignore[arg-type]


@contextmanager
def make_rig(tmp_path: Path, models: Path) -> Iterator[Rig]:
    """A rig with three images and a rate that need not be measured."""
    golden = Golden()
    for image in IMAGES:
        golden.add_image(image)
    scale = Scale(is_smoke=True, room=10.0, seed=7, models=models)
    yield Rig(make_fault(), tmp_path, scale, Shared(golden, IMAGES, rate=50.0))


class FakeCaller(Caller):
    """Answers by itself, after some time."""

    def __init__(self, history: History, status: str = OK, seconds: float = 0.0) -> None:
        super().__init__("fake", history)
        self._status, self._seconds = status, seconds

    def _send(self, number: str, sha256: str, image: bytes, deadline: float) -> Ended:
        time.sleep(self._seconds)
        return Ended(number, self._status, time.monotonic())


def test_answers_are_the_same_to_the_bit_with_one_thread_and_with_two() -> None:
    """So that one golden answer is enough, whatever a server runs with: the bundled model, both precisions."""
    folder = BUNDLED
    _, options = find_options(["--models", str(ROOT / "models")])
    for precision in ("fp32", "int8"):
        answers = []
        for threads in (1, 2):
            changed = options.__class__(precision=precision, threads=threads, busy_threads=3 - threads)
            model = load_model(folder, changed)
            answers += [run_all(model, busy=busy) for busy in (False, True)]
        assert len(set(answers)) == 1


def run_all(model: OnnxModel, *, busy: bool) -> bytes:
    """The answers to some inputs, as bytes."""
    shape = (1, model.input_format.height, model.input_format.width, model.input_format.channels)
    source = np.random.RandomState(0)
    return b"".join(model.run(source.randint(0, 255, shape).astype(np.uint8), busy=busy).tobytes() for _ in range(20))


def test_golden_knows_what_can_be_judged_alone(tiny_models: Path) -> None:
    """What is no image has no answer, and neither has what it was never shown."""
    golden = Golden()
    model = golden.add_model(next(tiny_models.glob("*/*")), find_options(["--models", str(tiny_models)])[1])
    good, bad = golden.add_image(IMAGES[0]), golden.add_image(b"no image")

    assert sum(golden[model.digest, good]) == pytest.approx(1)
    assert (model.digest, bad) not in golden
    assert (model.digest, "0" * 64) not in golden
    assert ("0" * 64, good) not in golden


@pytest.mark.timed
def test_killed_server_is_started_again_under_load(tiny_models: Path, tmp_path: Path) -> None:
    """The client's calls do not fail, the history is good, and the gap is measured."""
    with make_rig(tmp_path, tiny_models) as rig:
        with rig.serve() as server, rig.watch(server) as witness, rig.load(server) as load:
            assert load.wait_answers(5)
            assert load.wait_in_flight()
            assert server.replace(signal.SIGKILL)
            assert load.wait_answers(5)
            load.stop()
            assert [life.code for life in server.lives] == [-signal.SIGKILL]
            assert len(measure_gaps(server)) == 1
            assert witness.samples
        rig.check_failures(load)
        verdict = rig.judge()

    assert verdict.is_kept, verdict.describe()
    assert "0 violations" in verdict.describe()


def test_witness_that_is_killed_while_it_writes_has_said_nothing(tmp_path: Path) -> None:
    """The half of a line is no check, and no error either."""
    words = [sys.executable, "-c", "print('1.5 0.25 SERVING\\n1.7', end='')"]
    witness = Witness(Server(tmp_path, []))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        witness._take(process)

    assert witness.checks == [Check(1.5, 0.25, "SERVING")]


@pytest.mark.timed
def test_answer_of_another_model_breaks_the_history(tiny_models: Path, tmp_path: Path) -> None:
    """A checker that is never told of a broken promise would not be one."""
    with make_rig(tmp_path, tiny_models) as rig:
        with rig.serve() as server, rig.load(server) as load:
            rig.history._entries.clear()  # nothing was declared
            assert load.wait_answers(3)
            load.stop()
        verdict = rig.judge()

    assert not verdict.is_kept
    assert {violation.rule for violation in rig.violations} >= {"good model"}


@pytest.mark.timed
def test_server_that_cannot_start_is_not_waited_for(tmp_path: Path) -> None:
    """It has ended by itself again and again; the bench says so instead of waiting for a minute."""
    with Server(tmp_path, ["--models", str(tmp_path / "none"), "--log-level", "warning"]) as server:
        assert not server.wait_ready()
        assert {life.code for life in server.lives} == {1}
        assert "MODEL_NOT_FOUND" in server.read_log()


def test_load_is_late_rather_than_less() -> None:
    """What is due while all senders wait is sent later, and its time counts from when it was due."""
    history = History()
    with HeldLoad([FakeCaller(history, seconds=0.05)], IMAGES, rate=200, deadline=1, seed=1, senders=1) as load:
        assert load.wait_answers(6)
        load.stop()

    assert max(call.seconds for call in load.calls) > 3 * 0.05
    assert load.find_latency(99) > load.find_latency(1)


def test_load_counts_what_fails() -> None:
    """By status and reason."""
    with HeldLoad([FakeCaller(History(), "UNAVAILABLE")], IMAGES, rate=500, deadline=1, seed=1) as load:
        while len(load.calls) < 5:
            time.sleep(0.001)
        load.stop()

    assert load.count_failures().keys() == {"UNAVAILABLE"}
    assert load.count_answers() == 0


def test_caller_that_raises_has_ended_all_the_same() -> None:
    """An exception is a status that is none: the checker and the counts see it."""
    history = History()

    class Broken(FakeCaller):
        def _send(self, number: str, sha256: str, image: bytes, deadline: float) -> Ended:
            raise KeyError("x")

    ended = Broken(history).call(b"image", 1)

    assert ended.status.startswith("KeyError")
    assert len(history.list_entries()) == 2


def test_broken_promise_breaks_the_verdict_and_saves_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault that raises is one, too; the others go on."""

    def break_it(rig: Rig) -> None:
        rig.check(True, "this was kept")
        rig.check(False, "that was not")

    def raise_it(rig: Rig) -> None:
        raise RuntimeError("no server")

    faults = (make_fault(break_it, "one"), make_fault(raise_it, "two"), make_fault(name="three"))
    monkeypatch.setattr(program, "FAULTS", faults)

    code = program.main(["--seed", "5", "--json", "--histories", str(tmp_path)])

    section = json.loads(capsys.readouterr().out)
    assert code == 1
    assert [one["state"] for one in section["faults"]] == ["BROKEN", "BROKEN", "skipped"]
    assert section["faults"][0]["seen"] == "this was kept; BROKEN: that was not"
    assert "no server" in section["faults"][1]["seen"]
    assert {path.name for path in tmp_path.iterdir()} == {"one.jsonl", "two.jsonl"}


def test_seed_repeats_what_is_done(tmp_path: Path) -> None:
    """For each fault by itself, so that one alone does what it does among all."""
    numbers = [
        Rig(make_fault(name=name), tmp_path, Scale(seed=seed), Shared()).random.random()
        for name, seed in (("a", 1), ("a", 1), ("a", 2), ("b", 1))
    ]

    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3


def test_damage_is_repeated_and_of_many_kinds() -> None:
    """By the random numbers that it is given."""
    first, again = ([damage(random.Random(seed), IMAGES) for seed in range(100)] for _ in range(2))

    assert first == again
    assert len(set(first)) > 95
    assert not set(first) <= set(IMAGES)


def test_slow_images_are_as_large_as_may_be() -> None:
    """What makes a reader work is bounded by the server's own limit alone."""
    sizes = {name: len(image) for name, image in make_slow_images(100_000).items()}

    assert all(size > 98_000 for name, size in sizes.items() if name in ("APP1", "APP2 iCCP", "COM", "fill bytes"))


def test_slope_is_that_of_the_second_half() -> None:
    """What a start takes is no leak."""
    samples = [Sample(float(at), 300.0 - at if at < 50 else 250.0 + at / 3600, 20, 12) for at in range(100)]

    slopes = find_slopes(samples)

    assert slopes["mb_an_hour"] == pytest.approx(1.0)
    assert slopes["descriptors"] == pytest.approx(0.0)
    assert slopes["threads"] == pytest.approx(0.0)


def test_flood_counts_refusals_without_a_hint() -> None:
    """And answers that come after its end are not goodput."""
    refused = Ended("b", "RESOURCE_EXHAUSTED", 1.02, "QUEUE_FULL")
    ends = [
        (0.0, 0.0, Ended("a", OK, 0.5), True),
        (1.0, 1.0, refused, True),
        (1.0, 1.0, refused, False),
        (1.5, 1.5, Ended("c", OK, 2.5), True),
    ]

    found = summarise(ends, began=0.0, seconds=2.0, late=0.0, busy=0.5)

    assert found.ends == {"OK": 2, "RESOURCE_EXHAUSTED QUEUE_FULL": 2}
    assert (found.rate, found.without_hint) == (0.5, 1)
    assert found.answer_p99 == pytest.approx(1.0)
    assert found.refusal_p99 == pytest.approx(0.02)


def test_made_versions_are_good_and_answer_differently(tmp_path: Path, tiny_models: Path) -> None:
    """So that an answer of the wrong one shows."""
    models = [load_model(make_version(tiny_models, tmp_path, version)) for version in ("1", "2", "3")]

    assert [model.spec.version for model in models] == ["1", "2", "3"]
    shape = (1, models[0].input_format.height, models[0].input_format.width, models[0].input_format.channels)
    pixels = np.random.RandomState(0).randint(0, 255, shape).astype(np.uint8)
    assert len({model.run(pixels).tobytes() for model in models}) == 3


def make_section(state: str = "kept", names: Sequence[str] = ("kill",), seed: int = 7) -> dict[str, object]:
    one = {"done": "a | b", "promise": "< 5 s", "state": state, "seen": "x", "seed": seed}
    return {"machine": MACHINE, "room": 5.0, "faults": [{"name": name, **one} for name in names]}


def test_page_says_machine_seed_and_state(tmp_path: Path) -> None:
    """A broken promise stands in it as one; nothing breaks the table."""
    text = publish(make_section("BROKEN"), tmp_path)

    assert "; 1 BROKEN." in text
    assert "5 times as long" in text
    assert "| `kill` a \\| b | &lt; 5 s | x | BROKEN | 7 |" in text
    assert (tmp_path / "reliability.md").read_text() == "\n".join([HEAD, text, TAIL])


def test_faults_that_were_not_injected_again_keep_their_rows(tmp_path: Path) -> None:
    """In their places, with the seeds that repeat them."""
    publish(make_section("BROKEN", ("kill", "term", "stop")), tmp_path)
    publish(make_section("kept", ("term", "new"), seed=8), tmp_path)

    faults = json.loads((tmp_path / "reliability.json").read_text())["faults"]
    assert [(one["name"], one["state"], one["seed"]) for one in faults] == [
        ("kill", "BROKEN", 7),
        ("term", "kept", 8),
        ("stop", "BROKEN", 7),
        ("new", "kept", 8),
    ]


def test_page_in_docs_is_that_of_its_figures() -> None:
    """Nobody has changed the table by hand."""
    figures = ROOT / "docs" / "reliability.json"
    section = json.loads(figures.read_text())

    assert (ROOT / "docs" / "reliability.md").read_text() == "\n".join([HEAD, render(section), TAIL])


def test_verdict_of_what_could_not_be_done_says_why() -> None:
    """It is neither kept nor broken."""
    verdict = Verdict()
    verdict.skip("no right to mount")

    assert (verdict.state, verdict.describe()) == ("skipped", "not done: no right to mount")


def test_faults_have_names_of_their_own() -> None:
    """And a promise each; some are in the smoke run."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert all(fault.promise and fault.done for fault in FAULTS)
    assert any(fault.in_smoke for fault in FAULTS)


def test_unknown_fault_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the names that there are."""
    with pytest.raises(SystemExit) as exit_:
        program.main(["--only", "kill,nothing"])

    assert exit_.value.code == 2
    assert "got nothing" in capsys.readouterr().err


def test_threads_end_with_their_load() -> None:
    """No thread of the rig outlives its block."""
    before = threading.active_count()
    with HeldLoad([FakeCaller(History())], IMAGES, rate=100, deadline=1, seed=1):
        pass

    assert threading.active_count() == before
