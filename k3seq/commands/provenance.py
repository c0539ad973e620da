"""`k3seq provenance`: the layers and weights that the outputs of a model depend on, and which weights get a gradient."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from k3seq.errors import DataError


def provenance(name: str, inputs: str | Path | None = None, picture: str | Path | None = None) -> dict[str, Any]:
    """Prints the table of a model's provenance.

    Args:
        name: a name of `k3seq.models.registry` or `package.module:factory`.
        inputs: a `.npz` file: one array for a model of one input, else the arrays by their names; None: drawn, where the model
            is functional or one of k3seq's seq2seq models.
        picture: where a picture goes, as PNG, or None.
    Returns:
        `Provenance.as_json()`: `{"name", "inputs", "calls", "weights"}`.
    Raises:
        UsageError: there is no model of that name, or the model is neither and `inputs` is None. DataError: `inputs` is no such
        file.
    """
    from k3seq.inspect import draw_provenance, provenance_of, save_figure
    from k3seq.models import registry

    model = registry.create(name)
    found = provenance_of(model, _drawn(model) if inputs is None else _read(Path(inputs)))
    print(found)
    if picture is not None:
        save_figure(draw_provenance(found), picture)
    return found.as_json()


def _drawn(model):
    """Two sources, one of them padded, for a seq2seq model; None for another."""
    import numpy as np

    from k3seq.models.seq2seq import Seq2Seq

    if not isinstance(model, Seq2Seq):
        return None
    draw = np.random.default_rng(0)
    high = [vocabulary or 2 for vocabulary in (model.source_vocabulary_size, model.target_vocabulary_size)]
    source, target = (draw.integers(1, size, (2, steps)).astype("int32") for size, steps in zip(high, (4, 3), strict=True))
    return {"source": source, "source_lengths": np.array([4, 3], "int32"), "target": target}


def _read(path):
    import numpy as np

    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, AttributeError, EOFError, BadZipFile) as error:
        raise DataError(f"Expected an .npz file of arrays. Received: {error}", path=path) from error
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
