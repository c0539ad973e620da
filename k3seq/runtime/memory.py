"""Memory that a process keeps between training steps, instead of requesting it from the system again."""

import ctypes
import os

# glibc's settings: environment variable -> (its number in malloc.h, value). Large blocks are part of the heap and get no
# mapping of their own; free memory at the end of the heap is never returned; all threads share one heap, since the heaps of
# threads other than the first cannot hold a block of more than 32 MiB.
_SETTINGS = {"MALLOC_MMAP_MAX_": (-4, 0), "MALLOC_TRIM_THRESHOLD_": (-1, -1), "MALLOC_ARENA_MAX": (-8, 1)}


def keep_memory() -> bool:
    """Makes glibc's malloc keep freed memory in this process. Call it before importing the framework, which starts threads.

    By default malloc maps every block above 32 MiB from the system and returns it when it is freed. The logits of each training
    step are then in new pages, and the system clears each page when it is first touched. On a CPU that can take longer than the
    arithmetic (docs/benchmarks.md). The price: the process holds the largest amount of memory it ever used until it ends.

    The commands of k3seq call this, and its worker processes get the same settings from their environment. In a script of your
    own, call it first. `K3SEQ_KEEP_MEMORY=0` in the environment turns both off.

    Returns:
        Whether malloc accepted the settings: False without glibc, or when it is turned off.
    """
    if not _wanted():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(number, value) == 1 for number, value in _SETTINGS.values())


def keeping_environment() -> dict[str, str]:
    """Environment variables that make a new process keep its memory as `keep_memory` does; none when it is turned off."""
    return {name: str(value) for name, (_, value) in _SETTINGS.items()} if _wanted() else {}


def kept_by_environment() -> bool:
    """Whether this process was started with `keeping_environment`."""
    return _SETTINGS.keys() <= os.environ.keys()


def _wanted() -> bool:
    try:
        return os.environ.get("K3SEQ_KEEP_MEMORY") != "0" and bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # another system, or another C library
        return False
