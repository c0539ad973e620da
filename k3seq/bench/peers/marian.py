"""Decoding by the transformers package: a Marian model, whose layers are those of k3seq's Transformer, with the same weights.

What Marian has otherwise is set to k3seq's: the order of sines and cosines, LayerNorm's epsilon, and matrices for both
embeddings and the output where Marian ties them. Beams are ranked by the sum of log-probabilities, as k3seq's are.
"""

from collections.abc import Mapping
from typing import Any

import transformers  # pyright: ignore[reportMissingImports] - optional

from k3seq.bench.peers import torch_lstm
from k3seq.bench.peers.transformer import EPSILON, lengths, positions, score, shifted, starting_weights
from k3seq.bench.running import Running, Weights


def decode(payload: dict[str, Any]) -> Running:
    """A row's maker: `generate` with its cache, greedy or with beams."""
    case, limits = payload["case"], payload["case"]["decode"]
    model = translator(case["arguments"], limits, Weights(case["seed"]))
    source = torch_lstm.tensor(payload["batch"]["inputs"]["source"]).long()
    given = dict(input_ids=source, attention_mask=source.new_ones(source.shape))
    beams, options = payload["options"]["beams"], {"do_sample": False}
    if beams > 1:
        options |= {"num_beams": beams, "length_penalty": 0.0, "early_stopping": False}

    def step():
        return model.generate(**given, max_new_tokens=limits["max_steps"], **options)

    def found(value):
        """The hypotheses (b, t) without the start token."""
        return value[:, 1:].numpy()

    def number(value):
        tokens = found(value)
        logits = model(**given, decoder_input_ids=torch_lstm.tensor(shifted(tokens, limits["start"]))).logits
        return score(logits.detach().numpy(), tokens, limits["end"])

    def tokens(value):
        return float(lengths(found(value), limits["end"]).sum())

    about = torch_lstm.about() | {"transformers": transformers.__version__}
    return Running(step, torch_lstm.wait, number, about, tokens)


def translator(sizes: Mapping[str, Any], limits: Mapping[str, int], weights: Weights) -> Any:
    """The `MarianMTModel` of a `TransformerSeq2Seq` of those sizes."""
    both = {
        f"{side}_{name}": sizes[own]
        for side in ("encoder", "decoder")
        for name, own in (("layers", "num_layers"), ("ffn_dim", "dense_dim"), ("attention_heads", "num_heads"))
    }
    config = transformers.MarianConfig(
        vocab_size=sizes["source_vocabulary_size"],
        decoder_vocab_size=sizes["target_vocabulary_size"],
        d_model=sizes["embed_dim"],
        max_position_embeddings=sizes["max_steps"],
        activation_function="relu",
        scale_embedding=True,
        share_encoder_decoder_embeddings=False,
        tie_word_embeddings=False,
        pad_token_id=0,
        decoder_start_token_id=limits["start"],
        eos_token_id=limits["end"],
        forced_eos_token_id=None,
        **both,
    )
    made, drawn = transformers.MarianMTModel(config).eval(), starting_weights(sizes, weights)
    for module in made.modules():
        if hasattr(module, "eps"):  # a LayerNorm
            module.eps = EPSILON
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    places = torch_lstm.tensor(positions(sizes["max_steps"], sizes["embed_dim"]))
    for side, coder in (("source", made.model.encoder), ("target", made.model.decoder)):
        coder.embed_tokens.weight.data = torch_lstm.tensor(drawn[side])
        coder.embed_positions.weight.data = places
        for layer, block in zip(coder.layers, drawn["encoders" if side == "source" else "decoders"], strict=True):
            _attention(layer.self_attn, block["self"])
            if "cross" in block:
                _attention(layer.encoder_attn, block["cross"])
            _linear(layer.fc1, block["inner"])
            _linear(layer.fc2, block["outer"])
    _linear(made.lm_head, drawn["output"])
    return made


def _attention(module, drawn):
    for name, place in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "out_proj")):
        _linear(getattr(module, place), drawn[name])


def _linear(module, kernel):
    module.weight.data = torch_lstm.tensor(kernel.T).contiguous()
