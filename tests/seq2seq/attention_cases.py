"""The golden attention cases on k3seq: builds what a case describes, gives it the case's weights and steps through it."""

import contextlib

import keras
import numpy as np
from keras import ops

import golden
from k3seq import backend
from k3seq.seq2seq import (
    AttentionWrapper,
    BahdanauAttention,
    BahdanauMonotonicAttention,
    LuongAttention,
    LuongMonotonicAttention,
)

FAMILIES = (
    "attention_luong",
    "attention_bahdanau",
    "attention_luong_monotonic",
    "attention_bahdanau_monotonic",
    "attention_memory_mask",
    "attention_wrapper",
)
PRECISIONS = {"f32": "float32", "f64": "float64"}


def functions_of_the_backend():
    """The module behind `keras.ops` for NumPy's functions; Keras 3.16 moved it into `ops`."""
    return getattr(keras.src.backend, "ops", keras.src.backend).numpy


@contextlib.contextmanager
def exact_products():
    """Lets Keras' own cells and Dense keep float64: its matmul loses it on torch, its tanh on JAX."""
    numpy = functions_of_the_backend()
    matmul, tanh = numpy.matmul, numpy.tanh
    numpy.matmul = lambda a, b: ops.convert_to_tensor(a) @ ops.convert_to_tensor(b)
    numpy.tanh = lambda x: 2 * ops.sigmoid(2 * x) - 1
    try:
        yield
    finally:
        numpy.matmul, numpy.tanh = matmul, tanh


def mechanism(kind, params, dtype):
    """The mechanism of a case."""
    units, flag, mode = params.get("attention_units", params["cell_units"]), params.get("flag", False), params.get("mode")
    if kind == "luong":
        return LuongAttention(units, scale=flag, dtype=dtype)
    if kind == "bahdanau":
        return BahdanauAttention(units, normalize=flag, dtype=dtype)
    if kind == "luong_monotonic":
        return LuongMonotonicAttention(units, scale=flag, mode=mode, dtype=dtype)
    return BahdanauMonotonicAttention(units, normalize=flag, mode=mode, dtype=dtype)


def wrapper(case, dtype):
    """The wrapper of a case."""
    params, variant = case.params, case.params.get("variant")
    cells = {"gru_cell": keras.layers.GRUCell}
    cell = cells.get(variant, keras.layers.LSTMCell)(params["cell_units"], dtype=dtype)
    layer = case.arrays.get("w.attention_layer.kernel")
    size = None if layer is None else layer.shape[1]
    attention = mechanism(params.get("kind", "luong"), params, dtype)
    if variant == "hardmax":
        attention = LuongAttention(params["cell_units"], probability_fn="hardmax", dtype=dtype)
    if variant == "two_mechanisms":
        second = BahdanauAttention(case["w.attn2.memory_layer.kernel"].shape[1], dtype=dtype, name="second")
        attention, size = [attention, second], [size, case["w.attention_layer2.kernel"].shape[1]]
    return AttentionWrapper(
        cell,
        attention,
        attention_layer_size=size,
        alignment_history=True,
        cell_input_fn=(lambda inputs, attention: inputs) if variant == "cell_input_ignores_attention" else None,
        output_attention=variant not in ("output_cell", "no_layer_output_cell"),
        dtype=dtype,
    )


def give_weights(wrapper, case):
    """Assigns every array `w.*` to the variable that it belongs to; raises where one is left over or missing."""
    left = case.group("w")
    owners = [("cell", wrapper.cell)]
    for i, (one, layer) in enumerate(zip(wrapper._attention_mechanisms, wrapper._attention_layers, strict=True)):
        number = "" if i == 0 else str(i + 1)
        owners += [(f"attn{number}", one), (f"attn{number}.memory_layer", one.memory_layer)]
        owners += [(f"attn{number}.query_layer", one.query_layer)] if one.query_layer else []
        owners += [(f"attention_layer{number}", layer)] if layer else []
    for name, layer in owners:
        for variable in layer._trainable_variables:
            variable.assign(left.pop(f"{name}.{variable.name}").reshape(variable.shape))
    if left:
        raise ValueError(f"Expected a variable for every weight of {case.id}. Received: none for {sorted(left)}")


def start_at_zero(attending):
    """Takes chance out of weights that a case brings: on JAX every shape of a random initialiser is compiled."""
    zeros = keras.initializers.Zeros()
    attending.cell.kernel_initializer = attending.cell.recurrent_initializer = zeros
    for one, layer in zip(attending._attention_mechanisms, attending._attention_layers, strict=True):
        one.attention_v_initializer = zeros
        for projection in (one.memory_layer, one.query_layer, layer):
            if projection is not None:
                projection.kernel_initializer = zeros


def run(id, precision, without=()):
    """Steps through a case. Returns {name: largest relative error} of every result.

    `without` names inputs to leave out, for a control: the errors must then be large.
    """
    case, dtype = golden.case(id), PRECISIONS[precision]
    attending = wrapper(case, dtype)
    given = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in case.group("in").items()}
    given = {name: a for name, a in given.items() if name not in without}
    start_at_zero(attending)
    mechanisms, steps = attending._attention_mechanisms, case.params["steps"]
    for i, one in enumerate(mechanisms):
        one.build(given["memory" if i == 0 else "memory2"].shape)
    attending.build((case.params["batch"], case.params["input_depth"]))
    give_weights(attending, case)

    def forward(given):
        for i, one in enumerate(mechanisms):
            name = "memory" if i == 0 else "memory2"
            rest = {key: given.get(key.replace("memory", name)) for key in ("memory_sequence_length", "memory_mask")}
            one.setup_memory(given[name], **rest)
        start = attending.get_initial_state(batch_size=case.params["batch"], dtype=dtype)
        cell_state = [given[name] for name in ("init_h", "init_c") if name in given]
        state = start.clone(cell_state=cell_state).paused()

        def step(time, now, state):
            output, state = attending(now, state)
            return state, seen(output, state)

        def seen(output, state):
            first = (lambda part: part[0]) if len(mechanisms) == 2 else (lambda part: part)
            results = {"outputs": output, "attention": state.attention, "alignments": first(state.alignments)}
            results["attention_state"] = first(state.attention_state)
            results |= dict(zip("hc", state.cell_state, strict=False))
            return results | ({"alignments2": state.alignments[1]} if len(mechanisms) == 2 else {})

        blank = seen(ops.zeros((case.params["batch"], attending.output_size), dtype), state)
        slices = ops.transpose(given["inputs"], (1, 0, 2))
        _, results = backend.unroll(step, lambda carry: True, state, blank, steps, slices)
        memory = start.memory[0] if len(mechanisms) == 2 else start.memory
        results["keys"], results["values"] = memory.keys, memory.values
        for name in ("attention", "alignments", "attention_state"):
            results[f"initial.{name}"] = blank[name]
        return results

    # JAX compiles every operation of an eager run for itself, the others do not
    fast = backend.compiled(forward, attending.variables) if keras.backend.backend() == "jax" else forward
    got = {name: ops.convert_to_numpy(a) for name, a in fast(keras.tree.map_structure(ops.convert_to_tensor, given)).items()}
    expected = case.group(precision)
    several = {name: np.swapaxes(a, 0, 1) for name, a in got.items() if a.ndim == 3 and name not in ("keys", "values")}
    histories = {name.replace("alignments", "alignment_history"): got[name] for name in got if name.startswith("alignments")}
    found = {**got, **several, **histories}
    missing = sorted(set(expected) - set(found))
    if missing:
        raise ValueError(f"Expected every result of {id}. Received: none for {missing}")
    return {name: golden.relative_error(found[name], a) for name, a in expected.items()}


def ids(precision):
    """Every case that has results of a precision."""
    every = [parameters.values[0] for family in FAMILIES for parameters in golden.cases(family)]
    return [id for id in every if precision in golden.case(id).precisions]


def run_all(payload):
    """Cases at one precision, for a process of its own: {id: largest error}."""
    with exact_products():
        return {id: max(run(id, payload["precision"]).values()) for id in payload["ids"]}
