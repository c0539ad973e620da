"""Training: losses, the loop over epochs, and optimizer wrappers."""

from k3seq.runtime import backend_check

backend_check.check()  # before anything imports keras

from k3seq.train.losses import TokenCrossentropy, chunked_token_crossentropy, token_crossentropy
from k3seq.train.optimizers import DenseGradients

__all__ = ["DenseGradients", "TokenCrossentropy", "chunked_token_crossentropy", "token_crossentropy"]
