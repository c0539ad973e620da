"""Decoding: from a model's `start` and `step` to token ids. Knows no model."""

from k3seq import binding

binding.check()  # before anything imports keras


from k3seq.decode.loop import Decoded, Greedy

__all__ = ["Decoded", "Greedy"]
