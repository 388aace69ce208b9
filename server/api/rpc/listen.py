"""Listening: one address or one socket file, and a sentence that is true where that cannot be.

gRPC says "Failed to bind" whatever has happened. So when it does, a plain socket is bound in the same way, only to hear
the reason from the system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from server.machine.addresses import ListenError, check_reach, describe_error, resolve_host

UNIX = "unix:"
"""Begins a host that is the path of a socket."""

MOST_PATH_BYTES = 107
"""Linux has 108 for the path of a socket, with a zero at the end (unix(7))."""

PROBE_SECONDS = 1.0
LOCK_SECONDS = 5.0
STAY = "--host 127.0.0.1 or --host unix:/PATH"


class Server(Protocol):
    """What is needed of ``grpc.Server`` and of ``grpc.aio.Server``."""

    def add_insecure_port(self, address: str) -> int:
        """Listens, and returns the port."""

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listens with TLS, and returns the port."""


@dataclass(frozen=True)
class Listener:
    """Where a server listens."""

    address: str
    """As callers name it."""

    socket_file: Path | None = None
    socket_id: tuple[int, int] = (0, 0)
    """Device and inode of the socket file, by which it is known as ours."""

    def close(self) -> None:
        """Removes the socket file if it is still ours: another server may have taken its place since. Never raises.

        To be called when the server begins to stop; the connections that there are go on.
        """
        if self.socket_file is not None:
            with contextlib.suppress(OSError):
                if identify(self.socket_file) == self.socket_id:
                    self.socket_file.unlink()


def bind(
    server: Server,
    host: str,
    port: int,
    socket_mode: int = 0o600,
    *,
    credentials: grpc.ServerCredentials | None = None,
    is_insecure: bool = False,
) -> Listener:
    """Listens.

    Args:
        server: of gRPC, with threads or with an event loop.
        host: one address or name, or ``unix:PATH``.
        port: 0 for a free one; a socket has none.
        socket_mode: file mode of a socket: who may write to it may call.
        credentials: of TLS; None: plain text.
        is_insecure: plain text may leave this machine.

    Raises:
        ListenError: it cannot be listened there.
    """
    try:
        if host.startswith(UNIX):
            return bind_socket_file(server, host, socket_mode, credentials)
        return bind_port(server, host, port, credentials, is_insecure)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}: {error.strerror or error}") from None


def add_port(server: Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Listens at an address in gRPC's form, and returns the port.

    Raises:
        RuntimeError: it cannot.
    """
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials)


def bind_port(
    server: Server, host: str, port: int, credentials: grpc.ServerCredentials | None, is_insecure: bool
) -> Listener:
    """Listens on one numeric address: of several that a name has, gRPC would be content with any, and two servers
    could share ``localhost``."""
    family, address = resolve_host(host)
    shown = f"[{address}]" if family == socket.AF_INET6 else address
    check_reach(host, address, is_protected=credentials is not None or is_insecure, stay=STAY)
    try:
        bound = add_port(server, f"{escape_percent(shown)}:{port}", credentials)
    except RuntimeError:
        bound = 0
    if bound:
        return Listener(f"{shown}:{bound}")
    reason = explain_port(family, address, port)
    raise ListenError(f"cannot listen on {shown}:{port}: {reason}")


def explain_port(family: socket.AddressFamily, address: str, port: int) -> str:
    """Why a port cannot be had: asked of the system with a plain socket, bound as gRPC binds its own."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(socket.getaddrinfo(address, port, family, socket.SOCK_STREAM)[0][4])
            probe.listen(1)
    except OSError as error:
        return describe_error(error, family, address)
    return "gRPC has refused it, and the system would not; choose another with --port (0 takes a free one)"


def bind_socket_file(server: Server, host: str, mode: int, credentials: grpc.ServerCredentials | None) -> Listener:
    """Listens on a socket file. It has its mode from the first moment, and takes its name when it is complete.

    gRPC binds it under another name, for it removes that name when it stops, whatever is there by then.
    """
    path = read_path(host)
    with lock_folder(host, path.parent):
        check_free(host, path)
        bound = path.parent / f".{uuid.uuid4().hex[:8]}"
        if len(os.fsencode(bound)) > MOST_PATH_BYTES:
            bound = path  # a long folder: gRPC then removes it by itself
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        before = os.umask(0o777 & ~mode)
        try:
            add_port(server, UNIX + escape_percent(str(bound)), credentials)
        except RuntimeError:
            raise ListenError(f"cannot listen on {host}: {explain_path(bound)}") from None
        finally:
            os.umask(before)
        try:
            os.chmod(bound, mode)  # where the folder has a default ACL, the mask was not asked
            if bound != path:
                os.rename(bound, path)
            return Listener(host, path, identify(path))
        except OSError as error:
            with contextlib.suppress(OSError):
                bound.unlink()
            raise ListenError(f"cannot listen on {host}: {error.strerror}") from None


def read_path(host: str) -> Path:
    """The path in ``unix:PATH`` or ``unix:///PATH``.

    Raises:
        ListenError: it cannot be that of a socket.
    """
    text = host.removeprefix(UNIX)
    if text.startswith("//"):
        text = text[2:]
    if not text or text.endswith("/"):
        raise ListenError(f"cannot listen on {host}: it names no file; write --host unix:/PATH/NAME")
    size = len(os.fsencode(text))
    if size > MOST_PATH_BYTES:
        raise ListenError(
            f"cannot listen on {host}: the path has {size} bytes, that of a socket at most {MOST_PATH_BYTES}; choose a "
            "shorter one"
        )
    return Path(text)


@contextlib.contextmanager
def lock_folder(host: str, folder: Path) -> Iterator[None]:
    """Keeps other servers that start from looking and binding in the same folder at the same time.

    Raises:
        ListenError: there is no such folder, or it may not be used.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise ListenError(f"cannot listen on {host}: there is no folder {folder}; make it first") from None
    except NotADirectoryError:
        raise ListenError(f"cannot listen on {host}: {folder} is not a folder") from None
    except PermissionError:
        # It may still be written to. Then two that start at the same time are not told apart, which is rare enough.
        yield
        return
    try:
        end = time.monotonic() + LOCK_SECONDS
        while time.monotonic() < end:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)


def check_free(host: str, path: Path) -> None:
    """Looks at what has the name of the socket: only what a server that was killed has left may be replaced.

    Raises:
        ListenError: it is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except PermissionError:
        raise ListenError(f"cannot listen on {host}: permission denied for the folder {path.parent}") from None
    if not stat.S_ISSOCK(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a link" if stat.S_ISLNK(mode) else "another file"
        raise ListenError(f"cannot listen on {host}: {kind} is in the way; choose another path with --host")
    in_use = f"cannot listen on {host}: another server listens there; choose another path with --host"
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return
        except FileNotFoundError:  # its server has just ended
            return
        except PermissionError:
            raise ListenError(
                f"cannot listen on {host}: permission denied for the socket that is there: it belongs to another user"
            ) from None
        except OSError:  # busy, or of another kind: in use in any case
            raise ListenError(in_use) from None
    raise ListenError(in_use)


def explain_path(path: Path) -> str:
    """Why a socket cannot be made: asked of the system with a plain one."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(os.fspath(path))
        path.unlink()
    except PermissionError:
        return f"permission denied: this user may not write to the folder {path.parent}"
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another server listens there"
        return f"{path.parent}: {error.strerror or error}"
    return "gRPC has refused it, and the system would not"


def identify(path: Path) -> tuple[int, int]:
    """Device and inode."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def escape_percent(address: str) -> str:
    """gRPC reads addresses as percent-encoded; a file may have any name."""
    return address.replace("%", "%25")
