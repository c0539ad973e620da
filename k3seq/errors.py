"""The exceptions a user can meet. The command line prints `str(error)` as one line and exits with `exit_code`."""

from collections.abc import Iterator
from contextlib import contextmanager


class K3SeqError(Exception):
    """Something failed that is not the caller's usage: exit code 1."""

    exit_code = 1


class UsageError(K3SeqError, ValueError):
    """The caller asked for something that cannot be: an unknown name, a bad value, a missing backend. Exit code 2."""

    exit_code = 2
    # Keras wraps what a layer raises in the layer's arguments, in another way on each backend, unless it bears this mark.
    _keras_call_info_injected = True


class MissingBackend(UsageError, ImportError):
    """A backend was asked for that is not installed; the message holds the command that installs it."""


class MissingPackage(UsageError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Surrounds the imports of packages that `pip install "k3seq[extra]"` installs.

    Raises:
        MissingPackage: one of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "a package").partition(".")[0]
        raise MissingPackage(f'{name} is not installed. Install it with: pip install "k3seq[{extra}]"') from error


class DataError(K3SeqError, ValueError):
    """Data that cannot be used.

    Args:
        message: what was expected and what came.
        path: the file, or None where the data did not come from one.
        line: 1-based line (or record) in the file.
    """

    def __init__(self, message, path=None, line=None):
        self.path, self.line = path, line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)
