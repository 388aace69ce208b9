"""What ``python -m gateway judge`` can be told, each thing defined once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, check_settings, require, setting

MOST_FILES = 20_000


@dataclass(frozen=True)
class JudgeConfig:
    """A folder, and where its results go.

    Raises:
        ValueError: a setting is out of range, or the folders do not go together; the message names them.
    """

    folder: Path = setting(REQUIRED, "folder of DICOM files, with all below it", metavar="IN", positional=True)
    out: Path = setting(REQUIRED, "folder that gets the results; made where there is none")
    again: bool = setting(False, "judge studies, too, whose results are there of the same images")
    most_files: int = setting(MOST_FILES, "files that a folder may have", least=1, most=10**7)
    json: bool = setting(False, "print what result.json has, and which studies have no result")

    def __post_init__(self) -> None:
        check_settings(self)
        require(self.folder.is_dir(), "folder", f"{self.folder} is no folder")
        inside = self.out.resolve().is_relative_to(self.folder.resolve())
        require(not inside, "out", "must not be in the folder that is judged: its results would be judged with it")
