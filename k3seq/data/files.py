"""Files appear under their name complete, or not at all."""

import contextlib
import os
import pathlib


@contextlib.contextmanager
def replacing(path):
    """Gives a temporary name beside `path`; on leaving without an error, what was written there gets the name `path`.

    On an error the temporary file is removed and an older file under `path` stays as it was.

    Raises:
        OSError: the folder is missing or not writable, the disk is full, or nothing was written.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{os.getpid()}.partial.{path.name}")  # the suffix stays: Keras wants it
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
