"""Which series of a study go to the server, each thing defined once."""

from __future__ import annotations

from dataclasses import dataclass

from server.flags import check_settings, require, setting

MOST_PATTERNS, MOST_CHARACTERS = 32, 64


@dataclass(frozen=True)
class SelectionSettings:
    """What a site leaves out before the server chooses; without any of them it gets every CT series.

    Raises:
        ValueError: a setting is out of range, or two do not go together; the message names them.
    """

    series_description: tuple[str, ...] = setting(
        (),
        "patterns (* ? []) of the descriptions of series that go to the server, upper and lower case alike",
        metavar="PATTERN",
    )
    series_not_description: tuple[str, ...] = setting(
        (), "patterns of the descriptions of series that do not", metavar="PATTERN"
    )
    series_body_part: tuple[str, ...] = setting(
        (), "parts of the body, such as HEAD, of series that go there; so do those that state none", metavar="PART"
    )
    series_kernel: tuple[str, ...] = setting(
        (), "patterns of the kernels of series that go there; so do those that state none", metavar="PATTERN"
    )
    series_original: bool = setting(False, "no localizers, and no images that were computed from others")
    series_least_mm: float = setting(0.0, "thinnest slices of series that go there, in mm", least=0, most=50)
    series_most_mm: float = setting(50.0, "thickest ones, in mm", least=0, most=50)
    series_least_slices: int = setting(1, "slices that a series must have", least=1, most=1000)

    def __post_init__(self) -> None:
        check_settings(self)
        for name in ("series_description", "series_not_description", "series_body_part", "series_kernel"):
            patterns: tuple[str, ...] = getattr(self, name)
            is_short = all(0 < len(one) <= MOST_CHARACTERS and one.isprintable() for one in patterns)
            demand = f"is at most {MOST_PATTERNS} patterns of 1 to {MOST_CHARACTERS} printable characters"
            require(is_short and len(patterns) <= MOST_PATTERNS, name, demand)
        demand = f"must not be above --series-most-mm ({self.series_most_mm:g})"
        require(self.series_least_mm <= self.series_most_mm, "series_least_mm", demand)
