"""Reads what a file says of its frames: in functional groups of an enhanced file (PS3.3, C.7.6.16), of the frame's own
or shared by all, or plainly in the data set of a file with one slice."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from server.images.dicom.elements import Elements
from server.images.dicom.header import SliceHeader

SOP_INSTANCE, STUDY, SERIES, MODALITY = 0x00080018, 0x0020000D, 0x0020000E, 0x00080060
IMAGE_TYPE, FRAME_TYPE, SERIES_DESCRIPTION = 0x00080008, 0x00089007, 0x0008103E
CONTRAST, CONTRAST_AGENTS, BODY_PART = 0x00180010, 0x00180012, 0x00180015
THICKNESS, TILT, KERNEL = 0x00180050, 0x00181120, 0x00181210
POSITION, ORIENTATION = 0x00200032, 0x00200037
CODE_MEANING = 0x00080104
SHARED, PER_FRAME = 0x52009229, 0x52009230

SLICE_TAGS = frozenset(
    (
        *(SOP_INSTANCE, STUDY, SERIES, MODALITY, IMAGE_TYPE, SERIES_DESCRIPTION, CONTRAST, CONTRAST_AGENTS, BODY_PART),
        *(THICKNESS, TILT, KERNEL, POSITION, ORIENTATION, SHARED),
    )
)
"""The elements of the data set that are looked at; those in groups are found from there."""

TYPE_GROUP, TILT_GROUP, KERNEL_GROUP = 0x00189329, 0x00189304, 0x00189314
POSITION_GROUP, ORIENTATION_GROUP, MEASURES_GROUP = 0x00209113, 0x00209116, 0x00289110
ANATOMY_GROUP, ANATOMIC_REGION = 0x00209071, 0x00082218


class FunctionalGroups:
    """The functional groups of a data set; those of one without any are the data set itself."""

    def __init__(self, elements: Elements, read_own: Callable[[int], list[Elements]]) -> None:
        """Reads those that all frames share.

        Args:
            elements: the data set.
            read_own: reads the groups of one frame, which counts from 0: one, or none where there are none.
        """
        self._elements = elements
        self._shared = elements.items(SHARED)[:1]
        self._read_own = lru_cache(maxsize=1)(read_own)

    def find(self, frame: int, group: int) -> Elements:
        """Returns the elements of a group for a frame, which counts from 0."""
        for place in (*self._read_own(frame), *self._shared):
            for item in place.items(group):
                return item
        return self._elements


def read_slice_header(
    elements: Elements, groups: FunctionalGroups, frame: int, *, is_only: bool, size: tuple[int, int], is_lossy: bool
) -> SliceHeader:
    """Returns what a file says of one of its frames.

    Args:
        elements: the data set.
        groups: its functional groups.
        frame: which, from 0.
        is_only: there is no other.
        size: rows and columns.
        is_lossy: its compression lost detail.
    """
    position = groups.find(frame, POSITION_GROUP).numbers(POSITION)
    orientation = groups.find(frame, ORIENTATION_GROUP).numbers(ORIENTATION)
    region = groups.find(frame, ANATOMY_GROUP).items(ANATOMIC_REGION)
    agents = elements.items(CONTRAST_AGENTS)
    return SliceHeader(
        sop_instance_uid=elements.uid(SOP_INSTANCE),
        series_instance_uid=elements.uid(SERIES),
        study_instance_uid=elements.uid(STUDY),
        modality=elements.text(MODALITY),
        image_type=groups.find(frame, TYPE_GROUP).texts(FRAME_TYPE) or elements.texts(IMAGE_TYPE),
        frame=0 if is_only else frame + 1,
        rows=size[0],
        columns=size[1],
        body_part=elements.text(BODY_PART) or "".join(item.text(CODE_MEANING) for item in region[:1]),
        series_description=elements.text(SERIES_DESCRIPTION),
        kernel=groups.find(frame, KERNEL_GROUP).texts(KERNEL),
        contrast_agent=elements.text(CONTRAST) or "".join(item.text(CODE_MEANING) or "stated" for item in agents[:1]),
        slice_thickness=groups.find(frame, MEASURES_GROUP).number(THICKNESS),
        position=position if len(position) == 3 else None,
        orientation=orientation if len(orientation) == 6 else None,
        gantry_tilt=groups.find(frame, TILT_GROUP).number(TILT),
        is_lossy=is_lossy,
    )
