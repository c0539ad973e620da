"""The exceptions a user can meet. The command line prints `str(error)` as one line and exits with `exit_code`."""


class K3SeqError(Exception):
    """Something failed that is not the caller's usage: exit code 1."""

    exit_code = 1


class UsageError(K3SeqError, ValueError):
    """The caller asked for something that cannot be: an unknown name, a bad value, a missing backend. Exit code 2."""

    exit_code = 2


class MissingBackend(UsageError, ImportError):
    """A backend was asked for that is not installed; the message holds the command that installs it."""


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
