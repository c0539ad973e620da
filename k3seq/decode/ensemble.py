"""Several models that decode as one."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from keras import ops

from k3seq.decode.decoder import alignments_of, check_model
from k3seq.errors import UsageError
from k3seq.typing import State, Tensor

MEANS = ("probabilities", "log_probabilities")


class Ensemble:
    """A model whose probabilities are the mean of those of its members, which may be of different classes.

    Use it as a model: `beam_search(Ensemble([first, second]), source)`. Where all members have alignments over equally many
    source positions, its state has their mean. Keep the object between calls: compiled programs are cached for it.

    Args:
        members: models of one vocabulary of the target. mean: "probabilities", or "log_probabilities": their geometric mean,
            which one member can veto. weights: a number above 0 for each member, divided by their sum; None: equal ones.

    Raises:
        UsageError: there is no member, mean is unknown, the weights do not fit, or (at the first step) the vocabularies differ.
    """

    def __init__(self, members: Sequence[Any], mean: str = "probabilities", weights: Any = None):
        if not isinstance(members, Sequence):
            raise UsageError(f"Expected members to be a list of models. Received: {type(members).__name__}")
        self.members = tuple(members)
        for member in self.members:
            check_model("each member", member)
        try:
            weights = np.ones(len(self.members)) if weights is None else np.asarray(weights, "float64")
        except (TypeError, ValueError):
            raise UsageError(f"Expected weights to be a list of numbers. Received: weights={weights!r}") from None
        if not self.members:
            raise UsageError("Expected at least one model in an ensemble. Received: none")
        if mean not in MEANS:
            raise UsageError(f"Expected mean to be one of {', '.join(MEANS)}. Received: mean={mean!r}")
        if weights.shape != (len(self.members),) or not (weights > 0).all() or not np.isfinite(weights).all():
            raise UsageError(f"Expected a weight above 0 for each of {len(self.members)} members. Received: {weights.tolist()}")
        self.mean, self.weights = mean, weights / weights.sum()
        limits = [m.target_limit for m in self.members if getattr(m, "target_limit", None) is not None]
        self.target_limit = min(limits, default=None)
        # A variable that members share must be named once.
        self.variables = list({id(v): v for member in self.members for v in member.variables}.values())

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Calls the `check` of each member that has one."""
        for member in self.members:
            if hasattr(member, "check"):
                member.check(inputs)

    def start(self, inputs: Mapping[str, Any], steps: int) -> dict[str, Any]:
        """{"members": the state of each, and "alignments" where all have them}."""
        states = []
        for member in self.members:
            arguments = {"steps": steps} if "steps" in inspect.signature(member.start).parameters else {}
            states.append(member.start(inputs, **arguments))
        return self._state(states)

    def step(self, tokens: Tensor, state: State) -> tuple[Any, dict[str, Any]]:
        """One step of every member: tokens (n,) int32 -> (log-probabilities (n, v), state)."""
        results = [member.step(tokens, own) for member, own in zip(self.members, state["members"], strict=True)]
        vocabularies = [logits.shape[-1] for logits, _ in results]
        if len(set(vocabularies)) > 1:
            raise UsageError(f"Expected an ensemble of models of one vocabulary. Received: {vocabularies}")
        logs = ops.stack([ops.log_softmax(ops.cast(logits, "float32"), axis=-1) for logits, _ in results])
        weights = ops.convert_to_tensor(self.weights.astype("float32")[:, None, None])
        if self.mean == "probabilities":
            mixed = ops.logsumexp(logs + ops.log(weights), axis=0)
        else:
            mixed = ops.sum(logs * weights, axis=0)
        return mixed, self._state([own for _, own in results])

    def _state(self, states):
        aligned = [a for a in map(alignments_of, states) if a is not None]
        state = {"members": states}
        if len(aligned) == len(states) and len({a.shape[1] for a in aligned}) == 1:
            state["alignments"] = sum(ops.cast(a, "float32") * float(w) for a, w in zip(aligned, self.weights, strict=True))
        return state
