"""The metric behind the logs of a train step: all sums in one variable, so that one assignment resets them."""

from collections.abc import Sequence

import keras
from keras import ops

from k3seq.typing import Tensor

OF_TRAINING = ("gradient_norm", "refused")  # logs of training steps only


class StepSums(keras.metrics.Metric):
    """Weighted means of the losses, the mean gradient norm, and the number of refused steps.

    Args:
        losses: names of the losses. The metric has the name of the first one, which Keras then puts first in a list of logs.
    """

    def __init__(self, losses: Sequence[str]):
        super().__init__(name=losses[0], dtype="float32")
        self.losses = tuple(losses)
        # Row 0: weighted sums of the losses and of the norm, number of refused steps. Row 1: the sums of weights, and 0.
        self.sums = self.add_variable((2, len(losses) + 2), initializer="zeros", name="sums")

    def update_state(self, *values: Tensor) -> None:
        """Adds float32 scalars to the sums, in their order: row 0, then row 1."""
        self.sums.assign_add(ops.reshape(ops.stack(values), (2, -1)))

    def result(self) -> dict[str, Tensor]:
        """{name: float32 scalar}: a mean for each loss, then `gradient_norm` and `refused`. A mean of nothing is 0."""
        totals, weights = self.sums[0], self.sums[1]
        means = ops.divide_no_nan(totals, weights)
        logs = {name: means[place] for place, name in enumerate((*self.losses, "gradient_norm"))}
        return {**logs, "refused": totals[-1]}
