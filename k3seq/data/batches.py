"""Padded batches of pairs of id lists for training, `(x, y, weight)` as in docs/architecture.md, and of lines for decoding.

Grain only reads ahead. The order comes from `k3seq.random.bits` and so does not depend on Grain's version.
"""

import collections
import itertools
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from k3seq import arguments
from k3seq.data.buckets import fitting, widths
from k3seq.data.pairs import Pairs, check_on_error
from k3seq.data.tokenizers import END, PAD, START
from k3seq.errors import DataError, UsageError, require_extra
from k3seq.random.bits import Stream
from k3seq.typing import NDArray, Tokenizer

Batch = tuple[dict[str, NDArray[np.int32]], NDArray[np.int32], NDArray[np.float32]]
# A longer line is decoded only with lines of at least half its length, and with fewer of them.
LONG = 512


class Examples(list[tuple[list[int], list[int]]]):
    """A list of (source ids, target ids), neither with START or END.

    Attributes:
        skipped: `collections.Counter` of the pairs left out, by reason.
    """

    def __init__(self, examples: Iterable[tuple[list[int], list[int]]] = ()):
        super().__init__(examples)
        self.skipped: collections.Counter[str] = collections.Counter()


def encode_pairs(
    pairs: Iterable[tuple[str, str]],
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    max_source: int | None = None,
    max_target: int | None = None,
    on_error: str = "raise",
) -> Examples:
    """The ids of text pairs.

    Args:
        pairs: iterable of (source, target) str.
        source_tokenizer, target_tokenizer: of `data.tokenizers`.
        max_source, max_target: maximum number of tokens of a side, START and END not counted; None sets no limit.
        on_error: "raise", or "skip" to leave out and count a pair that is too long or has a side without tokens.

    Returns:
        `Examples`.

    Raises:
        DataError: such a pair, with its file and line where `read_pairs` has read it, or else its 0-based number.
        UsageError: bad on_error.
    """
    check_on_error(on_error)
    examples = Examples()
    for number, (source, target) in enumerate(pairs):
        ids = source_tokenizer.encode(source), target_tokenizer.encode(target)
        for name, found, most in zip(("source", "target"), ids, (max_source, max_target), strict=True):
            if found and (most is None or len(found) <= most):
                continue
            if on_error == "raise":
                limit = "at least 1" if not found else f"at most {most}"
                message = f"Expected {limit} {name} tokens. Received: {len(found)}"
                if isinstance(pairs, Pairs) and pairs.lines:
                    raise DataError(message, pairs.path, pairs.lines[number])
                raise DataError(f"{message} in pair {number}")
            examples.skipped[f"{name} too long" if found else f"empty {name}"] += 1
            break
        else:
            examples.append(ids)
    return examples


def pad(rows: Sequence[Sequence[int] | NDArray[Any]], width: int | None = None, dtype: str = "int32") -> NDArray[Any]:
    """Rows of ids as one array `(rows, width)`, with zeros after each.

    Args:
        rows: list of 1-D integer sequences.
        width: of the array; None takes the longest row's.
        dtype: of the array.

    Raises:
        UsageError: a row is longer than `width`.
    """
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    longest = int(lengths.max(initial=0))
    width = longest if width is None else width
    if longest > width:
        raise UsageError(f"Expected rows of at most {width} ids. Received: {longest} at row {int(lengths.argmax())}")
    padded = np.full((len(rows), width), PAD, dtype)
    if longest:
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype, int(lengths.sum()))
        padded[np.arange(width) < lengths[:, None]] = ids
    return padded


class Batches:
    """Batches for training and evaluation, epoch after epoch.

    Every `iter(batches)` gives the next epoch, starting with `epoch(0)`; `epoch(i)` gives a chosen one. A batch is
    `({"source", "source_lengths", "target"}, y, weight)` in the shape of its bucket. All batches have the same number of rows:
    a batch with fewer examples is filled with rows of length 1 and weight 0.

    Args:
        examples: sequence of (source ids, target ids), neither with START or END; no source is empty.
        batch_size: rows of a batch, or as many as there are examples where they are fewer.
        seed: integer in 0..2**64-1; the order depends on it, the epoch, and the number and lengths of the examples only.
        shuffle: False keeps the order within each bucket, and one bucket follows the other.
        buckets: None: one shape. int: maximum number of shapes; the widths are those that pad least. list: the widths, each an
            int for both sides or a pair (source, target). An example goes to the first bucket that holds it. A target has one
            step more than tokens.

    Attributes:
        batch_size: rows of every batch.
        buckets: list of (source width, target width). Pass those of the training set for the validation set to share shapes.

    Raises:
        UsageError: there are no examples, an argument is out of range, or an example fits into no bucket.
    """

    def __init__(
        self,
        examples: Sequence[tuple[Sequence[int], Sequence[int]]],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        buckets: int | Sequence[int | tuple[int, int]] | None = None,
    ):
        arguments.positive(batch_size=batch_size)
        arguments.integer(0, 2**64 - 1, seed=seed)
        lengths = _sizes(examples)
        self._examples, self._seed, self._shuffle = examples, seed, shuffle
        self.batch_size = min(batch_size, len(examples))
        if not lengths[:, 0].all():
            raise UsageError(f"Expected at least one source token. Received: none in example {int(lengths[:, 0].argmin())}")
        self.buckets = widths(lengths, buckets)
        self._bucket_of = fitting(lengths, self.buckets)
        self._epochs = itertools.count()

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return int(-(-np.bincount(self._bucket_of) // self.batch_size).sum())

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(next(self._epochs))

    def epoch(self, number: int) -> Any:
        """An iterator over the batches of epoch `number` (0, 1, ...), with Grain's `get_state` and `set_state` to resume."""
        with require_extra("data"):
            import grain

        plan = self.plan(number)
        dataset = grain.MapDataset.source(plan).map(self._batch)
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))

    def plan(self, number: int) -> list[tuple[int, NDArray[Any]]]:
        """The (bucket, indices of examples) of each batch of epoch `number`."""
        count = len(self._bucket_of)
        stream = Stream(self._seed, f"batches, epoch {number}")
        order = stream.permutation(count) if self._shuffle else np.arange(count)
        plan = []
        for bucket in range(len(self.buckets)):
            members = order[self._bucket_of[order] == bucket]
            plan += [(bucket, members[at : at + self.batch_size]) for at in range(0, len(members), self.batch_size)]
        return [plan[index] for index in stream.permutation(len(plan))] if self._shuffle else plan

    def _batch(self, planned):
        bucket, members = planned
        source_width, target_width = self.buckets[bucket]
        missing = self.batch_size - len(members)
        rows = [self._examples[index] for index in members.tolist()]
        sources = [source for source, _ in rows] + [[PAD]] * missing
        targets = [[START, *target] for _, target in rows] + [[START]] * missing
        lengths = np.array([len(target) for target in targets[: len(rows)]] + [0] * missing)
        x = {"source": pad(sources, source_width), "source_lengths": _lengths(sources), "target": pad(targets, target_width)}
        y = pad([[*target, END] for _, target in rows] + [[]] * missing, target_width)
        return x, y, (np.arange(target_width) < lengths[:, None]).astype(np.float32)


def source_batches(
    lines: Iterable[str],
    tokenizer: Tokenizer,
    batch_size: int,
    widths: Sequence[int] | None = None,
    max_tokens: int | None = None,
) -> Iterator[tuple[dict[str, NDArray[np.int32]], list[int]]]:
    """Batches for decoding. The lines are read in groups of `batch_size`, and the batches of a group follow each other.

    A group is one batch, except that a line of more than `LONG` tokens pads no shorter line to its length: long lines are in
    batches of like length, which have at most as many tokens as `batch_size` lines of `LONG` tokens, or one row.

    Args:
        lines: iterable of str. A line without tokens becomes one PAD, so that each line has a row.
        tokenizer: the source tokenizer.
        batch_size: lines decoded at once. Batches are filled with rows of length 1 to the number of lines in the first group.
        widths: the widths that a batch may be padded to, of which it takes the smallest possible; None: any multiple of 8, and
            powers of 2 above `LONG`.
        max_tokens: maximum number of tokens of a line; None: the largest width, or any number.

    Yields:
        ({"source": int32 `(rows, s)`, "source_lengths": int32 `(rows,)`}, the 0-based position in `lines` of each row that is
        not filled).

    Raises:
        UsageError: a line has more tokens than `max_tokens` or the largest width, with its 1-based number; or batch_size is
            below 1.
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1 or (widths is not None and not widths):
        raise UsageError(f"Expected batch_size of at least 1, and widths. Received: batch_size={batch_size!r}, widths={widths}")
    if max_tokens is not None and (not isinstance(max_tokens, (int, np.integer)) or max_tokens < 1):
        raise UsageError(f"Expected at least 1 token in the longest line allowed. Received: {max_tokens!r}")
    most = min((limit for limit in (max_tokens, max(widths or [0]) or None) if limit is not None), default=None)
    lines, first, group_size = iter(lines), 0, 0
    while group := [tokenizer.encode(line) or [PAD] for line in itertools.islice(lines, batch_size)]:
        group_size = group_size or len(group)
        lengths = _lengths(group)
        if most is not None and lengths.max() > most:
            line = int((lengths > most).argmax())
            raise UsageError(f"Expected at most {most} source tokens. Received: {lengths[line]} in line {first + line + 1}")
        for members, width, rows in _of_like_length(lengths, batch_size, widths):
            sources = [group[member] for member in members] + [[PAD]] * (min(rows, group_size) - len(members))
            yield {"source": pad(sources, width), "source_lengths": _lengths(sources)}, [first + member for member in members]
        first += len(group)


def _of_like_length(lengths, batch_size, widths):
    """(rows of a group, width, number of rows after filling) of each of its batches."""
    members = [row for row in range(len(lengths)) if lengths[row] <= LONG]
    if members:
        yield members, _width(int(lengths[members].max()), widths), batch_size
    longer = [row for row in np.argsort(lengths, kind="stable").tolist() if lengths[row] > LONG]
    while longer:
        width = _width(int(lengths[longer[-1]]), widths)
        rows = max(1, batch_size * LONG // width)
        members = [row for row in longer[-rows:] if 2 * lengths[row] >= lengths[longer[-1]]]
        longer = longer[: -len(members)]
        yield members, width, rows


def _width(longest, widths):
    if widths is not None:
        return min(width for width in widths if width >= longest)
    return -(-longest // 8) * 8 if longest <= LONG else 1 << (longest - 1).bit_length()


def _sizes(examples):
    """int64 (examples, 2), the tokens of each source and the steps of each target."""
    try:
        found = np.array([(len(source), len(target) + 1) for source, target in examples], np.int64)
        known = hasattr(examples, "__getitem__") and not isinstance(examples, Mapping)
    except (TypeError, ValueError):
        known = False
    if not known:
        raise UsageError(f"Expected examples to be a list of (source ids, target ids). Received: {reprlib.repr(examples)}")
    if not len(found):
        raise UsageError("Expected at least one example. Received: none")
    return found


def _lengths(rows):
    return np.fromiter(map(len, rows), np.int32, len(rows))
