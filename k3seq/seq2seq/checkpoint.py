"""Loads the weights of a tf.keras 2.15 model with TensorFlow Addons' attention into a k3seq model of the same layers.

`model.weights` there prints names such as `decoder/basic_decoder/decoder/attention_wrapper/lstm_cell_1/kernel:0` or
`LuongAttention/memory_layer/kernel:0`. Scopes before the layer and numbers after its name depend on how the model was called.
A weight is therefore placed by its role: the kind of its layer, encoder or decoder, and its position among layers of that kind.
"""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np

from k3seq.backend.keras_internals import layers_of, own_weights
from k3seq.errors import DataError, UsageError
from k3seq.seq2seq.attention_wrapper import AttentionWrapper
from k3seq.seq2seq.decoder import BaseDecoder
from k3seq.seq2seq.mechanisms import AttentionMechanism

_NAMED = ("memory_layer", "query_layer", "attention_layer")
_SCORE = {"attention_v", "attention_g", "attention_b", "attention_score_bias"}
_SIDES = ("encoder", None, "decoder")


@dataclasses.dataclass
class _Owner:
    """A layer that holds weights: its kind, its side ("encoder", "decoder" or None: unknown), weight name -> entry."""

    kind: str
    side: str | None
    entries: dict


def load_tfa_weights(model: Any, weights: Any) -> dict[str, str]:
    """Puts the weights of a tf.keras 2.15 / TensorFlow Addons model into a k3seq model, by role, or raises and changes nothing.

    Roles are: the recurrent layers and embeddings of encoder and decoder, the cell within the `AttentionWrapper`, the
    mechanism's `memory_layer`, `query_layer` and score weights (`attention_v`, `attention_g`, `attention_b`,
    `attention_score_bias`), the `attention_layer`, and the dense layers. Several of one kind are taken in order, those of the
    encoder before those of the decoder. Gates have the same order in both.

    Args:
        model: a built Keras model or layer.
        weights: {name: array}; a list of (name, array), as `[(w.name, w.numpy()) for w in model.weights]` makes it, where two
            weights may have one name; or the path of a `.npz` file of them.

    Returns:
        {name: path of the model's weight that it went to}; names that were given twice carry `#2` and so on.

    Raises:
        UsageError: the model is not built, or weights are missing, left over or of another shape: one line names them all.
        DataError: the file is no `.npz` of arrays.
    """
    if not model.built:
        raise UsageError(f"Expected a built model. Received: {model.name}, whose weights do not exist yet")
    wanted, given = _owners_of(model), _owners_in(_read(weights))
    pairs, missing, extra = [], [], []
    for own, other in _paired(wanted, given):
        theirs = dict(other.entries) if other else {}
        for name, variable in (own.entries if own else {}).items():
            if name in theirs:
                pairs.append((variable, *theirs.pop(name)))
            else:
                missing.append(f"{variable.path} {tuple(variable.shape)}")
        extra += [f"{name} {value.shape}" for name, value in theirs.values()]
    unlike = [
        f"{name} {value.shape} for {variable.path} {tuple(variable.shape)}"
        for variable, name, value in pairs
        if value.shape != tuple(variable.shape)
    ]
    faults = {"missing": missing, "left over": extra, "of another shape": unlike}
    if any(faults.values()):
        found = "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise UsageError(f"Expected one weight for each of {model.name}, of its shape. Received: {found}")
    for variable, _, value in pairs:
        variable.assign(value)
    return {name: variable.path for variable, name, _ in pairs}


def _read(weights):
    """List of (name, array), each name once."""
    if isinstance(weights, str | os.PathLike):
        path = Path(weights)
        try:
            with np.load(path, allow_pickle=False) as stored:
                weights = dict(stored)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"Expected an .npz file of arrays. Received: {error}", path=path) from error
    named, counts = [], {}
    for name, value in weights.items() if isinstance(weights, dict) else weights:
        counts[name] = count = counts.get(name, 0) + 1
        named.append((name if count == 1 else f"{name}#{count}", np.asarray(value)))
    return named


def _owners_in(named):
    """The layers that the names refer to, in the order of their first weight."""
    scopes = {}
    for name, value in named:
        scope, _, weight = re.sub(r"(:\d+)?(#\d+)?$", "", name).rpartition("/")
        owners = scopes.setdefault(scope, [{}])
        free = next((owner for owner in owners if weight not in owner), None)
        if free is None:  # a repeated name belongs to another layer
            owners.append(free := {})
        free[weight] = (name, value)
    found = []
    for scope, owners in scopes.items():
        parts = [re.sub(r"_\d+$", "", part).lower() for part in scope.split("/")]
        side = next((side for side in ("decoder", "encoder") if any(side in part for part in parts)), None)
        side = "decoder" if "attention_wrapper" in parts else side
        for entries in owners:
            found.append(_Owner(parts[-1] if parts[-1] in _NAMED else _kind(entries), side, entries))
    return found


def _owners_of(model):
    """The layers of a Keras model that hold weights, in its order."""
    layers = list(layers_of(model))
    named, decoding = {}, set()
    for layer in layers:
        if isinstance(layer, AttentionMechanism):
            named |= {id(getattr(layer, name)): name for name in _NAMED[:2] if getattr(layer, name) is not None}
        if isinstance(layer, AttentionWrapper):
            named |= {id(each): "attention_layer" for each in layer._attention_layers if each is not None}
        if isinstance(layer, AttentionWrapper | BaseDecoder):
            decoding |= {id(each) for each in layers_of(layer)}
    found = []
    for layer in layers:
        entries = {v.name: v for v in own_weights(layer) if _is_weight(v)}
        if entries:
            side = next((side for side in ("decoder", "encoder") if side in next(iter(entries.values())).path.lower()), None)
            side = "decoder" if id(layer) in decoding else side
            found.append(_Owner(named.get(id(layer)) or _kind(entries), side, entries))
    return found


def _is_weight(variable):
    return keras.backend.is_float_dtype(variable.dtype)


def _kind(entries):
    """The kind of a layer by the names of its weights."""
    if _SCORE & set(entries):
        return "score"
    if "recurrent_kernel" in entries:
        return "recurrent"
    if "kernel" in entries or set(entries) == {"bias"}:
        return "dense"
    return " ".join(sorted(entries))


def _paired(wanted, given):
    """Pairs of layers, of one kind each; None where the other side has no such layer."""
    for kind in dict.fromkeys(owner.kind for owner in [*wanted, *given]):
        ours, theirs = (
            sorted((o for o in owners if o.kind == kind), key=lambda o: _SIDES.index(o.side)) for owners in (wanted, given)
        )
        if len(ours) == len(theirs):
            yield from zip(ours, theirs, strict=True)
            continue
        for own in ours:
            other = next((o for o in theirs if o.side == own.side), None)
            if other is not None:
                theirs.remove(other)
            yield own, other
        yield from ((None, other) for other in theirs)
