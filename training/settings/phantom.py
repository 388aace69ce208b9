"""Settings of ``python -m training phantom``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from server.flags import REQUIRED, check_settings, require, setting
from server.images.dicom.window import read_windows
from training.phantom.classes import CLASSES, THREE_CLASSES, TWO_CLASSES, order_classes
from training.phantom.recipe import PARTS
from training.settings.listing import MOST_SEED

MOST_PROCESSES = 1024


@dataclass(frozen=True, kw_only=True)
class PhantomConfig:
    """Settings of ``python -m training phantom``."""

    out: Path = setting(REQUIRED, "Folder to write; it must not exist or be empty.")
    count: int = setting(REQUIRED, "Number of slices, half of them normal.", least=2, most=10_000_000)
    seed: int = setting(7, "Seed of all slices: the same seed and count give the same files.", least=0, most=MOST_SEED)
    size: int = setting(256, "Side of a slice, in pixels.", least=32, most=8192)
    processes: int | None = setting(
        None,
        "Processes that draw slices; as many as there are processors unless told.",
        least=1,
        most=MOST_PROCESSES,
    )
    slices_per_patient: int = setting(
        1,
        "Slices of each drawn head; with more than one, files are named '<patient> (<slice>).png'.",
        metavar="COUNT",
        least=1,
        most=1000,
    )
    classes: tuple[str, ...] = setting(
        TWO_CLASSES,
        f"What the same slices are labelled as: {','.join(TWO_CLASSES)}, or {','.join(THREE_CLASSES)}.",
        choices=CLASSES,
        separator=",",
        metavar="LABEL,LABEL",
    )
    without: tuple[str, ...] = setting(
        (),
        f"Parts of the generator to leave out, for an ablation: {', '.join(PARTS)}.",
        choices=PARTS,
        metavar="NAME",
    )
    dicom: bool = setting(
        False,
        "Writes CT values as DICOM files (CT Image Storage); needs pydicom. With several slices a patient, each is a "
        "study of the whole head in a folder of its own, every other with a stroke.",
    )
    window: str | None = setting(
        None,
        "Writes the same CT values as PNG in this window, in Hounsfield units: without it and --dicom, windows vary as "
        "loosely as hospitals keep them.",
        metavar="LEVEL,WIDTH",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        try:
            order_classes(self.classes)
        except ValueError as error:
            raise ValueError(f"--{error}") from None
        require(not (self.dicom and self.window), "window", "is for PNG, not for --dicom")
        read_windows((self.window,) if self.window else ())
