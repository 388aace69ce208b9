"""What the C library keeps of memory that is free again."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# <malloc.h> of glibc
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8

LARGE_BYTES = 1024 * 1024
"""Larger than the pixels of a usual slice, which are not worth a call of the kernel each."""


def return_freed_memory(threads: int) -> None:
    """Makes the C library give large pieces back at once, where it is glibc. To be called before threads are started.

    Left alone it learns from the first large image to keep such pieces, of every thread that has decoded one (measured:
    53 MB after a burst of images of 16 to 25 megapixel, 12 MB with this).

    Args:
        threads: how many threads allocate at the same time, more or less.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return
    for option, value in (
        (M_MMAP_THRESHOLD, LARGE_BYTES),
        (M_TRIM_THRESHOLD, LARGE_BYTES),
        (M_ARENA_MAX, max(2, threads)),
    ):
        set_option(option, value)


def return_all_freed_memory() -> None:
    """Gives back, once, what large work such as a load has left in the C library, where it is glibc."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)
