"""pynetdicom's acceptor with bounds: on connections, on the size and the time of what comes, on handshakes.

pynetdicom (3.0.4) reads a PDU of any announced length, keeps a message of any length, waits without end for the rest
of a PDU, and lets one slow TLS handshake keep all others from connecting.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

PDU_BYTES = 256 * 1024
"""What senders are told to send at most in one piece; with pynetdicom's 16 kB a slice takes three times as long."""

MOST_PDU_BYTES = 1024 * 1024
"""What is read: a request for an association, with 128 contexts, may be longer than a piece of data."""

MOST_WAITING = 4
"""Messages of one association that may wait. A sender that keeps to the protocol waits for each answer."""

SPARE_CONNECTIONS = 16
"""Beyond associations, for health checks that connect and ask nothing."""

INVALID_PDU = "Evt19"
"""Ends an association as one that does not keep to the protocol (PS3.8, 9.2.2)."""


class BoundedSocket(AssociationSocket):
    """Reads whole PDUs, or raises."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Reads so many bytes; fewer when the other side has closed.

        Raises:
            OSError: more than any PDU has, or they do not come within the network timeout.
        """
        if nr_bytes > MOST_PDU_BYTES:
            raise OSError("a PDU is longer than any that was agreed on")
        connection, timeout = self.socket, self.assoc.network_timeout
        assert connection is not None
        assert timeout is not None
        end = time.monotonic() + timeout
        data, filled = bytearray(nr_bytes), 0
        view = memoryview(data)
        while filled < nr_bytes:
            connection.settimeout(max(end - time.monotonic(), 0.001))
            count = connection.recv_into(view[filled:])
            if not count:
                break
            filled += count
        connection.settimeout(timeout)
        return bytearray(view[:filled]) if filled < nr_bytes else data

    def _shutdown_socket(self) -> None:
        """Closes the connection, also where the other side has already left; pynetdicom would leave it open then."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class BoundedMessages(DIMSEServiceProvider):
    """Ends an association whose message becomes too long, or that sends without waiting for answers."""

    def __init__(self, association: Association, most_bytes: int, most_waiting: int) -> None:
        super().__init__(association)
        self._most_bytes, self._most_waiting = most_bytes, most_waiting

    def receive_primitive(self, primitive: P_DATA) -> None:
        super().receive_primitive(primitive)
        message, held = self.message, 0
        if message is not None and message.data_set is not None:
            held = message.data_set.tell() + message.encoded_command_set.tell()
        if held > self._most_bytes or self.msg_queue.qsize() > self._most_waiting:
            self.message = None
            self.dul.event_queue.put(INVALID_PDU)


def bound_association(association: Association, most_bytes: int, most_waiting: int) -> None:
    """Bounds what the other side of an association may send.

    Args:
        association: with a connection, and before its first message.
        most_bytes: longest message.
        most_waiting: messages that may wait.
    """
    association.dimse = BoundedMessages(association, most_bytes, most_waiting)
    connection: Any = association.dul.socket
    if connection is not None:  # the other side may have gone
        connection.__class__ = BoundedSocket  # made by pynetdicom, which has no place to say of what class


class BoundedHandler(RequestHandler):
    """Makes associations with the bounds."""

    server: BoundedServer

    def _create_association(self) -> Association:
        association = super()._create_association()
        bound_association(association, self.server.most_message_bytes, MOST_WAITING)
        self.server.add(association, self.client_address)
        return association


class BoundedServer(ThreadedAssociationServer):
    """Accepts connections, at most so many, and makes TLS handshakes in threads of their own.

    Args:
        ae: who is called: titles, timeouts, most associations.
        address: host and port.
        ssl_context: for TLS; None: without.
        most_message_bytes: longest message, its pixels included.
        options: what ``AssociationServer`` takes besides.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        ae: ApplicationEntity,
        address: tuple[str, int],
        *,
        ssl_context: ssl.SSLContext | None,
        most_message_bytes: int,
        **options: Any,
    ) -> None:
        self.most_message_bytes = most_message_bytes
        self._tls = ssl_context
        self._most = ae.maximum_associations + SPARE_CONNECTIONS
        self._changing = threading.Lock()
        self._beginning: set[Any] = set()  # addresses of connections that have no association yet
        self._associations: set[Association] = set()
        super().__init__(ae, address, request_handler=BoundedHandler, **options)

    def add(self, association: Association, address: Any) -> None:
        """Counts an association, in the place of its connection, until it ends."""
        with self._changing:
            self._beginning.discard(address)
            self._associations.add(association)

    def count_connections(self) -> int:
        """Connections that are there, or about to be."""
        with self._changing:
            self._associations = {one for one in self._associations if one.ident is None or one.is_alive()}
            return len(self._beginning) + len(self._associations)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for another connection; otherwise it is closed at once."""
        return self.count_connections() < self._most

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Accepts, without waiting for anything that the other side would have to say."""
        assert self.socket is not None
        connection, address = self.socket.accept()
        connection.settimeout(self.ae.acse_timeout)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begins a thread for a connection."""
        with self._changing:
            self._beginning.add(client_address)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Makes the handshake, in a thread of this connection."""
        connection = request
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(request, server_side=True)
            connection.settimeout(self.ae.network_timeout)
            self.finish_request(connection, client_address)
        except Exception:  # no handshake, no descriptor, no thread: the others go on
            self.shutdown_request(connection)  # of TLS the one that has the descriptor: the other gave it away
        finally:
            with self._changing:
                self._beginning.discard(client_address)
