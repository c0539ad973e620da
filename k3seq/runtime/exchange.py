"""Nested dicts and lists of JSON values with NumPy arrays anywhere, as files: how processes exchange payloads and results."""

import importlib
import json
from pathlib import Path
from typing import Any

from k3seq.errors import UsageError


def write(path: Path, value: Any) -> None:
    """Writes JSON values and NumPy arrays to `path.json` and, where there are arrays, `path.npz`.

    Raises:
        UsageError: there is something else in the value; the message names its place.
    """
    import numpy as np

    arrays, places = {}, []

    def plain(value, place):
        if value is None or isinstance(value, str | bool | int | float) and not isinstance(value, np.generic):
            return value
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            array, key = np.asarray(value), f"a{len(places)}"
            native = array.dtype.kind != "V"  # bfloat16 and the float8 family have no dtype in .npy files: store their bytes
            arrays[key] = array if native else np.frombuffer(array.tobytes(), "uint8")
            places.append([place, key, None if native else [array.dtype.name, list(array.shape)]])
            return None
        if isinstance(value, dict) and all(isinstance(k, str) for k in value):
            return {k: plain(v, [*place, k]) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v, [*place, i]) for i, v in enumerate(value)]
        where = "".join(f"[{p!r}]" for p in place) or "the top"
        named = f"{type(value).__module__}.{type(value).__name__}"
        kind = "a dict with a key that is not a str" if isinstance(value, dict) else named
        raise UsageError(f"Expected JSON values and NumPy arrays. Received: {kind} at {where}")

    document = {"value": plain(value, []), "arrays": places}
    Path(f"{path}.json").write_text(json.dumps(document), encoding="utf-8")
    if arrays:
        np.savez(f"{path}.npz", **arrays)


def read(path: Path) -> Any:
    """The value that `write` wrote."""
    document = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    holder = {"value": document["value"]}
    if document["arrays"]:
        import numpy as np

        with np.load(f"{path}.npz", allow_pickle=False) as arrays:
            for place, key, shaped in document["arrays"]:
                array = arrays[key]
                if shaped:
                    ml_dtypes = importlib.import_module("ml_dtypes")
                    array = np.frombuffer(array.tobytes(), getattr(ml_dtypes, shaped[0])).reshape(shaped[1]).copy()
                target, last = holder, "value"
                for step in place:
                    target, last = target[last], step
                target[last] = array
    return holder["value"]
