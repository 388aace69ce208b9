"""What a server says of itself once it serves."""

from __future__ import annotations

from server.config import ServerConfig
from server.core.capacity import (
    find_most_decoder_memory,
    find_most_image_memory,
    find_most_message_memory,
    find_most_model_memory,
)
from server.core.plan import Plan
from server.machine.memory import read_resident_bytes
from server.models.registry import ModelRegistry


def describe_models(registry: ModelRegistry) -> str:
    """Names, versions and digests, in a line."""
    return ", ".join(f"{m.spec.name} {m.spec.version} (sha256 {m.digest[:12]}…)" for m in registry)


def describe_choices(registry: ModelRegistry, plan: Plan) -> str:
    """A line for each model, with what was chosen for it on this machine."""
    return "\n".join(
        f"  {m.spec.name} {m.spec.version}: {m.options.precision} with {m.runtime} {m.runtime_version}, profile "
        f"{plan.profile}: {m.options.workers} at the same time, threads {m.options.threads} ({m.options.busy_threads} "
        f"when busy){', with heatmaps' if m.explainer is not None else ''}"
        for m in registry
    )


def describe_memory(config: ServerConfig, plan: Plan, registry: ModelRegistry) -> str:
    """A line about how much the process may come to need, measured at its worst (``docs/limits.md``)."""
    workers, pixels = plan.workers, config.max_image_pixels
    now, decoders = read_resident_bytes(), find_most_decoder_memory(config, workers)
    messages, images = find_most_message_memory(config, workers), find_most_image_memory(config, workers)
    return (
        f"  memory: {now / 1e6:.0f} MB now; at most {(now + messages) / 1e6:.0f} MB with what callers send, and "
        f"{images / 1e6:.0f} MB more while {workers} images of {pixels / 1e6:g} megapixels are decoded, and "
        f"{find_most_model_memory(registry) / 1e6:.0f} MB more for each version on trial or being activated"
        + (f", and {decoders / 1e6:.0f} MB for decoders of compressed DICOM files" if decoders else "")
    )
