"""The base of every seq2seq model: what a batch is, the token loss, and the two methods that decoding needs."""

import keras
import numpy as np
from keras import ops

from k3seq.backend import StepMixin
from k3seq.data.checks import check_ids, check_labels, check_lengths
from k3seq.errors import UsageError
from k3seq.train.losses import token_crossentropy


class Seq2Seq(StepMixin, keras.Model):
    """A model from source tokens and the target so far to logits.

    Call it with {"source": (b, s) int32, "source_lengths": (b,) int32, "target": (b, t) int32}, or with (source, target) where
    no source is padded; it returns logits (b, t, v). Compiled without a loss it minimises `token_crossentropy`; compiled with
    one (`TokenCrossentropy(label_smoothing=0.1)`, or Keras' own with `from_logits=True`) it minimises that.

    A subclass builds all its weights in its constructor and defines `call`, `start` and `step`.

    Attributes:
        source_vocabulary_size, target_vocabulary_size: numbers of ids, which `check` holds the ids to; None: they are
        not checked.
        source_limit: most source tokens that the model takes, or None. target_limit: most steps of decoding, or None.
    """

    source_vocabulary_size = target_vocabulary_size = source_limit = target_limit = None

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = token_crossentropy(y, y_pred, sample_weight)
        return sum((ops.sum(ops.cast(added, "float32")) for added in self.losses), loss)

    def batch_weight(self, x, y, sample_weight):
        """Tokens that count: the sum of the sample weights, or all positions."""
        if sample_weight is not None:
            return ops.sum(ops.cast(sample_weight, "float32"))
        rows, steps = ops.shape(y)[:2]
        return ops.cast(rows * steps, "float32")

    def check(self, x, y=None, sample_weight=None):
        """Checks what a backend would not refuse alike (JAX reads a wrong id as NaN, and gives a wrong label the loss 0).

        `fit`, `evaluate`, `train_on_batch`, `test_on_batch` and `decode.Greedy` call it. Only NumPy arrays are looked at:
        tensors on a device, generators and data sets are not, and `data.batches` makes no wrong ids.

        Args:
            x, y, sample_weight: as the model takes them; y may be None.

        Raises:
            UsageError: an id, label or length is out of range, with its row and step.
        """
        source, lengths = source_of(x)
        target = target_of(x) if y is not None else None
        for ids, vocabulary, name in (
            (source, self.source_vocabulary_size, "source"),
            (target, self.target_vocabulary_size, "target"),
        ):
            if isinstance(ids, np.ndarray) and vocabulary is not None:
                check_ids(ids, vocabulary, f"{name} ids")
        if isinstance(lengths, np.ndarray):
            check_lengths(lengths, source.shape[1], "source lengths", allow_empty=True)
        if isinstance(y, np.ndarray) and self.target_vocabulary_size is not None:
            weight = sample_weight if np.shape(sample_weight) == y.shape[:2] else None
            check_labels(y, self.target_vocabulary_size, "labels", weight)

    def fit(self, x=None, y=None, *arguments, **options):
        """`keras.Model.fit`, after `check`."""
        if y is not None:
            self.check(x, y, options.get("sample_weight"))
        return super().fit(x, y, *arguments, **options)

    def evaluate(self, x=None, y=None, *arguments, **options):
        """`keras.Model.evaluate`, after `check`."""
        if y is not None:
            self.check(x, y, options.get("sample_weight"))
        return super().evaluate(x, y, *arguments, **options)

    def train_on_batch(self, x, y=None, sample_weight=None, **options):
        """`keras.Model.train_on_batch`, after `check`."""
        self.check(x, y, sample_weight)
        return super().train_on_batch(x, y, sample_weight, **options)

    def test_on_batch(self, x, y=None, sample_weight=None, **options):
        """`keras.Model.test_on_batch`, after `check`."""
        self.check(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, **options)

    def start(self, inputs):
        """Encodes the source.

        Args:
            inputs: {"source": (b, s) int32, "source_lengths": (b,) int32}; lengths may be left out where nothing is padded.

        Returns:
            The decoding state: a nested dict of tensors, first axis b, of constant shapes. Its key "alignments" (b, s), where
            there is one, is the attention of the last step: `k3seq.decode` returns it and takes coverage penalties from it.
        """
        raise NotImplementedError

    def step(self, tokens, state):
        """One step of decoding: tokens (b,) int32 -> (logits (b, v), state)."""
        raise NotImplementedError


def source_of(inputs):
    """(source, source_lengths or None) of a model's inputs, a dict or a (source, ...) sequence."""
    if isinstance(inputs, dict):
        if "source" not in inputs:
            raise UsageError(f"Expected inputs with the key source. Received: {sorted(inputs)}")
        return inputs["source"], inputs.get("source_lengths")
    return (inputs[0], None) if isinstance(inputs, (list, tuple)) else (inputs, None)


def target_of(inputs):
    """The target tokens of a model's inputs."""
    if isinstance(inputs, dict):
        if "target" not in inputs:
            raise UsageError(f"Expected inputs with the key target. Received: {sorted(inputs)}")
        return inputs["target"]
    if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
        raise UsageError("Expected inputs as a dict, or as a pair of source and target")
    return inputs[1]
