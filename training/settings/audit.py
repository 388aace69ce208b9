"""Settings of ``python -m training audit``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, setting
from training.settings.listing import MOST_SEED, ListingConfig, WindowConfig


@dataclass(frozen=True, kw_only=True)
class AuditConfig(WindowConfig, ListingConfig):
    """Settings of ``python -m training audit``."""

    data: Path = setting(
        REQUIRED,
        "Folder with one folder of PNG, JPEG or DICOM slices per class, or with a labels.csv.",
        positional=True,
    )
    out: Path = setting(Path("audit"), "Folder for audit.md and audit.png; earlier ones in it are not overwritten.")
    strict: bool = setting(
        False,
        "Fail with exit code 2 when an image cannot be decoded; otherwise such images are listed and left out.",
    )
    json: bool = setting(False, "Print everything as JSON.")
    seed: int = setting(7, "Seed of the leakage test's folds.", least=0, most=MOST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_windows()
