"""The sliding-context arithmetic model (spec S3) in float64, one row at a time, from its definition.

Weights are a dict under the names of the golden family `sliding_model`: `emb`, `enc_<i>.refl.q|k|v`,
`enc_<i>.conc.infl.kern|bias`, `enc_<i>.conc.defl.kern`, the same under `dec_<i>` with `dec_<i>.cnsd.q|k|v` besides, and
`dbd.kern`, `dbd.bias`. Every size follows from their shapes. Rows are lists of ints: ragged, possibly empty.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from oracles import differences

Rows = Sequence[Sequence[int]]
Weights = Mapping[str, np.ndarray]


def frames(prev: np.ndarray, enc: Rows, dec: Rows, tgt: Rows, width_dec: int):
    """One call: `(enc tokens, enc lengths, dec tokens, dec lengths, prev after)` from `prev` (batch, width_enc).

    The encoder's tokens are the last width_enc of prev and the row; the next prev is the last width_enc of those and the
    target row. The lengths are those of the rows as given, also where a row is longer than the window.
    Raises ValueError for a decoder row longer than `width_dec` and for another number of rows than `prev` has.
    """
    batch, width = prev.shape
    if not len(enc) == len(dec) == len(tgt) == batch:
        raise ValueError(f"Expected {batch} rows of each. Received: enc={len(enc)}, dec={len(dec)}, tgt={len(tgt)}")
    window, padded, after = [], [], []
    for old, encoder_row, decoder_row, target_row in zip(prev.tolist(), enc, dec, tgt, strict=True):
        if len(decoder_row) > width_dec:
            raise ValueError(f"Expected decoder rows of at most {width_dec} tokens. Received: {len(decoder_row)}")
        seen = (old + list(encoder_row))[-width:]
        window.append(seen)
        padded.append(list(decoder_row) + [0] * (width_dec - len(decoder_row)))
        after.append((seen + list(target_row))[-width:])
    lengths = [np.array([len(row) for row in rows]) for rows in (enc, dec)]
    return np.array(window), lengths[0], np.array(padded), lengths[1], np.array(after)


def embed(tokens: np.ndarray, table: np.ndarray) -> np.ndarray:
    """(batch, width) ids to (batch, width, hidden), multiplied by sqrt(hidden)."""
    hidden = table.shape[1]
    return np.array([[table[token] * hidden**0.5 for token in row] for row in tokens])


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def attention(x: np.ndarray, lens: np.ndarray, context: np.ndarray, weights: Weights) -> np.ndarray:
    """(batch, width, hidden): the last max(lens) positions of `x` are queries on `context`, the ones before pass through.

    Where every length is 0 the slice `x[:, -0:]` is the whole of `x` and `x[:, :-0]` is empty: all positions are queries.
    """
    width, hidden = x.shape[1:]
    longest = int(max(lens))
    first = max(0, width - longest) if longest else 0
    y = np.array(x, np.float64)
    for row in range(len(x)):
        keys, values = context[row] @ weights["k"], context[row] @ weights["v"]
        for position in range(first, width):
            query = x[row, position] @ weights["q"]
            y[row, position] = softmax(keys @ query / hidden**0.5) @ values
    return y


def conclusion(x: np.ndarray, weights: Weights) -> np.ndarray:
    """Each row flattened to (width * hidden,), a dense relu layer with bias, a dense layer without, and shaped back."""
    rows = []
    for row in x:
        inflated = np.maximum(row.reshape(-1) @ weights["infl.kern"] + weights["infl.bias"], 0.0)
        rows.append((inflated @ weights["defl.kern"]).reshape(row.shape))
    return np.array(rows)


def under(weights: Weights, prefix: str) -> dict[str, np.ndarray]:
    """The weights whose names start with `prefix` and a dot, named without them."""
    return {name.removeprefix(prefix + "."): w for name, w in weights.items() if name.startswith(prefix + ".")}


def stacks(weights: Weights, prefix: str) -> int:
    return len({name.split(".")[0] for name in weights if name.startswith(prefix + "_")})


def encode(x: np.ndarray, lens: np.ndarray, weights: Weights) -> np.ndarray:
    """The encoder's stacks: reflect (attention of x on itself), then conclude."""
    for i in range(stacks(weights, "enc")):
        x = attention(x, lens, x, under(weights, f"enc_{i}.refl"))
        x = conclusion(x, under(weights, f"enc_{i}.conc"))
    return x


def decode(x: np.ndarray, lens: np.ndarray, encoded: np.ndarray, weights: Weights) -> np.ndarray:
    """The decoder's stacks: reflect, consider (attention on the encoder's output), then conclude."""
    for i in range(stacks(weights, "dec")):
        x = attention(x, lens, x, under(weights, f"dec_{i}.refl"))
        x = attention(x, lens, encoded, under(weights, f"dec_{i}.cnsd"))
        x = conclusion(x, under(weights, f"dec_{i}.conc"))
    return x


def debed(x: np.ndarray, lens: np.ndarray, weights: Weights) -> np.ndarray:
    """(batch, max(lens), vocabulary) logits: the projection of every position, cut to the longest decoder row."""
    return np.array([row[: int(max(lens))] @ weights["dbd.kern"] + weights["dbd.bias"] for row in x])


def widths(weights: Weights) -> tuple[int, int]:
    """`(width_enc, width_dec)`, read from the kernels that the flattened windows meet."""
    hidden = weights["emb"].shape[1]
    enc, dec = (weights[f"{side}_0.conc.infl.kern"].shape[0] // hidden for side in ("enc", "dec"))
    return enc, dec


def forward(weights: Weights, prev: np.ndarray, enc: Rows, dec: Rows, tgt: Rows) -> tuple[np.ndarray, np.ndarray]:
    """`(logits, prev after)` of one call of the whole model; logits are (batch, longest decoder row, vocabulary)."""
    weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
    encoder_tokens, encoder_lens, decoder_tokens, decoder_lens, after = frames(prev, enc, dec, tgt, widths(weights)[1])
    encoded = encode(embed(encoder_tokens, weights["emb"]), encoder_lens, weights)
    decoded = decode(embed(decoder_tokens, weights["emb"]), decoder_lens, encoded, weights)
    return debed(decoded, decoder_lens, weights), after


def loss(logits: np.ndarray, tgt: Rows) -> float:
    """Mean cross-entropy over batch x longest target row; the pads (0) that fill a shorter row count like tokens.

    Raises ValueError unless the logits are as long as the longest target row, and where that row is empty.
    """
    longest = max(len(row) for row in tgt)
    if longest != logits.shape[1] or longest == 0:
        raise ValueError(f"Expected logits of {longest} steps, at least one. Received: logits.shape={logits.shape}")
    losses = []
    for row, steps in zip(tgt, logits, strict=True):
        for token, scores in zip(list(row) + [0] * (longest - len(row)), steps, strict=True):
            losses.append(-np.log(softmax(scores)[token]))
    return float(np.mean(losses))


def loss_gradient(weights: Weights, prev: np.ndarray, enc: Rows, dec: Rows, tgt: Rows, name: str, count: int, seed: int = 0):
    """`(indices, derivatives)` of the loss for `count` entries of `weights[name]`, by central differences."""
    return differences.sample(lambda w: loss(forward(w, prev, enc, dec, tgt)[0], tgt), weights, name, count, seed)


def random_weights(
    seed: int, *, width_enc: int, width_dec: int, hidden: int, dense: int, stack: int, vocabulary: int
) -> dict[str, np.ndarray]:
    """Weights of the named sizes, spread so that no softmax is flat or saturated and no relu is always off."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.normal(0.0, rows**-0.5, (rows, columns))

    weights = {"emb": rng.normal(0.0, 0.7, (vocabulary, hidden))}
    for side, width, parts in (("enc", width_enc, ("refl",)), ("dec", width_dec, ("refl", "cnsd"))):
        for i in range(stack):
            for part in parts:
                weights |= {f"{side}_{i}.{part}.{letter}": matrix(hidden, hidden) for letter in "qkv"}
            weights[f"{side}_{i}.conc.infl.kern"] = matrix(width * hidden, dense)
            weights[f"{side}_{i}.conc.infl.bias"] = rng.normal(0.0, 0.3, dense)
            weights[f"{side}_{i}.conc.defl.kern"] = matrix(dense, width * hidden)
    weights["dbd.kern"] = matrix(hidden, vocabulary)
    weights["dbd.bias"] = rng.normal(0.0, 0.3, vocabulary)
    return weights
