"""The golden decoder cases on k3seq: builds what a case describes, gives it the case's weights, decodes and differentiates."""

import keras
import numpy as np
from keras import ops

import golden
from k3seq import backend
from k3seq.seq2seq.attention_wrapper import AttentionWrapper
from k3seq.seq2seq.basic_decoder import BasicDecoder
from k3seq.seq2seq.loss import SequenceLoss, sequence_loss
from k3seq.seq2seq.sampler import (
    GreedyEmbeddingSampler,
    ScheduledEmbeddingTrainingSampler,
    ScheduledOutputTrainingSampler,
    TrainingSampler,
)
from seq2seq.attention_cases import PRECISIONS, exact_products, mechanism

FAMILIES = ("decoder_training", "decoder_greedy", "scheduled_embedding", "scheduled_output")
# All weights are assigned: JAX need not compile the drawing of others.
ZEROS = {"kernel_initializer": "zeros"}


def cell_of(case, dtype):
    """The cell of a case: an LSTM, or an attention wrapper around one."""
    params = case.params
    cell = keras.layers.LSTMCell(params["cell_units"], dtype=dtype, **ZEROS, recurrent_initializer="zeros")
    if params.get("memory") is None:
        return cell
    units = case["w.attn.memory_layer.kernel"].shape[1]
    attention = mechanism(params["cell"], {"cell_units": units, "flag": "w.attn.attention_g" in case}, dtype)
    return AttentionWrapper(cell, attention, params["attention_layer_size"], alignment_history=True, dtype=dtype)


def sampler_of(case, dtype):
    """The sampler of a case."""
    params = case.params
    if case.family == "decoder_greedy":
        return GreedyEmbeddingSampler()
    if case.family == "scheduled_embedding":
        return ScheduledEmbeddingTrainingSampler(params["sampling_probability"], time_major=params["time_major"])
    if case.family == "scheduled_output":
        kernel = case.arrays.get("w.next_inputs_layer.kernel")
        layer = None if kernel is None else keras.layers.Dense(kernel.shape[1], dtype=dtype, **ZEROS)
        return ScheduledOutputTrainingSampler(params["sampling_probability"], next_inputs_fn=layer)
    return TrainingSampler(time_major=params.get("time_major", False))


class Decoding:
    """One case at one precision: `decoder`, its call's arguments as arrays, and the variable of every `w.*`."""

    def __init__(self, id, precision, **options):
        self.case, dtype = golden.case(id), PRECISIONS[precision]
        case, params = self.case, self.case.params
        cell, sampler = cell_of(case, dtype), sampler_of(case, dtype)
        self.dense = keras.layers.Dense(params["vocab"], dtype=dtype, **ZEROS) if params.get("vocab") else None
        self.time_major = params.get("time_major", False)
        options = {
            "output_time_major": self.time_major,
            "impute_finished": params.get("impute_finished", False),
            "maximum_iterations": params.get("maximum_iterations"),
            **options,
        }
        self.decoder = BasicDecoder(cell, sampler, self.dense, dtype=dtype, **options)
        given = {**case.group("in"), **{name: case[f"w.{name}"] for name in ("embedding",) if f"w.{name}" in case}}
        self.given = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in given.items()}
        if self.time_major:
            self.given["inputs"] = np.swapaxes(self.given["inputs"], 0, 1)
        self._build(cell, sampler)

    def _build(self, cell, sampler):
        case = self.case
        if isinstance(cell, AttentionWrapper):
            cell.attention_mechanism.build(case["in.memory"].shape)
        first = self.given["embedding" if case.family == "decoder_greedy" else "inputs"].shape
        self.decoder.build(first, None, getattr(case.arrays.get("in.auxiliary_inputs"), "shape", None))
        owners = {"cell": getattr(cell, "cell", cell), "output_layer": self.dense}
        owners["next_inputs_layer"] = getattr(sampler, "next_inputs_fn", None)
        if isinstance(cell, AttentionWrapper):
            attention = cell.attention_mechanism
            owners |= {
                "attn": attention,
                "attn.memory_layer": attention.memory_layer,
                "attn.query_layer": attention.query_layer,
            }
            owners["attention_layer"] = cell._attention_layers[0]
        self.variables = {}
        for name, layer in owners.items():
            for variable in [] if layer is None else layer._trainable_variables:
                self.variables[f"{name}.{variable.name}"] = variable
        if set(self.variables) != set(case.group("w")) - {"embedding"}:
            raise ValueError(f"Expected a variable for every weight of {case.id}. Received: {sorted(self.variables)}")
        for name, variable in self.variables.items():
            variable.assign(case[f"w.{name}"].reshape(variable.shape))

    def arguments(self, given):
        """(inputs, keyword arguments) of the decoder's call."""
        case, cell = self.case, self.decoder.cell
        state = [given["init_h"], given["init_c"]]
        if isinstance(cell, AttentionWrapper):
            cell.attention_mechanism.setup_memory(given["memory"], given.get("memory_sequence_length"))
            state = cell.get_initial_state(batch_size=case.params["batch"]).clone(cell_state=state)
        if case.family == "decoder_greedy":
            tokens = {"start_tokens": given["start_tokens"], "end_token": case.params["end_token"]}
            return given["embedding"], {"initial_state": state, **tokens}
        rest = {name: given[name] for name in ("sequence_length", "embedding", "auxiliary_inputs") if name in given}
        if case.params.get("lengths_given_as") == "mask":
            steps = ops.arange(given["inputs"].shape[0 if self.time_major else 1])
            mask = steps[None] < rest.pop("sequence_length")[:, None]
            rest["mask"] = ops.transpose(mask) if self.time_major else mask
        return given["inputs"], {"initial_state": state, **rest}

    def forward(self, given):
        """All results of the case by their names in it."""
        inputs, rest = self.arguments(given)
        outputs, state, lengths = self.decoder(inputs, **rest)
        found = {"rnn_output": outputs.rnn_output, "sample_id": outputs.sample_id, "final_sequence_lengths": lengths}
        cell_state = getattr(state, "cell_state", state)
        found |= {"final.h": cell_state[0], "final.c": cell_state[1]}
        if cell_state is not state:
            history = state.alignment_history.stack()
            found |= {"final.attention": state.attention, "final.alignments": state.alignments}
            found["final.alignment_history"] = history
        return found

    def loss(self, values, given):
        """The loss of a gradient case, weights and differentiable inputs from `values`."""
        given = {**given, **{name: values[name] for name in ("inputs", "memory") if name in values}}
        mapping = [(variable, ops.reshape(values[name], variable.shape)) for name, variable in self.variables.items()]
        with keras.StatelessScope(state_mapping=mapping):
            inputs, rest = self.arguments(given)
            outputs, _, _ = self.decoder(inputs, training=True, **rest)
        steps = ops.arange(self.case.params["time"])[None]
        weights = ops.cast(steps < given["sequence_length"][:, None], outputs.rnn_output.dtype)
        return sequence_loss(outputs.rnn_output, given["targets"], weights)


def errors(found, case, precision, steps_axis):
    """{name: relative error} against the case; infinite where a step beyond the case's last one is not 0."""
    result = {}
    for name, expected in case.group(precision).items():
        got = np.asarray(found[name])
        axis = 0 if name.endswith("history") else steps_axis if name in ("rnn_output", "sample_id") else None
        if axis is not None:
            got, beyond = np.split(got, [expected.shape[axis]], axis=axis)
            if beyond.any():
                result[f"{name} beyond the last step"] = float("inf")
        result[name] = golden.relative_error(got, expected)
    return result


def run(id, precision, compiled=True):
    """{name: largest relative error} of every result of a case."""
    decoding = Decoding(id, precision)
    forward = backend.compiled(decoding.forward, decoding.decoder.variables) if compiled else decoding.forward
    given = {name: ops.convert_to_tensor(array) for name, array in decoding.given.items()}
    found = {name: ops.convert_to_numpy(value) for name, value in forward(given).items()}
    return errors(found, decoding.case, precision, 0 if decoding.time_major else 1)


def run_gradients(id, precision):
    """{name: relative error} of the loss and of every gradient of a case."""
    decoding = Decoding(id, precision)
    values = {name: ops.convert_to_numpy(variable) for name, variable in decoding.variables.items()}
    values |= {name: decoding.given[name] for name in ("inputs", "memory") if name in decoding.given}
    loss, gradient = backend.compiled(backend.value_and_grad(decoding.loss))(values, decoding.given)
    found = {"loss": loss, **{f"grad.{name}": value for name, value in gradient.items()}}
    shapes = {name: decoding.case[f"{precision}.{name}"].shape for name in found}
    found = {name: ops.convert_to_numpy(value).reshape(shapes[name]) for name, value in found.items()}
    return errors(found, decoding.case, precision, 1)


def ids(*families):
    """The ids of the cases of some families."""
    return [parameters.values[0] for family in families for parameters in golden.cases(family)]


def has_float64():
    """Whether this process has float64: on JAX only where it was asked for before the import."""
    return keras.backend.standardize_dtype(ops.convert_to_tensor(np.ones((), "float64")).dtype) == "float64"


FLAGS = ("average_across_timesteps", "average_across_batch", "sum_over_timesteps", "sum_over_batch")


def squared_label_logits(labels, logits):
    """The loss function of one of the loss cases."""
    return ops.take_along_axis(logits, labels[:, None], axis=-1)[:, 0] ** 2


def run_loss(id, precision):
    """{name: relative error} of every reduction of a loss case, function and class, computed in one compiled function."""
    case, own = golden.case(id), squared_label_logits if id.endswith("custom_fn") else None
    given = {name: a.astype(PRECISIONS[precision]) if a.dtype.kind == "f" else a for name, a in case.group("in").items()}
    names = list(case.group(precision))

    def losses(given):
        found = {}
        for name in names:
            kind, _, key = name.partition("_")
            flags = {} if key == "default" else dict(zip(FLAGS, (part[2] == "1" for part in key.split("_")), strict=True))
            if kind == "loss":
                arguments = given["logits"], given["targets"], given["weights"]
                found[name] = sequence_loss(*arguments, softmax_loss_function=own, **flags)
            else:
                loss = SequenceLoss(softmax_loss_function=own, **flags)
                found[name] = loss(given["targets"], given["logits"], given["weights"])
        return found

    found = {name: ops.convert_to_numpy(value) for name, value in backend.compiled(losses)(given).items()}
    return errors(found, case, precision, None)


def run_all(payload):
    """{id: largest error} of cases of all kinds at one precision; also the function of a process of its own."""
    precision, compiled, wanted = payload["precision"], payload["compiled"], payload["ids"]
    with exact_products():
        found = {id: max(run(id, precision, compiled).values()) for id in ids(*FAMILIES) if id in wanted}
        found |= {id: max(run_gradients(id, precision).values()) for id in ids("gradients") if id in wanted}
        return found | {id: max(run_loss(id, precision).values()) for id in ids("sequence_loss") if id in wanted}
