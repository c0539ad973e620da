"""What the three train steps share: the contract with the model, and all arithmetic that is not differentiation.

A step is: losses of the batch -> gradient -> dense gradient -> global norm -> refuse or apply -> record. A backend's file
writes only the differentiation and the way state travels; everything else stands here once.
"""

import contextlib

import keras
from keras import ops, tree
from keras.src.utils.python_utils import pythonify_logs

from k3seq.errors import UsageError


class StepContract:
    """Put `StepMixin` (a backend's subclass of this) before `keras.Model` to train with k3seq's step.

    `fit`, `evaluate`, `predict`, `train_on_batch`, callbacks, `add_loss`, regularisers, `compile(metrics=...)`, mixed precision
    and the optimizer's own `global_clipnorm`, `use_ema` and loss scaling go on working. Beyond Keras' own step:

    - several named losses: define `objective` and `loss_names`;
    - the mean loss of an epoch weighs a batch by `batch_weight` (tokens in a seq2seq model), not by its rows;
    - `gradient_norm`, the global norm before clipping, and `refused`, the number of refused steps, are in the logs;
    - a step whose loss or gradient is not finite leaves weights, optimizer and other variables as they were;
    - `step_options(gradient_accumulation_steps=n)` computes a batch as `n` micro-batches of consecutive rows, whose
      gradients are weighted by
      `batch_weight`, so that the update equals that of the whole batch in 1/n of the memory;
    - an embedding's gradient on TensorFlow is made dense, so that repeated tokens are summed before Adam squares them;
    - a weight that the loss does not reach has gradient zero on every backend.
    """

    loss_names = ("loss",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._step_options = {"gradient_accumulation_steps": 1, "refuse_nonfinite": True}
        named = self.loss_names if len(self.loss_names) > 1 else ()
        self._loss_means = [keras.metrics.Mean(name=name) for name in named]
        self._gradient_norm = keras.metrics.Mean(name="gradient_norm")
        self._refused = keras.metrics.Sum(name="refused")

    def step_options(self, *, gradient_accumulation_steps=1, refuse_nonfinite=True):
        """Sets how a training batch becomes an update; kept when the compiled model is saved.

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
        self.train_function = None

    def compute_objective(self, x, y, sample_weight, training):
        """The default objective: the loss and `add_loss` terms that `compile` knows. Returns ({"loss": scalar}, y_pred)."""
        y_pred = self._outputs_of(x, training)
        return {"loss": self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)}, y_pred

    def _outputs_of(self, x, training):
        """`self(x, training=training)`; a backend may have it faster."""
        return self(x, training=training)

    def objective(self, x, y, sample_weight, training):
        """Override to train on losses of your own.

        Args:
            x, y, sample_weight: a batch, as `fit` got it; y and sample_weight may be None.
            training: bool.

        Returns:
            (losses, y_pred): a dict from each of `loss_names` to a scalar tensor, whose sum is minimised together with all
            `add_loss` and regularisation terms; and the predictions for the compiled metrics, or None.
        """
        raise NotImplementedError

    def batch_weight(self, x, y, sample_weight):
        """Weight of a batch among others in epoch means and among micro-batches, a float32 scalar: its rows by default."""
        return ops.cast(ops.shape(next(leaf for leaf in tree.flatten(x) if leaf is not None))[0], "float32")

    def get_compile_config(self):
        config = super().get_compile_config()
        return {**config, "step_options": self._step_options} if config else config

    def compile_from_config(self, config):
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
        y_pred = None if self._compile_metrics is None else y_pred  # nobody else asks: a micro-batch need not keep it
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

    def _record(self, batch, forward, keep=True):
        """Adds one (micro-)batch to the metrics; `keep` is False (a tensor under jit) for a refused step."""
        total, losses, y_pred, weight = forward
        self._count(self._loss_tracker, total, weight, keep)
        for mean in self._loss_means:
            self._count(mean, ops.cast(losses[mean.name], "float32"), weight, keep)
        if y_pred is not None:
            _, y, sample_weight = batch
            self._compile_metrics.update_state(y, y_pred, sample_weight)

    def _record_step(self, norm, finite):
        """Adds the step to the metrics; `finite` is a bool, a tensor under jit."""
        self._count(self._gradient_norm, norm, 1.0, finite)
        if finite is not True:
            self._refused.update_state(1.0 - ops.cast(finite, "float32"))

    def _count(self, mean, value, weight, keep):
        """Adds a scalar to a mean where `keep`, a bool or, under jit, a tensor."""
        if keep is not True:
            value, weight = ops.where(keep, value, 0.0), ops.where(keep, weight, 0.0)
        mean.update_state(value, sample_weight=weight)

    def fit(self, *args, **kwargs):
        with self._variables_kept():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        with self._variables_kept():
            return super().evaluate(*args, **kwargs)

    def _variables_kept(self):
        """A context that gives the variables their values back after an error, where a backend needs it."""
        return contextlib.nullcontext()

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        made = self.compiled and self.built and self.optimizer.built and self.train_function is not None
        logs = self._train_on((x, y, sample_weight)) if made and class_weight is None else None
        if logs is None:
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)
        logs = pythonify_logs(logs)
        return logs if return_dict else self._flatten_metrics_in_order(logs)

    def _train_on(self, batch):
        """The logs of a step of a model that is made, where a backend has it faster than Keras; None: Keras shall do it."""
        return None

    def reset_metrics(self):
        self._reset_other_metrics()
        for metric in self._own_metrics():
            for variable in metric.variables:
                self._zero(variable)

    def _reset_other_metrics(self):
        own = self._own_metrics()
        for metric in self.metrics:
            if metric not in own:
                metric.reset_state()

    def _own_metrics(self):
        """The metrics that the step keeps itself, all of them sums from zero."""
        compiled = [] if self._loss_tracker is None else [self._loss_tracker]
        return [*compiled, *self._loss_means, self._gradient_norm, self._refused]

    def get_metrics_result(self):
        own, logs = self._own_metrics(), {}
        for metric in self.metrics:
            found = self._result_of(metric) if metric in own else metric.result()
            logs |= found if isinstance(found, dict) else {metric.name: found}
        return logs

    def _zero(self, variable):
        """`variable.assign(0)`; a backend may have it faster: between any two batches it is done five times and more."""
        variable.assign(0)

    def _result_of(self, metric):
        """`metric.result()` of an own one; a backend may have it faster."""
        return metric.result()

    def _logs(self, training):
        logs = self.get_metrics_result()
        if not training:
            for metric in (self._gradient_norm, self._refused):
                logs.pop(metric.name)
        return logs


def unpack(data, convert=ops.convert_to_tensor):
    """(x, y, sample_weight) of a batch, every leaf a tensor (an eager step is handed NumPy arrays)."""
    batch = keras.utils.unpack_x_y_sample_weight(data)
    return tree.map_structure(lambda leaf: None if leaf is None else convert(leaf), tuple(batch))


def counted(function, counter):
    """`function` that adds one to `counter[0]` each time it is traced."""

    def traced(*args):
        counter[0] += 1
        return function(*args)

    return traced
