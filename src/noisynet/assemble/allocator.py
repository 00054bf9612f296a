"""Memory that updates free, kept by the process for the next update."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Make the process keep freed memory for the next update, if the C library is glibc.

    An update frees some megabytes for each layer. glibc gives blocks of that size back to the
    system at once and gets them again as pages that must be cleared, which takes a tenth of a small
    network's update.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return  # another C library
    mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_TRIM_THRESHOLD, _NEVER)
