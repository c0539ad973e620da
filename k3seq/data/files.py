"""Files that appear under their name complete, or not at all; lines of text."""

import contextlib
import errno
import os
import pathlib
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import TextIO

from k3seq.errors import DataError

STANDARD_OUTPUT = "-"
_reserved: list[tuple[TextIO, int | None]] = []  # standard output, while prints go to standard error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path; on leaving without an error, what was written there gets the name `path`.

    On an error the temporary file is removed and an older file under `path` stays as it was. Of a symbolic link the target is
    replaced. A pipe, a device, or `-` for standard output, is opened and written to instead.

    Raises:
        OSError: the folder is missing or not writable, the disk is full, or nothing was written. It names `path`.
    """
    with contextlib.ExitStack() as stack:
        _refuse_empty(path)
        direct = _is_written_directly(path)
        target = pathlib.Path(os.path.realpath(path))
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())) if direct else target.parent
        temporary = folder / f".{os.getpid()}.partial.{target.name}"  # Keras needs the suffix
        stack.callback(temporary.unlink, missing_ok=True)
        try:
            yield temporary
            if direct:
                _copy(temporary, path)
            else:
                sync(temporary)
                with contextlib.suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                os.replace(temporary, target)
        except OSError as error:
            if error.errno is None or error.filename not in (None, os.fspath(temporary)):
                raise
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def sync(path: str | os.PathLike[str]) -> None:
    """Waits until a file or folder is on the disk. A folder is skipped where the system cannot do it (Windows)."""
    try:
        handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    except PermissionError:
        if not os.path.isdir(path):
            raise
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raises OSError where `replacing(path)` could not write. It changes nothing."""
    _refuse_empty(path)
    if os.fspath(path) == STANDARD_OUTPUT:
        return
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    if mode is None or stat.S_ISREG(mode):
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))):
            pass


def print_to_standard_error(paths: Iterable[str | os.PathLike[str] | None]) -> None:
    """Where one of the paths is standard output, keeps it free for that: prints go to standard error until it is restored."""
    if not any(path is not None and _is_standard_output(path) for path in paths):
        return
    sys.stdout.flush()
    copy = None
    with contextlib.suppress(OSError, AttributeError):  # a stream in memory has no number
        if sys.stdout.fileno() == 1:
            copy = os.dup(1)
            os.dup2(2, 1)  # of child processes too
    _reserved.append((sys.stdout, copy))
    sys.stdout = sys.stderr


def restore_standard_output() -> None:
    """Ends what `print_to_standard_error` began."""
    while _reserved:
        sys.stdout, copy = _reserved.pop()
        if copy is not None:
            os.dup2(copy, 1)
            os.close(copy)


def _refuse_empty(path):
    if not os.fspath(path):  # `os.path.realpath` takes it for the working directory
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "")


def _is_standard_output(path) -> bool:
    if os.fspath(path) == STANDARD_OUTPUT:
        return True
    try:
        number = next((copy for _, copy in _reserved if copy is not None), 1)
        return os.path.samestat(os.stat(path), os.fstat(number))
    except OSError:
        return False


def _is_written_directly(path) -> bool:
    try:
        return _is_standard_output(path) or not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _copy(temporary, path):
    """Writes the content of a file to standard output, a pipe or a device."""
    with open(temporary, "rb") as content:
        if not _is_standard_output(path):
            with open(path, "wb") as file:
                shutil.copyfileobj(content, file)
            return
        stream, number = _reserved[0] if _reserved else (sys.stdout, None)
        stream.flush()
        if number is None:
            shutil.copyfileobj(content, stream.buffer)
            stream.flush()
        else:
            with open(os.dup(number), "wb") as file:
                shutil.copyfileobj(content, file)


def text_lines(lines: Iterable[bytes], path: str | os.PathLike[str] = "stdin") -> list[str]:
    """Lines of UTF-8 as text, without LF or CRLF and without a byte order mark at the start.

    Args:
        lines: such as `sys.stdin.buffer`, or a file opened with "rb".
        path: names the input in errors.

    Raises:
        DataError: a line is not UTF-8, with its 1-based number.
    """
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(decode_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line))
        except ValueError as error:
            raise DataError(str(error), path, number) from None
    return found


def decode_line(line: bytes) -> str:
    """The text of a line without its LF or CRLF. Raises ValueError, with the place, where it is not UTF-8."""
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        raise ValueError(f"Expected UTF-8. Received: {place}") from None
