"""Where administrators reach a server: a socket that it need not be told of, and the main port for those who may.

Who may enter the folder of the socket may change what is served: that is the server's user alone, and root.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from server.admission.boundary import Boundary
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.listen import UNIX, Listener, bind
from server.core.plan import check_tuned
from server.lifecycle.sockets import name_socket, prepare_folder, remove_stale
from server.machine.addresses import ListenError
from server.models.activation import Activator
from server.models.signature import read_trusted

if TYPE_CHECKING:
    from server.admission.inbox import Inbox
    from server.config import ServerConfig
    from server.core.outcomes import Journal
    from server.models.engines.engine import EngineOptions
    from server.models.registry import ModelRegistry

logger = logging.getLogger(__name__)

PREFIX = "/stroke.admin.v1.Admin/"
CALLS = 8
"""Of administrators, at the same time."""

MOST_BYTES = 64 * 1024
"""Of a message."""


class AdminHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The service, made with its first call: most servers never get one."""

    def __init__(self, make: Callable[[], grpc.GenericRpcHandler]) -> None:
        self._make = make
        self._made: grpc.GenericRpcHandler | None = None

    def service(self, details: Any) -> Any:
        """See ``grpc.GenericRpcHandler``."""
        if not details.method.startswith(PREFIX):
            return None
        if self._made is None:
            self._made = self._make()
        return self._made.service(details)


class AdminPort:
    """The socket of a server."""

    def __init__(self, server: grpc.aio.Server, listener: Listener) -> None:
        self._server, self._listener = server, listener
        self._stop: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Removes the socket, and cuts off who is connected; a change that was begun goes on."""
        self._listener.close()
        self._stop = asyncio.ensure_future(self._server.stop(None))


def make_activator(config: ServerConfig, registry: ModelRegistry, options: EngineOptions) -> Activator:
    """What makes changes, within the settings of the server."""
    keys = config.require_signature
    read_keys = (lambda: read_trusted(keys)) if keys is not None else (lambda: None)
    return Activator(registry, config.models, options, read_keys, partial(check_tuned, config))


async def open_socket(
    config: ServerConfig,
    address: str,
    make: Callable[[RpcBoundary], grpc.GenericRpcHandler],
    inbox: Inbox,
    journal: Journal,
) -> AdminPort | None:
    """Opens the socket for administrators, who need no token: they are the server's user, or root. Returns None where
    there is to be none, and where it cannot be opened though nobody has asked for it: that keeps no server from
    starting.

    Args:
        config: the settings.
        address: where the server listens, after which the socket is named.
        make: the service.
        inbox: where messages are held.
        journal: is told what has come of calls.

    Raises:
        ListenError: it cannot be opened where the settings say.
    """
    folder = config.admin_folder
    if folder is None:
        return None
    boundary = RpcBoundary(Boundary(CALLS, journal), inbox)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MOST_BYTES)])
    server.add_generic_rpc_handlers((AdminHandlers(lambda: make(boundary)),))
    try:
        prepare_folder(folder)
        remove_stale(folder)
        listener = bind(server, f"{UNIX}{folder / name_socket(address)}", 0, 0o600)
    except ListenError as error:
        if config.admin != "auto":
            raise
        logger.warning("'python -m server model' will not find this server: %s", error)
        return None
    await server.start()
    return AdminPort(server, listener)
