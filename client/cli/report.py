"""What people see of a run: results as text, failures and warnings, the progress bar and the summary."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO

from .._errors import StrokeClientError
from .results import NOT_ANALYSED, Record, ResultWriter, writing_results
from .terminal import FAILED, FAINT, HEADING, POSITIVE, WARNING, ProgressBar, Terminal, escape

if TYPE_CHECKING:
    from .._types import Prediction, Reason
    from .latencies import Latencies

ADVICE = {
    "INSUFFICIENT_QUALITY": "look at the slice itself, and export it again, whole and unclipped.",
    "OUT_OF_DISTRIBUTION": "see whether it is an upright axial slice of a head CT, in the model's window.",
    "INDETERMINATE": "a person has to decide.",
    "WRONG_MODALITY": "send the CT of this patient.",
    "NO_SERIES": "see why each series was left out, and which files failed.",
}
"""What to do about an image, or a study, that was not analysed, by reason."""

_MOST_HEAD = 14
"""Columns that the heading of the probability may take: a class may have a long name."""

_GAP = "  "
DescribeModel = Callable[["Prediction"], "tuple[Sequence[str], Sequence[str]]"]
"""From a judgement to its model's positive labels, none where they are not known, and all labels."""


class LineWriter:
    """Prints judgements as plain lines, the same wherever they go: ``FILE: normal 0.990  P(stroke) 0.010  (MODEL,
    threshold T)``, and of an image that has none ``FILE: not analysed [REASON] Sentence.  (MODEL)``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        if not isinstance(record.outcome, StrokeClientError):
            print(escape(f"{record.file}: {record.outcome}"), file=self._stream, flush=True)

    def close(self) -> None:
        """Leaves the stream open: it is not this class's."""


class TableWriter:
    """Prints judgements in columns as wide as the terminal, under headings: positive ones with a star and in colour,
    images that were not analysed in another colour and without a figure. The probability of the positive classes, which
    is compared with the threshold, is in one column for all.

    Args:
        terminal: where they are printed; it has a console.
        names: the files to come.
        describe_model: tells which labels are the positive ones.
    """

    def __init__(self, terminal: Terminal, names: Iterable[str], describe_model: DescribeModel) -> None:
        from rich.cells import cell_len

        self._terminal = terminal
        self._longest_name = max((cell_len(escape(name)) for name in names), default=0)
        self._describe_model = describe_model
        self._headed: tuple[str, float] | None = None
        self._explained: set[str] = set()

    def write(self, record: Record) -> None:
        prediction = record.outcome
        if isinstance(prediction, StrokeClientError):
            return
        if self._headed != (prediction.digest, prediction.threshold):
            self._headed = (prediction.digest, prediction.threshold)
            origin = f"{prediction.model} {prediction.version}, threshold {prediction.threshold:.3g}"
            self._terminal.print((escape(origin), FAINT), is_folded=True)
            self._terminal.print(("".join(self._list_cells("file", "answer", None, prediction)).rstrip(), HEADING))
        self._terminal.print(*self._arrange(escape(record.file), prediction))
        for reason in prediction.reasons:
            if reason.reason not in self._explained:
                self._explained.add(reason.reason)
                self._terminal.print((escape(f"  {reason.reason}: {advise(reason)}"), FAINT), is_folded=True)

    def close(self) -> None:
        """Leaves the terminal open: it is not this class's."""

    def _arrange(self, name: str, prediction: Prediction) -> Iterator[str | tuple[str, str]]:
        from rich.cells import cell_len

        positive = self._describe_model(prediction)[0] or prediction.positive_labels
        score = prediction.positive_probability
        if prediction.scores.keys() >= set(positive):
            score = math.fsum(prediction.scores[label] for label in positive)
        mark, name, gap, label, probability = self._list_cells(name, escape(prediction.label), score, prediction)
        verdict = label + probability
        if not prediction.is_analysed:
            yield "? " + name + gap
            yield NOT_ANALYSED, WARNING
            room = self._terminal.columns - cell_len(mark + name + gap) - max(cell_len(verdict), len(NOT_ANALYSED))
            codes = " ".join(reason.reason for reason in prediction.reasons)
            if len(_GAP + codes) < room:
                yield " " * (cell_len(verdict) - len(NOT_ANALYSED)) + _GAP + escape(codes), FAINT
            return
        is_positive = prediction.label in positive
        yield ("* " if is_positive else mark) + name + gap
        yield (verdict, POSITIVE) if is_positive else verdict

    def _list_cells(self, name: str, label: str, score: float | None, prediction: Prediction) -> tuple[str, ...]:
        """Returns mark, name, gap, label and probability, each as wide as its column; without a score the headings."""
        from rich.cells import cell_len, set_cell_size

        positive, labels = self._describe_model(prediction)
        first, *others = positive or prediction.positive_labels
        head = f"P({'positive' if others else escape(first)})"
        head = self._shorten(head, min(cell_len(head), _MOST_HEAD))
        width = max(cell_len(text) for text in ("answer", *map(escape, labels)))
        label = set_cell_size(label, width)
        probability = _GAP + (head if score is None else f"{score:.3f}".rjust(cell_len(head)))
        room = self._terminal.columns - 1 - 2 * len(_GAP) - width - cell_len(probability)
        name = self._shorten(name, max(min(max(self._longest_name, len("file")), room), 1))
        return "  ", name, _GAP, label, probability

    def _shorten(self, name: str, width: int) -> str:
        """Returns a name in exactly ``width`` columns: filled up with spaces, or its middle left out.

        The end of a path says more than its beginning (the file's own name), so it gets two thirds.
        """
        from rich.cells import cell_len, set_cell_size

        if cell_len(name) > width:
            console = self._terminal.console
            ellipsis = "..." if console is not None and console.options.ascii_only else "…"
            room = max(width - len(ellipsis), 0)
            tail = room * 2 // 3
            name = set_cell_size(name, room - tail) + ellipsis + set_cell_size(name[::-1], tail)[::-1]
        return set_cell_size(name, width)


class Report:
    """Takes the records of one run as they come: judgements to ``writer``, everything else to standard error.

    Args:
        total: number of images that the run is about.
        writer: takes all records.
        describe_model: tells which labels are the positive ones; asked for runs of several images.
        done: number of images of which an earlier run has left results.
        done_labels: how many of those have which label; the others failed.
        positive: those of the labels that the earlier run calls positive.
        without_images: number of folders and patterns that name no image, of earlier runs included.
        is_printing: the writer prints, perhaps on the terminal that has the progress bar.
        keeps_warnings: they are in what the writer writes, so that only the first of each kind is printed.
        is_quiet: print failures, and nothing else on standard error.
        left_out: what folders hold beside the images, as a sentence; empty where there is nothing.
    """

    def __init__(
        self,
        total: int,
        writer: ResultWriter,
        describe_model: DescribeModel,
        *,
        done: int = 0,
        done_labels: Mapping[str, int] = MappingProxyType({}),
        positive: Collection[str] = (),
        without_images: int = 0,
        is_printing: bool = False,
        keeps_warnings: bool = False,
        is_quiet: bool = False,
        left_out: str = "",
    ) -> None:
        self._total = total
        self._left_out = left_out
        self._writer = writer
        self._describe_model = describe_model
        self._done_before = done
        self._done_labels = done_labels
        self._without_images = without_images
        self._has_summary = total + without_images > 1  # a single image has none
        self._is_printing = is_printing
        self._keeps_warnings = keeps_warnings
        self._is_quiet = is_quiet
        self._terminal = Terminal(sys.stderr, is_quiet=is_quiet)
        self._progress = ProgressBar(total, self._terminal, done=done, is_wanted=not is_quiet)
        self._labels: Counter[str] = Counter()
        self._positive_labels = set(positive)
        self._models: dict[str, str] = {}  # by digest, in the order in which they judged
        self._warned: set[str] = set()
        self._server_ms: Latencies | None = None
        if self._has_summary:
            from .latencies import Latencies

            self._server_ms = Latencies()
        self._started = time.monotonic()
        self.failed = 0
        """Number of images so far that were not judged."""

        self.has_failures = False
        """Something that was named has not been judged, be it an image or not."""

    @property
    def missing(self) -> int:
        """Number of images that have no result yet."""
        return self._total - self._done_before - self._labels.total() - self.failed

    def add(self, record: Record) -> None:
        """Takes the next record.

        Raises:
            OSError: it cannot be written.
        """
        if self._is_printing:
            self._progress.erase()
        with writing_results():
            self._writer.write(record)
        if isinstance(record.outcome, StrokeClientError):
            self.has_failures = True
            self.failed += record.is_image
            self._print(f"{record.file}: ", "error", FAILED, f": {record.outcome}")
        else:
            self._add_prediction(record.file, record.outcome)
        self._progress.draw(self._total - self.missing)

    def _add_prediction(self, name: str, prediction: Prediction) -> None:
        self._labels[prediction.label or NOT_ANALYSED] += 1
        if self._server_ms is not None:
            timings = prediction.timings
            self._server_ms.add(timings.decode_ms + timings.queue_ms + timings.inference_ms)
        if prediction.digest not in self._models:
            before = list(self._models.values())
            self._models[prediction.digest] = model = f"{prediction.model} {prediction.version}"
            if self._has_summary:
                self._positive_labels.update(self._describe_model(prediction)[0])
            if before:
                why = f": from here on {model} (sha256 {prediction.digest[:12]}) judges, too; before it {before[-1]}"
                self._print(f"{name}: ", "warning", WARNING, why)
        reasons = {reason.reason for reason in prediction.reasons}
        for reason in prediction.reasons if self._keeps_warnings and not self._is_quiet else ():
            if reason.reason not in self._warned:
                self._warned.add(reason.reason)
                advice = " (others like it: see the results)" if self._total > 1 else ""
                self._print(f"{name}: ", NOT_ANALYSED, WARNING, f": {advise(reason)}{advice}")
        for warning in prediction.warnings if not self._is_quiet else ():
            if warning.reason in reasons:
                continue
            if warning.reason not in self._warned or not self._keeps_warnings:
                self._warned.add(warning.reason)
                advice = " (others like it: see the results)" if self._keeps_warnings and self._total > 1 else ""
                self._print(f"{name}: ", "warning", WARNING, f": {warning.message}{advice}")

    def print_note(self, kind: str, text: str) -> None:
        """Prints a line about the run as a whole; ``kind`` is ``error``, ``warning`` or ``note``."""
        if kind != "note" or not self._is_quiet:
            self._print("", kind, {"error": FAILED, "warning": WARNING}.get(kind, FAINT), f": {text}")

    def close(self) -> None:
        """Erases the progress bar and, when there was more than one image, prints the summary."""
        self._progress.erase()
        if not self._has_summary and self._left_out:
            self.print_note("note", self._left_out)
        if not self._has_summary or self._is_quiet:
            return
        self._terminal.print(escape("; ".join(self._summarise())), is_folded=True)

    def _summarise(self) -> list[str]:
        parts = [f"{self._done_before} done before"] if self._done_before else []
        parts += self._count(self._labels, self.failed)
        if self.missing:
            parts.append(f"{self.missing} not judged")
        sentences = [f"{self._total} image{'' if self._total == 1 else 's'}: {', '.join(parts)}"]
        if self._total != self._done_before:
            rate = (self._labels.total() + self.failed) / max(time.monotonic() - self._started, 1e-3)
            sentences.append(f"{rate:.1f} images/s")
        if self._done_before:
            failed = self._done_before - sum(self._done_labels.values())
            in_all = self._count(self._labels + Counter(self._done_labels), self.failed + failed)
            sentences.insert(1, f"in all {', '.join(in_all)}")
        if self._server_ms is not None and self._server_ms.count:
            median, slow = map(format_ms, self._server_ms.find_percentiles((50, 99)))
            sentences.append(f"time in the server p50 {median}, p99 {slow}")
            sentences.append("by " + ", ".join(self._models.values()))
        if self._without_images:
            what = "folder or pattern" if self._without_images == 1 else "folders or patterns"
            sentences.append(f"{self._without_images} {what} without images")
        if self._left_out:
            sentences.append(self._left_out)
        return sentences

    def _order(self, item: tuple[str, int]) -> tuple[bool, bool, str]:
        """Positive classes, then the others, then what is none."""
        return item[0] not in self._positive_labels, item[0] == NOT_ANALYSED, item[0]

    def _count(self, labels: Counter[str], failed: int) -> list[str]:
        parts = []
        for label, count in sorted(labels.items(), key=self._order):
            parts.append(f"{count} positive ({label})" if label in self._positive_labels else f"{count} {label}")
        return [*parts, f"{failed} failed"]

    def _print(self, start: str, kind: str, style: str, end: str) -> None:
        self._progress.erase()
        self._terminal.print(escape(start), (kind, style), escape(end))


def advise(reason: Reason) -> str:
    """Returns the server's sentence, and what to do where that is known."""
    advice = ADVICE.get(reason.reason, "")
    return f"{reason.message} Advice: {advice}" if advice else reason.message


def format_ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.3g} s"
