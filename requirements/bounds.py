"""Gives the wheel of the client the bounds that its lock files are made from, so that they are stated once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class BoundsHook(MetadataHookInterface):
    """Reads what the library needs from ``client.in``, and what its extra ``cli`` adds from ``cli.in``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the requirements to the table ``project``."""
        metadata["dependencies"] = self._read_bounds("client.in")
        metadata["optional-dependencies"] = {"cli": self._read_bounds("cli.in")}

    def _read_bounds(self, name: str) -> list[str]:
        lines = (Path(self.root) / "requirements" / name).read_text("utf-8").splitlines()
        bounds = (line.partition("#")[0].strip() for line in lines)
        return [bound for bound in bounds if bound and not bound.startswith("-r ")]
