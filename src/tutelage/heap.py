"""Memory that tensors leave on the CPU, kept for the next ones.

The C library of most Linux machines (glibc) gives each large block back to the system as soon as it
is free, and gets it anew page by page, filled with zeros. A step of training leaves and takes
gigabytes, and can wait longer for pages than it computes (docs/performance.md). PyTorch's
guides put another allocator before the program; two settings of this one do as much.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt(3)
NEVER = -1


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, from now on; its peak stays about the same.

    False where nothing was done: with another C library, or where the environment has settings of
    malloc, which are the user's.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ)
    if own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or not _glibc():
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(MMAP_MAX, 0) and library.mallopt(TRIM_THRESHOLD, NEVER))


def give_back_freed_memory() -> None:
    """Give the system what this process keeps and doesn't use, so that others see it as free."""
    if _glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _glibc() -> bool:
    """Whether the C library is GNU's."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):  # on other systems there is no such name
        return False
