"""The LSTM seq2seq in JAX alone, written by hand: `lax.scan` with the input projection hoisted out of it, and Adam."""

import functools
from typing import Any

import jax
from jax import numpy as jnp

from k3seq.bench.running import Running, Weights
from k3seq.typing import Tensor

BETAS, EPSILON = (0.9, 0.999), 1e-7


def recurrence(
    x: Tensor, weights: tuple[Tensor, Tensor, Tensor], state: tuple[Tensor, Tensor], lengths: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """An LSTM over x (b, s, inputs) from state (h, c); gates in the order i, f, g, o. Returns (outputs (b, s, d), state)."""
    kernel, recurrent, bias = weights
    columns = jnp.swapaxes(x @ kernel + bias, 0, 1)
    real = None if lengths is None else jnp.arange(x.shape[1])[:, None, None] < lengths[None, :, None]

    def step(state, now):
        projected, real = now
        h, c = state
        i, f, g, o = jnp.split(projected + h @ recurrent, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        if real is not None:
            h, c = jnp.where(real, h, state[0]), jnp.where(real, c, state[1])
        return (h, c), h

    state, outputs = jax.lax.scan(step, state, (columns, real))
    return jnp.swapaxes(outputs, 0, 1), state


def loss_of(
    p: dict[str, Any], source: Tensor, lengths: Tensor | None, target: Tensor, labels: Tensor, weight: Tensor
) -> Tensor:
    """The mean loss over the tokens of weight 1."""
    zero = jnp.zeros((source.shape[0], p["encoder"][1].shape[0]))
    _, state = recurrence(p["source"][source], p["encoder"], (zero, zero), lengths)
    outputs, _ = recurrence(p["target"][target], p["decoder"], state)
    log_probabilities = jax.nn.log_softmax(outputs @ p["output"][0] + p["output"][1])
    chosen = jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1)[..., 0]
    return -(chosen * weight).sum() / weight.sum()


def starting_weights(
    source_vocabulary_size: int, target_vocabulary_size: int, embed_dim: int, units: int, weights: Weights
) -> dict[str, Any]:
    """The weights of k3seq's LSTMSeq2Seq."""

    def lstm():
        bias = jnp.zeros(4 * units).at[units : 2 * units].set(1.0)
        return weights.draw(embed_dim, 4 * units), weights.draw(units, 4 * units), bias

    return {
        "source": weights.draw(source_vocabulary_size, embed_dim),
        "encoder": lstm(),
        "target": weights.draw(target_vocabulary_size, embed_dim),
        "decoder": lstm(),
        "output": (weights.draw(units, target_vocabulary_size), jnp.zeros(target_vocabulary_size)),
    }


@functools.partial(jax.jit, donate_argnums=(0, 1, 2), static_argnames="rate")
def update(
    p: dict[str, Any], m: dict[str, Any], v: dict[str, Any], count: Tensor, data: tuple[Tensor, ...], rate: float
) -> tuple[Any, ...]:
    """One Adam step: (weights, moments, moments, loss)."""
    loss, gradients = jax.value_and_grad(loss_of)(p, *data)
    m = jax.tree.map(lambda m, g: BETAS[0] * m + (1 - BETAS[0]) * g, m, gradients)
    v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, gradients)
    scale = rate * jnp.sqrt(1 - BETAS[1] ** count) / (1 - BETAS[0] ** count)
    p = jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + EPSILON), p, m, v)
    return p, m, v, loss


def train(payload: dict[str, Any]) -> Running:
    """A row's maker: train steps of the model above under Adam."""
    case, batch = payload["case"], payload["batch"]
    p = jax.tree.map(jnp.asarray, starting_weights(**case["arguments"], weights=Weights(case["seed"])))
    inputs = batch["inputs"]
    data = inputs["source"], inputs.get("source_lengths"), inputs["target"], batch["labels"], batch["sample_weight"]
    held = {"p": p, "m": jax.tree.map(jnp.zeros_like, p), "v": jax.tree.map(jnp.zeros_like, p), "count": 0.0}

    def step():
        held["count"] += 1.0
        found = update(held["p"], held["m"], held["v"], held["count"], data, case["rates"]["adam"])
        held["p"], held["m"], held["v"], loss = found
        return held["p"], float(loss)

    return Running(step, jax.block_until_ready, lambda value: value[1], about())


def about() -> dict[str, Any]:
    """What runs here."""
    devices = [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
    return {"backend": "jax", "version": jax.__version__, "keras": None, "devices": devices}
