"""Arithmetic problems such as `x=-12,y=24:y+x:12`. A seed gives the same problems on every machine.

The symbols, fields and features are those of quantapix' qnarre blog (Apache-2.0), "Custom Keras layers".
"""

import dataclasses
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from k3seq.data.tokenizer_base import check_text
from k3seq.errors import DataError, UsageError
from k3seq.random.bits import Stream
from k3seq.typing import NDArray

VOCABULARY = tuple(" :|xy=,+-*0123456789")
BLANK, SEPARATOR, STOP = range(3)

_IDS = {symbol: index for index, symbol in enumerate(VOCABULARY)}
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """A problem.

    Attributes:
        defs: two numbers, `x=-12,y=24`.
        op: what to compute, `y+x`.
        res: the result, `12`.
    """

    defs: str
    op: str
    res: str


def encode(text: str) -> NDArray[np.int32]:
    """The ids of a text, int32 `(len(text),)`. Raises DataError for a character that is not in `VOCABULARY`."""
    for position, symbol in enumerate(check_text(text)):
        if symbol not in _IDS:
            raise DataError(f"Expected characters of {''.join(VOCABULARY)!r}. Received: {symbol!r} at position {position}")
    return np.array([_IDS[symbol] for symbol in text], np.int32)


def decode(ids: Iterable[int]) -> str:
    """The text of ids in 0..19. Raises DataError for another id."""
    for position, index in enumerate(ids):
        if not isinstance(index, (int, np.integer)) or not 0 <= index < len(VOCABULARY):
            raise DataError(f"Expected ids in 0..{len(VOCABULARY) - 1}. Received: {index!r} at position {position}")
    return "".join(VOCABULARY[index] for index in ids)


def problems(count: int, max_val: int, seed: int, operators: str = "+-*", distinct: bool = False) -> list[Problem]:
    """Problems drawn uniformly over both numbers in [1 - max_val, max_val), the operators and the orders `x+y` and `y+x`.

    Args:
        count: number of problems.
        max_val: at least 2.
        seed: integer in 0..2**64-1.
        operators: some of `+-*`.
        distinct: draw no (defs, op) twice.

    Raises:
        UsageError: an argument is out of range, or there are fewer distinct problems.
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


def split(problems: Sequence[Problem], held_out: int, seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """(training problems, held-out problems). No (defs, op) of the held-out ones is among the training ones.

    Args:
        problems: the problems to split.
        held_out: number of distinct problems to hold out. Their repeats are in neither list.
        seed: integer in 0..2**64-1.

    Raises:
        UsageError: there are fewer distinct problems, or none would be left to train on.
    """
    distinct = list(dict.fromkeys(problems))
    if not 0 <= held_out < len(distinct):
        raise UsageError(f"Expected held_out below the {len(distinct)} distinct problems. Received: held_out={held_out}")
    held = [distinct[index] for index in Stream(seed, "arithmetic split").permutation(len(distinct))[:held_out]]
    kept_out = set(held)
    return [problem for problem in problems if problem not in kept_out], held


def pairs(problems: Iterable[Problem]) -> list[tuple[str, str]]:
    """Text pairs for seq2seq models: `[("x=-12,y=24:y+x", "12"), ...]`."""
    return [(f"{problem.defs}:{problem.op}", problem.res) for problem in problems]


def to_example(problem: Problem) -> dict[str, NDArray[np.int32]]:
    """A record of a problem: dict of its three fields as int32 ids."""
    return {field.name: encode(getattr(problem, field.name)) for field in dataclasses.fields(Problem)}


def from_example(example: Mapping[str, Any]) -> Problem:
    """The problem of such a record. Raises DataError where a field is missing or holds another id."""
    fields = [field.name for field in dataclasses.fields(Problem)]
    if set(example) != set(fields):
        raise DataError(f"Expected fields {', '.join(fields)}. Received: {', '.join(example)}")
    return Problem(*(decode(example[name]) for name in fields))


def features(
    problem_batch: Sequence[Problem], stream: Stream
) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]], list[NDArray[np.int32]]]:
    """Inputs and targets of the sliding-context model for a batch of problems.

    Args:
        problem_batch: the problems.
        stream: random numbers for the blanks.

    Returns:
        (enc, dec, tgt), each a list of int32 `(steps,)` rows: enc is `defs:op:`, tgt is `res|`, and dec is tgt with blanks. The
        positions of the blanks are drawn with repetition, half as many as the batch has target tokens.
    """
    enc = [encode(f"{problem.defs}:{problem.op}:") for problem in problem_batch]
    tgt = [encode(f"{problem.res}|") for problem in problem_batch]
    values, splits = ragged(tgt)
    values[stream.integers(0, max(1, len(values)), (len(values) // 2,))] = BLANK
    return enc, np.split(values, splits[1:-1]) if tgt else [], tgt


def ragged(rows: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """(values int32 `(tokens,)`, row_splits int64 `(rows + 1,)`): row i is values[row_splits[i]:row_splits[i + 1]]."""
    splits = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int32), *rows]).astype(np.int32), splits


def ragged_batches(
    examples: Iterable[Mapping[str, Any]], batch_size: int, seed: int, epoch: int = 0, drop_remainder: bool = False
) -> Iterator[tuple[tuple[NDArray[Any], ...], NDArray[np.int32]]]:
    """Batches of the sliding-context model, in the order of the examples.

    Args:
        examples: records made by `to_example`, for example from `data.records.read_shards`.
        batch_size: rows.
        seed, epoch: choose the blanks; each epoch has other blanks.
        drop_remainder: leave out a last batch with fewer rows, which `Frames` cannot take.

    Yields:
        ((enc values, enc row_splits, dec values, dec row_splits, tgt values, tgt row_splits), tgt dense): values int32,
        row_splits int64, the dense targets int32 `(batch, longest)` with zeros after each row.

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
