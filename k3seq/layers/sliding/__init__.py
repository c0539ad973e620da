"""Layers of the sliding-context model: a window of tokens that moves over the text, and the blocks that read it.

The names are those of the source (quantapix' qnarre): `Attention` and `Conclusion` form a block, `Encoder` and `Decoder` are
blocks, `Encode` and `Decode` are stacks of blocks, `Embed` and `Debed` convert tokens to vectors and vectors to logits.
"""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.layers.sliding.blocks import Attention, Conclusion, Debed, Decode, Decoder, Embed, Encode, Encoder
from k3seq.layers.sliding.frames import Frames
from k3seq.layers.sliding.ragged import ToDense

__all__ = [
    "Attention",
    "Conclusion",
    "Debed",
    "Decode",
    "Decoder",
    "Embed",
    "Encode",
    "Encoder",
    "Frames",
    "ToDense",
]
