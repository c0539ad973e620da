"""The public names of `tfa.seq2seq` (TensorFlow Addons 0.23) on three backends: same arguments, same results.

`load_tfa_weights` loads the weights of models trained there.
"""

import importlib

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

_NAMES = {
    "attention_wrapper": (
        "AttentionMechanism",
        "AttentionWrapper",
        "AttentionWrapperState",
        "BahdanauAttention",
        "BahdanauMonotonicAttention",
        "LuongAttention",
        "LuongMonotonicAttention",
        "hardmax",
        "monotonic_attention",
        "safe_cumprod",
    ),
    "basic_decoder": ("BasicDecoder", "BasicDecoderOutput"),
    "beam_search_decoder": (
        "BeamSearchDecoder",
        "BeamSearchDecoderOutput",
        "BeamSearchDecoderState",
        "FinalBeamSearchDecoderOutput",
        "gather_tree",
        "gather_tree_from_array",
        "tile_batch",
    ),
    "checkpoint": ("load_tfa_weights",),
    "decoder": ("BaseDecoder", "Decoder", "dynamic_decode"),
    "loss": ("SequenceLoss", "sequence_loss"),
    "sampler": (
        "CustomSampler",
        "GreedyEmbeddingSampler",
        "InferenceSampler",
        "SampleEmbeddingSampler",
        "Sampler",
        "ScheduledEmbeddingTrainingSampler",
        "ScheduledOutputTrainingSampler",
        "TrainingSampler",
    ),
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_NAMES, *_MODULE_OF]


def __getattr__(name):
    if name in _NAMES:
        return importlib.import_module(f"k3seq.seq2seq.{name}")
    if name in _MODULE_OF:
        return getattr(importlib.import_module(f"k3seq.seq2seq.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"Expected one of {', '.join(__all__)} in k3seq.seq2seq. Received: {name}")


def __dir__():
    return sorted(__all__)
