"""A whole train step in float64: loss, gradients, clipping, optimizers, moving averages, micro-batches.

Weights and gradients are dicts of arrays under the same names. Nothing is changed in place but an optimizer's own state.
"""

from collections.abc import Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def smooth(labels: np.ndarray, classes: int, smoothing: float) -> np.ndarray:
    """Targets (..., classes): (1 - smoothing) on the label and smoothing / classes everywhere (arXiv 1512.00567)."""
    return (1.0 - smoothing) * np.eye(classes)[labels] + smoothing / classes


def token_losses(logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0) -> np.ndarray:
    """Cross-entropy of each token, (...,), from logits (..., classes)."""
    return -(smooth(labels, logits.shape[-1], smoothing) * log_softmax(logits)).sum(-1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, weights=None, smoothing: float = 0.0) -> float:
    """The weighted mean over tokens: sum(weight * loss) / sum(weight), 0 where all weights are 0."""
    losses = token_losses(logits, labels, smoothing)
    weights = np.ones(losses.shape) if weights is None else np.asarray(weights, np.float64)
    return float((weights * losses).sum() / weights.sum()) if weights.sum() else 0.0


def global_norm(gradients: Arrays) -> float:
    return float(np.sqrt(sum(np.square(g).sum() for g in gradients.values())))


def clip(gradients: Arrays, limit: float) -> tuple[dict[str, np.ndarray], float]:
    """`(gradients, norm before)`: all scaled by limit / norm where their joint norm exceeds the limit (arXiv 1211.5063)."""
    norm = global_norm(gradients)
    scale = limit / norm if norm > limit else 1.0
    return {name: g * scale for name, g in gradients.items()}, norm


def accumulate(gradients: Sequence[Arrays], tokens: Sequence[float]) -> dict[str, np.ndarray]:
    """The gradient of one big batch from its micro-batches', each a mean over its own `tokens`: sum(n g) / sum(n)."""
    total = float(np.sum(tokens))
    return {
        name: sum(n * g[name] for n, g in zip(tokens, gradients, strict=True)) / total if total else np.zeros_like(first)
        for name, first in gradients[0].items()
    }


class SGD:
    """w' = w + m with m' = momentum * m - rate * g: the rate is inside the velocity."""

    def __init__(self, rate: float, momentum: float = 0.0):
        self.rate, self.momentum, self.velocity = rate, momentum, {}

    def update(self, weights: Arrays, gradients: Arrays) -> dict[str, np.ndarray]:
        for name, g in gradients.items():
            self.velocity[name] = self.momentum * self.velocity.get(name, 0.0) - self.rate * g
        return {name: w + self.velocity[name] for name, w in weights.items()}


class Adam:
    """arXiv 1412.6980 in the form at the end of its section 2, which Keras follows: the bias corrections are in the rate.

    epsilon is therefore added to sqrt(v) before the correction (the paper's "epsilon hat"), 1e-7 by default.
    """

    def __init__(self, rate: float = 1e-3, beta_1: float = 0.9, beta_2: float = 0.999, epsilon: float = 1e-7):
        self.rate, self.beta_1, self.beta_2, self.epsilon = rate, beta_1, beta_2, epsilon
        self.steps, self.mean, self.square = 0, {}, {}

    def update(self, weights: Arrays, gradients: Arrays) -> dict[str, np.ndarray]:
        self.steps += 1
        rate = self.rate * np.sqrt(1 - self.beta_2**self.steps) / (1 - self.beta_1**self.steps)
        updated = {}
        for name, w in weights.items():
            g = gradients[name]
            self.mean[name] = self.beta_1 * self.mean.get(name, 0.0) + (1 - self.beta_1) * g
            self.square[name] = self.beta_2 * self.square.get(name, 0.0) + (1 - self.beta_2) * np.square(g)
            updated[name] = w - rate * self.mean[name] / (np.sqrt(self.square[name]) + self.epsilon)
        return updated


def moving_average(average: Arrays | None, weights: Arrays, momentum: float) -> dict[str, np.ndarray]:
    """momentum * average + (1 - momentum) * weights; the first average (None before) is a copy of the weights."""
    if average is None:
        return {name: np.array(w) for name, w in weights.items()}
    return {name: momentum * average[name] + (1 - momentum) * w for name, w in weights.items()}


class EmbeddingClassifier:
    """Ids (batch, steps) -> embedding -> dense -> softmax; small enough for its gradients to be written down.

    `pooled`: the mean of a row's embeddings is classified, labels are (batch,). Otherwise every token is, labels are
    (batch, steps). Weights: `embedding` (vocabulary, units), `kernel` (units, classes), `bias` (classes,).
    """

    def __init__(self, weights: Arrays, pooled: bool = False):
        self.weights = {name: np.array(w, np.float64) for name, w in weights.items()}
        self.pooled = pooled

    def features(self, ids: np.ndarray) -> np.ndarray:
        looked_up = self.weights["embedding"][ids]
        return looked_up.mean(1) if self.pooled else looked_up

    def forward(self, ids: np.ndarray) -> np.ndarray:
        """The logits."""
        return self.features(ids) @ self.weights["kernel"] + self.weights["bias"]

    def loss(self, ids: np.ndarray, labels: np.ndarray, weights=None, smoothing: float = 0.0) -> float:
        return cross_entropy(self.forward(ids), labels, weights, smoothing)

    def gradients(self, ids: np.ndarray, labels: np.ndarray, weights=None, smoothing: float = 0.0) -> dict[str, np.ndarray]:
        """Of `loss`. An id that occurs several times gets the sum of its occurrences' gradients in one row."""
        logits = self.forward(ids)
        weights = np.ones(labels.shape) if weights is None else np.asarray(weights, np.float64)
        share = weights / weights.sum() if weights.sum() else weights
        error = share[..., None] * (np.exp(log_softmax(logits)) - smooth(labels, logits.shape[-1], smoothing))
        flat = error.reshape(-1, error.shape[-1])
        features = self.features(ids).reshape(len(flat), -1)
        reach = error @ self.weights["kernel"].T
        per_token = np.repeat(reach[:, None] / ids.shape[1], ids.shape[1], axis=1) if self.pooled else reach
        embedding = np.zeros_like(self.weights["embedding"])
        for id, gradient in zip(ids.reshape(-1), per_token.reshape(ids.size, -1), strict=True):
            embedding[id] += gradient
        return {"embedding": embedding, "kernel": features.T @ flat, "bias": flat.sum(0)}

    def train(
        self,
        batches: Sequence[tuple],
        optimizer: SGD | Adam,
        limit: float | None = None,
        smoothing: float = 0.0,
        micro: int = 1,
    ) -> list[dict[str, float]]:
        """One step per batch `(ids, labels, weights or None)`; gives `{"loss", "norm"}` of each, as met before its update.

        `limit` clips the global norm. `micro` splits a batch's rows into that many equal parts, joined by their tokens:
        the numbers must not depend on it.
        """
        log = []
        for ids, labels, weights in batches:
            weights = np.ones(labels.shape) if weights is None else np.asarray(weights, np.float64)
            parts = list(zip(*(np.split(a, micro) for a in (ids, labels, weights)), strict=True))
            tokens = [w.sum() for _, _, w in parts]
            gradients = accumulate([self.gradients(*part, smoothing) for part in parts], tokens)
            loss = self.loss(ids, labels, weights, smoothing)
            clipped, norm = clip(gradients, limit) if limit else (gradients, global_norm(gradients))
            self.weights = optimizer.update(self.weights, clipped)
            log.append({"loss": loss, "norm": norm})
        return log
