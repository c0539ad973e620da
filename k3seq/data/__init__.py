"""Data for sequence models: problems, text pairs, tokenizers, records, batches, checks. No keras, no framework.

Names load on first use, so that `import k3seq.data` is quick; Grain is imported only where batches are made.
"""

import importlib

_HOMES = {
    "arithmetic": (),
    "batches": ("Batches", "Examples", "encode_pairs", "pad", "source_batches"),
    "checks": ("check_ids", "check_labels", "check_lengths", "check_mask"),
    "pairs": ("Pairs", "read_pairs", "references"),
    "records": ("Records", "read_shards", "shard_paths", "write_shards"),
    "tokenizers": ("CharTokenizer", "SpaceTokenizer", "SubwordTokenizer", "Tokenizer", "WordTokenizer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Batches",
    "CharTokenizer",
    "Examples",
    "Pairs",
    "Records",
    "SpaceTokenizer",
    "SubwordTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "arithmetic",
    "batches",
    "check_ids",
    "check_labels",
    "check_lengths",
    "check_mask",
    "checks",
    "encode_pairs",
    "pad",
    "pairs",
    "read_pairs",
    "read_shards",
    "records",
    "references",
    "shard_paths",
    "source_batches",
    "tokenizers",
    "write_shards",
]


def __getattr__(name):
    if name in _HOMES:
        return importlib.import_module(f"k3seq.data.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"k3seq.data.{_HOME_OF[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.data. Received: {name}")


def __dir__():
    return list(__all__)
