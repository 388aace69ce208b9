"""One run over images: from the list to the results, with what happens when it is cut short."""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from .._client import StrokeClient
from .._errors import (
    AuthenticationError,
    ClientClosedError,
    ImageReadError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerUnavailableError,
    StrokeClientError,
)
from .._types import Prediction, PredictionFailure
from .report import LineWriter, Report, TableWriter
from .results import (
    LEFT_OUT,
    FileStamp,
    JsonLinesFormat,
    Record,
    ResultFileError,
    ResultFormat,
    ResultWriter,
    StreamWriter,
    left_out_error,
    open_output,
    writing_results,
)
from .selection import ListedImage, ResumePlan, list_images, plan_resume, take_stamp
from .signals import EXIT_INTERRUPTED, Interruption
from .terminal import Terminal

if TYPE_CHECKING:
    from ..files.folder import LeftOut
    from .result_file import ResultFile

EXIT_ANSWERED = 0
EXIT_FAILED = 1

_SERVER_FAULTS = (AuthenticationError, ClientClosedError, ServerUnavailableError)
_SERVER_REASONS = ("ANSWER_MISPLACED", "CALL_UNKNOWN")
"""With these a run cannot go on, whatever the image."""


_REFUSALS = (InvalidRequestError, ModelNotFoundError)
"""The same for all images of a run: they are said once."""


class Batch:
    """Judges the images that the command line names.

    Args:
        arguments: the command line, checked.
        client: where they are judged; its owner closes it.
    """

    def __init__(self, arguments: argparse.Namespace, client: StrokeClient) -> None:
        self._arguments = arguments
        self._client = client
        self._left_out: LeftOut | None = None
        self._described: dict[str, tuple[Sequence[str], Sequence[str]]] = {}

    def run(self) -> int:
        """Judges them and returns the exit status: 0, 1 or 130.

        Raises:
            ResultFileError: the file of results cannot take those of this run.
            StrokeClientError: the server cannot be asked whether its model is that of the results so far.
            OSError: the results cannot be written.
        """
        self._left_out = self._make_left_out()
        listed = list_images(self._arguments.images, recursive=self._arguments.recursive, left_out=self._left_out)
        if self._arguments.heatmap is not None:
            check_heatmap(self._arguments.heatmap, len(listed))
        file = self._open_file()
        if file is None:
            printer = self._make_printer(listed)
            keeps_warnings = isinstance(printer, StreamWriter)
            report = self._make_report(listed, printer, is_printing=True, keeps_warnings=keeps_warnings)
            with closing(printer):
                status = self._judge(listed, report, None)
                if status != EXIT_INTERRUPTED and keeps_warnings:
                    self._write_left_out(printer, known=set())
            return status or self._mind_left_out()
        with closing(file):
            status = self._fill(file, listed)
            if status != EXIT_INTERRUPTED and self._left_out is not None and self._left_out.unjudged:
                names = (fields["file"] for fields in file.records() if fields.get("reason") == LEFT_OUT)
                self._write_left_out(file, known=set(names) if self._arguments.resume else set())
        return status or self._mind_left_out()

    def _fill(self, file: ResultFile, listed: list[ListedImage]) -> int:
        """Judges what has no result in a file, and returns the exit status."""
        if not self._arguments.resume:
            return self._judge(listed, self._make_report(listed, file), file)
        plan = plan_resume(file, listed, retry_failed=self._arguments.retry_failed)
        if plan.remaining:
            self._check_model(plan, file.path)
        if plan.outdated:
            with writing_results():
                file.keep_only(plan.wants)
        report = self._make_report(listed, file, done=plan.done, done_labels=plan.labels, positive=plan.positive_labels)
        _announce(plan, report, file.path)
        if not plan.remaining:
            report.close()
        status = self._judge(plan.remaining, report, file) if plan.remaining else EXIT_ANSWERED
        return status or (EXIT_FAILED if plan.failed or plan.without_images else EXIT_ANSWERED)

    def _make_left_out(self) -> LeftOut | None:
        """Returns what takes the rest of folders; None where no argument can name one."""
        arguments = self._arguments
        if not any(os.path.isdir(word) or glob.has_magic(word) for word in arguments.images):
            return None
        from ..files.folder import LeftOut

        path = arguments.output or arguments.csv
        return LeftOut([path, f"{path}.part"] if path else ())

    def _write_left_out(self, writer: ResultWriter, known: set[str]) -> None:
        """Writes a record for each file that folders hold beside images, but for those of an earlier run."""
        for path, kind in self._left_out.unjudged.items() if self._left_out is not None else ():
            if path not in known:
                with writing_results():
                    writer.write(Record(path, left_out_error(kind)))

    def _mind_left_out(self) -> int:
        """Returns the exit status of a run that answered all images."""
        is_whole = self._left_out is None or not self._left_out.unjudged
        return EXIT_ANSWERED if is_whole or not self._arguments.strict else EXIT_FAILED

    def describe_model(self, prediction: Prediction) -> tuple[Sequence[str], Sequence[str]]:
        """Returns the positive labels, none where the server does not say, and all labels of the model that judged."""
        if prediction.digest not in self._described:
            labels: tuple[Sequence[str], Sequence[str]] = ((), tuple(prediction.scores))
            try:
                info = self._client.model_info(prediction.model, prediction.version)
                labels = (info.positive_labels, info.labels)
            except StrokeClientError:  # such as a token that does not allow it; the results are good without it
                pass
            self._described[prediction.digest] = labels
        return self._described[prediction.digest]

    def _make_report(
        self,
        listed: Sequence[ListedImage],
        writer: ResultWriter,
        *,
        done: int = 0,
        done_labels: Mapping[str, int] = MappingProxyType({}),
        positive: Collection[str] = (),
        is_printing: bool = False,
        keeps_warnings: bool = True,
    ) -> Report:
        total = sum(entry.image is not None for entry in listed)
        return Report(
            total,
            writer,
            self.describe_model,
            done=done,
            done_labels=done_labels,
            positive=positive,
            without_images=len(listed) - total,
            is_printing=is_printing,
            keeps_warnings=keeps_warnings,
            is_quiet=self._arguments.quiet,
            left_out=self._left_out.describe() if self._left_out is not None else "",
        )

    def _open_file(self) -> ResultFile | None:
        """Opens the file that takes the results; None where they are printed."""
        arguments = self._arguments
        path = arguments.output or (arguments.csv if arguments.csv != "-" else None)
        if not path:
            return None
        from .result_file import ResultFile

        result_format = JsonLinesFormat() if arguments.output else self._choose_table(path)
        with writing_results():
            return ResultFile(path, result_format, resume=arguments.resume)

    def _make_printer(self, listed: Sequence[ListedImage]) -> ResultWriter:
        if self._arguments.csv or self._arguments.json:
            return StreamWriter(open_output(), self._choose_table() if self._arguments.csv else JsonLinesFormat())
        terminal = Terminal(sys.stdout, is_quiet=self._arguments.quiet)
        if terminal.console is not None:
            return TableWriter(terminal, (entry.name for entry in listed), self.describe_model)
        return LineWriter(sys.stdout)

    def _choose_table(self, path: str = "") -> ResultFormat:
        from .excel import choose_table

        return choose_table(self._arguments.excel, path)

    def _check_model(self, plan: ResumePlan, path: str) -> None:
        """Raises ResultFileError when other models judged the results so far than the one that would go on."""
        if plan.models:
            info = self._client.model_info(self._arguments.model, self._arguments.model_version)
            if info.digest not in plan.models:
                before = ", ".join(f"{model} (sha256 {digest[:12]})" for digest, model in plan.models.items())
                raise ResultFileError(
                    f"{path} has results of {before}, but the server now judges by {info.name} {info.version} (sha256 "
                    f"{info.digest[:12]}): choose the former with --model and --model-version, or name another file"
                )

    def _judge(self, listed: Sequence[ListedImage], report: Report, file: ResultFile | None) -> int:
        fault: StrokeClientError | None = None
        status = EXIT_ANSWERED
        with Interruption() as interruption:
            try:
                with closing(self._judge_one(listed[0]) if len(listed) == 1 else self._judge_many(listed)) as records:
                    for record in records:
                        with interruption.shielded():
                            report.add(record)
                        if self._arguments.fail_fast and report.has_failures:
                            break
            except StrokeClientError as error:  # the run cannot go on; one line, however many images are left
                fault = error
            except KeyboardInterrupt:
                status = EXIT_INTERRUPTED
            finally:
                report.close()
            if fault is not None:
                report.print_note("error", str(fault))
            elif status == EXIT_INTERRUPTED:
                report.print_note("error", "interrupted")
            elif self._arguments.fail_fast and report.has_failures:
                report.print_note("error", "stopped at the first failure (--fail-fast)")
            if report.missing and file is not None:
                report.print_note("note", f"what is done is in {file.path}; {_describe_next(self._arguments)}")
        return status or (EXIT_FAILED if fault is not None or report.has_failures else EXIT_ANSWERED)

    def _judge_one(self, entry: ListedImage) -> Generator[Record, None, None]:
        """Yields the record of the only image. A stream, with all that it takes, is for several."""
        outcome: Prediction | StrokeClientError
        if entry.image is None:
            yield Record(entry.name, ImageReadError(entry.fault, "IMAGE_UNREADABLE"), is_image=False)
            return
        stamp = take_stamp(entry.image) if isinstance(entry.image, str) else None
        try:
            outcome = self._ask(entry.image)
        except StrokeClientError as error:
            if isinstance(error, _SERVER_FAULTS) or error.reason in _SERVER_REASONS:
                raise
            outcome = error
        yield Record(entry.name, outcome, stamp)

    def _ask(self, image: str | BinaryIO) -> Prediction:
        """Returns the judgement of an image, and writes its heatmap where one was asked for."""
        arguments = self._arguments
        if arguments.heatmap is None:
            return self._client.predict(
                image, model=arguments.model, version=arguments.model_version, frame=arguments.frame
            )
        explanation = self._client.explain(
            image, model=arguments.model, version=arguments.model_version, frame=arguments.frame
        )
        if explanation.overlay_png:
            with writing_results(), open(arguments.heatmap, "xb") as file:
                file.write(explanation.overlay_png)
        else:
            print(f"note: {arguments.heatmap} is not written: the image was not analysed", file=sys.stderr)
        return explanation.prediction

    def _judge_many(self, listed: Sequence[ListedImage]) -> Generator[Record, None, None]:
        """Yields one record for each image, in order."""
        stamps: deque[FileStamp | None] = deque()

        def feed() -> Iterator[str | BinaryIO]:
            for entry in listed:
                if entry.image is not None:
                    # Before the file is read: a change while it is read shows at the next run.
                    stamps.append(take_stamp(entry.image) if isinstance(entry.image, str) else None)
                    yield entry.image

        with closing(
            self._client.predict_many(
                feed(),
                model=self._arguments.model,
                version=self._arguments.model_version,
                in_flight=self._arguments.in_flight,
                frame=self._arguments.frame,
            )
        ) as results:
            for entry in listed:
                if entry.image is None:
                    yield Record(entry.name, ImageReadError(entry.fault, "IMAGE_UNREADABLE"), is_image=False)
                    continue
                result = next(results)
                outcome = result.error if isinstance(result, PredictionFailure) else result
                if isinstance(outcome, _REFUSALS):
                    raise outcome
                yield Record(entry.name, outcome, stamps.popleft())
            next(results, None)  # so that the stream ends in order rather than by a cancellation


def check_heatmap(path: str, images: int) -> None:
    """Raises ResultFileError when a heatmap cannot be written to ``path``, before anything is sent."""
    if images != 1:
        raise ResultFileError(f"--heatmap goes with one image, not with the {images} that were named")
    if os.path.lexists(path):
        raise ResultFileError(f"{path} exists: name another file for the heatmap")


def _announce(plan: ResumePlan, report: Report, path: str) -> None:
    """Says what is taken from the earlier run, and what is not."""
    if plan.done:
        count = len(plan.remaining)
        left = f"{count} {'is' if count == 1 else 'are'} left" if count else "none is left to judge"
        report.print_note("note", f"{path} has the results of {plan.done} images; {left}")
    if plan.failed:
        report.print_note("note", f"{plan.failed} of them had failed: --retry-failed judges those again")
    if plan.changed:
        text = f"{len(plan.changed)} files have changed since and are judged again, {plan.changed[0]} first"
        report.print_note("warning", text)
    if plan.is_foreign:
        report.print_note(
            "warning", f"no result in {path} is of these images: was it made from another folder, or of other images?"
        )


def _describe_next(arguments: argparse.Namespace) -> str:
    return "the same command goes on" if arguments.resume else "the same command with --resume goes on"
