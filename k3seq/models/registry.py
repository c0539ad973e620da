"""Models by name: the seeds' sizes for `k3seq summary`, and the kinds that `k3seq train` can train."""

import importlib
import inspect
import os
import sys

import keras

from k3seq.errors import UsageError

# name -> (module, factory, arguments): what `k3seq summary` and `k3seq provenance` show, with the sizes of its source.
# The modules
# are imported when a name is asked for.
EXAMPLES = {
    "lstm": ("lstm", "LSTMSeq2Seq", {}),
    "sliding-arithmetic": ("sliding_arithmetic", "SlidingArithmetic", {}),
    "book-decoder": ("examples.book", "book_decoder", {}),
    "document-classifier": ("examples.document", "document_classifier", {}),
    "vae": ("examples.vae", "VAE", {}),
}

# name -> (module, class, the sizes that it takes): what `k3seq train --model` trains on text pairs.
TRAINABLE = {
    "lstm": ("lstm", "LSTMSeq2Seq", ("units", "embed_dim", "num_layers", "dropout")),
    "lstm-attention": ("lstm", "AttentionSeq2Seq", ("units", "embed_dim", "num_layers", "dropout")),
    "transformer": (
        "transformer",
        "TransformerSeq2Seq",
        ("embed_dim", "dense_dim", "num_heads", "num_layers", "dropout", "max_steps"),
    ),
    "sliding": (
        "sliding_seq2seq",
        "SlidingSeq2Seq",
        ("embed_dim", "dense_dim", "num_layers", "width_source", "width_target"),
    ),
}


def names():
    """The names that `create` knows."""
    return list(EXAMPLES)


def create(name):
    """A built model, by one of `names()` or as `package.module:factory` (a function or class to be called without arguments).

    Raises:
        UsageError: when nothing stands under the name, the factory fails to import, or what it returns is no built Keras model.
    """
    if ":" not in name:
        if name not in EXAMPLES:
            raise UsageError(f"Expected one of {', '.join(EXAMPLES)} or package.module:factory. Received: {name}")
        module, factory, arguments = EXAMPLES[name]
        return getattr(importlib.import_module(f"k3seq.models.{module}"), factory)(**arguments)
    model = _call(find(name), name)
    if not isinstance(model, keras.Model):
        raise UsageError(f"Expected {name} to return a keras.Model. Received: {type(model).__name__}")
    if not model.built:
        raise UsageError(f"Expected {name} to return a built model, with its weights. Received: {model.name}, not built")
    return model


def load_all():
    """Imports every module that holds a model, so that Keras finds its class when it loads a file."""
    for module, *_ in (*EXAMPLES.values(), *TRAINABLE.values()):
        importlib.import_module(f"k3seq.models.{module}")


def find(name):
    """The object that `package.module:attribute` names; modules are looked for in the working directory too."""
    module, _, attribute = name.partition(":")
    if not attribute or not all(module.split(".")):
        raise UsageError(f"Expected package.module:factory. Received: {name}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UsageError(f"Expected a module to import in {name}. Received: {error}") from error
    except AttributeError as error:
        raise UsageError(f"Expected {module} to hold {attribute!r}. Received: {error}") from error


def _call(factory, name):
    """What a user's factory returns."""
    if not callable(factory):
        raise UsageError(f"Expected {name} to be a function or class. Received: {type(factory).__name__}")
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise UsageError(f"Expected {name} to need no arguments. Received: {error}") from error
    except ValueError:  # some functions written in C have no signature
        pass
    try:
        return factory()
    except SystemExit as error:
        raise UsageError(f"Expected {name} to return a keras.Model. Received: it ended the process") from error


def sizes(kind):
    """The sizes that a kind of `TRAINABLE` takes, by the names of the command line."""
    return list(_kind(kind)[2])


def seq2seq(kind, source_vocabulary_size, target_vocabulary_size, **chosen):
    """A seq2seq model of a kind that `k3seq train` knows.

    Args:
        kind: one of `TRAINABLE`.
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        chosen: sizes by the names of the command line; a size of None keeps the model's own default.

    Raises:
        UsageError: for an unknown kind, or a size that the kind does not have.
    """
    module, name, taken = _kind(kind)
    chosen = {size: value for size, value in chosen.items() if value is not None}
    foreign = sorted(set(chosen) - set(taken))
    if foreign:
        raise UsageError(f"Expected for {kind} the sizes {', '.join(taken)}. Received: {', '.join(foreign)}")
    model = getattr(importlib.import_module(f"k3seq.models.{module}"), name)
    try:
        return model(source_vocabulary_size, target_vocabulary_size, **chosen)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _kind(kind):
    if kind not in TRAINABLE:
        raise UsageError(f"Expected a model of {', '.join(TRAINABLE)}. Received: {kind}")
    return TRAINABLE[kind]
