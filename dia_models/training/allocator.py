"""Keep freed memory inside the process: training on a CPU frees and takes the same large blocks at every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc not to give large blocks back to the system; True if it listens.

    Each page given back must be cleared by the kernel before it can be used again, a quarter of the time of a
    training step of a small network.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
