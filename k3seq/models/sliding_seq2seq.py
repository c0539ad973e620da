"""The sliding model for text pairs: the source and the target so far as windows, one pass per predicted token.

The decoder's window holds the known tokens, followed by blanks. The model is trained on windows blanked from a random position
on, which are the windows of decoding from left to right.
"""

from typing import Any

import keras
from keras import ops

from k3seq import arguments
from k3seq.errors import UsageError
from k3seq.layers.masks import length_mask
from k3seq.layers.sliding.blocks import Debed, Decode, Embed, Encode
from k3seq.layers.sliding.frames import slide, widen
from k3seq.models.seq2seq import Seq2Seq, source_of, target_of
from k3seq.random import Stream
from k3seq.train.targets import align
from k3seq.typing import State, Tensor

# Draws of one period. The stride is prime, so that every start in the table is used once before one is used again.
_DRAWS, _STRIDE = 2**14, 9973


@keras.saving.register_keras_serializable(package="k3seq")
class SlidingSeq2Seq(Seq2Seq):
    """Windows with attention and dense layers (see `SlidingArithmetic`) from source to target tokens.

    Source and target ids share one embedding, with the target's after the source's; id 0 is the blank of both. Examples do not
    share context. Two things differ from the arithmetic model, where the lengths of targets are known. Attention sees the whole
    decoder window, so that the length of the target is not revealed. The queries are the blanks, and known tokens pass the
    attention unchanged, as earlier positions do in the arithmetic model.

    In training each row of a batch keeps its first p tokens, p drawn uniformly from 0 to its length - 1, and the loss is over
    its other tokens. The draws come from `k3seq.random` and a step counter (`draws`, a variable): the same on every backend.
    Evaluation and `call` are exact: the logits of position i depend on the source and the i tokens before it.

    Args:
        source_vocabulary_size, target_vocabulary_size: numbers of ids.
        width_source: tokens in the encoder's window; of a longer source the last ones are kept.
        width_target: tokens in the decoder's window, the end token included: the length of the longest target.
        embed_dim: size of a token vector.
        dense_dim: units of the dense layers over a window.
        num_layers: blocks of the encoder, and of the decoder.

    Call arguments:
        inputs: {"source": (b, s), "source_lengths": (b,), "target": (b, t)}, or (source, target); t at most width_target.

    Returns:
        logits (b, t, target_vocabulary_size).

    Raises:
        UsageError: a size is not an integer of at least 1, or t is more than width_target.
    """

    def __init__(
        self,
        source_vocabulary_size: int,
        target_vocabulary_size: int,
        width_source: int,
        width_target: int,
        embed_dim: int = 64,
        dense_dim: int = 512,
        num_layers: int = 2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config = dict(
            source_vocabulary_size=source_vocabulary_size,
            target_vocabulary_size=target_vocabulary_size,
            width_source=width_source,
            width_target=width_target,
            embed_dim=embed_dim,
            dense_dim=dense_dim,
            num_layers=num_layers,
        )
        arguments.positive(**self.config)
        self.source_vocabulary_size, self.target_vocabulary_size = source_vocabulary_size, target_vocabulary_size
        self.width_source = self.source_limit = width_source
        self.width_target = self.target_limit = width_target
        policy = self.dtype_policy
        self.embed = Embed(source_vocabulary_size + target_vocabulary_size, embed_dim, name="embed", dtype=policy)
        self.encode = Encode(width_source, embed_dim, dense_dim, num_layers, name="encode", dtype=policy)
        self.decode = Decode(width_target, embed_dim, dense_dim, num_layers, name="decode", dtype=policy)
        self.debed = Debed(target_vocabulary_size, embed_dim, name="debed", dtype=policy)
        for layer in (self.embed, self.encode, self.decode, self.debed):
            layer.build()
        self.draws = keras.Variable("zeros", shape=(), dtype="int32", trainable=False, name="draws")
        self._uniform = Stream(0, "k3seq.models.sliding_seq2seq").uniform((_DRAWS,))
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Tensor:
        target = self._target(inputs)
        rows, steps = ops.shape(target)
        encoded, mask = self._encode(inputs)
        # Each of the t windows of a row is a row of its own: window i knows the first i tokens.
        known = ops.tile(ops.arange(steps, dtype="int32"), [rows])
        window = self._window(ops.repeat(target, steps, axis=0), known)
        decoded = self._decode(window, known, ops.repeat(encoded, steps, axis=0), ops.repeat(mask, steps, axis=0))
        return ops.reshape(self._logits(_at(decoded, known)), (rows, steps, self.target_vocabulary_size))

    def compute_objective(self, x: Any, y: Tensor, sample_weight: Tensor, training: bool) -> tuple[dict[str, Tensor], Tensor]:
        """In training, the loss over the blanked tokens of one window of each row; else the exact loss. See `StepContract`."""
        if not training:
            return super().compute_objective(x, y, sample_weight, training)
        target = self._target(x)
        steps = ops.shape(target)[1]
        known = self._draw(target)
        decoded = self._decode(self._window(target, known), known, *self._encode(x))
        y_pred = self._logits(decoded[:, :steps])
        lengths = _tokens(target)
        blanked = ops.logical_and(~length_mask(known, steps), length_mask(lengths, steps))
        weight = ops.cast(blanked, "float32")
        if sample_weight is not None:
            _, sample_weight = align(y, sample_weight, tuple(target.shape))
            weight = weight * ops.cast(sample_weight, "float32")
        return {"loss": self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, training=True)}, y_pred

    def start(self, inputs: Any) -> State:
        """Encodes the source; the window is blank. `step` takes the START token first."""
        encoded, mask = self._encode(inputs)
        empty = ops.zeros_like(mask[:, :1], dtype="int32")
        return {
            "window": ops.repeat(empty, self.width_target, axis=1),
            "position": empty[:, 0],
            "encoded": encoded,
            "encoded_mask": mask,
        }

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Appends `tokens` (b,) to the window (START is not stored) and returns the logits (b, v) of the next ones.

        A full window takes no more tokens: after `width_target` steps the logits are those of the last position.
        """
        position = state["position"]
        here = ops.arange(self.width_target, dtype="int32")[None, :] == position[:, None] - 1
        window = ops.where(here, self._shifted(ops.cast(tokens, "int32"))[:, None], state["window"])
        decoded = self._decode(window, position, state["encoded"], state["encoded_mask"])
        logits = self._logits(_at(decoded, ops.minimum(position, self.width_target - 1)))
        return logits, {**state, "window": window, "position": position + 1}

    def _target(self, inputs: Any) -> Tensor:
        target = target_of(inputs)
        if target.shape[1] is not None and target.shape[1] > self.width_target:
            raise UsageError(
                f"Expected targets of at most width_target={self.width_target} tokens. Received: shape {tuple(target.shape)}"
            )
        return ops.cast(target, "int32")

    def _encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """(encoder output (b, width_source, embed_dim), bool (b, width_source), True where the window holds source tokens)."""
        source, lengths = source_of(inputs)
        source = ops.cast(source, "int32")
        if lengths is None:
            lengths = ops.full_like(source[:, 0], ops.shape(source)[1])
        lengths = ops.cast(lengths, "int32")
        blank = ops.zeros_like(lengths)[:, None] * ops.ones((1, self.width_source), "int32")
        mask = ops.flip(length_mask(lengths, self.width_source), axis=1)
        return self.encode(self.embed(slide(blank, source, lengths)), mask, x_mask=mask), mask

    def _shifted(self, tokens: Tensor) -> Tensor:
        """Target ids as ids of the shared embedding; the blank stays 0."""
        return ops.where(tokens == 0, 0, tokens + self.source_vocabulary_size)

    def _window(self, target: Tensor, known: Tensor) -> Tensor:
        """The decoder's window (b, width_target): the first `known` tokens after START, then blanks."""
        return self._shifted(widen(target[:, 1:], known, self.width_target))

    def _decode(self, window: Tensor, known: Tensor, encoded: Tensor, encoded_mask: Tensor) -> Tensor:
        blanks = ~length_mask(known, self.width_target)
        return self.decode(self.embed(window), encoded, blanks, context_mask=encoded_mask)

    def _logits(self, decoded: Tensor) -> Tensor:
        return self.debed.project(decoded)

    def _draw(self, target: Tensor) -> Tensor:
        """Number of known tokens of each row, (b,) int32 in [0, length), from the table of draws at the counter's position."""
        first = ops.convert_to_tensor(self.draws) * _STRIDE
        self.draws.assign((self.draws + 1) % _DRAWS)
        index = (first + ops.arange(ops.shape(target)[0], dtype="int32")) % _DRAWS
        lengths = _tokens(target)
        share = ops.take(ops.convert_to_tensor(self._uniform), index, axis=0) * ops.cast(lengths, "float32")
        # Rounding may turn a share just below 1 into the length itself.
        return ops.minimum(ops.cast(ops.floor(share), "int32"), ops.maximum(lengths - 1, 0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.config}


def _tokens(target: Tensor) -> Tensor:
    """Tokens of each row (b,), START included: as many as there are to predict."""
    return ops.sum(ops.cast(target != 0, "int32"), axis=1)


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """x (b, width, embed_dim) at `positions` (b,): (b, embed_dim)."""
    return ops.take_along_axis(x, positions[:, None, None], axis=1)[:, 0]
