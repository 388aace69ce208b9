"""What ``python -m server model list`` and ``status`` print."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from proto import admin_pb2

CHANNELS = {admin_pb2.STABLE: "stable", admin_pb2.CANARY: "canary", admin_pb2.SHADOW: "shadow"}
LIST_HEAD = ("model", "version", "channel", "on disk", "")
STATUS_HEAD = ("version", "channel", "on disk", "images", "mean ms", "share", "memory", "")
IN_DOUBT = "not analysed"


def to_document(message: Any) -> dict[str, Any]:
    """A message for JSON: all fields by their names, channels by theirs, numbers as numbers."""
    document: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            is_many = not isinstance(value, str | int | float)
            value = CHANNELS.get(value, "") if field.enum_type is not None else list(value) if is_many else value
        elif field.has_presence:
            value = to_document(value) if message.HasField(field.name) else None
        else:
            value = [to_document(one) for one in value]
        document[field.name] = value
    return document


def render_list(status: Any) -> str:
    """A line for each version."""
    rows = [
        (model.name, one.version, name_channel(one), one.on_disk, describe_note(one))
        for model in status.models
        for one in model.versions
    ]
    return render_rows([LIST_HEAD, *rows])


def render_status(status: Any) -> str:
    """All there is to say, for people."""
    lines = [f"server {status.server_version} on {status.address}, models in {status.folder}"]
    for model in status.models:
        marks = [text for text, is_so in (("default", model.is_default), ("pinned", model.is_pinned)) if is_so]
        lines += ["", model.name + (f" ({', '.join(marks)})" if marks else "")]
        lines.append(indent(render_rows([STATUS_HEAD, *map(describe_version, model.versions)])))
        if model.history:
            lines.append(f"  before: {', '.join(model.history)}")
        if model.HasField("shadow"):
            lines.append(indent(render_shadow(model.shadow)))
    if status.failures:
        lines += ["", "refused or failed, oldest first:"]
        lines += [f"  {describe_failure(failure)}" for failure in status.failures]
    return "\n".join(lines)


def describe_version(one: Any) -> tuple[str, ...]:
    """The columns of a version."""
    is_served = one.is_served
    return (
        one.version,
        name_channel(one),
        one.on_disk,
        f"{one.images:,}" if is_served else "",
        f"{one.mean_inference_ms:.1f}" if is_served and one.images else "",
        f"{100 * one.share:.0f} %" if is_served else "",
        f"{one.memory_bytes / 1e6:.0f} MB" if is_served else "",
        describe_note(one),
    )


def name_channel(one: Any) -> str:
    """What a version is for."""
    name = CHANNELS.get(one.channel, "served" if one.is_served else "")
    return f"{name} {one.percent:g} %" if one.channel == admin_pb2.CANARY else name


def describe_note(one: Any) -> str:
    """What is wrong with a version, or that it waits."""
    return one.fault or ("newer than what is served" if one.is_newer else "")


def render_shadow(report: Any) -> str:
    """What a shadow has found."""
    counts = f"{report.images:,} images scored, {report.dropped:,} dropped, {report.failed:,} failed"
    lines = [f"shadow {report.version}: {counts}"]
    if report.images:
        lines.append(
            f"  same label {100 * report.agreement:.2f} %, mean difference {report.mean_difference:.4f}, largest "
            f"{report.largest_difference:.4f}, median {report.median_ms:.1f} ms"
        )
    lines += [f"  {getattr(one, 'from') or IN_DOUBT} → {one.to or IN_DOUBT}: {one.images:,}" for one in report.changes]
    return "\n".join(lines)


def describe_failure(failure: Any) -> str:
    """A change that was not made, in a line."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(failure.time)) if failure.time else "at the start"
    what = " ".join(filter(None, (failure.action, failure.name, failure.version)))
    return f"{when} {what}: {failure.message} [{failure.reason}]"


def render_rows(rows: Sequence[Sequence[str]]) -> str:
    """Columns, as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def indent(text: str) -> str:
    """Lines further to the right."""
    return "\n".join(f"  {line}" for line in text.splitlines())
