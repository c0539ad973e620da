"""Data for sequence models: arithmetic problems, text pairs, tokenizers, records, batches, run directories and checks.

No module here imports Keras. Names load on first use, so that the command line starts without NumPy. Grain, ArrayRecord and
SentencePiece are imported by the functions that need them.
"""

import importlib
from typing import Any

_NAMES = {
    "arithmetic": (),
    "batches": ("Batches", "Examples", "encode_pairs", "pad", "source_batches"),
    "checks": ("check_ids", "check_labels", "check_lengths", "check_mask"),
    "pairs": ("Pairs", "read_pairs", "references"),
    "records": ("Records", "read_shards", "shard_paths", "write_shards"),
    "runs": ("create_run_directory",),
    "tokenizers": ("CharTokenizer", "SpaceTokenizer", "SubwordTokenizer", "Tokenizer", "WordTokenizer"),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted([*_NAMES, *_MODULE_OF])  # pyright: ignore[reportUnsupportedDunderAll]  # one list of names instead of two


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"k3seq.data.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"k3seq.data.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.data. Received: {name}")


def __dir__() -> list[str]:
    return list(__all__)
