"""What a command did, as the JSON of `--json`."""

import os
import sys
import time
from pathlib import Path

from k3seq import __version__
from k3seq.data.files import replacing
from k3seq.errors import UsageError
from k3seq.runtime import matrix


def check_json(path: Path | None):
    """Refuses a `--json` that could not be written, before hours of work; UsageError."""
    if path is not None and (path.is_dir() or not os.access(path.absolute().parent, os.W_OK)):
        raise UsageError(f"Expected a file in a folder that can be written to for --json. Received: {path}")


def write_json(path: Path | None, arguments: list[str], backend: str | None, result: dict, started: float):
    """Writes `{command, backend, versions, seconds, result}` to a temporary name, then renames it; nothing for None."""
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
        temporary.write_text(json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def plain(value):
    """The value as strict JSON holds it: NumPy as Python, paths as text, NaN and infinity as "NaN", "Infinity", "-Infinity"."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return str(value) if isinstance(value, os.PathLike) else value


def versions() -> dict:
    """Of Python, k3seq, keras, numpy and the installed backends, read from their metadata."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, str | None] = {"python": sys.version.split()[0], "k3seq": __version__}
    for name in ("keras", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    known = matrix.load()
    return found | {name: installed for name in known.backends if (installed := matrix.installed(name, known))}
