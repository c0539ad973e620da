"""What the train steps of all backends share: the contract with the model, and all arithmetic that is not differentiation.

A step is: losses of the batch -> gradient -> dense gradient -> global norm -> refuse or apply -> record. A backend's file
has only the differentiation and the way in which state is passed.
"""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree

from k3seq.backend import keras_internals
from k3seq.backend.sums import OF_TRAINING, StepSums
from k3seq.errors import UsageError
from k3seq.typing import Nested, Tensor

# x, y and sample_weight, as `fit` got them; y and sample_weight may be None.
Batch = tuple[Nested, Nested, Nested]


class StepContract(keras_internals.BesideModel):
    """Put `StepMixin` (a backend's subclass of this) before `keras.Model` to train with k3seq's step.

    `fit`, `evaluate`, `predict`, `train_on_batch`, callbacks, `add_loss`, regularisers, `compile(metrics=...)`, mixed precision
    and the optimizer's own `global_clipnorm`, `use_ema` and loss scaling go on working. Beyond Keras' own step:

    - several named losses: define `objective` and `loss_names`;
    - the mean loss of an epoch weighs a batch by `batch_weight` (tokens in a seq2seq model), not by its rows;
    - `gradient_norm`, the global norm before clipping, and `refused`, the number of refused steps, are in the logs;
    - a step whose loss or gradient is not finite leaves weights, optimizer and other variables as they were;
    - `step_options(gradient_accumulation_steps=n)` computes a batch as `n` micro-batches of consecutive rows. Their gradients
      are weighted by `batch_weight`: the update equals that of the whole batch, in 1/n of the memory;
    - an embedding's gradient on TensorFlow is made dense, so that repeated tokens are summed before Adam squares them;
    - a weight that the loss does not reach has gradient zero on every backend.
    """

    loss_names: Sequence[str] = ("loss",)

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._step_options = {"gradient_accumulation_steps": 1, "refuse_nonfinite": True}
        self._sums = StepSums(("loss", *(self.loss_names if len(self.loss_names) > 1 else ())))

    def step_options(self, *, gradient_accumulation_steps: int = 1, refuse_nonfinite: bool = True) -> None:
        """Sets how a training batch becomes an update. A saved compiled model keeps it.

        Args:
            gradient_accumulation_steps: int >= 1, micro-batches per update. At most the rows of a batch.
            refuse_nonfinite: skip the update when the loss or the gradient norm is NaN or infinite.

        Raises:
            UsageError: when `gradient_accumulation_steps` is not an integer of at least 1.
        """
        if (
            not isinstance(gradient_accumulation_steps, int)
            or isinstance(gradient_accumulation_steps, bool)
            or gradient_accumulation_steps < 1
        ):
            raise UsageError(
                "Expected gradient_accumulation_steps to be an integer of at least 1. "
                f"Received: gradient_accumulation_steps={gradient_accumulation_steps!r}"
            )
        self._step_options = {
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "refuse_nonfinite": bool(refuse_nonfinite),
        }
        self.train_function: Any = None

    def compute_objective(
        self, x: Nested, y: Nested, sample_weight: Nested, training: bool
    ) -> tuple[dict[str, Tensor], Nested]:
        """The default objective: the loss given to `compile` with all `add_loss` terms. Returns ({"loss": scalar}, y_pred)."""
        y_pred = self._outputs_of(x, training)
        return {"loss": self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)}, y_pred

    def _outputs_of(self, x, training):
        """`self(x, training=training)`; a backend may override it with something faster."""
        return self(x, training=training)

    def objective(self, x: Nested, y: Nested, sample_weight: Nested, training: bool) -> tuple[dict[str, Tensor], Nested]:
        """Override to train on other losses than the one given to `compile`.

        Args:
            x, y, sample_weight: a batch, as `fit` got it; y and sample_weight may be None.
            training: bool.

        Returns:
            (losses, y_pred): a dict from each of `loss_names` to a scalar tensor, whose sum is minimised together with all
            `add_loss` and regularisation terms; and the predictions for the compiled metrics, or None.
        """
        raise NotImplementedError

    def batch_weight(self, x: Nested, y: Nested, sample_weight: Nested) -> Tensor:
        """Weight of a batch in epoch means and among micro-batches, a float32 scalar: its number of rows by default."""
        return ops.cast(ops.shape(next(leaf for leaf in tree.flatten(x) if leaf is not None))[0], "float32")

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        return {**config, "step_options": self._step_options} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        options = config.pop("step_options", None)
        super().compile_from_config(config)
        if options:
            self.step_options(**options)

    def _losses_of(self, batch, training):
        """(total, losses, y_pred, weight) of one batch; `total` holds the `add_loss` terms too."""
        if type(self).objective is StepContract.objective:
            losses, y_pred = self.compute_objective(*batch, training=training)
            total = losses["loss"]
        else:
            losses, y_pred = self.objective(*batch, training=training)
            if set(losses) != set(self.loss_names):
                raise UsageError(f"Expected losses named {sorted(self.loss_names)} from objective. Received: {sorted(losses)}")
            added = [ops.sum(ops.cast(loss, "float32")) for loss in self.losses]
            total = sum([ops.cast(losses[name], "float32") for name in self.loss_names] + added)
        y_pred = None if keras_internals.compiled_metrics(self) is None else y_pred  # so that a micro-batch need not keep it
        return ops.cast(total, "float32"), losses, y_pred, ops.cast(self.batch_weight(*batch), "float32")

    def _micro_batches(self, batch):
        """The batch as `gradient_accumulation_steps` parts of consecutive rows (nearly equal in size)."""
        parts = self._step_options["gradient_accumulation_steps"]
        if parts == 1:
            return [batch]
        rows = ops.shape(next(leaf for leaf in tree.flatten(batch[0]) if leaf is not None))[0]
        if isinstance(rows, int) and rows < parts:
            raise UsageError(f"Expected a batch of at least gradient_accumulation_steps={parts} rows. Received: {rows}")
        bounds = [rows * i // parts for i in range(parts + 1)]
        return [
            tree.map_structure(lambda leaf, lo=lo, hi=hi: None if leaf is None else leaf[lo:hi], batch)
            for lo, hi in zip(bounds, bounds[1:], strict=False)
        ]

    def _mean_gradients(self, parts):
        """The mean of micro-batch gradients [(weight, gradients)], weighted; a single one is returned as it is."""
        if len(parts) == 1:
            return parts[0][1]
        whole = sum(weight for weight, _ in parts)
        share = [ops.divide_no_nan(weight, whole) for weight, _ in parts]
        return [
            sum(gradient * ops.cast(s, gradient.dtype) for s, gradient in zip(share, column, strict=True))
            for column in zip(*(gradients for _, gradients in parts), strict=True)
        ]

    def _norm_of(self, gradients):
        """Global norm of the gradients in float32, without the loss scale, in the scope of the optimizer's variables."""
        return self._root_of_squares(gradients) / self._scaled(1.0)

    def _root_of_squares(self, gradients):
        return ops.sqrt(sum(ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients))

    def _scaled(self, loss):
        return loss if self.optimizer is None else self.optimizer.scale_loss(loss)

    def _refuses(self):
        """Whether the step itself must guard the update; a LossScaleOptimizer does so on its own, and adapts its scale."""
        return self._step_options["refuse_nonfinite"] and not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def _record(self, forwards, keep: Tensor = True, norm=None, finite: Tensor = True):
        """Adds a step to the metrics.

        Args:
            forwards: [(micro-batch, result of `_losses_of`)].
            keep: False for a refused step. finite: whether loss and gradient are finite. Bools; bool tensors under jit.
            norm: the global norm of the gradient, None in evaluation.
        """
        rows = []
        for (_, y, sample_weight), (total, losses, y_pred, weight) in forwards:
            if y_pred is not None:
                keras_internals.compiled_metrics(self).update_state(y, y_pred, sample_weight)
            rows.append([total * weight, *(ops.cast(losses[n], "float32") * weight for n in self._sums.losses[1:]), weight])
        *totals, weight = [sum(column[1:], column[0]) for column in zip(*rows, strict=True)]
        if keep is not True:
            *totals, weight = [ops.where(keep, value, 0.0) for value in (*totals, weight)]
        counted, refused = (0.0, 0.0) if norm is None else (1.0, 0.0)
        if norm is not None and finite is not True:
            counted = ops.cast(finite, "float32")
            norm, refused = ops.where(finite, norm, 0.0), 1.0 - counted
        norm = 0.0 if norm is None else norm
        self._add(*totals, norm, refused, *[weight] * len(totals), counted, 0.0)

    def _add(self, *values):
        """`StepSums.update_state`; a backend may override it with something faster."""
        self._sums.update_state(*values)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; after an error the model keeps its weights."""
        with self._variables_kept():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`; after an error the model keeps its weights."""
        with self._variables_kept():
            return super().evaluate(*args, **kwargs)

    def _variables_kept(self) -> contextlib.AbstractContextManager[None]:
        """A context that gives the variables their values back after an error, where a backend needs it."""
        return contextlib.nullcontext()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """`StepSums`, which has the loss, then those given to `compile`, and others; without Keras' own mean of the loss."""
        others = [metric for metric in super().metrics if metric is not self._sums]
        return [self._sums, *(m for m in others if m.name != "loss" or type(m) is not keras.metrics.Mean)]

    def _logs(self, training):
        logs = self.get_metrics_result()
        return {name: value for name, value in logs.items() if training or name not in OF_TRAINING}

    def test_step(self, data: Any) -> dict[str, Tensor]:
        """The logs of an evaluated batch."""
        batch = unpack(data)
        self._record([(batch, self._losses_of(batch, training=False))])
        return self._logs(training=False)


def unpack(data: Any, convert: Callable[[Any], Tensor] = ops.convert_to_tensor) -> Batch:
    """(x, y, sample_weight) of a batch, every leaf a tensor (an eager step is given NumPy arrays)."""
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    return tree.map_structure(lambda leaf: None if leaf is None else convert(leaf), (x, y, sample_weight))


def counted(function: Callable[..., Any], counter: list[int]) -> Callable[..., Any]:
    """`function` that adds one to `counter[0]` each time it is traced."""

    def traced(*args):
        counter[0] += 1
        return function(*args)

    return traced
