"""How much memory a server may come to need at its worst, from its settings alone (measured in ``docs/limits.md``)."""

from __future__ import annotations

from importlib.util import find_spec

from server.config import ServerConfig
from server.images.dicom.codecs.pool import MEMORY_BYTES
from server.models.registry import ModelRegistry

MESSAGE_BYTES = 32 * 1024 * 1024
"""Bound on the messages that are held, and again on those that arrive, unless a single one may be as large."""

DECODE_BYTES = 13
"""Memory that one image takes while it is decoded, a pixel: an RGB PNG that is turned upright (measured)."""

STREAM_IMAGES = 3
"""Images of a stream that may be unanswered before no more are taken, for each worker."""

STREAM_SHARE = 4
"""One stream takes no more messages once its unanswered ones have this part of what may be held."""

STUDY_SHARE = 4
"""So many of the largest studies may be in work at the same time, or more smaller ones."""

STUDY_SLICE_BYTES = 1500
"""What is kept of a slice until its study is answered: 0.9 kB (measured), and 2 kB while the answer is made."""

HTTP_CONNECTIONS = 128
"""At the same time, those included that have not shaken hands."""

HTTP_BYTES, HTTPS_BYTES = 360_000, 1_000_000
"""Of each, what has come before anybody has asked for it, and an answer that is not taken (measured)."""


def find_message_bytes(config: ServerConfig) -> int:
    """Bound on the messages that are held, and again on those that arrive."""
    return max(MESSAGE_BYTES, config.most_message_bytes * 5 // 4)


def find_most_message_memory(config: ServerConfig, workers: int) -> int:
    """Bytes that callers' messages may take: what is held, what arrives, what arrives before that is noticed; and each
    worker's two copies, that of a message which is taken apart, and gRPC's two; and what is kept of slices."""
    each = HTTP_BYTES if config.tls_cert is None else HTTPS_BYTES
    http = HTTP_CONNECTIONS * each if config.http else 0
    studies = find_most_study_slices(config) * STUDY_SLICE_BYTES
    return 3 * find_message_bytes(config) + (2 * workers + 3) * config.most_message_bytes + http + studies


def find_most_study_slices(config: ServerConfig) -> int:
    """Slices of studies that are in work."""
    return STUDY_SHARE * config.study_slices


def find_most_model_memory(registry: ModelRegistry) -> int:
    """Bytes that one more model may take: while a version is activated, it is in memory beside the one that answers."""
    return max((served.memory_bytes for _, served in registry.channels), default=0)


def find_most_decoder_memory(config: ServerConfig, workers: int) -> int:
    """Bytes that decoders of compressed DICOM files may take, which are processes beside the server; none are started
    where DICOM files are not read."""
    return (config.decoders or workers) * MEMORY_BYTES if find_spec("pydicom") else 0


def find_most_image_memory(config: ServerConfig, workers: int) -> int:
    """Bytes that images may take while they are decoded."""
    return workers * config.max_image_pixels * DECODE_BYTES
