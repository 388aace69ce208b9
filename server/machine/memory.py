"""What the C library keeps of memory that is free again."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

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


class MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc 2.33 and newer."""

    _fields_ = [  # ctypes wants a list
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def find_function(name: str) -> ctypes._CFuncPtr | None:  # type: ignore[name-defined]
    """A function of the C library, or None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return None


MALLINFO = find_function("mallinfo2")
if MALLINFO is not None:
    MALLINFO.restype = MallocInfo
TRIM = find_function("malloc_trim")


def count_small_blocks() -> int | None:
    """Bytes in use in blocks below ``LARGE_BYTES``, such as what gRPC has received of messages that are not complete.

    Pixels, whole messages and tensors are in larger ones. None where the C library does not tell.
    """
    return None if MALLINFO is None else int(MALLINFO().uordblks)


def trim_memory() -> None:
    """Gives the kernel back what is free, also between blocks in use. Takes milliseconds, without Python's lock."""
    if TRIM is not None:
        TRIM(0)


def read_resident_bytes() -> int:
    """Memory that this process has at the moment; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
