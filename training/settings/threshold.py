"""Settings of ``python -m training threshold``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, setting
from training.settings.listing import DataConfig

RULES = ("sensitivity", "specificity", "youden", "number")


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig(DataConfig):
    """Settings of ``python -m training threshold``.

    Raises:
        ValueError: naming the flag, when a value is out of range, or when there is not exactly one rule.
    """

    model: Path = setting(REQUIRED, "Model folder, such as models/stroke-cnn/4; it stays as it is.", positional=True)
    positive: tuple[str, ...] = setting(
        ("stroke",),
        "Labels of the positive images in DATA; where there is none of that name, 1, or else the model's own.",
        metavar="LABEL",
    )
    sensitivity: float | None = setting(
        None, "Least share of the positive images, and studies, of DATA that are to be found.", least=0.01, most=1
    )
    specificity: float | None = setting(
        None, "Least share of the others that are not to be called positive, as few as that allows.", least=0.01, most=1
    )
    youden: bool = setting(False, "The highest sum of sensitivity and specificity.")
    number: float | None = setting(None, "This threshold, whatever DATA says of it.", least=0, most=1)
    test: Path | None = setting(None, "Folder with other images, laid out as DATA, to measure the result on.")
    out: Path | None = setting(
        None, "NAME/VERSION below a models folder, where the result goes: the next version beside MODEL unless given."
    )
    dry_run: bool = setting(False, "Say what would be chosen, and write nothing.")
    json: bool = setting(False, "Print JSON instead of Markdown.")

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in RULES if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(f'--{name}' for name in RULES)}, not {len(given)} of them")

    @property
    def rule(self) -> str:
        """The rule, as ``training.evaluation.operating_point.parse_rule`` reads it."""
        if self.youden:
            return "youden"
        if self.number is not None:
            return f"{self.number!r}"
        name = "specificity" if self.sensitivity is None else "sensitivity"
        return f"{name}={getattr(self, name):g}"
