"""KerasHub: k3seq's Transformer of `keras_hub.layers`, with the same weights, trained and decoded by KerasHub.

Decoding is what KerasHub's seq2seq models do: `Seq2SeqLM` compiles `generate_step`, which runs a sampler over cached decoder
layers. Its `BeamSampler` keeps adding to the scores of beams that have ended. It returns wrong hypotheses where rows end before
the last step, so its row shows a time only. Where no row ends early, its hypotheses equal those of k3seq.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_hub  # pyright: ignore[reportMissingImports] - optional
import numpy as np
from keras import ops

from k3seq.bench.peers.stock import token_loss
from k3seq.bench.peers.transformer import ATTENTION, EPSILON, lengths, score, shifted, starting_weights
from k3seq.bench.running import Running, Weights
from k3seq.runtime import matrix
from k3seq.typing import Tensor


class Translator(keras_hub.models.Seq2SeqLM):
    """{"source" (b, s), "target" (b, t), optionally "source_lengths" (b,)} -> logits (b, t, v); sizes: those of
    `TransformerSeq2Seq`."""

    def __init__(self, sizes: Mapping[str, Any], weights: Weights):
        super().__init__(compile=False)
        self.sizes = sizes
        units = (None, None, sizes["embed_dim"])
        block = dict(intermediate_dim=sizes["dense_dim"], num_heads=sizes["num_heads"], layer_norm_epsilon=EPSILON)
        self.sides = [keras.layers.Embedding(sizes[f"{side}_vocabulary_size"], units[-1]) for side in ("source", "target")]
        self.encoders = [keras_hub.layers.TransformerEncoder(**block) for _ in range(sizes["num_layers"])]
        self.decoders = [keras_hub.layers.TransformerDecoder(**block) for _ in range(sizes["num_layers"])]
        self.places = keras_hub.layers.SinePositionEncoding()
        self.logits = keras.layers.Dense(sizes["target_vocabulary_size"])
        drawn = starting_weights(sizes, weights)
        for layer, side in zip(self.sides, ("source", "target"), strict=True):
            layer.build((None, None))
            _assign(layer, [drawn[side]])
        for layer, own in zip(self.encoders, drawn["encoders"], strict=True):
            layer.build(units)
            _assign(layer, [*(own["self"][name] for name in ATTENTION), own["inner"], own["outer"]])
        for layer, own in zip(self.decoders, drawn["decoders"], strict=True):
            layer.build(units, units)
            attentions = [own[attention][name] for attention in ("self", "cross") for name in ATTENTION]
            _assign(layer, [*attentions, own["inner"], own["outer"]])
        self.logits.build(units)
        _assign(self.logits, [drawn["output"]])
        self.built = True

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        mask = None
        if "source_lengths" in inputs:
            mask = ops.arange(ops.shape(inputs["source"])[1], dtype="int32")[None, :] < inputs["source_lengths"][:, None]
        memory, x = self._encode(inputs["source"], mask), self._embed(1, inputs["target"])
        for decoder in self.decoders:
            x = decoder(x, memory, encoder_padding_mask=mask)
        return self.logits(x)

    def _embed(self, side, tokens, first=0):
        x = self.sides[side](tokens) * self.sizes["embed_dim"] ** 0.5
        return x + self.places(x, start_index=first)

    def _encode(self, source, mask=None):
        x = self._embed(0, source)
        for encoder in self.encoders:
            x = encoder(x, padding_mask=mask)
        return x

    def generate_step(self, inputs: Mapping[str, Tensor], stop_token_ids: Sequence[int] | None = None) -> Tensor:
        """{"source" (b, s), "prompt" (b, 1 + steps): the start token and free places, "mask": the given places} -> the
        filled prompt."""
        memory, prompt = self._encode(inputs["source"]), inputs["prompt"]
        rows, heads = ops.shape(memory)[0], self.sizes["num_heads"]

        def empty(steps):
            return ops.zeros((rows, 2, steps, heads, self.sizes["embed_dim"] // heads))

        own = tuple(empty(prompt.shape[1] - 1) for _ in self.decoders)
        cross = tuple(empty(inputs["source"].shape[1]) for _ in self.decoders)
        # Fills the keys and values of the memory; the sampler takes this first step once more.
        _, (_, _, cross) = self._step(prompt[:, :1], (memory, own, cross), 0, update=0)

        def following(prompt, cache, index):
            token = ops.slice(prompt, (0, index - 1), (ops.shape(prompt)[0], 1))
            logits, cache = self._step(token, cache, index - 1)
            return logits, None, cache

        cache = memory, own, cross
        return self.sampler(following, prompt, cache, 1, mask=inputs["mask"], stop_token_ids=stop_token_ids, model=self)

    def _step(self, token, cache, position, update=None):
        memory, own, cross = cache
        x, after = self._embed(1, token, position), []
        for decoder, mine, others in zip(self.decoders, own, cross, strict=True):
            caches = dict(self_attention_cache=mine, self_attention_cache_update_index=position)
            caches |= dict(cross_attention_cache=others, cross_attention_cache_update_index=update)
            x, *kept = decoder(x, memory, **caches)
            after.append(kept)
        own, cross = (tuple(part) for part in zip(*after, strict=True))
        return self.logits(x)[:, 0], (memory, own, cross)


def train(payload: dict[str, Any]) -> Running:
    """A row's maker: `train_on_batch` under Adam, as `k3seq.bench.subjects.train` does it."""
    case, batch = payload["case"], payload["batch"]
    model = Translator(case["arguments"], Weights(case["seed"]))
    optimizer, jit = keras.optimizers.Adam(case["rates"]["adam"]), bool(payload["jit"])
    model.compile(optimizer, token_loss(), weighted_metrics=None, sampler="greedy", jit_compile=jit)
    last = model.logits.bias

    def step():
        model.reset_metrics()
        logs = model.train_on_batch(batch["inputs"], batch["labels"], sample_weight=batch["sample_weight"], return_dict=True)
        return logs["loss"]

    # Compiled, one program gives the loss and all weights: to read one of them is to wait for all.
    return Running(step, lambda _: ops.convert_to_numpy(last.value), float, _about(last.value))


def decode(payload: dict[str, Any]) -> Running:
    """A row's maker: KerasHub's generate function with `GreedySampler` or `BeamSampler`."""
    case, beams, source = payload["case"], payload["options"]["beams"], payload["batch"]["inputs"]["source"]
    limits = case["decode"]
    model = Translator(case["arguments"], Weights(case["seed"]))
    samplers = keras_hub.samplers
    sampler = samplers.GreedySampler() if beams == 1 else samplers.BeamSampler(num_beams=beams)
    model.compile(weighted_metrics=None, sampler=sampler, jit_compile=bool(payload["jit"]))
    prompt = np.zeros((len(source), 1 + limits["max_steps"]), "int32")
    mask = np.zeros(prompt.shape, "bool")
    prompt[:, 0], mask[:, 0] = limits["start"], True
    given = {"source": source, "prompt": prompt, "mask": mask}
    given = {name: ops.convert_to_tensor(value) for name, value in given.items()}
    generate = model.make_generate_function()

    def step():
        return ops.convert_to_numpy(generate(given, stop_token_ids=(limits["end"],)))[:, 1:]

    def number(tokens):
        """Of the hypotheses by a call of the whole model, whatever the sampler thought of them."""
        inputs = {"source": given["source"], "target": ops.convert_to_tensor(shifted(tokens, limits["start"]))}
        return score(ops.convert_to_numpy(model(inputs, training=False)), tokens, limits["end"])

    def tokens(found):
        return float(lengths(found, limits["end"]).sum())

    return Running(step, lambda _: None, number, _about(given["source"]), tokens)


def _assign(layer, values):
    """Assigns values to the matrices of a layer, in order. KerasHub's have a separate axis for the heads."""
    matrices = [variable for variable in layer.trainable_variables if variable.name in ("kernel", "embeddings")]
    for variable, value in zip(matrices, values, strict=True):
        variable.assign(value.reshape(variable.shape))


def _about(tensor):
    backend = keras.config.backend()
    versions = {"backend": backend, "version": matrix.installed(backend), "keras": keras.__version__}
    return versions | {"keras_hub": keras_hub.__version__, "devices": [str(tensor.device)]}
