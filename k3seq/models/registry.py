"""Models by name: those with the sizes of their source for `k3seq summary`, and those that `k3seq train` trains."""

import importlib
import os
import sys
from typing import Any

import keras

from k3seq.errors import UsageError
from k3seq.runtime import factories

# name -> (module, factory, arguments) of the models of `k3seq summary` and `k3seq provenance`, imported on request.
EXAMPLES = {
    "lstm": ("lstm", "LSTMSeq2Seq", {}),
    "sliding-arithmetic": ("sliding_arithmetic", "SlidingArithmetic", {}),
    "book-decoder": ("examples.book", "book_decoder", {}),
    "document-classifier": ("examples.document", "document_classifier", {}),
    "vae": ("examples.vae", "VAE", {}),
}

# name -> (module, class, the sizes that it takes) of the models that `k3seq train --model` trains on text pairs.
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


def names() -> list[str]:
    """The names that `create` knows."""
    return list(EXAMPLES)


def create(name: str) -> keras.Model:
    """A built model: one of `names()`, or `package.module:factory` (a function or class that is called without arguments).

    Raises:
        UsageError: the name is unknown, the factory fails to import, or its result is not a built Keras model.
    """
    if ":" not in name:
        if name not in EXAMPLES:
            raise UsageError(f"Expected one of {', '.join(EXAMPLES)} or package.module:factory. Received: {name}")
        module, factory, arguments = EXAMPLES[name]
        return getattr(importlib.import_module(f"k3seq.models.{module}"), factory)(**arguments)
    model: Any = factories.call(find(name), name, "a keras.Model")
    if not isinstance(model, keras.Model):
        raise UsageError(f"Expected {name} to return a keras.Model. Received: {type(model).__name__}")
    if not model.built:
        raise UsageError(f"Expected {name} to return a built model, with its weights. Received: {model.name}, not built")
    return model


def load_all() -> None:
    """Imports every module with a model, so that Keras finds the classes when it loads a file."""
    for module, *_ in (*EXAMPLES.values(), *TRAINABLE.values()):
        importlib.import_module(f"k3seq.models.{module}")


def find(name: str) -> Any:
    """The object `package.module:attribute`; modules are searched in the working directory too.

    Raises:
        UsageError: there is no such module or attribute.
    """
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


def sizes(kind: str) -> list[str]:
    """The names of the sizes that a model of `TRAINABLE` takes."""
    return list(_kind(kind)[2])


def seq2seq(kind: str, source_vocabulary_size: int, target_vocabulary_size: int, **chosen: Any) -> keras.Model:
    """A seq2seq model of a kind that `k3seq train` knows.

    Args:
        kind: one of `TRAINABLE`.
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        chosen: arguments of the model; None keeps the default.

    Raises:
        UsageError: the kind is unknown, or an argument is unknown or bad.
    """
    module, name, taken = _kind(kind)
    chosen = {size: value for size, value in chosen.items() if value is not None}
    unknown = sorted(set(chosen) - set(taken))
    if unknown:
        raise UsageError(f"Expected arguments of {kind} among {', '.join(taken)}. Received: {', '.join(unknown)}")
    model = getattr(importlib.import_module(f"k3seq.models.{module}"), name)
    return model(source_vocabulary_size, target_vocabulary_size, **chosen)


def _kind(kind: str) -> tuple[str, str, tuple[str, ...]]:
    if kind not in TRAINABLE:
        raise UsageError(f"Expected one of {', '.join(TRAINABLE)}. Received: {kind}")
    return TRAINABLE[kind]
