"""Decoding by CTranslate2: its own engine, no framework, on k3seq's Transformer with the same weights.

CTranslate2 reads a model from files and takes tokens as text, which it looks up in each step; both sides' vocabularies are
made here. Without a length penalty its scores are sums of log-probabilities, as those of k3seq, and are compared. Then
its beam search ends a row when the best candidate has ended, k3seq's when no live beam can beat what is kept: where nothing is
normalised by length both find the same.
"""

import os
import tempfile
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import ctranslate2  # pyright: ignore[reportMissingImports] - optional
import numpy as np
from ctranslate2.specs import TransformerSpec  # pyright: ignore[reportMissingImports] - optional

from k3seq.bench.peers.transformer import EPSILON, positions, starting_weights
from k3seq.bench.running import Running, Weights

UNKNOWN = 3  # in every k3seq vocabulary; CTranslate2 wants to know it, and here no token is unknown


def decode(payload: dict[str, Any]) -> Running:
    """A row's maker: `translate_batch`, greedy or with beams, in float32 and on the threads of the row's process."""
    case, beams = payload["case"], payload["options"]["beams"]
    limits, source = case["decode"], payload["batch"]["inputs"]["source"]
    made, threads = specification(case["arguments"], limits, Weights(case["seed"])), cores()
    with tempfile.TemporaryDirectory() as folder:
        made.save(folder)
        translator = ctranslate2.Translator(
            folder, device="cpu", compute_type="float32", inter_threads=1, intra_threads=threads
        )
    rows = [[str(token) for token in row] for row in source.tolist()]
    lengths = dict(max_decoding_length=limits["max_steps"], min_decoding_length=0, length_penalty=0.0)

    def step():
        return translator.translate_batch(rows, beam_size=beams, return_scores=True, **lengths)

    def number(found):
        return fmean(one.scores[0] for one in found)

    def tokens(found):
        """Of the best hypotheses, the end token among them."""
        return float(sum(min(len(one.hypotheses[0]) + 1, limits["max_steps"]) for one in found))

    devices = [f"cpu, {threads} threads"]
    about = {"backend": "ctranslate2", "version": ctranslate2.__version__, "keras": None, "devices": devices}
    return Running(step, lambda _: None, number, about, tokens)


def specification(sizes: Mapping[str, Any], limits: Mapping[str, int], weights: Weights) -> Any:
    """The `TransformerSpec` of a `TransformerSeq2Seq` of those sizes: normalised after each residual, scaled embeddings."""
    drawn = starting_weights(sizes, weights)
    made = TransformerSpec.from_config(sizes["num_layers"], sizes["num_heads"], pre_norm=False)
    config = made.config
    config.layer_norm_epsilon = EPSILON
    config.decoder_start_token = config.bos_token = str(limits["start"])
    config.eos_token, config.unk_token = str(limits["end"]), str(UNKNOWN)
    for side, vocabulary in (("source", drawn["source"]), ("target", drawn["target"])):
        getattr(made, f"register_{side}_vocabulary")([str(token) for token in range(len(vocabulary))])
    made.encoder.embeddings[0].weight, made.decoder.embeddings.weight = drawn["source"], drawn["target"]
    for coder in (made.encoder, made.decoder):
        coder.position_encodings.encodings = positions(sizes["max_steps"], sizes["embed_dim"])
    for layer, block in zip(made.encoder.layer, drawn["encoders"], strict=True):
        _attention(layer.self_attention, block["self"], (("query", "key", "value"), ("output",)))
        _dense(layer.ffn, block)
    for layer, block in zip(made.decoder.layer, drawn["decoders"], strict=True):
        _attention(layer.self_attention, block["self"], (("query", "key", "value"), ("output",)))
        _attention(layer.attention, block["cross"], (("query",), ("key", "value"), ("output",)))
        _dense(layer.ffn, block)
    _linear(made.decoder.projection, drawn["output"])
    made.validate()
    made.optimize()
    return made


def cores() -> int:
    """Number of threads that the frameworks of the other rows use: OMP_NUM_THREADS, or the available cores."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads):
        return int(threads)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _attention(spec, drawn, products):
    """Matrices that CTranslate2 multiplies at once lie side by side."""
    for linear, names in zip(spec.linear, products, strict=True):
        _linear(linear, np.concatenate([drawn[name] for name in names], axis=1))
    _norm(spec.layer_norm, drawn["output"].shape[1])


def _dense(spec, block):
    _linear(spec.linear_0, block["inner"])
    _linear(spec.linear_1, block["outer"])
    _norm(spec.layer_norm, block["outer"].shape[1])


def _linear(spec, kernel):
    spec.weight, spec.bias = np.ascontiguousarray(kernel.T), np.zeros(kernel.shape[1], "float32")


def _norm(spec, units):
    spec.gamma, spec.beta = np.ones(units, "float32"), np.zeros(units, "float32")
