"""Settings of ``python -m training card``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, setting


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """Settings of ``python -m training card``."""

    run: Path = setting(REQUIRED, "Run folder whose model_card.md and spec.json are written.", positional=True)
    facts: Path | None = setting(
        None,
        "JSON file with facts that the run has not recorded, or has recorded wrongly; they are kept in the run.",
    )
