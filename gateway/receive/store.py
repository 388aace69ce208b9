"""Answers to C-STORE: an instance is on disk before its sender hears of it."""

from __future__ import annotations

import logging

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from gateway.queue.arrivals import Arrivals, DiskFullError
from gateway.queue.folder import make_key, show
from gateway.receive.contexts import KEPT
from gateway.receive.instance import Instance, InstanceError, read_instance

logger = logging.getLogger(__name__)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CLASS_DIFFERS = 0xA900
NOT_UNDERSTOOD = 0xC000
"""Statuses of PS3.4, table B.2-1."""


class StoreHandler:
    """Takes instances into the queue.

    Args:
        arrivals: where they go.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals

    def __call__(self, event: Event) -> int:
        """Returns the status for the sender; it never raises."""
        file = event.encoded_dataset()
        try:
            instance = read_instance(file)
        except InstanceError as error:
            logger.warning("an instance was refused: %s", error)
            return NOT_UNDERSTOOD
        if (instance.sop_class, instance.sop) != find_announced(event):
            logger.warning("an instance was refused: its UIDs differ from those that its sender announced")
            return CLASS_DIFFERS
        study = show(make_key(instance.study))
        try:
            self._keep(instance, file, event.assoc)
        except DiskFullError:
            logger.error("study %s: no room for another instance; its sender was told", study)
            return OUT_OF_RESOURCES
        except OSError as error:
            logger.error("study %s: an instance cannot be written (%s); its sender was told", study, error.strerror)
            return OUT_OF_RESOURCES
        return SUCCESS

    def _keep(self, instance: Instance, file: bytes, sender: Association) -> None:
        """Puts an instance where it belongs.

        Raises:
            DiskFullError: there is no room.
            OSError: it cannot be written.
        """
        if instance.sop_class in KEPT:
            self._arrivals.put(instance.study, instance.sop, file, id(sender), sender.is_alive)
        else:
            self._arrivals.note_not_kept(
                instance.study, instance.series, instance.sop_class, id(sender), sender.is_alive
            )


def find_announced(event: Event) -> tuple[str, str]:
    """SOP class and instance as the message says."""
    request = event.request
    assert isinstance(request, C_STORE)
    return str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)
