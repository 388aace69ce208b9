"""The gate's place in gRPC: what a call says of its caller, and what each method needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.api.calls import Call
from server.config import ServerConfig
from server.core.outcomes import Caller
from server.security.clients import read_token
from server.security.identity import read_names

if TYPE_CHECKING:  # loaded by those who have one
    from server.security.gate import Client, Gate

PREDICT, READ = "predict", "read"
ROLES = {"GetModel": READ, "ListModels": READ}
"""What methods need, unless it is the role to judge images."""

IMAGES = {"Predict": 1}
"""Images that a method's message holds, where that is known before it has come."""


def make_gate(config: ServerConfig) -> Gate | None:
    """The gate that the settings ask for; None where nobody is asked who they are.

    Raises:
        AccessFileError: a file that says who may call cannot be used.
    """
    if config.tokens is None and config.tls_client_ca is None:
        return None
    from server.security.gate import Gate

    return Gate(config.tokens, config.allow_clients)


def identify(gate: Gate, call: Call) -> Client:
    """Who calls, which is noted in the call.

    Raises:
        UnauthenticatedError, ForbiddenError: nobody who is let in.
    """
    context = call.context
    client = gate.identify(read_names(context.auth_context()), read_token(context.invocation_metadata()))
    call.caller = Caller(call.peer, client.name)
    return client


def enter(gate: Gate, call: Call) -> None:
    """Lets a call in, before a byte of its message is read. It ends with ``call.permit.leave``.

    Raises:
        UnauthenticatedError, ForbiddenError, OverloadedError: see ``server.security.gate``.
    """
    call.permit = gate.admit(identify(gate, call), ROLES.get(call.method, PREDICT), IMAGES.get(call.method, 0))
