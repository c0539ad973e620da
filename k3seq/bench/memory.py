"""Memory of this process, in bytes."""

import resource
import sys
from pathlib import Path

from k3seq.errors import require_extra

with require_extra("bench"):
    import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def current() -> int:
    """Resident memory now."""
    return psutil.Process().memory_info().rss


def peak() -> int:
    """The maximum resident memory since the start of the process, or since `forget_peak`."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        # Kibibytes, bytes on macOS; on Linux it could be the parent's, whose memory a process shares until its exec.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def forget_peak() -> bool:
    """Resets the maximum, where the system can (Linux); returns whether it can."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True
