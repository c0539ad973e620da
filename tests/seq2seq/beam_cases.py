"""The golden beam-search cases on k3seq: builds what a case describes, gives it the case's weights and decodes."""

import contextlib

import keras
import numpy as np
from keras import ops

import golden
from k3seq import backend
from k3seq.seq2seq import AttentionWrapper, BahdanauAttention, BahdanauMonotonicAttention, LuongAttention
from k3seq.seq2seq.beam_search_decoder import BeamSearchDecoder, tile_batch
from seq2seq.attention_cases import exact_products

FAMILIES = ("beam_lstm", "beam_attention")
PRECISIONS = {"f32": "float32", "f64": "float64"}
INTEGERS = (
    "predicted_ids",
    "step_predicted_ids",
    "step_parent_ids",
    "final_sequence_lengths",
    "final.lengths",
    "final.finished",
)


@contextlib.contextmanager
def exact():
    """Keras' cells in float64: its matmul goes down to float32 on torch, and its tanh on JAX."""
    numpy = keras.src.backend.numpy
    tanh = numpy.tanh
    numpy.tanh = lambda x: 2 * ops.sigmoid(2 * x) - 1
    try:
        with exact_products():
            yield
    finally:
        numpy.tanh = tanh


def mechanism(case, dtype):
    """The attention mechanism of a case."""
    units = case["w.attn.memory_layer.kernel"].shape[1]
    if case.params["cell"] == "luong":
        return LuongAttention(units, scale=True, dtype=dtype)
    if case.params["cell"] == "bahdanau":
        return BahdanauAttention(units, normalize=True, dtype=dtype)
    return BahdanauMonotonicAttention(units, mode="parallel", dtype=dtype)


def decoder_of(case, dtype, **changes):
    """The decoder of a case, built and with its weights; `changes` are arguments in the place of the case's."""
    p = case.params
    weights = case.group("w")
    # Zeros in the place of the default, an orthogonal matrix, which JAX compiles for every size
    zeros = {"kernel_initializer": "zeros", "recurrent_initializer": "zeros"}
    cell = keras.layers.LSTMCell(p["cell_units"], **zeros, dtype=dtype)
    if p["memory"]:
        attention = mechanism(case, dtype)
        cell = AttentionWrapper(cell, attention, p["attention_layer_size"], alignment_history=True, dtype=dtype)
        for layer in cell._flatten_layers():
            for name in [name for name in vars(layer) if name.endswith("_initializer")]:
                setattr(layer, name, keras.initializers.Zeros())
        attention.build((p["batch"], *p["memory"]))
    arguments = {
        "beam_width": p["beam_width"],
        "output_layer": keras.layers.Dense(p["vocab"], kernel_initializer="zeros", dtype=dtype),
        "length_penalty_weight": p["length_penalty_weight"],
        "coverage_penalty_weight": p["coverage_penalty_weight"],
        "output_all_scores": p["output_all_scores"],
        "maximum_iterations": p["maximum_iterations"],
    }
    decoder = BeamSearchDecoder(cell, **(arguments | changes), dtype=dtype)
    decoder.build((p["vocab"], p["embed_depth"]))
    owners = {"cell": cell, "output_layer": decoder.output_layer}
    if p["memory"]:
        owners = {"cell": cell.cell, "output_layer": decoder.output_layer, "attn": attention}
        owners |= {f"attn.{n}": getattr(attention, n) for n in ("memory_layer", "query_layer") if getattr(attention, n)}
        owners |= {"attention_layer": cell._attention_layers[0]} if p["attention_layer_size"] else {}
    for name, value in weights.items():
        owner, _, variable = name.rpartition(".")
        if owner:
            getattr(owners[owner], variable).assign(value)
    return decoder


def inputs_of(case, dtype):
    """The arrays that a run of a case takes."""
    given = {**case.group("in"), "embedding": case["w.embedding"]}
    return {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in given.items()}


def decode(decoder, given, end_token):
    """What the decoder gives for these arrays, repeated for its beams; named as in the golden files, without precision."""
    width = decoder.beam_width
    state = [tile_batch(given[name], width) for name in ("init_h", "init_c")]
    if "memory" in given:
        memory, lengths = (tile_batch(given[name], width) for name in ("memory", "memory_sequence_length"))
        decoder.cell.attention_mechanism.setup_memory(memory, lengths)
        state = decoder.cell.get_initial_state(batch_size=memory.shape[0]).clone(cell_state=state)
    outputs, final, lengths = decoder(
        given["embedding"], start_tokens=given["start_tokens"], end_token=end_token, initial_state=state
    )
    steps, cell = outputs.beam_search_decoder_output, final.cell_state
    found = {f"step_{name}": getattr(steps, name) for name in steps._fields}
    found |= {"predicted_ids": outputs.predicted_ids, "final_sequence_lengths": lengths}
    found |= {f"final.{name}": getattr(final, name) for name in ("lengths", "finished", "log_probs")}
    if "memory" in given:
        found |= {"final.attention": cell.attention, "final.alignments": cell.alignments}
        found |= {"final.alignment_history": cell.alignment_history.stack()}
        cell = cell.cell_state
    if decoder.coverage_penalty_weight:
        found["final.accumulated_attention_probs"] = final.accumulated_attention_probs
    return found | dict(zip(("final.h", "final.c"), cell, strict=True))


def run(id, precision, compiled=True, **changes):
    """The results of a case."""
    case, dtype = golden.case(id), PRECISIONS[precision]
    decoder = decoder_of(case, dtype, **changes)

    def forward(given):
        return decode(decoder, given, case.params["end_token"])

    forward = backend.compiled(forward, decoder.variables) if compiled else forward
    given = {name: ops.convert_to_tensor(a) for name, a in inputs_of(case, dtype).items()}
    return {name: ops.convert_to_numpy(value) for name, value in forward(given).items()}


def errors(id, precision, found):
    """{name: relative error} of the results of a case; of integers 0 or infinity.

    A compiled decoder gives `maximum_iterations` steps: beyond those that TFA gives, predicted ids must be the end token and
    all else 0.
    """
    case, result = golden.case(id), {}
    steps, reference = case.params["steps_run"], case.group(precision)
    for name, value in found.items():
        axis = 0 if name.endswith("history") else 1 if name.startswith(("step", "predicted")) else None
        if axis is not None:
            value, rest = np.split(value, [steps], axis=axis)
            if (rest != (case.params["end_token"] if name == "predicted_ids" else 0)).any():
                result[f"{name} beyond the steps"] = np.inf
        same = value.shape == reference[name].shape and (name not in INTEGERS or np.array_equal(value, reference[name]))
        if name == "step_scores":  # the measure of error takes the lowest number for an infinity: they are kept apart here
            same = same and np.array_equal(np.isneginf(value), np.isneginf(reference[name]))
        result[name] = golden.relative_error(value, reference[name]) if same else np.inf
    return result | {f"{name} missing": np.inf for name in set(reference) - set(found)}


def tolerance(id, precision, run_in):
    """How near a float result of dtype `run_in` must come to the reference of `precision`."""
    if "f32" in (precision, run_in):
        return 1e-5
    return 3e-7 if golden.case(id).params["length_penalty_weight"] else 1e-10


def all_ids():
    """The ids of all cases."""
    return [parameters.values[0] for family in FAMILIES for parameters in golden.cases(family)]


def run_all(payload):
    """Cases in float64, for a process that has it: {id: {name: relative error}} against the best reference there is."""
    with exact():
        return {id: errors(id, golden.case(id).precisions[-1], run(id, "f64", payload["compiled"])) for id in payload["ids"]}
