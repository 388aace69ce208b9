"""What a series must be to be judged: rules with a meaning and a range each, which an operator can change."""

from __future__ import annotations

from dataclasses import dataclass

from server.flags import list_settings, setting

MOST_PATTERN = 40
"""Characters of a pattern or a word."""

MOST_PATTERNS = 200

BONE_KERNELS = (
    *("*BONE*", "*LUNG*", "*EDGE*", "*SHARP*", "*INNER*EAR*", "*PETROUS*"),  # GE, Canon's AiCE, and as people say it
    *("[BHJQTU]*5[5-9]*", "[BHJQTU]*[6-9][0-9]*"),  # Siemens: B70f, H60s, J70h, Hr59, Hr64: the number is the sharpness
    *("FC3[0-9]*", "FC5[0-9]*", "FC8[0-9]*"),  # Canon, Toshiba: bone, lung, inner ear
    *("D", "E", "L", "YC", "YD", "EC"),  # Philips
)
BRAIN_KERNELS = (
    *("*BRAIN*", "*HEAD*", "SOFT", "STANDARD", "STND", "DETAIL"),  # GE, Canon's AiCE
    *("[HJ][1-4][0-9]*", "H[CRV][1-4][0-9]*", "Q[R][1-4][0-9]*"),  # Siemens: H31s, J40s, Hr38, Hc40, Qr40
    *("FC2[0-9]*", "FC4[1-4]*", "FC6[2-9]*"),  # Canon, Toshiba: head with and without correction of beam hardening
    *("UA", "UB", "UC"),  # Philips
)


@dataclass(frozen=True)
class SeriesRules:
    """All rules. Those that are no choice are not here: CT alone, no localizers, no enhanced and derived maps.

    Raises:
        ValueError: a value is out of range; the text names it.
    """

    body_parts: tuple[str, ...] = setting(("HEAD", "BRAIN"), "values of Body Part Examined (0018,0015) that are judged")
    may_lack_body_part: bool = setting(True, "judge a series that does not say which part of the body it shows")
    may_have_contrast: bool = setting(False, "judge a series with a contrast agent (0018,0010)")
    contrast_words: tuple[str, ...] = setting(
        ("CTA", "CTV", "CTP", "ANGIO", "ANGIOGRAPHY", "PERFUSION", "VENOGRAPHY"),
        "words of a series' description that say the same, since many files leave the agent out",
    )
    may_be_derived: bool = setting(
        False, "judge images that were computed from others (DERIVED, SECONDARY, MPR, MIP in 0008,0008)"
    )
    most_angle_degrees: float = setting(
        35.0,
        "largest angle between the slices' normal and the body's axis that is still axial: gantries tilt by 30",
        least=0,
        most=60,
    )
    least_thickness_mm: float = setting(0.625, "thinnest slices (0018,0050) that are judged", least=0, most=50)
    most_thickness_mm: float = setting(5.0, "thickest ones", least=0, most=50)
    preferred_thickness_mm: float = setting(
        5.0, "of several series that could be judged, the one whose slices are nearest to this", least=0, most=50
    )
    least_slices: int = setting(8, "slices that a series must have, each place counted once", least=1, most=1000)
    bone_kernels: tuple[str, ...] = setting(
        BONE_KERNELS, "patterns (* ? []) of convolution kernels (0018,1210) that are made for bone: left out"
    )
    brain_kernels: tuple[str, ...] = setting(
        BRAIN_KERNELS, "patterns of those made for brain: preferred to kernels that are in neither list"
    )

    def __post_init__(self) -> None:
        for one in list_settings(SeriesRules):
            value = getattr(self, one.name)
            one.check(value, f"'{one.name}'")
            if isinstance(value, tuple):
                check_words(one.name, value)
        if self.least_thickness_mm > self.most_thickness_mm:
            raise ValueError("'least_thickness_mm' must not be above 'most_thickness_mm'")


def check_words(name: str, words: tuple[str, ...]) -> None:
    """Bounds a list of words.

    Raises:
        ValueError: there are too many, or one is empty or too long.
    """
    if len(words) > MOST_PATTERNS or not all(0 < len(word) <= MOST_PATTERN and word.isprintable() for word in words):
        raise ValueError(f"'{name}' must be at most {MOST_PATTERNS} words of 1 to {MOST_PATTERN} characters")


DEFAULT_RULES = SeriesRules()


def render_table() -> str:
    """The rules as a table in Markdown, for the documentation."""
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]
    for one in list_settings(SeriesRules):
        shown = ", ".join(f"`{word}`" for word in one.default) if one.is_many else str(one.default).lower()
        rows.append(f"| `{one.name}` | {shown} | {one.meaning} |")
    return "\n".join(rows)
