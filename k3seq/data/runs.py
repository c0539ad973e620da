"""Run directories: one training creates each, a save replaces all of it at once, and reading verifies it.

A save writes every file to a new folder inside the run directory. Renaming that folder to `.saved` completes the save; then its
files move to their final names. A reader looks into `.saved` first, so that it finds the old run or the new one at any moment.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from k3seq.data.files import replacing, sync
from k3seq.errors import DataError, UsageError
from k3seq.typing import Json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RECORD, MODEL, SOURCE, TARGET, FIGURE = "run.json", "model.keras", "source.json", "target.json", "losses.png"
PARTS = (MODEL, SOURCE, TARGET)
_FORMAT = 2
_SAVED, _UNFINISHED = ".saved", ".unfinished-"
Loaded = TypeVar("Loaded")


@contextlib.contextmanager
def create_run_directory(path: str | Path | None = None, overwrite: bool = False, name: str = "run") -> Iterator[Path]:
    """Creates a directory for one training. No other training can enter it until this one leaves the `with` block.

    A directory that was created here is removed at the end if it is empty.

    Args:
        path: the directory; missing parents are created. None takes the first of `runs/NAME-1`, `runs/NAME-2`, ... that does
            not exist.
        overwrite: accept a directory that holds a run. That run stays complete until `replace_run` replaces it.
        name: NAME. It is a file name, not a pattern: `*` and `[` have no meaning.

    Yields:
        The directory.

    Raises:
        UsageError: the directory cannot be written, holds a run, or belongs to a training that has not ended.
    """
    with contextlib.ExitStack() as stack:
        directory = Path("runs" if path is None else path)
        try:
            directory, created = _numbered(directory, name) if path is None else (directory, _make(directory))
            stack.enter_context(_lock(directory))
            if created:
                stack.callback(_remove_empty, directory)
            if not overwrite and holds_run(directory):
                raise UsageError(
                    f"Expected a new run directory, or --overwrite (overwrite=True). Received: {directory}, with a run"
                )
            for entry in directory.glob(f"{_UNFINISHED}*"):  # of a training that was killed
                shutil.rmtree(entry, ignore_errors=True)
            os.rmdir(tempfile.mkdtemp(prefix=_UNFINISHED, dir=directory))  # what a save will do has to work before the training
        except OSError as error:
            raise UsageError(
                f"Expected a run directory that can be written. Received: {directory}: {error.strerror}"
            ) from error
        yield directory


def holds_run(directory: str | Path) -> bool:
    """Whether the directory has a file of a run."""
    return any(os.path.lexists(Path(directory, name)) for name in (_SAVED, RECORD, *PARTS))


@contextlib.contextmanager
def replace_run(directory: str | Path, record: dict[str, Json]) -> Iterator[Path]:
    """Saves a run: all of it replaces what the directory held, or nothing does, also where the process is killed.

    Other files in the directory stay, except `losses.png`, which shows the older run.

    Args:
        directory: created where it is missing.
        record: what `run.json` holds besides the SHA-256 of each part.

    Yields:
        An empty folder in which the caller writes the files `PARTS`.

    Raises:
        DataError: a file cannot be written, for example because the disk is full.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=directory))
        try:
            yield folder
            hashes = {name: sha256(folder / name) for name in PARTS}
            (folder / RECORD).write_text(_text({"format": _FORMAT, "sha256": hashes, **record}), "utf-8", "backslashreplace")
            for path in (*folder.iterdir(), folder):
                sync(path)
            _complete(folder, directory)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())
        raise DataError(f"Expected a run directory that can be written. Received: {reason}", directory) from error


def write_record(directory: str | Path, record: dict[str, Json]) -> None:
    """Replaces `run.json` alone, for example after an epoch that gave no better model.

    Raises:
        UsageError: the directory holds no run. DataError: the file cannot be written.
    """
    directory = Path(directory)
    path, content, _ = _state(directory)
    hashes = _parse(path, content)["sha256"]
    try:
        _move_saved(directory)
        with replacing(directory / RECORD) as temporary:
            temporary.write_text(_text({"format": _FORMAT, "sha256": hashes, **record}), "utf-8", "backslashreplace")
    except OSError as error:
        raise DataError(f"Expected a file that can be written. Received: {error.strerror}", directory / RECORD) from error


def read_run(directory: str | Path, load: Callable[[dict[str, Json], dict[str, Path]], Loaded]) -> Loaded:
    """Reads a run whose parts are those that were saved together.

    Args:
        directory: a run directory. Another process may save to it meanwhile: what is read is then read again.
        load: called with the record and the path of each of `PARTS`; raises DataError where it cannot read a part.

    Returns:
        What `load` returns.

    Raises:
        UsageError: the directory holds no run. DataError: a part is missing, damaged or not the one that was saved.
    """
    directory = Path(directory)
    before = _state(directory)
    while True:
        result = error = None
        path, content, parts = before
        try:
            record = _parse(path, content)
            hashes = record.pop("sha256")
            for name in PARTS:
                found = sha256(parts[name])
                if found != hashes[name]:
                    expected = f"Expected the file that was saved with {RECORD}, of SHA-256 {hashes[name][:12]}"
                    raise DataError(f"{expected}. Received: {found[:12]}", parts[name])
            result = load(record, parts)
        except (DataError, OSError) as caught:
            error = caught
        after = _state(directory)
        if after == before:
            break
        before = after
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType]  # there is a result where there is no error


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file in hexadecimal digits. Raises DataError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"Expected a file of the run. Received: {error.strerror}", path) from error


def _numbered(parent: Path, name: str) -> tuple[Path, bool]:
    """The first free directory of `parent`, created, and True."""
    parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        with contextlib.suppress(FileExistsError):
            (parent / f"{name}-{number}").mkdir()
            return parent / f"{name}-{number}", True
    raise AssertionError("count has no end")


def _make(directory: Path) -> bool:
    """Creates a directory; False where it exists."""
    try:
        directory.mkdir(parents=True)
    except FileExistsError:
        if not directory.is_dir():
            raise
        return False
    return True


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Holds the directory itself; the system releases it where the process is killed. Does nothing on Windows."""
    if fcntl is None:
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(
                os.fstat(handle), os.stat(directory)
            )  # False: removed by the training before, and made again
        except (BlockingIOError, FileNotFoundError):
            free = False
        if not free:
            raise UsageError(f"Expected a run directory of one training. Received: {directory}, where another one is running")
        yield
    finally:
        os.close(handle)


def _text(record: dict[str, Json]) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _complete(folder: Path, directory: Path) -> None:
    """Makes `folder` the run of the directory with one rename, then moves its files to their names."""
    while True:
        _move_saved(directory)
        try:
            folder.rename(directory / _SAVED)
            break
        except OSError as error:
            # Another process has completed a save since; it may have moved its files to their names by now.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    sync(directory)
    _move_saved(directory)


def _move_saved(directory: Path) -> None:
    """Moves the files of a completed save to their names. Any process may do or finish it."""
    saved = directory / _SAVED
    with contextlib.suppress(FileNotFoundError):
        names = os.listdir(saved)
        (directory / FIGURE).unlink(missing_ok=True)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.replace(saved / name, directory / name)
        with contextlib.suppress(OSError):  # not empty: the next save of another process
            saved.rmdir()


def _state(directory: Path) -> tuple[Path, bytes, dict[str, Path]]:
    """The path and content of `run.json` and the paths of the parts, as they are now."""
    for path in (directory / _SAVED / RECORD, directory / RECORD):
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise DataError(f"Expected the JSON of a run. Received: {error.strerror}", path) from error
        places = {name: (directory / _SAVED / name, directory / name) for name in PARTS}
        return path, content, {name: new if new.exists() else old for name, (new, old) in places.items()}
    raise UsageError(f"Expected a directory that k3seq train wrote. Received: {directory}, without {RECORD}")


def _parse(path: Path, content: bytes) -> dict[str, Json]:
    """The record in `run.json`. Raises DataError where it is not one."""
    try:
        record = json.loads(content)
    except ValueError as error:
        raise DataError(f"Expected the JSON of a run. Received: {error}", path) from error
    if not isinstance(record, dict) or record.pop("format", None) != _FORMAT:
        raise DataError(f"Expected the JSON of a run of format {_FORMAT}. Received: something else", path)
    hashes = record.get("sha256")
    if not isinstance(hashes, dict) or sorted(hashes) != sorted(PARTS) or not all(isinstance(h, str) for h in hashes.values()):
        raise DataError(f"Expected the SHA-256 of {', '.join(PARTS)}. Received: {hashes!r}", path)
    return record
