"""Connections that have reached their age, and answers that are still owed on them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.config import ServerConfig
from server.lifecycle import ports
from server.lifecycle.ports import make_grpc_server

pytestmark = pytest.mark.timed

AGE_SECONDS = 0.3
WORK_SECONDS = 1.5
"""Five times the age: gRPC varies that by a tenth."""


async def work_for_long(messages: object, context: Any) -> bytes:
    await asyncio.sleep(WORK_SECONDS)
    return b"done"


async def call_old_connection() -> tuple[bytes, bytes]:
    """The answer to a call that outlives its connection's age, and that to the next one."""
    server = make_grpc_server(
        ServerConfig(tls_cert=Path("cert"), tls_key=Path("key"), tls_client_ca=Path("ca"))  # for its options alone
    )
    handlers = {"Work": grpc.stream_unary_rpc_method_handler(work_for_long)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test/Work")
        answers = await call(b"", timeout=20), await call(b"", timeout=20)
    await server.stop(None)
    return answers


def test_call_outlives_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it takes: the connection takes no new calls, and ends with its last one (no grace is set, and
    gRPC's own has no end)."""
    monkeypatch.setattr(ports, "CONNECTION_MS", round(1000 * AGE_SECONDS))

    assert asyncio.run(call_old_connection()) == (b"done", b"done")
