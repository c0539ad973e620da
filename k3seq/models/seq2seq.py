"""The base of every seq2seq model: what a batch is, the token loss, and the two methods that decoding needs."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from k3seq.backend import StepMixin
from k3seq.data.checks import check_ids, check_lengths
from k3seq.errors import UsageError
from k3seq.train.losses import mean_crossentropy
from k3seq.train.targets import align, check_targets, class_weights, static_shape
from k3seq.typing import State, Tensor


class Seq2Seq(StepMixin, keras.Model):
    """A model from source tokens and the target so far to logits.

    Call it with {"source": (b, s) int32, "source_lengths": (b,) int32, "target": (b, t) int32}, or with (source, target) where
    no source is padded; it returns logits (b, t, v). Compiled without a loss it minimises `token_crossentropy`; compiled with
    one (`TokenCrossentropy(label_smoothing=0.1)`, or Keras' own with `from_logits=True`) it minimises that.

    Labels are ids (b, t) or (b, t, 1), or distributions (b, t, v) such as one-hot vectors. `sample_weight` holds a weight per
    token, (b, t), or per row, (b,) or (b, 1), which then holds for each token of the row. `class_weight` is a dict from an id
    to a weight; it multiplies the weight of each token with that label.

    A subclass builds all its weights in its constructor and defines `call`, `start` and `step`.

    Attributes:
        source_vocabulary_size, target_vocabulary_size: numbers of ids, to which `check` compares the ids; None: no check.
        source_limit: largest number of source tokens that the model accepts, or None.
        target_limit: largest number of decoding steps, or None.
    """

    source_vocabulary_size: int | None = None
    target_vocabulary_size: int | None = None
    source_limit: int | None = None
    target_limit: int | None = None

    def compute_loss(
        self, x: Any = None, y: Tensor = None, y_pred: Tensor = None, sample_weight: Tensor = None, training: bool = True
    ) -> Tensor:
        """The loss given to `compile`, else the mean cross-entropy of the tokens; with all `add_loss` terms, a scalar."""
        y, sample_weight = align(y, sample_weight, tuple(y_pred.shape[:2]), y_pred.shape[2])
        if self.loss is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = mean_crossentropy(y, y_pred, sample_weight)
        return sum((ops.sum(ops.cast(added, "float32")) for added in self.losses), loss)

    def compute_metrics(self, x: Any, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> Any:
        """The metrics given to `compile`, on labels (b, t) or (b, t, v) and weights (b, t)."""
        y, sample_weight = align(y, sample_weight, tuple(y_pred.shape[:2]), y_pred.shape[2])
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def batch_weight(self, x: Any, y: Tensor, sample_weight: Tensor) -> Tensor:
        """The sum of the weights of the tokens, or their number where `sample_weight` is None: a float32 scalar."""
        y, sample_weight = align(y, sample_weight, tuple(y.shape[:2]))
        if sample_weight is not None:
            return ops.sum(ops.cast(sample_weight, "float32"))
        rows, steps = ops.shape(y)[:2]
        return ops.cast(rows * steps, "float32")

    def check(self, x: Any, y: Any = None, sample_weight: Any = None) -> None:
        """Checks what backends would treat differently (JAX reads a wrong id as NaN, and gives a wrong label the loss 0).

        `fit`, `evaluate`, `train_on_batch`, `test_on_batch` and `decode.Greedy` call it. It checks the values of NumPy arrays
        and the shapes of all arrays and tensors. Batches of data sets and generators are checked for shapes when they arrive.

        Args:
            x, y, sample_weight: as the model takes them; y and sample_weight may be None.

        Raises:
            UsageError: an id, label or length is out of range, with its row and step; a source or target has no steps;
                labels or weights have a shape that is not listed above; a weight is negative or not finite.
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
        _same_rows(source, "source", {"source lengths": lengths, "target": target})
        if target is not None:
            check_targets(y, sample_weight, tuple(target.shape[:2]), self.target_vocabulary_size)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """`keras.Model.fit`, after `check` of the training data and of `validation_data`."""
        bound = _FIT.bind_partial(self, x, y, *args, **kwargs).arguments
        validation = bound.get("validation_data")
        if isinstance(validation, (tuple, list)):
            self._checked(*validation)
        x, y, weights = self._checked(x, y, bound.get("sample_weight"), bound.get("class_weight"))
        bound |= {"x": x, "y": y, "sample_weight": weights, "class_weight": None}
        return super().fit(**{name: value for name, value in bound.items() if name != "self"})

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.evaluate`, after `check`."""
        bound = _EVALUATE.bind_partial(self, x, y, *args, **kwargs)
        options = bound.arguments.pop("kwargs", {})
        x, y, weights = self._checked(x, y, bound.arguments.get("sample_weight"))
        arguments = {**bound.arguments, **options, "x": x, "y": y, "sample_weight": weights}
        return super().evaluate(**{name: value for name, value in arguments.items() if name != "self"})

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """`keras.Model.train_on_batch`, after `check`."""
        x, y, sample_weight = self._checked(x, y, sample_weight, class_weight)
        return super().train_on_batch(x, y, sample_weight, return_dict=return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """`keras.Model.test_on_batch`, after `check`."""
        x, y, sample_weight = self._checked(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict=return_dict)

    def train_step(self, *args: Any) -> Any:
        """The backend's train step on labels (b, t) or (b, t, v) and weights (b, t)."""
        *state, data = args
        step: Any = super().train_step  # on JAX it takes the state too
        return step(*state, self._aligned(data))

    def test_step(self, *args: Any) -> Any:
        """The backend's test step on labels (b, t) or (b, t, v) and weights (b, t)."""
        *state, data = args
        step: Any = super().test_step
        return step(*state, self._aligned(data))

    def _checked(self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None) -> tuple[Any, Any, Any]:
        """(x, labels (b, t) or (b, t, v), weights (b, t)), the class weights among them, after `check`.

        Where x is a data set, nothing is known yet and labels and weights are None; a generator checks its batches.
        """
        if not (isinstance(x, (Mapping, list, tuple)) or hasattr(x, "shape")):
            if class_weight is not None:
                raise UsageError("Expected class_weight with labels in an array. Received: y=None")
            if inspect.isgenerator(x):
                utils = keras.utils
                x = (utils.pack_x_y_sample_weight(*self._checked(*utils.unpack_x_y_sample_weight(batch))) for batch in x)
            return x, y, sample_weight
        y, sample_weight = _array(y, "labels"), _array(sample_weight, "sample_weight")
        if y is None and self._needs_labels():
            align(None, None, tuple(target_of(x).shape[:2]))
        self.check(x, y, sample_weight)
        if y is None:
            return x, y, sample_weight
        y, sample_weight = align(y, sample_weight, tuple(target_of(x).shape[:2]), self.target_vocabulary_size)
        if class_weight is not None:
            by_class = class_weights(y, class_weight, self.target_vocabulary_size)
            sample_weight = by_class if sample_weight is None else by_class * ops.convert_to_numpy(sample_weight)
        return x, y, sample_weight

    def _aligned(self, data: Any) -> tuple[Any, Any, Any]:
        """A batch with labels (b, t) or (b, t, v) and weights (b, t)."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if y is None and not self._needs_labels():
            return x, y, sample_weight
        shape = static_shape(target_of(x)) or (None, None)
        return x, *align(y, sample_weight, shape, self.target_vocabulary_size)

    def _needs_labels(self) -> bool:
        return type(self).objective is Seq2Seq.objective

    def start(self, inputs: Any) -> State:
        """Encodes the source.

        Args:
            inputs: {"source": (b, s) int32, "source_lengths": (b,) int32}; lengths may be left out where nothing is padded.

        Returns:
            The decoding state: a nested dict of tensors, first axis b, of constant shapes. Its key "alignments" (b, s), where
            there is one, is the attention of the last step: `k3seq.decode` returns it and takes coverage penalties from it.
        """
        raise NotImplementedError

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """One step of decoding: tokens (b,) int32 -> (logits (b, v), state)."""
        raise NotImplementedError


_FIT, _EVALUATE = inspect.signature(keras.Model.fit), inspect.signature(keras.Model.evaluate)


def source_of(inputs: Any) -> tuple[Tensor, Tensor]:
    """(source, source_lengths or None) of a model's inputs, a dict or a (source, ...) sequence.

    Raises:
        UsageError: there is no source, or it has no steps.
    """
    if isinstance(inputs, Mapping):
        if "source" not in inputs:
            raise UsageError(f"Expected inputs with the key source. Received: {sorted(inputs)}")
        source, lengths = inputs["source"], inputs.get("source_lengths")
    else:
        source, lengths = (inputs[0], None) if isinstance(inputs, (list, tuple)) else (inputs, None)
    return _with_steps(source, "source"), lengths


def target_of(inputs: Any) -> Tensor:
    """The target tokens of a model's inputs.

    Raises:
        UsageError: there is no target, or it has no steps.
    """
    if isinstance(inputs, Mapping):
        if "target" not in inputs:
            raise UsageError(f"Expected inputs with the key target. Received: {sorted(inputs)}")
        return _with_steps(inputs["target"], "target")
    if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
        raise UsageError("Expected inputs as a dict, or as a pair of source and target")
    return _with_steps(inputs[1], "target")


def _with_steps(tokens: Tensor, name: str) -> Tensor:
    shape = static_shape(tokens) if hasattr(tokens, "shape") else None
    if shape is not None and (len(shape) != 2 or shape[1] == 0):
        raise UsageError(f"Expected {name} of shape (b, t) with at least one step. Received: shape {shape}")
    return tokens


def _same_rows(first: Tensor, name: str, others: Mapping[str, Tensor]) -> None:
    """Raises UsageError where another array or tensor has a known number of rows that differs from that of `first`."""
    rows, *_ = (hasattr(first, "shape") and static_shape(first)) or (None,)
    for other, values in others.items():
        shape = static_shape(values) if hasattr(values, "shape") else None
        if rows is not None and shape and shape[0] not in (None, rows):
            raise UsageError(f"Expected {other} with as many rows as {name}, {rows}. Received: shape {shape}")


def _array(values: Any, name: str) -> Any:
    if values is None or hasattr(values, "shape"):
        return values
    try:
        return np.asarray(values)
    except ValueError as error:
        raise UsageError(f"Expected {name} to be a rectangular array. Received: rows of other lengths") from error
