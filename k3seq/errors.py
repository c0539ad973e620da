"""The exceptions a user can meet. The command line prints `str(error)` as one line and exits with `exit_code`."""

from os import PathLike


class K3SeqError(Exception):
    """Something failed, and the arguments were not the reason. Exit code 1."""

    exit_code = 1


class UsageError(K3SeqError, ValueError):
    """A bad argument or option: an unknown name, a value out of range, a backend that is not installed. Exit code 2."""

    exit_code = 2
    # Keras adds the layer's arguments to what a layer raises, in another way on each backend, unless this attribute is there.
    _keras_call_info_injected = True


class MissingBackend(UsageError, ImportError):
    """The backend is not installed. The message contains the command that installs it."""


class DataError(K3SeqError, ValueError):
    """Bad data in a file or a batch.

    Args:
        message: what was expected and what was received.
        path: the file, or None where the data did not come from one.
        line: 1-based line (or record) in the file.
    """

    def __init__(self, message: str, path: str | PathLike[str] | None = None, line: int | None = None):
        self.path, self.line = path, line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


class Interrupted(K3SeqError):
    """Ctrl-C, SIGTERM or SIGHUP ended a command; the message says what is saved. Exit code 130 (or 128 + the signal)."""

    exit_code = 130
