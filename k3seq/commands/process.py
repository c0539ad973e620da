"""The process of a command: its signals, its standard streams and its exit codes."""

import os
import signal
import sys

_received: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. What handles Ctrl-C handles it too, so that partial files are removed."""


def handle_signals() -> None:
    """Makes SIGTERM and SIGHUP raise `Terminated`; a second one ends the process at once. An ignored signal stays ignored."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number, frame):
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


def interruption() -> tuple[str, int]:
    """The word for what interrupted the command, and its exit code: 130 for Ctrl-C, 128 + number for another signal."""
    if _received:
        return f"ended by {signal.Signals(_received[0]).name}", 128 + _received[0]
    return "interrupted", 130


def open_closed_streams() -> None:
    """Opens the null device for each closed standard stream. Otherwise the next file would take its number.

    `sys.stdin` stays None where it was closed, so that a command that reads it can say so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(1, "w")
    sys.stderr = sys.stderr or open(2, "w")


def discard_output() -> None:
    """Sends standard output to the null device: its reader is gone, and Python writes the rest of its buffer at the end."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, sys.stdout.fileno())
    os.close(handle)
