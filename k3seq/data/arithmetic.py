"""Arithmetic problems for the sliding-context model, such as `x=-12,y=24:y+x:12`, the same on every machine for a seed.

The symbols, fields and features are those of quantapix' qnarre blog (Apache-2.0), "Custom Keras layers".
"""

import dataclasses
import itertools
import operator

import numpy as np

from k3seq.errors import DataError, UsageError
from k3seq.random.bits import Stream

VOCABULARY = tuple(" :|xy=,+-*0123456789")
BLANK, SEPARATOR, STOP = range(3)

_IDS = {symbol: index for index, symbol in enumerate(VOCABULARY)}
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Two numbers (`x=-12,y=24`), what to do with them (`y+x`), and the result (`12`)."""

    defs: str
    op: str
    res: str


def encode(text):
    """The ids of `text`, int32 `(len(text),)`. Raises DataError on a character that is not in `VOCABULARY`."""
    for position, symbol in enumerate(text):
        if symbol not in _IDS:
            raise DataError(f"Expected characters of {''.join(VOCABULARY)!r}. Received: {symbol!r} at position {position}")
    return np.array([_IDS[symbol] for symbol in text], np.int32)


def decode(ids):
    """The text of `ids`, ints in 0..19. Raises DataError on another."""
    for position, index in enumerate(ids):
        if not 0 <= index < len(VOCABULARY):
            raise DataError(f"Expected ids in 0..{len(VOCABULARY) - 1}. Received: {index} at position {position}")
    return "".join(VOCABULARY[index] for index in ids)


def problems(count, max_val, seed, operators="+-*", distinct=False):
    """Problems drawn evenly over both numbers in [1 - max_val, max_val), the operators and the two orders `x+y` and `y+x`.

    Args:
        count: how many.
        max_val: at least 2.
        seed: integer in 0..2**64-1.
        operators: some of `+-*`.
        distinct: draw no (defs, op) twice.

    Returns:
        list of `Problem`.

    Raises:
        UsageError: an argument is out of range, or there are not as many distinct problems.
    """
    if not isinstance(count, int) or count < 0:
        raise UsageError(f"Expected count of at least 0. Received: count={count}")
    if not isinstance(max_val, int) or not 2 <= max_val <= 2**31:
        raise UsageError(f"Expected max_val of at least 2 and at most 2**31. Received: max_val={max_val}")
    if not operators or set(operators) - set(_OPERATORS):
        raise UsageError(f"Expected operators among {''.join(_OPERATORS)}. Received: operators={operators!r}")
    operators = "".join(dict.fromkeys(operators))
    stream = Stream(seed, "arithmetic")
    if not distinct:
        return _draw(count, max_val, operators, stream)
    total = (2 * max_val - 1) ** 2 * len(operators) * 2
    if count > total:
        raise UsageError(f"Expected at most {total} distinct problems for max_val={max_val}. Received: count={count}")
    if count * 2 > total:
        return [_numbered(int(number), max_val, operators) for number in stream.permutation(total)[:count]]
    found = {}
    while len(found) < count:
        found.update(dict.fromkeys(_draw(count - len(found), max_val, operators, stream)))
    return list(found)


def split(problems, held_out, seed=0):
    """(training problems, held-out problems): no (defs, op) of the held-out ones is among the training ones.

    Args:
        problems: sequence of `Problem`.
        held_out: how many distinct problems to hold out; all repeats of them leave the training problems too.
        seed: integer in 0..2**64-1.

    Raises:
        UsageError: there are fewer distinct problems than that, or none would be left to train on.
    """
    distinct = list(dict.fromkeys(problems))
    if not 0 <= held_out < len(distinct):
        raise UsageError(f"Expected held_out below the {len(distinct)} distinct problems. Received: held_out={held_out}")
    held = [distinct[index] for index in Stream(seed, "arithmetic split").permutation(len(distinct))[:held_out]]
    kept_out = set(held)
    return [problem for problem in problems if problem not in kept_out], held


def pairs(problems):
    """Text pairs for seq2seq models: `[("x=-12,y=24:y+x", "12"), ...]`."""
    return [(f"{problem.defs}:{problem.op}", problem.res) for problem in problems]


def to_example(problem):
    """A record of `problem`: dict of its three fields as int32 ids."""
    return {field.name: encode(getattr(problem, field.name)) for field in dataclasses.fields(Problem)}


def from_example(example):
    """The `Problem` of such a record. Raises DataError where a field is missing or holds another id."""
    fields = [field.name for field in dataclasses.fields(Problem)]
    if set(example) != set(fields):
        raise DataError(f"Expected fields {', '.join(fields)}. Received: {', '.join(example)}")
    return Problem(*(decode(example[name]) for name in fields))


def features(problem_batch, stream):
    """What the sliding model learns from a batch of problems.

    Args:
        problem_batch: sequence of `Problem`.
        stream: `random.bits.Stream` for the blanks.

    Returns:
        (enc, dec, tgt), each a list of int32 `(steps,)` rows: enc is `defs:op:`, tgt is `res|`, and dec is tgt with as many
        positions drawn, with repetition, and blanked as half of all target tokens of the batch.
    """
    enc = [encode(f"{problem.defs}:{problem.op}:") for problem in problem_batch]
    tgt = [encode(f"{problem.res}|") for problem in problem_batch]
    values, splits = ragged(tgt)
    values[stream.integers(0, max(1, len(values)), len(values) // 2)] = BLANK
    return enc, np.split(values, splits[1:-1]) if tgt else [], tgt


def ragged(rows):
    """(values int32 `(tokens,)`, row_splits int64 `(rows + 1,)`): row i is values[row_splits[i]:row_splits[i + 1]]."""
    splits = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32), splits


def ragged_batches(examples, batch_size, seed, epoch=0, drop_remainder=False):
    """Batches of the sliding model, in the order of the examples.

    Args:
        examples: iterable of records as of `to_example`, from `data.records.read_shards` for one.
        batch_size: rows.
        seed, epoch: choose the blanks; another epoch has others.
        drop_remainder: leave a last batch with fewer rows out, which `Frames` does not take.

    Yields:
        ((enc values, enc row_splits, dec values, dec row_splits, tgt values, tgt row_splits), tgt dense): values int32,
        row_splits int64, the dense targets int32 `(batch, longest)` with zeros behind.

    Raises:
        UsageError: batch_size is below 1. DataError: an example is not a problem.
    """
    from k3seq.data.batches import pad

    if batch_size < 1:
        raise UsageError(f"Expected batch_size of at least 1. Received: batch_size={batch_size}")
    stream = Stream(seed, f"arithmetic blanks, epoch {epoch}")
    examples = iter(examples)
    while rows := [from_example(example) for example in itertools.islice(examples, batch_size)]:
        if len(rows) < batch_size and drop_remainder:
            return
        enc, dec, tgt = features(rows, stream)
        yield (*ragged(enc), *ragged(dec), *ragged(tgt)), pad(tgt)


def _problem(x, y, symbol, swapped):
    left, right = (y, x) if swapped else (x, y)
    names = "yx" if swapped else "xy"
    return Problem(f"x={x},y={y}", symbol.join(names), str(_OPERATORS[symbol](left, right)))


def _draw(count, max_val, operators, stream):
    x, y = stream.integers(1 - max_val, max_val, (2, count)).tolist()
    symbols = stream.integers(0, len(operators), count).tolist()
    swaps = stream.integers(0, 2, count).tolist()
    return [_problem(*row[:2], operators[row[2]], row[3]) for row in zip(x, y, symbols, swaps, strict=True)]


def _numbered(number, max_val, operators):
    number, swapped = divmod(number, 2)
    number, symbol = divmod(number, len(operators))
    x, y = divmod(number, 2 * max_val - 1)
    return _problem(x + 1 - max_val, y + 1 - max_val, operators[symbol], swapped)
