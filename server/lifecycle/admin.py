"""Where administrators reach a server: a socket that it need not be told of, and the main port for those who may.

Who may enter the folder of the socket may change what is served: that is the server's user alone, and root.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from server.admission.boundary import Boundary
from server.api.rpc.boundary import RpcBoundary
from server.api.rpc.listen import MOST_PATH_BYTES, PROBE_SECONDS, UNIX, Listener, bind
from server.core.plan import check_tuned
from server.machine.addresses import ListenError
from server.models.activation import Activator
from server.models.signature import read_trusted

if TYPE_CHECKING:
    from server.admission.inbox import Inbox
    from server.config import ServerConfig
    from server.core.outcomes import Journal
    from server.models.engine import EngineOptions
    from server.models.registry import ModelRegistry

logger = logging.getLogger(__name__)

PREFIX = "/stroke.admin.v1.Admin/"
SUFFIX = ".sock"
CALLS = 8
"""Of administrators, at the same time."""

MOST_BYTES = 64 * 1024
"""Of a message."""

MODE = 0o700
MOST_NAME = 40
"""Characters of an address in the name of its socket; a longer one is told by its digest."""


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


def name_socket(address: str) -> str:
    """The name of a server's socket; two servers that listen at the same time have different ones."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", address).strip("-")
    if len(name) > MOST_NAME or address.startswith(UNIX):
        name = f"socket-{hashlib.sha256(address.encode()).hexdigest()[:8]}"
    return name + SUFFIX


def prepare_folder(folder: Path) -> None:
    """Makes the folder, or looks whether the one that is there lets nobody else in.

    Raises:
        ListenError: it cannot be made, or others could be in it.
    """
    try:
        folder.mkdir(mode=MODE, parents=True, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise ListenError(f"{folder}: the folder for administrators cannot be made ({error.strerror})") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ListenError(
            f"{folder}: others could be administrators there: it must be a folder of this user with mode 700 (give "
            "another one with --admin)"
        )


def remove_stale(folder: Path) -> None:
    """Removes the sockets of servers that were killed."""
    for path in list_sockets(folder):
        if not is_alive(path):
            with suppress(OSError):
                path.unlink()


def list_sockets(folder: Path) -> list[Path]:
    """The sockets in a folder that only its owner may enter, who is this user, or anybody where this is root.

    Raises:
        OSError: it is not such a folder, or there is none.
    """
    found = os.lstat(folder)
    is_private = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o077
    if not is_private or os.geteuid() not in (found.st_uid, 0):
        raise PermissionError(f"{folder}: is no folder of this user with mode 700")
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if len(os.fsencode(path)) <= MOST_PATH_BYTES)


def is_alive(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # busy
            return True
    return True
