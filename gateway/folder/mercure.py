"""``python -m gateway mercure``: ``judge`` as a processing module of mercure (its documentation, "Module Development").

mercure names the folders by MERCURE_IN_DIR and MERCURE_OUT_DIR; settings are in ``task.json`` among the images, under
``process.settings``; files are called SERIES#INSTANCE.dcm; ``__mercure_notification`` of ``result.json`` is what people
are told, also where the rule does not say so if it is ``requested``. What a module prints, and its result.json, are in
mercure's log: neither names a patient.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.cli.connection import Connection, read_connection
from gateway.folder.command import add_flags, name_file, run
from gateway.folder.settings import JudgeConfig
from gateway.results.settings import ResultSettings
from gateway.results.urgency import Urgency
from gateway.settings import read_several
from server.flags import LineParser, flag_of, list_settings

if TYPE_CHECKING:
    from gateway.folder.judge import Entry
    from gateway.folder.studies import Study

IN, OUT, TASK = "MERCURE_IN_DIR", "MERCURE_OUT_DIR", "task.json"
MOST_TASK_BYTES = 1_000_000
KNOWN = (
    *(one.name for one in list_settings(ResultSettings)),
    *(one.name for one in fields(Connection)),
    "most_files",
)
"""What ``process.settings`` may have: the names of flags of ``judge``, with underscores."""


def main(argv: Sequence[str] | None = None) -> int:
    """Judges what mercure has put there. Returns 0 when every study has results, 1 when one has none, 2 when there is
    nothing to judge or the settings cannot be used."""
    prog = "python -m gateway mercure"
    parser = LineParser(
        prog=prog,
        description=f"A processing module of mercure: judges the images in {IN}, and writes results to {OUT}.",
        epilog=(
            "examples:\n"
            f"  {IN}=in {OUT}=out {prog}\n\n"
            f"Settings are in {TASK} among the images, under process.settings:\n"
            f"{textwrap.fill(', '.join(KNOWN), 100)}.\n"
            "python -m gateway judge --help says what they mean.\n"
            "Exit codes: 0 done, 1 failed (one line says why), 2 nothing to judge, or settings that cannot be used.\n"
            "Research software. Not a medical device, not for diagnosis."
        ),
    )
    parser.parse_args(argv)
    folders = [os.environ.get(name, "") for name in (IN, OUT)]
    if not all(folders):
        parser.error(f"{IN} and {OUT} must name folders, as mercure does")
    try:
        words = list_flags(read_task(Path(folders[0], TASK)))
    except ValueError as error:
        parser.error(f"{TASK}: {error}")
    reader = LineParser(prog=prog, description="")
    add_flags(reader)
    options = reader.parse_args([folders[0], f"--out={folders[1]}", *words])
    config, results = read_several(reader, options, JudgeConfig, ResultSettings)
    from gateway.folder.judge import Layout

    layout = Layout(name_by_mercure, make_notification)
    return run("mercure", config, results, read_connection(reader, options), layout)


def read_task(path: Path) -> Mapping[str, Any]:
    """The module's settings; none where mercure has given none.

    Raises:
        ValueError: the file is none of mercure's.
    """
    try:
        with open(path, "rb") as file:
            task = json.loads(file.read(MOST_TASK_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ValueError("it cannot be read as JSON") from None
    process = task.get("process") if isinstance(task, dict) else None
    settings = process.get("settings") if isinstance(process, dict) else None
    if not isinstance(settings, dict | None):
        raise ValueError("process.settings must be an object")
    return settings or {}


def list_flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as they would be typed.

    Raises:
        ValueError: one is not known, or has no value.
    """
    words = []
    for name, value in settings.items():
        if name not in KNOWN:
            raise ValueError(f"process.settings has no {name!r}, but: {', '.join(KNOWN)}")
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float) and not isinstance(one, bool) for one in values):
            raise ValueError(f"{name} of process.settings must be a text, a number, or a list of texts")
        words.append(f"{flag_of(name)}={','.join(map(str, values))}")
    return words


def name_by_mercure(study: Study, name: str, uids: Mapping[str, str]) -> str:
    """``SERIES#INSTANCE.dcm``, by which the next module finds the files of a series; texts as ``judge`` names them."""
    return f"{uids['series_instance_uid']}#{uids['sop_instance_uid']}.dcm" if uids else name_file(study, name, uids)


def make_notification(studies: Sequence[Entry]) -> dict[str, Any]:
    """What mercure is to tell people; at once where somebody should look."""
    from gateway.folder.judge import describe_entry
    from gateway.results.answer import NOTICE

    text = "; ".join(map(describe_entry, studies))
    requested = any(one["urgency"] == Urgency.POSITIVE for one in studies)
    return {"__mercure_notification": {"text": f"{text}. {NOTICE}", "requested": requested}}
