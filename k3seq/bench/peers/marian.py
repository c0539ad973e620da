"""Decoding by the transformers package: a Marian model of the sizes of k3seq's Transformer, with weights of its own.

Its layers are not k3seq's to the last detail, so its numbers are not held to the others'; the arithmetic of a step is alike.
"""

from transformers import MarianConfig, MarianMTModel, set_seed

from k3seq.bench.peers import torch_lstm
from k3seq.bench.running import Running


def decode(payload):
    """A row's maker: `generate` with its cache, greedy or with beams, always the case's number of tokens."""
    sizes, limits = payload["case"]["arguments"], payload["case"]["decode"]
    both = {
        f"{side}_{name}": sizes[own]
        for side in ("encoder", "decoder")
        for name, own in (("layers", "depth"), ("ffn_dim", "dense"), ("attention_heads", "heads"))
    }
    set_seed(0)
    config = MarianConfig(
        vocab_size=sizes["target_vocabulary"],
        d_model=sizes["units"],
        max_position_embeddings=sizes["max_steps"],
        pad_token_id=0,
        decoder_start_token_id=limits["start"],
        eos_token_id=limits["end"],
        forced_eos_token_id=None,
        **both,
    )
    model = MarianMTModel(config).eval()
    source = torch_lstm.tensor(payload["batch"]["inputs"]["source"]).long()
    steps = limits["max_steps"]
    options = dict(max_new_tokens=steps, min_new_tokens=steps, num_beams=payload["options"]["beams"], do_sample=False)

    def step():
        return model.generate(input_ids=source, attention_mask=source.new_ones(source.shape), **options)

    return Running(step, torch_lstm.wait, None, torch_lstm.about(), lambda tokens: len(tokens) * steps)
