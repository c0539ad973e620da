"""Memory that the process keeps between training steps, instead of asking the system for it anew."""

import ctypes
import os

# glibc's malloc.h. No mapping of its own for a large block; free memory at the heap's end is never given back; one heap for
# all threads, since the heaps of threads other than the first cannot hold a block of more than 32 MiB.
_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -4, -1, -8
_OPTIONS = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_ARENA_MAX: 1}

kept = False  # whether this process keeps its memory


def keep_memory():
    """Tells glibc's malloc to keep freed memory. Call it before the framework starts its threads, best before its import.

    By default every block above 32 MiB is mapped from the system and handed back when it is freed: the logits of each training
    step come in fresh pages, which the system clears one by one as they are touched. On a CPU that can take longer than the
    arithmetic (docs/benchmarks.md). The price: the process holds the most memory it ever used until it ends.

    The commands of k3seq and its worker processes do this; in a script of your own call it first. `K3SEQ_KEEP_MEMORY=0` in the
    environment turns it off.

    Returns:
        Whether malloc took it: False without glibc, or when it is turned off.
    """
    global kept
    if os.environ.get("K3SEQ_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # another system, or another C library
        return False
    kept = all(mallopt(option, value) == 1 for option, value in _OPTIONS.items())
    return kept
