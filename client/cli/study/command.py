"""Which folders of the command line are studies, and the run over them.

A folder is one study where all its images are DICOM files, or where ``--study`` says so. One that holds DICOM files and
others may be anything, so each of its files is answered by itself, which is said.
"""

from __future__ import annotations

import argparse
import glob
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..._errors import (
    AuthenticationError,
    ClientClosedError,
    InvalidRequestError,
    ModelNotFoundError,
    ServerUnavailableError,
    StrokeClientError,
)
from ...files.folder import LeftOut, is_dicom_name, may_be_dicom, walk_folder
from ..connection import Connection, run_with_client
from ..signals import EXIT_INTERRUPTED
from ..terminal import ProgressBar, Terminal, escape
from .report import StudyReport

if TYPE_CHECKING:
    from ..._client import StrokeClient

_FATAL = (AuthenticationError, ClientClosedError, ModelNotFoundError, ServerUnavailableError)
"""With these no other study would fare better."""

_SINGLE = {"MODEL_WITHOUT_STUDIES", "CALL_UNKNOWN", "STUDY_TOO_LARGE"}
"""Reasons for which the files may still be judged one by one."""

_WITHOUT = ("csv", "output", "excel", "resume", "retry_failed", "frame", "heatmap")
"""Flags that are for images."""


@dataclass(frozen=True)
class Study:
    """The slices of one study."""

    name: str
    """What the output calls it: the folder as the user gave it, or the only file."""

    files: tuple[str, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    """What its folder holds beside them."""

    fault: str = ""
    """Why not all of the folder can be read; empty when it can."""

    def check(self) -> None:
        """Raises InvalidRequestError when half a study would be judged, or none: FOLDER_UNREADABLE, STUDY_EMPTY."""
        if self.fault:
            raise InvalidRequestError(f"the folder cannot be read: {self.fault}", "FOLDER_UNREADABLE")
        if not self.files:
            others = self.left_out.describe()
            why = "there is no PNG, JPEG or DICOM file in this folder" + (f"; {others}" if others else "")
            raise InvalidRequestError(why, "STUDY_EMPTY")


def list_studies(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> list[Study]:
    """Returns the studies that the arguments name; none where they name images.

    It ends the process with status 2 when studies and images are mixed, or a flag is given that is for images.
    """
    words = list(_expand(arguments.images, recursive=arguments.recursive))
    folders = [word for word in words if os.path.isdir(word)]
    others = [word for word in words if word not in folders]
    if arguments.study:
        if folders and others:
            parser.error("--study takes folders, each one study, or the files of one study: not both at a time")
        if "-" in others:
            parser.error("--study reads files, not standard input")
        studies = [_walk(folder, recursive=arguments.recursive) for folder in folders]
        studies += [Study(_name_files(others), tuple(dict.fromkeys(others)))] if others else []
    else:
        found = [_walk(folder, recursive=arguments.recursive) for folder in folders]
        studies = [study for study in found if study.files and all(map(_is_dicom, study.files))]
        if not studies:
            for study in found:
                if not arguments.quiet and any(map(_is_dicom, study.files)):
                    _print_note(f"{study.name} holds DICOM files and others: each is judged by itself (or --study)")
            return []
        images = next((word for word in words if word not in {study.name for study in studies}), None)
        if images is not None:
            parser.error(
                f"{studies[0].name} is judged as one study, since it holds DICOM files, and {images} is not: name them "
                "in two runs, or add --each for an answer for each file"
            )
    if given := [flag for flag in _WITHOUT if getattr(arguments, flag)]:
        flag = "--" + given[0].replace("_", "-")
        why = "" if arguments.study else f"{studies[0].name} is judged as one study, since it holds DICOM files: "
        parser.error(f"{why}{flag} is for images one by one (--each); of a study take --json")
    return studies


def run_studies(studies: list[Study], arguments: argparse.Namespace, connection: Connection) -> int:
    """Judges studies one after the other, and returns the exit status."""

    def judge(client: StrokeClient) -> int:
        if arguments.quiet:
            client.note_wait = None
        report = StudyReport(as_json=arguments.json, has_slices=arguments.slices, is_quiet=arguments.quiet)
        status = 0
        for study in studies:
            status = max(status, judge_study(study, arguments, client, report))
            if status and arguments.fail_fast:
                break
        return status

    try:
        return run_with_client(connection, judge)
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def judge_study(study: Study, arguments: argparse.Namespace, client: StrokeClient, report: StudyReport) -> int:
    """Judges one study, says what came of it, and returns its exit status.

    Raises:
        StrokeClientError: no study can be judged.
    """
    progress = ProgressBar(
        len(study.files), Terminal(sys.stderr, is_quiet=arguments.quiet), is_wanted=not arguments.quiet
    )
    try:
        study.check()
        prediction = client.predict_study(
            study.files, model=arguments.model, version=arguments.model_version, on_file=progress.draw
        )
    except StrokeClientError as error:
        progress.erase()
        if isinstance(error, _FATAL):
            raise
        report.add_failure(study.name, error)
        if error.reason in _SINGLE and not arguments.quiet:
            _print_note("--each judges its files one by one")
        return 1
    finally:
        progress.erase()
    report.add(study.name, prediction, study.left_out)
    is_whole = not prediction.failed and not (arguments.strict and study.left_out.unjudged)
    return 0 if is_whole else 1


def _expand(words: Iterable[str], *, recursive: bool) -> Iterable[str]:
    """Yields the words with patterns expanded, as by a shell."""
    for word in words:
        if glob.has_magic(word) and not os.path.lexists(word) and "\0" not in word:
            yield from sorted(glob.glob(word, recursive=recursive)) or [word]
        else:
            yield word


def _walk(folder: str, *, recursive: bool) -> Study:
    left_out, faults = LeftOut(), list[OSError]()
    files = tuple(walk_folder(folder, left_out, recursive=recursive, faults=faults))
    return Study(folder, files, left_out, f"{faults[0].filename}: {faults[0].strerror}" if faults else "")


def _is_dicom(path: str) -> bool:
    return is_dicom_name(path) or may_be_dicom(path)


def _name_files(files: list[str]) -> str:
    if len(files) == 1:
        return files[0]
    try:
        return os.path.commonpath(files) or "."
    except ValueError:  # absolute paths beside others
        return "."


def _print_note(text: str) -> None:
    print(escape(f"note: {text}"), file=sys.stderr)
