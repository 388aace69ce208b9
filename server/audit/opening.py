"""From the settings of a server to its audit log."""

from __future__ import annotations

from pathlib import Path

from server.audit.writer import AuditLog, AuditOptions
from server.config import ServerConfig


def open_log(config: ServerConfig, path: Path) -> AuditLog:
    """Opens the audit log that a server is to keep in ``path``. Raises OSError as ``AuditLog``."""
    return AuditLog(
        AuditOptions(
            path,
            is_required=config.audit_required,
            with_peer=config.audit_peer == "on",
            is_salted=config.audit_hash == "salted",
            most_bytes=config.audit_max_bytes,
            keep_months=config.audit_keep_months,
        )
    )
