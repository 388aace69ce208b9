"""Which ``STROKE_*`` variables of the environment are settings, and which come from somebody else.

Kubernetes puts variables into every container for every Service of its namespace. Those for a Service called
``stroke`` begin as ours do, and one of them, ``STROKE_PORT=tcp://10.96.0.12:50051``, is the very name of a setting
(Kubernetes: "Discovering services", after Docker's container links).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

PREFIX = "STROKE_"
CLIENT_NAMES = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "SERVER",
        "TIMEOUT",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
        "TLS_NAME",
        "TOKEN",
        "TOKEN_FILE",
        "TRACEBACK",
    )
)
"""Settings of the client, which is often used in the same shell. Nothing of it is imported here."""

SERVICE_NAMES = re.compile(
    r"STROKE_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+")
"""What Kubernetes puts into ``<SERVICE>_PORT``."""


def find_settings(environment: Mapping[str, str], names: Iterable[str]) -> dict[str, str]:
    """Returns the variables that set something: those with a value, and not Kubernetes' of the same name."""
    return {
        name: environment[name] for name in names if environment.get(name) and not is_service(name, environment[name])
    }


def find_warnings(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Returns a sentence for each setting whose name Kubernetes has taken, and one for all names nobody knows."""
    names = list(names)
    warnings = [
        f"{name}={environment[name]} comes from Kubernetes, for a Service called {describe_service(name)}, and is not "
        "used: the default is, or the flag (enableServiceLinks: false keeps such variables away)"
        for name in names
        if environment.get(name) and is_service(name, environment[name])
    ]
    unknown = [
        name
        for name, value in sorted(environment.items())
        if name.startswith(PREFIX)
        and value
        and name not in names
        and name not in CLIENT_NAMES
        and not SERVICE_NAMES.fullmatch(name)
        and not is_service(name, value)
    ]
    if unknown:
        hints = ", ".join(describe_unknown(name, names) for name in unknown[:8])
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        warnings.append(f"no setting has the name {hints}{more}: not used")
    return warnings


def is_service(name: str, value: str) -> bool:
    """Whether it is the address that Kubernetes gives for a Service."""
    return name.endswith("_PORT") and SERVICE_ADDRESS.fullmatch(value) is not None


def describe_service(name: str) -> str:
    """``STROKE_PORT`` → ``stroke``."""
    return name.removesuffix("_PORT").lower().replace("_", "-")


def describe_unknown(name: str, names: Iterable[str]) -> str:
    """A name with the setting that was probably meant."""
    near = difflib.get_close_matches(name.upper(), list(names), n=1, cutoff=0.7)
    return f"{name[:80]} (did you mean {near[0]}?)" if near else name[:80]
