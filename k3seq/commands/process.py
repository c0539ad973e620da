"""The process of a command: its signals, its standard streams and its exit codes."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator

import typer

from k3seq.data.files import restore_standard_output
from k3seq.errors import Interrupted, K3SeqError

_received: list[int] = []


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. What handles Ctrl-C handles it too, so that partial files are removed."""


def handle_signals() -> None:
    """Makes SIGTERM and SIGHUP raise `Terminated`; a second one ends the process at once. An ignored signal stays ignored."""
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number, _):
    _received.append(number)
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


def interruption() -> tuple[str, int]:
    """The word for what interrupted the command, and its exit code: 130 for Ctrl-C, 128 + number for another signal."""
    if _received:
        return f"ended by {signal.Signals(_received[0]).name}; partial files are removed", 128 + _received[0]
    return "interrupted", 130


def prepare_streams() -> None:
    """Makes standard output print every path, and opens the null device for each standard stream that is closed.

    Otherwise the next file would take the number of the closed stream. `sys.stdin` stays None where it was closed, so that a
    command that reads it can say so.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(1, "w")
    sys.stderr = sys.stderr or open(2, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Hides TensorFlow while a model is saved or loaded on another backend.

    Keras imports it then wherever it is installed, which takes seconds and prints lines of its own. Keras remembers that
    TensorFlow is missing, so this is for the process of a command only. A user's process has
    `pipeline.import_tensorflow_quietly`.
    """
    if os.environ.get("KERAS_BACKEND") == "tensorflow" or "tensorflow" in sys.modules:
        yield
        return
    sys.modules["tensorflow"] = None  # pyright: ignore[reportArgumentType]  # None makes `import tensorflow` fail
    try:
        yield
    finally:
        del sys.modules["tensorflow"]


def exit_code(command: Callable[[], int | None]) -> int:
    """Runs a command of typer, reports how it ended, and returns its exit code."""
    try:
        code = command()
        sys.stdout.flush()
        return failed(*interruption()) if code == 130 else code or 0  # typer turns Ctrl-C into 130 and prints nothing
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich turns it into an exit with code 1
            return 141
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:
        # Python writes the rest of its buffer at its end.
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())
        return 141
    except (KeyboardInterrupt, typer.Abort):
        return failed(*interruption())
    except Interrupted as error:
        return failed(error, interruption()[1])
    except K3SeqError as error:
        return failed(error, error.exit_code)
    except OSError as error:
        return failed(error, 1)
    except Exception as error:
        shown = getattr(error, "format_message", None)  # of typer's usage errors
        if shown is not None:
            return failed(shown(), 2)
        return failed(f"{type(error).__name__}: {error} (K3SEQ_DEBUG=1 shows where)", 1)
    finally:
        restore_standard_output()


def failed(message: object, code: int) -> int:
    """Prints `k3seq: message` as one line on stderr and returns the exit code."""
    if os.environ.get("K3SEQ_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    line = f"k3seq: {' '.join(str(message).split())}"
    print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)  # a path may have bytes that are not UTF-8
    return code
