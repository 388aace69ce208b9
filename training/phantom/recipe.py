"""What the generator of synthetic slices draws, as one list of switches that an ablation can turn off.

A finding has the same probability in both classes, so it says nothing about the class. A variation that is off leaves
its typical value. Every switch has a random stream of its own: turning one off changes nothing else in a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Recipe:
    """The switches; all are on unless told. The names are those of ``--without``."""

    calcification: bool = True
    """Calcified choroid plexus, pineal gland and basal ganglia, ossified falx."""
    bright_dura: bool = True
    """Falx, tentorium and dura brighter and thicker than usual."""
    sinuses: bool = True
    """Venous sinuses under the skull, as dense as a thin bleed."""
    streaks: bool = True
    """Beam hardening: the dark band and the streaks between the petrous bones."""
    metal: bool = True
    """Dental metal, clip or coil, with its star of streaks."""
    drain: bool = True
    """Ventricular drain or catheter."""
    surgery: bool = True
    """Burr hole, bone flap or missing bone, with what lies below it."""
    swelling: bool = True
    """Bruise or swelling of the scalp."""
    tumour: bool = True
    """Extra-axial mass, slightly dense or calcified, or a dark mass inside the brain."""
    old_infarct: bool = True
    """Old defect as dark as fluid."""
    white_matter: bool = True
    """Age-related dark change around the ventricles."""
    caps: bool = True
    """Bone partly in the slice: bright caps and linings that look like blood under the skull."""
    dense_vessels: bool = True
    """Arteries that are brighter than usual, as in thick blood."""
    motion: bool = True
    """Ghost or blur of a head that moved."""
    wide_window: bool = True
    """Windows far from level 40 and width 80."""
    kernel: bool = True
    """Reconstruction from soft to sharp; off: a medium one."""
    noise: bool = True
    """Amount and grain of noise; off: the usual ones."""
    resampling: bool = True
    """Acquired at another matrix and resized."""
    jpeg: bool = True
    """Recompressed as JPEG before."""
    gamma: bool = True
    """Grey curve and brightness of a display or an export."""
    pose: bool = True
    """Place, turn and size of the head in the field; off: upright in the middle."""
    table: bool = True
    """Head rest."""
    partial_volume: bool = True
    """Slices as thick as scanners make them, so that slanted bone fades into brain and air; off: without thickness."""

    def leave_out(self, names: Sequence[str]) -> Recipe:
        """Returns the recipe without the named parts.

        Raises:
            ValueError: a name is none of ``PARTS``.
        """
        for name in names:
            if name not in PARTS:
                raise ValueError(f"no part of the generator is called {name!r}; there are {', '.join(PARTS)}")
        return replace(self, **dict.fromkeys(names, False))

    def list_missing(self) -> list[str]:
        """The names of the parts that are off, in the order of ``PARTS``."""
        return [name for name in PARTS if not getattr(self, name)]


PARTS = tuple(field.name for field in fields(Recipe))
"""Names of all switches."""
FINDINGS: dict[str, float] = {
    "calcification": 0.55,
    "bright_dura": 0.25,
    "sinuses": 0.85,
    "streaks": 0.8,
    "metal": 0.06,
    "drain": 0.05,
    "surgery": 0.07,
    "swelling": 0.16,
    "tumour": 0.07,
    "old_infarct": 0.09,
    "white_matter": 0.25,
    "caps": 0.35,
    "dense_vessels": 0.15,
    "motion": 0.07,
    "jpeg": 0.35,
    "resampling": 0.45,
    "gamma": 0.3,
    "table": 0.65,
    "wide_window": 0.35,
}
"""Probability in one patient of each part that is present or not; the others are always varied."""
