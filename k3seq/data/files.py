"""Files that appear under their name complete, or not at all; lines of text."""

import contextlib
import os
import pathlib
from collections.abc import Iterable, Iterator

from k3seq.errors import DataError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; on leaving without an error, what was written there gets the name `path`.

    On an error the temporary file is removed and an older file under `path` stays as it was.

    Raises:
        OSError: the folder is missing or not writable, the disk is full, or nothing was written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")  # Keras needs the suffix
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
