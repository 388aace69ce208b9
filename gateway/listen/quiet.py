"""Libraries that are not to speak: what they log or warn of repeats values of files, which may name a patient."""

from __future__ import annotations

import logging
import warnings

LIBRARIES = ("dicomweb_client", "highdicom", "pydicom", "pynetdicom", "websockets")


def quiet_libraries() -> None:
    """Has this process hear nothing of them but their exceptions."""
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
