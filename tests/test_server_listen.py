"""Listening: the true reason where it cannot be, and socket files that are nobody else's."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from server.api.rpc import listen
from server.api.rpc.listen import Listener, bind
from server.machine.addresses import ListenError, describe_error
from tests.fakes import run_module, run_server


@contextmanager
def open_server() -> Iterator[grpc.Server]:
    """A gRPC server without methods."""
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        try:
            yield server
        finally:
            server.stop(None).wait(10)


def refuse(host: str, port: int = 0) -> str:
    """Returns why it cannot be listened there."""
    with open_server() as server, pytest.raises(ListenError) as refusal:
        bind(server, host, port, is_insecure=True)
    message = str(refusal.value)
    assert message.startswith("cannot listen on ")
    assert "\n" not in message
    return message


def test_port_is_listened_on() -> None:
    """Numeric, with the port that was taken."""
    with open_server() as server:
        listener = bind(server, "localhost", 0)

        host, _, port = listener.address.rpartition(":")
        assert host == "127.0.0.1"
        socket.create_connection((host, int(port))).close()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("no-such-host.invalid", "name"),
        ("127.0.0.1:50051", "--host takes no port"),
        ("a" * 70 + ".example", "neither a name nor an address"),
        ("192.0.2.1", "the address is not one of this machine"),
        ("2001:db8::1", "IPv6|the address is not one of this machine"),
    ],
)
def test_wrong_host_is_not_called_a_taken_port(host: str, reason: str) -> None:
    """Each has a sentence of its own."""
    message = refuse(host)

    assert re.search(reason, message), message
    assert "taken" not in message


def test_taken_port_is_said() -> None:
    """Whoever holds it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()

        assert "the port is taken" in refuse("127.0.0.1", holder.getsockname()[1])


@pytest.mark.parametrize(
    ("number", "family", "address", "reason"),
    [
        (errno.EACCES, socket.AF_INET, "127.0.0.1", "ports below 1024"),
        (errno.EPERM, socket.AF_INET, "127.0.0.1", "forbids"),
        (errno.EAFNOSUPPORT, socket.AF_INET6, "fd00::1", "no IPv6"),
        (errno.EADDRNOTAVAIL, socket.AF_INET6, "::1", "no IPv6"),
        (errno.EADDRNOTAVAIL, socket.AF_INET6, "fd00::1", "not one of this machine"),
        (errno.EMFILE, socket.AF_INET, "127.0.0.1", "Too many open files"),
    ],
)
def test_each_reason_of_the_system_has_its_sentence(
    number: int, family: socket.AddressFamily, address: str, reason: str
) -> None:
    """Those too that cannot be had on every machine that runs this test."""
    assert reason in describe_error(OSError(number, os.strerror(number)), family, address)


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_socket_has_its_mode_from_the_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """Whatever the mask of the process is; and nothing stays beside it, nor after it."""
    seen: list[int] = []
    chmod = os.chmod

    def look(path: Path, wanted: int) -> None:
        seen.append(stat.S_IMODE(os.stat(path).st_mode))
        chmod(path, wanted)

    monkeypatch.setattr(listen.os, "chmod", look)
    mask = os.umask(0)
    try:
        with open_server() as server:
            listener = bind(server, f"unix:{tmp_path}/a%41 #?.sock", 0, mode)
            path = tmp_path / "a%41 #?.sock"
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert seen == [mode]
            assert list(tmp_path.iterdir()) == [path]
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
            assert os.umask(0) == 0
            listener.close()
    finally:
        os.umask(mask)
    assert list(tmp_path.iterdir()) == []


def test_stale_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    """What a killed server has left is in nobody's way."""
    host, path = f"unix:{tmp_path}/s", tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_server() as server:
        bind(server, host, 0)

        assert "another server listens there" in refuse(host)
        assert path.is_socket()


def test_busy_or_foreign_socket_is_in_use(tmp_path: Path) -> None:
    """Its backlog may be full, or it takes datagrams: it is not ours to remove."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as caller:
        busy.bind(str(tmp_path / "busy"))
        busy.listen(0)
        caller.connect(str(tmp_path / "busy"))
        assert "another server listens there" in refuse(f"unix:{tmp_path}/busy")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(str(tmp_path / "log"))
        assert "another server listens there" in refuse(f"unix:{tmp_path}/log")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes", "another file is in the way"),
        ("folder", "a folder is in the way"),
        ("link", "a link is in the way"),
        ("missing/s", "there is no folder"),
        ("notes/s", "is not a folder"),
        ("x" * 108, "at most 107"),
        ("folder/", "names no file"),
    ],
)
def test_unusable_path_says_why(tmp_path: Path, name: str, reason: str) -> None:
    """And what is there stays as it is."""
    (tmp_path / "notes").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")

    assert reason in refuse(f"unix:{tmp_path}/{name}")
    assert (tmp_path / "notes").read_text() == "precious"
    assert (tmp_path / "link").is_symlink()


def test_closed_folder_is_permission_denied(tmp_path: Path) -> None:
    """Asked as a user who is not root."""
    if os.getuid():
        pytest.skip("only root can become another user for a moment")
    tmp_path.chmod(0o755)
    os.seteuid(65534)
    try:
        message = listen.explain_path(tmp_path / "s")
    finally:
        os.seteuid(0)

    assert message.startswith("permission denied")


def test_socket_of_another_server_is_left_at_the_end(tmp_path: Path) -> None:
    """Ours was removed and another took the name: neither we nor gRPC remove that."""
    path = tmp_path / "s"
    with open_server() as server:
        listener = bind(server, f"unix:{path}", 0)
        path.unlink()
        with open_server() as other:
            bind(other, f"unix:{path}", 0)
            listener.close()
            server.stop(None).wait(10)

            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
    Listener(f"unix:{path}", path, (0, 0)).close()


def test_long_path_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for another name beside it."""
    monkeypatch.chdir(tmp_path)
    path = Path("d" * 100, "s" * 6)
    path.parent.mkdir()
    with open_server() as server:
        listener = bind(server, f"unix:{path}", 0)

        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        listener.close()


def test_event_loop_servers_listen_in_the_same_way(tmp_path: Path) -> None:
    """Both kinds of gRPC's servers can be bound."""

    async def listen_and_stop() -> str:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        bind(server, f"unix:{tmp_path}/s", 0).close()
        address = bind(server, "127.0.0.1", 0).address
        with pytest.raises(ListenError, match="the port is taken"):
            bind(grpc.aio.server(options=[("grpc.so_reuseport", 0)]), *split(address))
        await server.stop(None)
        return address

    assert asyncio.run(listen_and_stop()).startswith("127.0.0.1:")


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def test_server_says_the_reason_in_one_line(tiny_models: Path) -> None:
    """From the command line."""
    result = run_module("server", "--models", str(tiny_models), "--insecure", "--host", "192.0.2.1", "--port", "50051")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("server: error: cannot listen on 192.0.2.1:50051: the address is not one of this machine")


def test_socket_mode_is_a_setting_and_the_file_goes_at_the_end(tiny_models: Path, tmp_path: Path) -> None:
    """Closed to others unless told; removed when the server stops."""
    path = tmp_path / "stroke.sock"
    for flags, mode in (((), 0o600), (("--socket-mode", "666"), 0o666)):
        with run_server(tiny_models, "--host", f"unix:{path}", *flags) as server:
            assert stat.S_IMODE(path.stat().st_mode) == mode
            assert server.stop() == 0
        assert not path.exists()
