"""What ``python -m gateway perform`` can be told, each thing defined once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydicom.sr.coding import Code

from gateway.addresses import is_title
from gateway.perform.web import find_origin
from server.flags import REQUIRED, check_settings, require, setting
from server.process.log_lines import FORMATS


@dataclass(frozen=True)
class PerformConfig:
    """A worklist, which of its tasks are performed, and where images come from and results go to.

    Raises:
        ValueError: a setting is out of range, or two do not go together; the message names them.
    """

    worklist: str = setting(REQUIRED, "DICOMweb service that has the worklist (UPS-RS)", metavar="URL")
    queue: Path = setting(
        REQUIRED, "folder of what is being performed, made with mode 700; tasks are in it until they are done"
    )
    archive: str = setting(
        "",
        "DICOMweb service that has the images (WADO-RS) and gets the results (STOW-RS); the worklist's unless told",
        metavar="URL",
    )
    retrieve_from: tuple[str, ...] = setting(
        (),
        "further services that images may be fetched from when a task names them; the archive is asked else",
        metavar="URL",
    )
    workitem_code: tuple[str, ...] = setting(
        (), "what is performed: tasks with one of these codes, such as 110004^DCM", metavar="VALUE^SCHEME"
    )
    station: str = setting(
        "",
        "own code as a station: tasks for other stations are left to them, and without --workitem-code and --label "
        "those for none in particular, too",
        metavar="VALUE^SCHEME^MEANING",
    )
    label: str = setting("", "what is performed: tasks of the worklist with this label", metavar="LABEL")
    title: str = setting("STROKESERVE", "own application entity title", metavar="TITLE")
    title_in_path: bool = setting(False, "name the title when a task's state is changed, as dcm4chee wants it")
    events: bool = setting(
        False, "listen to the worklist (WebSocket), so that requests to cancel a task arrive; else they do not"
    )
    poll_seconds: float = setting(10.0, "between two looks for tasks", least=0.5, most=3600)
    once: bool = setting(False, "perform what there is, and end; for cron")
    tasks: int = setting(2, "tasks that are performed at the same time", least=1, most=16)
    most_images: int = setting(5000, "images of one task", least=1, most=20_000)
    instance_mb: int = setting(64, "largest instance, in MB", least=1, most=2000)
    study_mb: int = setting(4000, "all images of one task, in MB", least=1, most=100_000)
    least_free_mb: int = setting(
        500, "room that the disk must have left, otherwise nothing is fetched", least=1, most=10**6
    )
    give_up_hours: float = setting(
        24.0,
        "how long server and archive are tried again before a task is canceled, with the reason",
        least=0.001,
        most=1000,
    )
    web_ca: Path | None = setting(
        None, "authorities that vouch for worklist and archive; those of this machine unless told", metavar="FILE"
    )
    web_token: Path | None = setting(
        None, "file with a bearer token for worklist and archive, read again before each request", metavar="FILE"
    )
    keep_days: float = setting(
        30.0, "how long it is remembered what was stored, and the worklist has it", least=0.01, most=365
    )
    log_level: str = setting("info", "what is logged", choices=("debug", "info", "warning", "error"))
    log_format: str = setting("text", "what a line of the log looks like", choices=FORMATS)

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("worklist", "archive", "retrieve_from"):
            given = getattr(self, name)
            for url in filter(None, [given] if isinstance(given, str) else given):
                require(is_url(url), name, "is a URL with http:// or https://, without a query")
        require(bool(self.worklist), "worklist", "is a URL with http:// or https://")
        require(is_title(self.title), "title", "is 1 to 16 printable ASCII characters without a backslash")
        for name in ("workitem_code", "station"):
            given = getattr(self, name)
            for text in filter(None, [given] if isinstance(given, str) else given):
                is_code = all(text.split("^")[:2]) and text.count("^") in (1, 2)
                require(is_code, name, "is a code, its scheme, and if you like what it means: 110004^DCM")
        require(
            bool(self.workitem_code or self.station or self.label),
            "workitem_code",
            "is missing: or --station, or --label; a worklist may have tasks of all kinds",
        )

    @property
    def archive_url(self) -> str:
        """Where images are and results go."""
        return self.archive or self.worklist

    @property
    def takes_unassigned(self) -> bool:
        """Whether tasks for no station in particular are performed: only where something else says which."""
        return bool(self.workitem_code or self.label)

    @property
    def codes(self) -> tuple[Code, ...]:
        """What is performed."""
        return tuple(map(read_code, self.workitem_code))

    @property
    def station_code(self) -> Code:
        """What the worklist is told of who performed a task."""
        return read_code(self.station or f"{self.title}^99STROKESERVE")


def read_code(text: str) -> Code:
    """Reads ``VALUE^SCHEME`` or ``VALUE^SCHEME^MEANING``."""
    value, scheme, meaning = f"{text}^".split("^")[:3]
    return Code(value, scheme, meaning or value)


def is_url(text: str) -> bool:
    """Whether it may be the base of a service."""
    try:
        find_origin(text)
    except ValueError:
        return False
    return text.isascii() and text.isprintable() and not {" ", "?", "#"} & set(text)
