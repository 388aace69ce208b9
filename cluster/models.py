"""The models that a process of a cluster answers with, chosen and verified as a server's."""

from __future__ import annotations

from server.config import ServerConfig
from server.core.plan import make_plan
from server.models.registry import ModelRegistry
from server.models.signature import read_trusted

PROCESSORS = 1
"""Of each process: Ray places one for each processor there is."""


def load_registry(server: ServerConfig) -> ModelRegistry:
    """The models that a server would serve with these settings, verified.

    Raises:
        ModelFileError: they cannot be.
    """
    registry = ModelRegistry()
    trusted = read_trusted(server.require_signature) if server.require_signature is not None else None
    registry.load(server.models, server.model, make_plan(server, PROCESSORS).options, trusted)
    return registry
