"""Static INT8 quantisation: the search for a variant that passes the accuracy gate, in the time that it may take.

Some ways to find the ranges of activations are tried, and the first that passes is taken, in the order of their
differences on the calibration slices. If none does, the layers that cost most accuracy go back to fp32, as measured
(``converter.int8.sensitivity``, ``converter.int8.search``). If that is not enough either, and nothing but labels of
slices near a threshold stands against it, fp32 decides about these (``converter.int8.cascade``). Held-out slices say
only whether what was chosen passes; how many variants they were asked about is recorded.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import onnx

from converter.errors import AccuracyError, FusionError
from converter.graph.fusion import check_fused, count_left
from converter.int8.calibrate import CalibrationSets
from converter.int8.cascade import Band, choose_band
from converter.int8.gate import Comparison, Gate, Judge
from converter.int8.ranges import METHODS, Ranges
from converter.int8.search import find_first, list_choices
from converter.int8.sensitivity import measure_sensitivity
from converter.int8.speed import compare_speed
from converter.int8.watch import TimeIsUp, Watch, describe_time
from converter.int8.workshop import TARGETS, Candidate, Workshop, prepare
from converter.pixels.sampling import take_evenly
from converter.report import describe_cascade
from server.machine.processors import is_suited
from server.models.runtime import OnnxModel

LEAST_RANGE_SLICES = 32
MOST_RANGE_SLICES = 256
"""Of the calibration set: those that ranges are recorded on. A network that answers in milliseconds takes all of them:
a trained CNN was measured to fail the gate with ranges of 96 slices (99.2 %) and to pass with those of 256 (99.8 %)."""

RANGE_SHARE = 0.06
"""Of all the time: what the fp32 model would take for these slices. They are gone through some four times."""

MOST_ROUNDING_SLICES = 64
"""Of these: those on which it is measured what convolutions take."""

SENSITIVITY_SLICES = 4

METHODS_SHARE = 0.5
"""Of the time: once it is used up, no other method is tried."""


@dataclass(frozen=True)
class Quantised:
    """A quantised model that passed the gate."""

    data: bytes
    """The ONNX file, spec included."""

    model: OnnxModel
    method: str
    """One of ``METHODS``."""

    fp32_layers: tuple[str, ...]
    """Names of the convolutions, sums and concatenations that stayed fp32."""

    band: Band | None
    """Where fp32 answers in its place; None: nowhere."""

    left: Mapping[str, int]
    """Nodes of each kind in ``MOST_LEFT`` that are left after ONNX Runtime's optimisation."""

    tried: Mapping[str, float]
    """Mean absolute difference of the probability on the calibration set, by method."""

    looks: int
    """Variants that the held-out set has judged: the more, the less it is held out."""

    speed: float | None
    """fp32's time over that of the variant; None where it is made for another processor."""

    gate: Gate
    target: str
    calibration_source: str

    def to_document(self) -> Mapping[str, object]:
        """What ``manifest.json`` records."""
        return {
            "method": self.method,
            "fp32_layers": list(self.fp32_layers),
            "cascade": asdict(self.band) if self.band else None,
            "nodes_left": dict(self.left),
            "mean_difference_by_method": dict(self.tried),
            "variants_judged": self.looks,
            "speed": self.speed,
            "slices": self.calibration_source,
            **self.gate.to_document(),
        }


def quantise(
    model: onnx.ModelProto, reference: OnnxModel, sets: CalibrationSets, *, target: str, watch: Watch | None = None
) -> Quantised:
    """Makes the INT8 variant of a model.

    Args:
        model: the fp32 graph, canonical (``converter.graph.edit``), input folded (``converter.graph.fold``).
        reference: the same, as it is served, with one thread.
        sets: slices to calibrate and to judge on.
        target: one of ``TARGETS``.
        watch: is told each step, and says how long all may take; None: as long as it takes.

    Raises:
        AccuracyError: no variant passed the gate, or none in time; the message has the figures of the best.
        FusionError: ONNX Runtime cannot quantise the graph, or does not fuse it, or the variant is slower than fp32.
    """
    search = Search(model, reference, sets, target, watch or Watch())
    try:
        search.run()
    except TimeIsUp:
        if search.passed is None:
            raise AccuracyError(search.describe_time_up()) from None
    if search.passed is None:
        raise AccuracyError(search.describe_failure())
    return search.finish(search.passed)


class Search:
    """The search for a variant that passes. What it has found is kept as it goes on, should the time end it.

    Attributes:
        passed: the last variant that passed the gate, with the fewest layers in fp32 so far.
    """

    def __init__(
        self, model: onnx.ModelProto, reference: OnnxModel, sets: CalibrationSets, target: str, watch: Watch
    ) -> None:
        self._model, self._reference, self._sets, self._target, self._watch = model, reference, sets, target, watch
        self._tried: dict[str, float] = {}
        self._looks = 0
        self._speed: float | None = None
        self._nearest: tuple[Candidate, Comparison | None] | None = None
        self.passed: tuple[Candidate, Gate] | None = None

    def run(self) -> None:
        """Looks for the variant.

        Raises:
            TimeIsUp: before it was through.
            FusionError: as of ``quantise``.
        """
        watch = self._watch
        self._judge = Judge(self._reference, self._sets, watch)
        count = self._judge.count_affordable(RANGE_SHARE, least=LEAST_RANGE_SLICES, most=MOST_RANGE_SLICES)
        pixels = take_evenly(self._sets.calibration.pixels, count)
        prepared = prepare(self._model, pixels, watch)
        watch.tell("rounding weights")
        self._workshop = Workshop(
            prepared,
            self._reference.spec,
            TARGETS[self._target],
            self._judge,
            take_evenly(pixels, MOST_ROUNDING_SLICES),
            watch,
        )
        watch.tell(f"recording the ranges of activations on {len(pixels)} slices")
        ranges = Ranges(prepared, pixels, watch)
        candidates = sorted(self._try_methods(ranges), key=lambda candidate: candidate.rank)
        best = candidates[0]
        self._check_speed(best)
        if any(self._judge_held_out(candidate) for candidate in candidates):
            return
        candidates.clear()  # each is a loaded model
        self._relax(best, prepared)
        if self.passed is None:
            self._look_again(best)

    def _try_methods(self, ranges: Ranges) -> list[Candidate]:
        """Variants without a layer in fp32, by method."""
        candidates: list[Candidate] = []
        for method in METHODS:
            if candidates and self._watch.left < (1 - METHODS_SHARE) * 60 * self._watch.minutes:
                self._watch.tell(f"no time for ranges by {method}")
                continue
            self._watch.tell(f"quantising with ranges by {method}")
            candidates.append(self._workshop.make(method, ranges.find(method), ()))
            self._tried[method] = candidates[-1].calibration.mean_difference
            self._note(candidates[-1], None)
        return candidates

    def _note(self, candidate: Candidate, held_out: Comparison | None) -> None:
        """Keeps what came nearest, for the message."""
        if self._nearest is None or candidate.rank <= self._nearest[0].rank:
            self._nearest = (candidate, held_out)

    def _check_speed(self, candidate: Candidate) -> None:
        """Refuses what is slower than fp32: layers that go back to fp32 make it slower still."""
        if not is_suited(self._target):
            return
        self._speed = compare_speed(candidate.model, self._reference, self._sets.calibration.pixels[0])
        if self._speed < 1:
            raise FusionError(
                f"INT8 is {1 / self._speed:.2f} times slower than fp32 on this machine: serve fp32 "
                f"(mean |Δp| {candidate.calibration.mean_difference:.4f} on the calibration slices)"
            )

    def _judge_held_out(self, candidate: Candidate) -> bool:
        """Whether a variant passes on both sets; the held-out one is not asked where the other says no."""
        self._note(candidate, None)
        if candidate.calibration.list_failures():
            return False
        self._looks += 1
        held_out = self._judge.compare_held_out(candidate.model)
        self._note(candidate, held_out)
        if held_out.list_failures():
            return False
        self.passed = (candidate, Gate(candidate.calibration, held_out))
        return True

    def _relax(self, best: Candidate, prepared: onnx.ModelProto) -> None:
        """Gives the layers that cost most back to fp32: as few as pass."""
        watch, workshop = self._watch, self._workshop
        watch.tell(f"{'; '.join(self._list_failures())}: measuring what each layer costs in accuracy")
        sensitivity = measure_sensitivity(
            prepared,
            workshop.round(()),
            workshop.region,
            best.ranges,
            take_evenly(self._sets.calibration.pixels, SENSITIVITY_SLICES),
            watch,
        )
        choices = list_choices(workshop.region, sensitivity)
        watch.tell(
            f"{len(choices)} choices of layers to keep in fp32, of which some {len(choices).bit_length() + 2} are tried"
        )

        @functools.lru_cache(maxsize=2)  # each holds a loaded model
        def make(fp32_layers: tuple[str, ...]) -> Candidate:
            watch.check()
            watch.tell(
                f"trying {len(fp32_layers)} of {len(workshop.region.members)} layers in fp32, "
                f"at most {describe_time(watch.left)} left"
            )
            return workshop.make(best.method, best.ranges, fp32_layers)

        if not choices or not self._judge_held_out(make(choices[-1])):
            return
        first = find_first(choices, lambda layers: not make(layers).calibration.list_failures())
        # Half of the way from there to what has passed: fewer looks at held-out slices than all of it would be.
        start = choices.index(first) if first is not None else len(choices) - 1
        for place in sorted({start, (start + len(choices) - 1) // 2} - {len(choices) - 1}):
            if self._judge_held_out(make(choices[place])):
                return

    def _look_again(self, best: Candidate) -> None:
        """Lets fp32 answer where a variant could decide otherwise, if that is all that stands against it."""
        if best.calibration.list_distances():
            return
        band = choose_band(self._reference.spec, *self._judge.answer_calibration(best.model))
        if band is None or (self._speed is not None and band.slow_down(self._speed) < 1):
            return
        self._watch.tell(f"letting fp32 answer {describe_cascade(asdict(band))}")
        self._judge_held_out(self._workshop.join(best, self._model, band))

    def _list_failures(self) -> list[str]:
        """What the variant that came nearest fails on, in words."""
        if self._nearest is None:
            return []
        candidate, held_out = self._nearest
        if held_out is not None and held_out.list_failures():
            return [f"{failure} on the held-out set" for failure in held_out.list_failures()]
        return [f"{failure} on the calibration set" for failure in candidate.calibration.list_failures()]

    def _describe_nearest(self) -> str:
        if self._nearest is None:
            return "no variant was made"
        candidate, _ = self._nearest
        return (
            f"{'; '.join(self._list_failures()) or 'not judged to the end'} (ranges by {candidate.method}, best of "
            f"{', '.join(self._tried)}; in fp32: {', '.join(candidate.fp32_layers) or 'none'}"
            f"{f'; fp32 answers {describe_cascade(asdict(candidate.band))}' if candidate.band else ''})"
        )

    def describe_failure(self) -> str:
        """Why no variant is there, with the figures."""
        return (
            f"the INT8 variant does not pass the accuracy gate, and is not written: {self._describe_nearest()}. "
            "Calibrate on slices like those it will see (--calibrate DIR), or serve fp32"
        )

    def describe_time_up(self) -> str:
        """Why no variant is there in time, with the figures so far and the remedy."""
        return (
            f"no INT8 variant passed the accuracy gate in {self._watch.minutes:g} minutes: {self._describe_nearest()}. "
            f"Give it more time (--int8-minutes {2 * self._watch.minutes:g}), or serve fp32"
        )

    def finish(self, passed: tuple[Candidate, Gate]) -> Quantised:
        """What passed, after a look at its speed and at what is left of conversions in it."""
        best, gate = passed
        if best.fp32_layers:
            self._check_speed(best)
        if best.band and self._speed is not None:
            self._speed = best.band.slow_down(self._speed)
        left = count_left(best.data)
        if self._speed is None:  # nothing but the graph says whether it is fast
            check_fused(left, self._workshop.region.count_crossings(best.fp32_layers))
        return Quantised(
            best.data,
            best.model,
            best.method,
            best.fp32_layers,
            best.band,
            left,
            dict(self._tried),
            self._looks,
            None if self._speed is None else round(self._speed, 2),
            gate,
            self._target,
            self._sets.describe(),
        )
