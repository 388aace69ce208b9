"""Settings of ``python -m cluster score`` alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, check_settings, require, setting

MOST_FILES = 100_000
"""Of a partition, whose rows are in memory until it is written: about 1 kB each."""

MOST_WORKERS = 100_000


@dataclass(frozen=True)
class ScoreConfig:
    """What is set of an archive alone.

    Raises:
        ValueError: a value is out of range; the text names the setting.
    """

    input: str = setting(REQUIRED, "folder of PNG, JPEG and DICOM files, or URI of an object store", positional=True)
    out: str = setting(REQUIRED, "folder of the results, or a URI: Parquet parts, which the same command goes on with")
    manifest: Path | None = setting(
        None,
        "CSV table whose column file names what to judge, below INPUT; otherwise all that lies there",
        metavar="CSV",
    )
    partition_files: int = setting(
        1000, "files of a partition: what is judged by one process and written at once", least=1, most=MOST_FILES
    )
    address: str = setting("", "of the Ray cluster (auto: the one of this machine); empty: this machine alone")
    workers: int = setting(
        0, "processes that judge, one processor each; 0: one for each processor there is", least=0, most=MOST_WORKERS
    )
    json: bool = setting(False, "print the summary as one JSON object")

    def __post_init__(self) -> None:
        check_settings(self)
        require(bool(self.input and self.out), "out" if self.input else "input", "must not be empty")
