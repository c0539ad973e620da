"""Models by name: the seeds' sizes for `k3seq summary`, and the kinds that `k3seq train` can train."""

import importlib
import os
import sys

import keras

from k3seq.errors import UsageError

# name -> (module, factory, arguments). The modules are imported when a name is asked for.
SEEDS = {
    "lstm-seq2seq": ("lstm", "LSTMSeq2Seq", {}),
    "sliding-arithmetic": ("sliding", "SlidingArithmetic", {}),
    "book-decoder": ("book", "book_decoder", {}),
    "document-classifier": ("document", "document_classifier", {}),
    "vae": ("vae", "VAE", {}),
}

# kind -> (module, class, its name for each of the sizes that the command line knows)
KINDS = {
    "lstm": ("lstm", "LSTMSeq2Seq", {"units": "units", "embedding": "embedding", "layers": "depth", "dropout": "dropout"}),
    "lstm-attention": (
        "lstm",
        "AttentionSeq2Seq",
        {"units": "units", "embedding": "embedding", "layers": "depth", "dropout": "dropout"},
    ),
    "transformer": (
        "transformer",
        "TransformerSeq2Seq",
        {
            "units": "units",
            "dense": "dense",
            "heads": "heads",
            "layers": "depth",
            "dropout": "dropout",
            "max_steps": "max_steps",
        },
    ),
    "sliding": (
        "sliding_seq2seq",
        "SlidingSeq2Seq",
        {
            "units": "units",
            "dense": "dense",
            "layers": "stacks",
            "width_source": "width_source",
            "width_target": "width_target",
        },
    ),
}


def names():
    """The names that `create` knows."""
    return list(SEEDS)


def create(name):
    """A built model, by one of `names()` or as `package.module:factory` (a function or class to be called without arguments).

    Raises:
        UsageError: when nothing stands under the name, the factory fails to import, or what it returns is no built Keras model.
    """
    if ":" not in name:
        if name not in SEEDS:
            raise UsageError(f"Expected one of {', '.join(SEEDS)} or package.module:factory. Received: {name}")
        module, factory, arguments = SEEDS[name]
        return getattr(importlib.import_module(f"k3seq.models.{module}"), factory)(**arguments)
    model = find(name)()
    if not isinstance(model, keras.Model):
        raise UsageError(f"Expected {name} to return a keras.Model. Received: {type(model).__name__}")
    if not model.built:
        raise UsageError(f"Expected {name} to return a built model, with its weights. Received: {model.name}, not built")
    return model


def load_all():
    """Imports every module that holds a model, so that Keras finds its class when it loads a file."""
    for module, *_ in (*SEEDS.values(), *KINDS.values()):
        importlib.import_module(f"k3seq.models.{module}")


def find(name):
    """The object that `package.module:attribute` names; modules are looked for in the working directory too."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(f"Expected a module to import in {name}. Received: {error}") from error
    except AttributeError as error:
        raise UsageError(f"Expected {module} to hold {attribute!r}. Received: {error}") from error


def sizes(kind):
    """The sizes that a kind of `KINDS` takes, by the names of the command line."""
    return list(_kind(kind)[2])


def seq2seq(kind, source_vocabulary, target_vocabulary, **chosen):
    """A seq2seq model of a kind that `k3seq train` knows.

    Args:
        kind: one of `KINDS`.
        source_vocabulary, target_vocabulary: numbers of ids.
        chosen: sizes by the names of the command line; a size of None keeps the model's own default.

    Raises:
        UsageError: for an unknown kind, or a size that the kind does not have.
    """
    module, name, own_names = _kind(kind)
    chosen = {size: value for size, value in chosen.items() if value is not None}
    foreign = sorted(set(chosen) - set(own_names))
    if foreign:
        raise UsageError(f"Expected for {kind} the sizes {', '.join(own_names)}. Received: {', '.join(foreign)}")
    model = getattr(importlib.import_module(f"k3seq.models.{module}"), name)
    arguments = {own_names[size]: value for size, value in chosen.items()}
    try:
        return model(source_vocabulary, target_vocabulary, **arguments)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _kind(kind):
    if kind not in KINDS:
        raise UsageError(f"Expected a model of {', '.join(KINDS)}. Received: {kind}")
    return KINDS[kind]
