"""The receiver: who may call, what is offered, how long anybody may take."""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

from pynetdicom import AE, _config, evt

from gateway.receive.bounded import PDU_BYTES, BoundedServer
from gateway.receive.contexts import list_contexts
from gateway.receive.procedure_step import StepHandler
from gateway.receive.store import StoreHandler

logger = logging.getLogger(__name__)

ASSOCIATION_SECONDS = 15.0
"""For the request of an association after the connection, a TLS handshake included: health checks never send one."""

MESSAGE_SECONDS = 30.0
"""For an answer of the other side."""

IDLE_SECONDS = 120.0
"""Without a word on an association; scanners pause between series."""


@dataclass(frozen=True)
class ReceiverSettings:
    """How the receiver listens."""

    host: str
    port: int
    title: str
    allowed: tuple[str, ...]
    """Titles that may call; empty: any."""

    most_senders: int
    most_instance_bytes: int
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None


class Receiver:
    """Listens until ``close``.

    Args:
        settings: how.
        handler: takes instances.
        steps: takes what scanners tell of procedure steps.

    Raises:
        OSError: it cannot listen there, or a certificate cannot be read.
    """

    def __init__(self, settings: ReceiverSettings, handler: StoreHandler, steps: StepHandler) -> None:
        _config.LOG_HANDLER_LEVEL = "none"  # what it would log costs time, and is thrown away
        entity = AE(ae_title=settings.title)
        entity.maximum_pdu_size = PDU_BYTES
        entity.maximum_associations = settings.most_senders
        entity.acse_timeout = ASSOCIATION_SECONDS
        entity.dimse_timeout = MESSAGE_SECONDS
        entity.network_timeout = IDLE_SECONDS
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.allowed)
        self._server = BoundedServer(
            entity,
            (settings.host, settings.port),
            ae_title=settings.title,
            contexts=list_contexts(),
            ssl_context=make_context(settings),
            most_message_bytes=settings.most_instance_bytes,
            evt_handlers=[
                (evt.EVT_C_STORE, handler),
                (evt.EVT_N_CREATE, steps.create),
                (evt.EVT_N_SET, steps.change),
                (evt.EVT_REJECTED, note_rejection),
            ],
        )
        entity._servers.append(self._server)  # as AE.start_server does, which makes no other class of server
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def connections(self) -> int:
        """How many there are."""
        return self._server.count_connections()

    def close(self) -> None:
        """Accepts no more; associations that are there are ended."""
        self._server.shutdown()
        for association in self._server.active_associations:
            association.abort()


def make_context(settings: ReceiverSettings) -> ssl.SSLContext | None:
    """TLS as the settings want it; None: without.

    Raises:
        OSError: a file cannot be read, or is none of its kind.
    """
    if settings.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key)
    if settings.client_ca is not None:
        context.load_verify_locations(settings.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def note_rejection(event: evt.Event) -> None:
    """Says that somebody was turned away; titles are set by people and are no patients."""
    caller = event.assoc.requestor
    logger.warning("an association was rejected: it calls itself %r, from %s", caller.ae_title, caller.address)
