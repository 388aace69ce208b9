"""Which classes synthetic slices are put into: the slices are the same, only their folders and labels differ."""

from __future__ import annotations

from collections.abc import Sequence

NORMAL, STROKE, HAEMORRHAGE, ISCHAEMIA = "normal", "stroke", "haemorrhage", "ischaemia"
CLASSES = (NORMAL, STROKE, HAEMORRHAGE, ISCHAEMIA)
TWO_CLASSES, THREE_CLASSES = (NORMAL, STROKE), (NORMAL, HAEMORRHAGE, ISCHAEMIA)


def order_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Returns ``TWO_CLASSES`` or ``THREE_CLASSES``, whichever is meant, in whatever order.

    Raises:
        ValueError: it is neither, so that a slice would have no class, or two.
    """
    for known in (TWO_CLASSES, THREE_CLASSES):
        if sorted(classes) == sorted(known):
            return known
    raise ValueError(
        f"classes must be {' or '.join(map(','.join, (TWO_CLASSES, THREE_CLASSES)))}, not {','.join(classes)}"
    )


def choose_class(kind: str | None, classes: Sequence[str]) -> str:
    """Returns the class of a slice by the kind of its lesion, None where it has none."""
    if kind is None:
        return NORMAL
    if STROKE in classes:
        return STROKE
    return ISCHAEMIA if kind == "infarct" else HAEMORRHAGE
