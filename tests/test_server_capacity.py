"""What a server says of its memory grows with nothing that callers can open more of."""

from __future__ import annotations

from server.config import ServerConfig
from server.core.capacity import find_message_bytes, find_most_message_memory

MB = 1_000_000


def test_streams_and_places_in_line_need_no_memory_of_their_own() -> None:
    """Their messages are among those that are held, of which there is one bound for all."""
    usual = find_most_message_memory(ServerConfig(), 2)

    assert find_most_message_memory(ServerConfig(streams=1000, queue=10_000), 2) == usual
    assert 250 * MB < usual < 300 * MB
    assert find_most_message_memory(ServerConfig(), 8) < 600 * MB


def test_studies_need_what_is_kept_of_their_slices() -> None:
    """Of all studies together, however many streams there are."""
    usual, larger = (find_most_message_memory(ServerConfig(study_slices=count), 2) for count in (2000, 5000))

    assert usual < larger < usual + 30 * MB


def test_memory_grows_with_the_largest_image() -> None:
    """One message must have room, and some others beside it."""
    config = ServerConfig(max_image_bytes=64 * 1024 * 1024)

    assert find_message_bytes(config) > config.most_message_bytes
    assert find_most_message_memory(config, 2) > 10 * config.most_message_bytes
