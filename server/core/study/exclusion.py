"""Why a slice is not judged at all: what its header says, against the rules of series.

What a file says in text is compared with words and never repeated: it may name people. Only numbers are shown, and
words that are known here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from server.core.study.geometry import find_angle, find_normal
from server.core.study.rules import SeriesRules
from server.images.dicom.header import SliceHeader

CT = "CT"
MODALITIES = ("MR", "PT", "NM", "CR", "DX", "MG", "US", "XA", "RF", "OT", "SC", "SEG", "SR", "PR", "RTSTRUCT")
"""Others that are called by name."""

BODY_PARTS = (
    *("HEADNECK", "NECK", "SKULL", "FACE", "SINUS", "ORBIT", "EAR", "JAW", "CHEST", "LUNG", "HEART", "ABDOMEN"),
    *("PELVIS", "SPINE", "CSPINE", "TSPINE", "LSPINE", "SHOULDER", "ARM", "ELBOW", "WRIST", "HAND", "HIP", "LEG"),
    *("KNEE", "ANKLE", "FOOT", "EXTREMITY", "WHOLEBODY", "BREAST", "LIVER", "KIDNEY"),
)
"""Parts that are called by name."""

LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SURVIEW"})
DERIVED = frozenset({"DERIVED", "SECONDARY", "MPR", "MIP", "MINIP", "REFORMATTED", "VRT", "PROJECTION", "SCREEN"})
AXIAL = "AXIAL"
NO_AGENT = frozenset({"", "NONE", "NO", "0"})
THICKNESS_ROUNDING = 0.001


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Why a slice, or a series, is left out."""

    reason: str
    wants: str
    """What the rule wants, as the end of a sentence that begins with "The rule wants"."""

    has: str
    """What there is instead, as the end of one that begins with "this has"."""


Check = Callable[[SliceHeader, SeriesRules], str]
"""Returns what a slice has that a rule does not want; empty: nothing."""


def find_exclusion(header: SliceHeader, rules: SeriesRules) -> Exclusion | None:
    """The first reason why a slice is left out, whatever its pixels show; None: it is to be judged."""
    for reason, check, describe in CHECKS:
        if has := check(header, rules):
            return Exclusion(reason, describe(rules), has)
    return None


def check_modality(header: SliceHeader, rules: SeriesRules) -> str:
    if header.modality.upper() == CT:
        return ""
    return find_known(header.modality, MODALITIES) or "another modality, or none that is stated"


def check_localizer(header: SliceHeader, rules: SeriesRules) -> str:
    found = LOCALIZERS & split_words((*header.image_type, header.series_description))
    return f"a localizer ({min(found)})" if found else ""


def check_derived(header: SliceHeader, rules: SeriesRules) -> str:
    if rules.may_be_derived:
        return ""
    found = DERIVED & split_words(header.image_type)
    if header.is_lossy:  # whoever compresses must call the slice derived (PS3.3 C.7.6.1.1.2)
        found -= {"DERIVED"}
    return f"images of type {min(found)}" if found else ""


def check_body_part(header: SliceHeader, rules: SeriesRules) -> str:
    part = header.body_part.strip().upper()
    if not part:
        return "" if rules.may_lack_body_part else "no part of the body stated"
    if part in map(str.upper, rules.body_parts):
        return ""
    return find_known(part, BODY_PARTS) or "another part"


def check_contrast(header: SliceHeader, rules: SeriesRules) -> str:
    if rules.may_have_contrast:
        return ""
    if header.contrast_agent.strip().upper() not in NO_AGENT:
        return "a contrast agent stated"
    found = split_words([header.series_description]) & set(map(str.upper, rules.contrast_words))
    return f"the word {min(found)} in its description" if found else ""


def check_kernel(header: SliceHeader, rules: SeriesRules) -> str:
    pattern = find_pattern(header.kernel, rules.bone_kernels)
    return f"a kernel that fits {pattern!r}" if pattern else ""


def check_axial(header: SliceHeader, rules: SeriesRules) -> str:
    normal = find_normal(header.orientation)
    if normal is None:
        is_axial = AXIAL in split_words(header.image_type)
        return "" if is_axial else "no orientation that can be used"
    angle = find_angle(normal)
    return f"{angle:.0f} degrees" if angle > rules.most_angle_degrees else ""


def check_thickness(header: SliceHeader, rules: SeriesRules) -> str:
    thickness = header.slice_thickness
    if thickness is None or not thickness > 0:
        return ""  # what is not stated is told by the distance of the slices
    return describe_thickness(thickness, rules)


def describe_thickness(thickness: float, rules: SeriesRules) -> str:
    """What is wrong with a thickness; nothing where the rules take it."""
    if not thickness:
        return "no thickness that is stated or could be told"
    least, most = rules.least_thickness_mm - THICKNESS_ROUNDING, rules.most_thickness_mm + THICKNESS_ROUNDING
    return "" if least <= thickness <= most else f"slices of {thickness:.4g} mm"


def want_thickness(rules: SeriesRules) -> str:
    return f"slices of {rules.least_thickness_mm:g} to {rules.most_thickness_mm:g} mm"


CHECKS: tuple[tuple[str, Check, Callable[[SeriesRules], str]], ...] = (
    ("WRONG_MODALITY", check_modality, lambda rules: "CT"),
    ("LOCALIZER", check_localizer, lambda rules: "slices, no localizer"),
    ("DERIVED", check_derived, lambda rules: "images as they were reconstructed from the scan"),
    ("OTHER_BODY_PART", check_body_part, lambda rules: f"the part of the body to be {' or '.join(rules.body_parts)}"),
    ("CONTRAST", check_contrast, lambda rules: "a series without contrast"),
    ("BONE_KERNEL", check_kernel, lambda rules: "a kernel that is not made for bone"),
    (
        "NOT_AXIAL",
        check_axial,
        lambda rules: f"axial slices, at most {rules.most_angle_degrees:g} degrees from the body's axis",
    ),
    ("SLICE_THICKNESS", check_thickness, want_thickness),
)
"""Reasons in the order in which they are looked for."""


def find_known(text: str, words: tuple[str, ...]) -> str:
    """The word among ``words`` that a text is; empty: it is none."""
    return next((word for word in words if word == text.strip().upper()), "")


def find_pattern(kernels: Iterable[str], patterns: Iterable[str]) -> str:
    """The first pattern that one of the kernels fits, whatever their case; empty: none does."""
    names = [kernel.strip().upper()[:64] for kernel in kernels]
    return next((one for one in patterns if any(fnmatchcase(name, one.upper()) for name in names)), "")


def split_words(texts: Iterable[str]) -> set[str]:
    """All words of some texts, in capitals."""
    return {word for text in texts for word in re.split(r"[^A-Z0-9]+", text[:1024].upper())}
