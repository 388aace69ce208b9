"""What a bench found, as a table for people and as an object for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from ..table import format_table
from .load import LATE_SECONDS, MOST_SENDERS, Load

PERCENTILES = (50.0, 90.0, 99.0, 99.9)

_DEFAULT_WIDTH = 80


def load_to_json(load: Load, *, clients: int, rate: float) -> dict[str, Any]:
    """Returns one load as JSON has it: times in milliseconds; ``clients`` or ``rate`` is 0 where it does not apply."""
    latencies = load.latencies
    answered = latencies.count
    return {
        **({"rate": rate} if rate else {"clients": clients}),
        "seconds": round(load.seconds, 3),
        "answered": answered,
        "failed": load.errors.total(),
        "errors": dict(load.errors.most_common()),
        "offered_per_s": round(_offered(load), 3) if rate else None,
        "images_per_s": round(_rate(load), 3),
        "bytes_per_s": round(load.completed_bytes / load.seconds) if load.seconds else 0,
        "latency_ms": {
            "min": _ms(latencies.minimum),
            "mean": _ms(latencies.mean),
            **{f"p{percent:g}": _ms(latencies.percentile(percent)) for percent in PERCENTILES},
            "max": _ms(latencies.maximum),
        }
        if answered
        else None,
        "server_ms": {name: round(total / answered, 3) for name, total in load.server_ms.items()} if answered else None,
        "late": {"images": load.late, "no_sender_free": load.crowded, "max_ms": _ms(load.latest)} if rate else None,
    }


def format_report(settings: dict[str, Any], rows: Sequence[tuple[int, float, Load]], width: int | None) -> str:
    """Returns the table with what has to be known to read it.

    Args:
        settings: ``server``, ``loop``, ``seconds`` and so on, as in the JSON object.
        rows: clients, rate and load of each run.
        width: columns of the terminal; None: no limit.
    """
    is_open = settings["loop"] == "open"
    heads = ["rate/s" if is_open else "in flight" if settings["loop"] == "stream" else "clients"]
    heads += ["images/s", "p50 ms", "p90 ms", "p99 ms", "p99.9", "max ms", "failed"]
    cells = []
    for clients, rate, load in rows:
        percentiles = [_cell(load.latencies.percentile(percent), load) for percent in PERCENTILES]
        maximum = _cell(load.latencies.maximum, load)
        first = f"{rate:g}" if is_open else str(clients)
        cells.append([first, f"{_rate(load):.1f}", *percentiles, maximum, str(load.errors.total())])
    parts = [_introduce(settings), format_table(heads, cells, width=width, right=heads)]
    parts += [_detail(f"{rate:g}/s" if is_open else str(clients), load) for clients, rate, load in rows]
    parts += [f"warning: {text}" for text in _list_warnings(rows)]
    if settings["interrupted"]:
        parts.append("interrupted: the figures are of what was measured so far")
    folded = [
        part if index == 1 else textwrap.fill(part, (width or _DEFAULT_WIDTH) - 1, break_on_hyphens=False)
        for index, part in enumerate(parts)
    ]
    return "\n".join([folded[0], "", folded[1], "", *folded[2:]])


def _introduce(settings: dict[str, Any]) -> str:
    megabytes = settings["image_bytes"] / 1e6
    text = f"{settings['server']}: {settings['images']} images ({megabytes:.3g} MB) in turns, "
    text += f"{settings['seconds']:g} s after {settings['warmup_seconds']:g} s of warm-up. "
    if settings["loop"] == "open":
        seed = f" with seed {settings['seed']}" if settings["arrivals"] == "poisson" else ""
        return text + f"Open loop, {settings['arrivals']} arrivals{seed}: latencies count from when an image was due."
    if settings["loop"] == "stream":
        return text + "One stream, closed loop: latencies count from sending and contain the wait for earlier images."
    return text + (
        "Closed loop: latencies count from sending, so a stop of the server counts once for each client; "
        "for what callers see, use --rate."
    )


def _detail(name: str, load: Load) -> str:
    """Returns what is not in the table: the server's times, bytes, errors by reason."""
    text = f"{name}: "
    if load.latencies.count:
        means = ", ".join(f"{part} {total / load.latencies.count:.3g}" for part, total in load.server_ms.items())
        text += f"{load.latencies.count} answered, {load.completed_bytes / max(load.seconds, 1e-9) / 1e6:.3g} MB/s; "
        text += f"server's mean ms: {means}"
    else:
        text += "nothing was answered"
    if load.errors:
        text += "; failed: " + ", ".join(f"{reason} {number}" for reason, number in load.errors.most_common())
    return text


def _list_warnings(rows: Sequence[tuple[int, float, Load]]) -> list[str]:
    warnings = []
    for _, rate, load in rows:
        own = load.late - load.crowded
        if own > max(0.02 * _count(load), 2):
            warnings.append(
                f"at {rate:g}/s this machine did not keep the timetable: {own} images left more than "
                f"{1000 * LATE_SECONDS:g} ms late (at most {1000 * load.latest:.3g} ms). Part of their latencies, "
                "which count from when they were due, is this machine's: load from another one, or at a lower rate."
            )
        if load.crowded:
            warnings.append(
                f"at {rate:g}/s {load.crowded} images left late because {MOST_SENDERS} others had no answer yet: the "
                "rate is more than the server can do, and the latencies grow with the length of the run."
            )
    return warnings


def _count(load: Load) -> int:
    return load.latencies.count + load.errors.total()


def _offered(load: Load) -> float:
    return _count(load) / load.seconds if load.seconds else 0.0


def _rate(load: Load) -> float:
    return load.completed / load.seconds if load.seconds else 0.0


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _cell(seconds: float, load: Load) -> str:
    if not load.latencies.count:
        return "-"
    milliseconds = 1000 * seconds
    return f"{milliseconds:#.3g}" if milliseconds < 99.95 else f"{milliseconds:.0f}"
