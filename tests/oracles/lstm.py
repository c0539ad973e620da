"""LSTM and GRU over rows with gaps, in float64, one row at a time.

A masked step does not exist: the state passes over it unchanged and its output is 0, so a row without a single real step
ends in its initial state. Weights are a dict `kernel`, `recurrent_kernel`, `bias` in Keras' layout.
LSTM: gate blocks i, f, c, o. GRU: blocks z, r, h with `reset_after` (arXiv 1406.1078, its first version), bias (2, 3 * units).
"""

from collections.abc import Mapping

import numpy as np

Weights = Mapping[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


def length_mask(lengths, steps: int) -> np.ndarray:
    """(batch, steps) bool: True on the first `lengths[row]` steps of a row."""
    return np.array([[step < length for step in range(steps)] for length in lengths]).reshape(len(lengths), steps)


def lstm_step(x: np.ndarray, h: np.ndarray, c: np.ndarray, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """`(h, c)` after one step; arrays are (..., inputs) and (..., units)."""
    i, f, g, o = np.split(x @ weights["kernel"] + h @ weights["recurrent_kernel"] + weights["bias"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru_step(x: np.ndarray, h: np.ndarray, weights: Weights) -> np.ndarray:
    """The state after one step; the reset gate multiplies the recurrent product, not the state."""
    xz, xr, xh = np.split(x @ weights["kernel"] + weights["bias"][0], 3, axis=-1)
    hz, hr, hh = np.split(h @ weights["recurrent_kernel"] + weights["bias"][1], 3, axis=-1)
    z, r = sigmoid(xz + hz), sigmoid(xr + hr)
    return z * h + (1.0 - z) * np.tanh(xh + r * hh)


def _read(step, x, mask, states, units, reverse):
    """Walk the real steps of each row: `step(token, *state) -> state`, whose first part is the output."""
    x = np.asarray(x, np.float64)
    mask = np.ones(x.shape[:2], bool) if mask is None else np.asarray(mask, bool)
    states = [np.array(state, np.float64) for state in states]
    outputs = np.zeros((*x.shape[:2], units))
    for row in range(len(x)):
        steps = np.flatnonzero(mask[row])
        state = [s[row] for s in states]
        for t in reversed(steps) if reverse else steps:
            state = step(x[row, t], *state)
            outputs[row, t] = state[0]
        for s, last in zip(states, state, strict=True):
            s[row] = last
    return outputs, tuple(states)


def lstm(x, weights: Weights, mask=None, initial=None, reverse: bool = False):
    """`(outputs (batch, steps, units), (h, c))` of `x` (batch, steps, inputs).

    `mask` is (batch, steps) bool of any pattern (None: all real), `initial` is `(h, c)` (None: zeros). `reverse` reads the
    real steps of each row from its last to its first; an output is at the step of the token that was read last.
    """
    units = weights["recurrent_kernel"].shape[0]
    initial = (np.zeros((len(x), units)),) * 2 if initial is None else initial
    return _read(lambda token, h, c: lstm_step(token, h, c, weights), x, mask, initial, units, reverse)


def gru(x, weights: Weights, mask=None, initial=None, reverse: bool = False):
    """`(outputs (batch, steps, units), (h,))`; arguments as in `lstm`, `initial` is `(h,)`."""
    units = weights["recurrent_kernel"].shape[0]
    initial = (np.zeros((len(x), units)),) if initial is None else initial
    return _read(lambda token, h: (gru_step(token, h, weights),), x, mask, initial, units, reverse)


def bidirectional(x, forward: Weights, backward: Weights, mask=None, cell=lstm):
    """`(outputs (batch, steps, 2 * units), forward states, backward states)`: the forward half comes first."""
    outputs, state = cell(x, forward, mask)
    reverse_outputs, reverse_state = cell(x, backward, mask, reverse=True)
    return np.concatenate([outputs, reverse_outputs], axis=-1), state, reverse_state


def random_weights(rng: np.random.Generator, inputs: int, units: int, gates: int = 4) -> dict[str, np.ndarray]:
    """Weights of an LSTM (4 gates) or a GRU (3)."""
    return {
        "kernel": rng.normal(0.0, inputs**-0.5, (inputs, gates * units)),
        "recurrent_kernel": rng.normal(0.0, units**-0.5, (units, gates * units)),
        "bias": rng.normal(0.0, 0.3, (gates * units,) if gates == 4 else (2, gates * units)),
    }
