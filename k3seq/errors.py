"""The exceptions that k3seq raises for users. The command line prints `str(error)` as one line and exits with `exit_code`."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike


class K3SeqError(Exception):
    """A failure that is not the caller's mistake. Exit code 1."""

    exit_code = 1


class UsageError(K3SeqError, ValueError):
    """The caller's mistake: an unknown name, a wrong value, a package that is not installed. Exit code 2."""

    exit_code = 2


class MissingBackend(UsageError, ImportError):
    """The chosen backend is not installed; the message holds the command that installs it."""


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
        message: what was expected and what was received.
        path: the file, or None where the data did not come from a file.
        line: 1-based line (or record) in the file.
    """

    def __init__(self, message: str, path: str | PathLike[str] | None = None, line: int | None = None) -> None:
        self.path, self.line = path, line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


class Interrupted(K3SeqError):
    """Ctrl-C, SIGTERM or SIGHUP ended a command; the message says what is saved. Exit code 130 (or 128 + the signal)."""

    exit_code = 130
