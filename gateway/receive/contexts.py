"""What is taken from senders: which objects, and how their pixels may be written."""

from __future__ import annotations

from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    ModalityPerformedProcedureStep,
    Verification,
)

KEPT = frozenset((CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage))
"""What is judged. Everything else of a study is taken, so that no sender has to sort, and not kept."""

UNCOMPRESSED = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2")
"""Explicit and Implicit VR Little Endian. They come first: a sender that offers them beside a compressed one unpacks
the pixels itself, which spares the server the slowest part of its work."""

_JPEG = "1.2.840.10008.1.2.4"
COMPRESSED = ("1.2.840.10008.1.2.5", *(f"{_JPEG}.{number}" for number in (57, 70, 80, 81, 90, 91, 201, 202, 203)))
"""What the server unpacks (docs/dicom.md)."""


class Contexts(list[PresentationContext]):
    """Contexts that associations share. pynetdicom copies them deeply for each connection, which would take longer than
    all the rest of it, and changes none."""

    def __deepcopy__(self, memo: object) -> Contexts:
        return self


def list_contexts() -> Contexts:
    """The presentation contexts that are accepted, the syntaxes of each in order of preference."""
    syntaxes = [*UNCOMPRESSED, *COMPRESSED]
    classes = {str(context.abstract_syntax) for context in AllStoragePresentationContexts} | KEPT
    contexts = [build_context(one, syntaxes) for one in sorted(classes)]
    others = [build_context(one, list(UNCOMPRESSED)) for one in (Verification, ModalityPerformedProcedureStep)]
    return Contexts([*others, *contexts])
