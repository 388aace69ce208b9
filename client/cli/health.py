"""``python -m client health``: asks each server whether it serves."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from .._address import parse_address
from .connection import Connection, add_connection_flags, make_parser, name_program, read_connection, read_seconds

if TYPE_CHECKING:
    from .._client import StrokeClient

_EPILOG = """\
examples:
  {program} health
  {program} health --server a:50051,b:50051 --json
  {program} health --wait 30 && {program} scans/

HEALTHCHECK of Docker: CMD {words}
exit status: 0 all servers are SERVING (alarms do not count), 1 one is not,
2 wrong usage.
"""

_ALARMS = {  # by the parts of a server; a health check calls them stroke.alarm.PART
    "certificates": "one ends soon or has ended, or new ones cannot be used",
    "access": "a file that says who may call cannot be used, what was read before holds on",
    "audit": "the audit log cannot be written",
    "models": "a canary or shadow that was active is not served",
}


@dataclass(frozen=True)
class Answer:
    """What one server said."""

    server: str
    """Its address."""

    state: str
    """SERVING, NOT_SERVING and so on (grpc.health.v1), or the reason why there was no answer, in UPPER_SNAKE."""

    milliseconds: float
    """Until it was known, the time to connect included."""

    error: str = ""
    """A sentence, empty when there was an answer."""

    alarms: tuple[str, ...] = ()
    """Parts that need a person, although images may be judged all the same."""

    certificate_end: datetime | None = None
    """Until when the server's certificate holds, UTC; None: without TLS, or not known."""


def build_parser() -> argparse.ArgumentParser:
    epilog = _EPILOG.replace("{words}", json.dumps([*name_program().split(), "health"]))
    parser = make_parser("health", "[OPTION]...", "Asks each server whether it serves, and for its alarms.", epilog)
    parser.add_argument("--wait", type=read_seconds, metavar="S", help="seconds to wait until they serve")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line instead of text")
    add_connection_flags(parser)
    return parser


def main(argv: list[str]) -> int:
    """Runs the sub-command and returns its exit status; ``argv`` are the arguments after ``health``."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    connection = read_connection(parser, arguments)
    try:
        singles = list(list_servers(connection))
    except OSError as error:
        print(f"error: the address {connection.server} is not known: {error.strerror}", file=sys.stderr)
        return 1
    margin = max(len(single.server) for single in singles)
    well = True
    try:
        with ThreadPoolExecutor(len(singles)) as pool:
            for answer in pool.map(lambda single: ask(single, arguments.wait), singles):
                well = well and answer.state == "SERVING"
                print("\n".join(format_answer(answer, margin, as_json=arguments.json)), flush=True)
    except ValueError as error:
        parser.error(str(error))
    return 0 if well else 1


def list_servers(connection: Connection) -> Iterator[Connection]:
    """Yields a connection to each of the servers that an address names: hosts of a list, addresses of a name.

    Raises:
        OSError: the name of ``dns:///NAME`` is not known.
    """
    address = parse_address(connection.server)
    if address.text.startswith("dns:///"):
        ((host, port),) = address.hosts
        found = {answer[4][0] for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        name = connection.tls_name or (host if connection.tls_ca or connection.tls_cert else "")
        for number in sorted(map(str, found)):
            server = f"[{number}]:{port}" if ":" in number else f"{number}:{port}"
            yield replace(connection, server=server, tls_name=name)
    elif len(address.hosts) > 1:
        for server in address.text.split(","):
            yield replace(connection, server=server)
    else:
        yield connection


def ask(connection: Connection, wait: float | None) -> Answer:
    """Asks one server, or waits up to ``wait`` seconds until it serves.

    Raises:
        ValueError: the connection's settings do not go together.
    """
    from .._errors import StrokeClientError

    state, error = "", ""
    alarms: tuple[str, ...] = ()
    certificate_end = None
    with connection.open_client() as client:
        started = time.monotonic()
        try:
            if wait is not None:
                client.wait_until_ready(wait)
            deadline = time.monotonic() + connection.timeout
            state = str(client.check_health())
        except StrokeClientError as failure:
            state, error = failure.reason, str(failure)
        milliseconds = 1000 * (time.monotonic() - started)
        if not error:
            alarms = list_alarms(client, deadline)
            if client._config.tls is not None:
                from ..tls.probe import find_end  # plain text does without

                certificate_end = find_end(client._config, deadline)
    return Answer(connection.server, state, milliseconds, error, alarms, certificate_end)


def list_alarms(client: StrokeClient, deadline: float) -> tuple[str, ...]:
    """Returns the parts of one server that need a person; none of a server from before, or one that goes away.

    Args:
        client: a connection to it.
        deadline: moment of ``time.monotonic()`` at which to give up.
    """
    from .._errors import StrokeClientError

    found = []
    for name in _ALARMS:
        left = deadline - time.monotonic()
        try:
            status = client._call(client._calls.check_health, f"stroke.alarm.{name}", left, repeats=False)
        except StrokeClientError as error:
            if error.code != "NOT_FOUND":  # that says that the part is not in use
                break
        else:
            if status == "NOT_SERVING":
                found.append(name)
    return tuple(found)


def format_answer(answer: Answer, margin: int, *, as_json: bool) -> list[str]:
    """Returns the lines for one server, whose address takes ``margin`` columns: one, and one for each alarm in text."""
    from .terminal import escape

    if as_json:
        fields = {"server": answer.server, "state": answer.state, "ms": round(answer.milliseconds, 3)}
        end = None if answer.certificate_end is None else f"{answer.certificate_end:%Y-%m-%dT%H:%M:%SZ}"
        more = {"alarms": answer.alarms, "certificate_not_after": end}
        return [json.dumps({**fields, "error": answer.error or None, **more})]
    line = f"{answer.state:<18}  {answer.milliseconds:.1f} ms"
    if answer.error:
        line += f"  {answer.error}"
    if answer.certificate_end is not None:
        line += f"  certificate until {answer.certificate_end:%Y-%m-%d %H:%M} UTC"
    alarms = [f"alarm: {name}: {_ALARMS[name]}; see the server's log" for name in answer.alarms]
    return [escape(f"{answer.server:<{margin}}  {text}") for text in (line, *alarms)]
