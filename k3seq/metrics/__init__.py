"""Measures of decoded sequences, on the host; no keras, no framework."""

from k3seq.metrics.sequences import edit_distance, error_rate, nearest, score, sequence_accuracy, token_accuracy

__all__ = ["edit_distance", "error_rate", "nearest", "score", "sequence_accuracy", "token_accuracy"]
