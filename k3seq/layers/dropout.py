"""Dropout (Srivastava et al. 2014, JMLR 15) whose masks are the same on every backend."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.layers.nested import Nested
from k3seq.random import keyed
from k3seq.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="k3seq")
class Dropout(Nested, keras.layers.Layer):
    """Sets inputs to zero with probability `rate` in training and scales the rest, with the same masks on every backend.

    A mask depends on the seed, the layer's path and the number of earlier training calls of the layer. Layers of one model may
    therefore share a seed, and the parts of a batch and repeated calls get different masks. A refused step does not count.

    The count is the variable `counter`, int32 and not trainable, which is saved with the model. With `native` it is the state
    of a `keras.random.SeedGenerator`, and with rate 0 there is no variable. Give the layer a name where another process shall
    repeat its masks: Keras numbers unnamed layers by what the process made before.

    `rate` is rounded to a multiple of 2**-16 (to 0 or 1 only if it is 0 or 1), and the scale is 1 / (1 - the rounded rate).

    Args:
        rate: number in [0, 1]. At 0 the layer does nothing, at 1 training gives zeros.
        seed: integer in 0..2**64-1. Unlike with Keras' default None, the masks are the same in every process.
        noise_shape: tuple of integers and None, as in `keras.layers.Dropout`: the shape of the mask, which broadcasts to the
            inputs; None in it stands for the size of the inputs. `(None, 1, None)` drops the same units at every step.
        native: draw from the backend's own generator: faster on torch and in TensorFlow's graphs, but with masks that differ
            between backends.

    Raises:
        UsageError: a rate, seed or noise shape that is not as above, or a noise shape of another rank than the inputs.
    """

    def __init__(
        self, rate: float, seed: int = 0, noise_shape: Sequence[int | None] | None = None, native: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        arguments.real(0, 1, rate=rate)
        keyed.key(seed)
        if noise_shape is not None:
            if not isinstance(noise_shape, (list, tuple)) or not all(
                d is None or type(d) is int and d > 0 for d in noise_shape
            ):
                raise UsageError(
                    f"Expected noise_shape to be a tuple of positive integers and None. Received: noise_shape={noise_shape!r}"
                )
            noise_shape = tuple(noise_shape)
        self.rate, self.seed, self.noise_shape, self.native = rate, seed, noise_shape, native
        self.supports_masking = True

    def build(self, input_shape: Shape) -> None:
        if self.noise_shape is not None and len(self.noise_shape) != len(input_shape):
            raise UsageError(
                f"Expected noise_shape with the rank of {tuple(input_shape)}. Received: noise_shape={self.noise_shape}"
            )
        self.key = keyed.key(self.seed, self.path)
        if self.rate and self.native:
            self.seed_generator = keras.random.SeedGenerator(int(self.key[0]) & 0x7FFFFFFF, name="noise")
        elif self.rate:
            self.counter = self.add_weight(name="counter", shape=(), initializer="zeros", dtype="int32", trainable=False)

    def call(self, inputs: Tensor, training: bool | None = False) -> Tensor:
        if not training or not self.rate:
            return inputs
        if self.native:
            return keras.random.dropout(inputs, self.rate, self.noise_shape, seed=self.seed_generator)
        kept = kept_of(self.rate)
        mask = keep_mask(keyed.fold(self.key, ops.convert_to_tensor(self.counter)), kept, self._mask_shape(inputs))
        self.counter.assign(ops.add(self.counter, 1))
        # Cast before the product: torch would otherwise multiply in float32 and round afterwards.
        scale = ops.convert_to_tensor(65536 / max(kept, 1), dtype=inputs.dtype)
        return ops.where(mask, inputs * scale, ops.zeros((), dtype=inputs.dtype))

    def _mask_shape(self, inputs: Tensor) -> Shape:
        shape = ops.shape(inputs)
        if self.noise_shape is None:
            return shape
        return tuple(whole if length is None else length for whole, length in zip(shape, self.noise_shape, strict=True))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        config = {"rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape, "native": self.native}
        return {**super().get_config(), **config}


def kept_of(rate: float) -> int:
    """The number of 65,536 inputs that a rate above 0 keeps: 0 at rate 1, else in 1..65535."""
    return 0 if rate == 1 else min(max(round(65536 * (1 - rate)), 1), 65535)


def keep_mask(key: Tensor, kept: int, shape: Shape) -> Tensor:
    """A random mask from 16 bits per element, the low halves of the words of `bits` first, then the high halves.

    It needs half the words that `bernoulli` needs, and the words are most of the cost.

    Args:
        key: `(2,)` int32.
        kept: expected number of True among 65,536 elements, in 0..65535.
        shape: as in `bits`.

    Returns:
        bool of `shape`, True where the input is kept.
    """
    size: Any = 1
    for length in shape:
        size = size * length
    words = keyed.bits(key, ((size + 1) // 2,))
    # A half is compared as the upper half of a signed word; the lower half does not matter.
    limit = (kept - 32768) * 65536
    halves = ops.concatenate([words * 65536 < limit, words < limit], axis=0)
    return ops.reshape(halves[:size], shape)
