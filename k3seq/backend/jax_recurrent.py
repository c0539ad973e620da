"""Dense and recurrent layers on JAX: a `lax.scan` with its own backward pass.

XLA's derivative of a scan adds up the gradients of the weights step by step and keeps every intermediate value of a step.
Here a step keeps only its states and gates, and the gradients of the weights and of the input are products over all steps
after the loop. On a CPU the loop projects the input inside each step. One product for all steps before the loop would be read
by index amid the cell's arithmetic, which XLA then does not vectorise. On a GPU that one product is faster.
"""

from functools import partial
from typing import Any

import jax
from jax import numpy as jnp

from k3seq.typing import Tensor


def affine(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ kernel + bias` as one product of all rows. With more than one axis of rows, XLA on a CPU takes twice as long for the
    kernel's gradient."""
    rows = x.reshape(-1, x.shape[-1]) @ kernel
    return (rows if bias is None else rows + bias).reshape(*x.shape[:-1], kernel.shape[-1])


def lstm_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, c: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps of an LSTM (see `reference`)."""
    return _sequence(_LSTM, x, lengths, (h, c), kernel, recurrent_kernel, (bias, jnp.zeros_like(bias)))


def gru_sequence(
    x: Tensor, lengths: Tensor | None, h: Tensor, kernel: Tensor, recurrent_kernel: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """All steps of a GRU (see `reference`)."""
    return _sequence(_GRU, x, lengths, (h,), kernel, recurrent_kernel, (bias[0], bias[1]))


def _lstm_cell(gates, states):
    i, f, g, o = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * states[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru_cell(gates, states):
    (xz, xr, xh), (hz, hr, hh) = (jnp.split(part, 3, -1) for part in gates)
    z = jax.nn.sigmoid(xz + hz)
    return (z * states[0] + (1 - z) * jnp.tanh(xh + jax.nn.sigmoid(xr + hr) * hh),)


# A cell; the function from the projections of input and state to its gates; and from the gradient of the gates to those of the
# two projections.
_LSTM = (_lstm_cell, jnp.add, lambda gradient: (gradient, gradient))
_GRU = (_gru_cell, lambda x, h: (x, h), lambda gradient: gradient)


def _sequence(kind, x, lengths, states, kernel, recurrent_kernel, biases):
    x = jnp.swapaxes(x, 0, 1)
    real = None if lengths is None else (jnp.arange(len(x))[:, None] < lengths[None])[:, :, None]
    scanned: Any = _scan(kind, x, real, states, kernel, recurrent_kernel, biases)
    outputs, states = scanned
    return jnp.swapaxes(outputs, 0, 1), *states


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scan(kind, x, real, states, kernel, recurrent_kernel, biases):
    """x (s, b, inputs), real (s, b, 1) bool or None -> (outputs (s, b, d), states)."""
    return _forward(kind, x, real, states, kernel, recurrent_kernel, biases)[0]


def _forward(kind, x, real, states, kernel, recurrent_kernel, biases):
    _, join, _ = kind

    hoisted = jax.default_backend() != "cpu"

    def advance(states, now):
        x, real = now
        gates = join(x if hoisted else x @ kernel + biases[0], states[0] @ recurrent_kernel + biases[1])
        after, output = _step(kind, real, gates, states)
        return after, (output, states, gates)

    last, (outputs, before, gates) = jax.lax.scan(advance, states, (affine(x, kernel, biases[0]) if hoisted else x, real))
    return (outputs, last), (x, real, before, gates, kernel, recurrent_kernel)


def _backward(kind, kept, gradients):
    _, _, split = kind
    x, real, before, gates, kernel, recurrent_kernel = kept
    of_outputs, of_states = gradients

    def retreat(of_states, now):
        of_output, real, before, gates = now
        _, pull = jax.vjp(partial(_step, kind, real), gates, before)
        of_gates, of_states = pull((of_states, of_output))
        _, of_projected = split(of_gates)
        of_h = of_states[0] + of_projected @ recurrent_kernel.T
        return (of_h, *of_states[1:]), of_gates

    of_states, of_gates = jax.lax.scan(retreat, of_states, (of_outputs, real, before, gates), reverse=True)
    of_x, of_h = split(of_gates)
    return (
        affine(of_x, kernel.T),
        None,
        of_states,
        _product(x, of_x),
        _product(before[0], of_h),
        (of_x.sum((0, 1)), of_h.sum((0, 1))),
    )


_scan.defvjp(_forward, _backward)


def _step(kind, real, gates, states):
    """(states, output) after a step; where it is not real the states stay and the output is 0."""
    after = kind[0](gates, states)
    if real is None:
        return after, after[0]
    output = jnp.where(real, after[0], 0)
    return tuple(jnp.where(real, new, old) for new, old in zip(after, states, strict=True)), output


def _product(x, y):
    """The sum over all rows of the outer products of x (s, b, i) and y (s, b, j)."""
    return x.reshape(-1, x.shape[-1]).T @ y.reshape(-1, y.shape[-1])
