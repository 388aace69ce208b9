"""``python -m server model``: what a running server serves, and how an operator changes it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from proto import admin_pb2, admin_pb2_grpc
from server.flags import REQUIRED, LineParser, check_settings, parse_settings, require, setting
from server.lifecycle.model_report import render_list, render_status, to_document
from server.lifecycle.sockets import SUFFIX, is_alive, list_sockets, name_socket
from server.machine.folders import find_runtime_folder
from server.machine.priority import LEAST_PRIORITY, lower_priority
from server.process.console import complain, say

EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHED = 1, 2, 3
SYSTEM_FOLDER = Path("/run/strokeserve/admin")
"""Where the service of deploy/systemd has its socket."""

HELP = """usage: python -m server model list
       python -m server model status
       python -m server model activate NAME VERSION [--shadow | --canary PERCENT]
       python -m server model promote NAME
       python -m server model rollback NAME
       python -m server model unload NAME

Changes what a running server serves, without a pause and without a lost call. The server is found by itself where it
runs on this machine as the same user; each command --help shows how to say which.

list      versions on the disk, and which of them are served
status    the same with memory, time, what a shadow has found, and what was refused
activate  verifies a version and serves it instead of the one before; --shadow: it scores what the other answers;
          --canary 5: it answers 5 % of the images
promote   makes the canary or shadow the version that answers
rollback  serves what was served before
unload    ends canary and shadow; a model without them is served no longer

Exit codes: 0 done, 1 refused (what was served is served on), 2 usage, 3 no server was reached, or not in time.

examples:
  python -m server model status
  python -m server model activate stroke-cnn 2 --shadow
  python -m server model promote stroke-cnn
  python -m server model rollback stroke-cnn"""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """How the server is reached; what all commands have."""

    server: str = setting("", "address of the server, such as 127.0.0.1:50051, where there are several on this machine")
    admin: str = setting("auto", "folder of its socket, as its --admin says (STROKE_ADMIN); auto: where it usually is")
    tls_ca: Path | None = setting(
        None, "authority of the server's certificate: then --server is called over TLS, with a token", metavar="FILE"
    )
    tls_cert: Path | None = setting(None, "certificate to show, with --tls-key", metavar="FILE")
    tls_key: Path | None = setting(None, "its private key", metavar="FILE")
    token_file: Path | None = setting(None, "file with a token that has the role admin", metavar="FILE")
    timeout: float = setting(120.0, "seconds that the answer may take", least=0.1, most=3600)
    json: bool = setting(False, "print one JSON object")

    def __post_init__(self) -> None:
        check_settings(self)
        require(not self.tls_ca or self.server != "", "tls_ca", "needs --server HOST:PORT")
        require((self.tls_cert is None) == (self.tls_key is None), "tls_key", "and --tls-cert go together")
        for name in ("tls_cert", "token_file"):
            require(getattr(self, name) is None or self.tls_ca is not None, name, "needs --tls-ca")


@dataclass(frozen=True, kw_only=True)
class NameConfig(Reach):
    """What is set of a command about one model."""

    name: str = setting(REQUIRED, "of the model", positional=True)


@dataclass(frozen=True, kw_only=True)
class ActivateConfig(Reach):
    """What is set of ``model activate``."""

    name: str = setting(REQUIRED, "of the model", positional=True)
    version: str = setting(REQUIRED, "of the model, in the models folder", positional=True)
    shadow: bool = setting(False, "it scores what the version before answers, and answers nobody")
    canary: float | None = setting(
        None,
        "percent of the images that it answers, chosen by their digests",
        least=0.01,
        most=99.99,
        metavar="PERCENT",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not (self.shadow and self.canary is not None), "shadow", "and --canary exclude each other")


class UnreachedError(Exception):
    """No server was reached; the text says why and what to do."""


def main(argv: Sequence[str]) -> int:
    """Runs the command. Returns 0, ``EXIT_REFUSED`` or ``EXIT_UNREACHED``; usage errors exit with 2."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "list": list_all,
        "status": show_status,
        "activate": activate,
        "promote": promote,
        "rollback": roll_back,
        "unload": unload,
    }
    if argv[:1] in (["--help"], ["-h"]):
        say(HELP)
        return 0
    if not argv or argv[0] not in commands:
        complain(f"server model: error: {', '.join(commands)}? (python -m server model --help shows how)")
        return EXIT_USAGE
    lower_priority(LEAST_PRIORITY)  # it shares the machine with the images that are judged meanwhile
    try:
        return commands[argv[0]](argv[1:])
    except UnreachedError as error:
        complain(f"server model: error: {error}")
        return EXIT_UNREACHED
    except grpc.RpcError as error:
        return explain(error)


def explain(error: Any) -> int:
    """Prints why a call has failed; returns the exit code."""
    reason = dict(error.trailing_metadata() or ()).get("stroke-reason", "")
    complain(f"server model: error: {error.details()} [{reason or error.code().name}]")
    late = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return EXIT_UNREACHED if error.code() in late else EXIT_REFUSED


def make_parser(command: str, description: str, example: str) -> LineParser:
    return LineParser(f"python -m server model {command}", description, f"example:\n  python -m server model {example}")


def list_all(argv: Sequence[str]) -> int:
    parser = make_parser("list", "Shows the versions on the disk, and which are served.", "list --json")
    return ask(parse_settings(parser, Reach, argv), render_list)


def show_status(argv: Sequence[str]) -> int:
    parser = make_parser("status", "Shows what is served beside what is on the disk.", "status")
    return ask(parse_settings(parser, Reach, argv), render_status)


def ask(config: Reach, render: Callable[[Any], str]) -> int:
    """Prints the state of the server."""
    with connect(config) as channel:
        stub = admin_pb2_grpc.AdminStub(channel)
        status = stub.GetStatus(admin_pb2.GetStatusRequest(), timeout=config.timeout, metadata=read_token(config))
    text = json.dumps(to_document(status), ensure_ascii=False, indent=2) if config.json else render(status)
    return 0 if say(text) else EXIT_REFUSED


def activate(argv: Sequence[str]) -> int:
    parser = make_parser(
        "activate",
        "Verifies a version beside the one that answers, and serves it.",
        "activate stroke-cnn 2 --canary 5",
    )
    config = parse_settings(parser, ActivateConfig, argv)
    channel = admin_pb2.SHADOW if config.shadow else admin_pb2.STABLE if config.canary is None else admin_pb2.CANARY
    return change(
        config,
        "Activate",
        admin_pb2.ActivateRequest(
            name=config.name, version=config.version, channel=channel, percent=config.canary or 0.0
        ),
    )


def promote(argv: Sequence[str]) -> int:
    parser = make_parser("promote", "Makes the canary, or the shadow, the version that answers.", "promote stroke-cnn")
    config = parse_settings(parser, NameConfig, argv)
    return change(config, "Promote", admin_pb2.PromoteRequest(name=config.name))


def roll_back(argv: Sequence[str]) -> int:
    parser = make_parser("rollback", "Serves the version that was served before.", "rollback stroke-cnn")
    config = parse_settings(parser, NameConfig, argv)
    return change(config, "RollBack", admin_pb2.RollBackRequest(name=config.name))


def unload(argv: Sequence[str]) -> int:
    text = "Ends canary and shadow of a model; one without them is served no longer, unless it is the default."
    config = parse_settings(make_parser("unload", text, "unload stroke-cnn"), NameConfig, argv)
    return change(config, "Unload", admin_pb2.UnloadRequest(name=config.name))


def change(config: Reach, method: str, request: Any) -> int:
    """Asks for a change, and shows how far it is."""
    with connect(config) as channel:
        call = getattr(admin_pb2_grpc.AdminStub(channel), method)
        said = ""
        for progress in call(request, timeout=config.timeout, metadata=read_token(config)):
            said = progress.text
            if not progress.is_done and not config.json:
                complain(f"{said} …")
    return 0 if say(json.dumps({"ok": True, "text": said}) if config.json else said) else EXIT_REFUSED


def connect(config: Reach) -> grpc.Channel:
    """Opens the way to the server.

    Raises:
        UnreachedError: there is none.
    """
    if config.tls_ca is None:
        return grpc.insecure_channel(f"unix:{find_socket(config)}")
    try:
        pair = [path.read_bytes() if path else None for path in (config.tls_key, config.tls_cert)]
        credentials = grpc.ssl_channel_credentials(config.tls_ca.read_bytes(), *pair)
    except OSError as error:
        raise UnreachedError(f"{error.filename}: {error.strerror}") from None
    return grpc.secure_channel(config.server, credentials)


def read_token(config: Reach) -> tuple[tuple[str, str], ...]:
    """The metadata with the token, if there is to be one.

    Raises:
        UnreachedError: it cannot be read.
    """
    if config.token_file is None:
        return ()
    try:
        return (("authorization", f"Bearer {config.token_file.read_text('ascii').strip()}"),)
    except (OSError, UnicodeError):
        raise UnreachedError(f"{config.token_file}: the token cannot be read") from None


def find_socket(config: Reach) -> Path:
    """The socket of the server that is meant, or of the only one.

    Raises:
        UnreachedError: there is none, or more than one.
    """
    given = os.environ.get("STROKE_ADMIN", "") if config.admin == "auto" else config.admin
    folders = [Path(given)] if given not in ("", "auto", "off") else [find_runtime_folder(), SYSTEM_FOLDER]
    found: list[Path] = []
    for folder in folders:
        try:
            found += [path for path in list_sockets(folder) if is_alive(path)]
        except PermissionError as error:
            complain(f"server model: warning: {error.strerror or error}")
        except OSError:  # there is none
            continue
    if config.server:
        found = [path for path in found if path.name == name_socket(config.server)]
    if not found:
        which = f"no server at {config.server} was" if config.server else "no server was"
        raise UnreachedError(
            f"{which} found in {' or '.join(map(str, folders))}: it must run on this machine, as this user, and "
            "without --admin off"
        )
    if len(found) > 1:
        names = ", ".join(path.name.removesuffix(SUFFIX) for path in found)
        raise UnreachedError(
            f"{len(found)} servers run here ({names}): say which with --server, such as 127.0.0.1:50051"
        )
    return found[0]
