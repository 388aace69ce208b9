"""The socket of HTTP: answers leave at once."""

from __future__ import annotations

import asyncio
import socket

from server.web.port import open_socket


def test_answers_wait_for_no_acknowledgement() -> None:
    """Head and body are two writes: with Nagle's algorithm the second waits 40 ms for the first's acknowledgement."""

    async def accept() -> int:
        accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        listener = open_socket("127.0.0.1:0", is_protected=False)
        async with await asyncio.start_server(lambda _, writer: accepted.set_result(writer), sock=listener):
            _, caller = await asyncio.open_connection(*listener.getsockname())
            writer = await accepted
            option: int = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for each in (caller, writer):
                each.close()
                await each.wait_closed()
        return option

    assert asyncio.run(accept()) != 0
