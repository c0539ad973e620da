"""What a command did, as the JSON of `--json`."""

import os
import sys
import time
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

from k3seq import __version__
from k3seq.data.files import check_writable, replacing
from k3seq.errors import UsageError
from k3seq.runtime import matrix

if TYPE_CHECKING:  # it imports NumPy, which `k3seq --help` does not need
    from k3seq.typing import Json


def check_outputs(outputs: Mapping[str, str | PathLike[str] | None]) -> None:
    """Checks that each output can be written, before hours of work.

    Args:
        outputs: option -> path, or None where the option was not given.

    Raises:
        UsageError: a path cannot be written, or two options have the same one.
    """
    taken: dict[str, str] = {}
    for option, path in outputs.items():
        if path is None:
            continue
        try:
            check_writable(path)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"Expected a file that can be written for {option}. Received: {path} ({reason})") from error
        other = taken.setdefault(os.path.realpath(path), option)
        if other != option and (not os.path.exists(path) or os.path.isfile(path)):
            raise UsageError(f"Expected different files for {other} and {option}. Received: {path}")


def write_json(
    path: str | PathLike[str] | None, arguments: list[str], backend: str | None, result: dict[str, Any], started: float
) -> None:
    """Writes `{command, backend, versions, seconds, result}` to `path`, complete or not at all; nothing where it is None."""
    if path is None:
        return
    import json

    document = {
        "command": ["k3seq", *arguments],
        "backend": backend,
        "versions": versions(),
        "seconds": round(time.time() - started, 3),
        "result": plain(result),
    }
    with replacing(path) as temporary:
        text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        temporary.write_text(text, "utf-8", "backslashreplace")  # bytes of a path that are not UTF-8 become escapes of JSON


def plain(value: Any) -> "Json":
    """The value as strict JSON has it: NumPy as Python, paths as text, NaN and infinity as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return str(value) if isinstance(value, os.PathLike) else value


def versions() -> dict[str, str | None]:
    """Versions of Python, k3seq, keras, numpy and the installed backends, from their metadata."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": sys.version.split()[0], "k3seq": __version__}
    for name in ("keras", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    known = matrix.load()
    return found | {name: installed for name in known.backends if (installed := matrix.installed(name, known))}
