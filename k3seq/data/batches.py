"""From pairs of id lists to padded batches: `(x, y, weight)` as docs/architecture.md has it.

Grain reads ahead; the order comes from `k3seq.random.bits`, so that it is this project's promise and not that of a version of
Grain's shuffle.
"""

import collections
import itertools

import numpy as np

from k3seq.data.buckets import fitting, widths
from k3seq.data.pairs import check_on_error
from k3seq.data.tokenizers import END, PAD, START
from k3seq.errors import DataError, UsageError, require_extra
from k3seq.random.bits import Stream


class Examples(list):
    """A list of (source ids, target ids), neither with START or END.

    Attributes:
        skipped: `collections.Counter` of the pairs left out, by reason.
    """

    def __init__(self, examples=()):
        super().__init__(examples)
        self.skipped = collections.Counter()


def encode_pairs(pairs, source_tokenizer, target_tokenizer, max_source=None, max_target=None, on_error="raise"):
    """The ids of text pairs.

    Args:
        pairs: iterable of (source, target) str.
        source_tokenizer, target_tokenizer: of `data.tokenizers`.
        max_source, max_target: the most tokens of a side, START and END not counted; None sets no limit.
        on_error: "raise", or "skip" to leave out and count a pair that is too long or has a side without tokens.

    Returns:
        `Examples`.

    Raises:
        DataError: such a pair, with its 0-based number. UsageError: bad on_error.
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
                raise DataError(f"Expected {limit} {name} tokens. Received: {len(found)} in pair {number}")
            examples.skipped[f"{name} too long" if found else f"empty {name}"] += 1
            break
        else:
            examples.append(ids)
    return examples


def pad(rows, width=None, dtype="int32"):
    """`rows` of ids as one array `(rows, width)`, with zeros behind each.

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

    Every `iter(batches)` gives the next epoch, beginning with `epoch(0)`; `epoch(i)` gives a chosen one. A batch is
    `({"source", "source_lengths", "target"}, y, weight)` in the shapes of its bucket, always with `batch_size` rows; rows that
    fill it up have length 1 and weight 0.

    Args:
        examples: sequence of (source ids, target ids), neither with START or END; no source is empty.
        batch_size: rows.
        seed: integer in 0..2**64-1; the order depends on it, the epoch, and the number and lengths of the examples alone.
        shuffle: False keeps the order within each bucket, and bucket follows bucket.
        buckets: None: one shape; int: at most so many, with the widths that pad least; or a list of widths, each an int for
            both sides or a pair (source, target). An example goes to the first bucket that holds it; a target has one step
            more than tokens.

    Attributes:
        buckets: list of (source width, target width); hand a training set's to the validation set to share its shapes.

    Raises:
        UsageError: there are no examples, an argument is out of range, or an example fits into no bucket.
    """

    def __init__(self, examples, batch_size, seed=0, shuffle=True, buckets=None):
        if batch_size < 1 or not len(examples):
            raise UsageError(
                f"Expected examples and batch_size of at least 1. Received: {len(examples)}, batch_size={batch_size}"
            )
        self._examples, self.batch_size, self._seed, self._shuffle = examples, batch_size, seed, shuffle
        lengths = np.array([(len(source), len(target) + 1) for source, target in examples], np.int64)
        if not lengths[:, 0].all():
            raise UsageError(f"Expected at least one source token. Received: none in example {int(lengths[:, 0].argmin())}")
        self.buckets = widths(lengths, buckets)
        self._bucket_of = fitting(lengths, self.buckets)
        self._epochs = itertools.count()

    def __len__(self):
        """The number of batches of an epoch."""
        return int(-(-np.bincount(self._bucket_of) // self.batch_size).sum())

    def __iter__(self):
        return self.epoch(next(self._epochs))

    def epoch(self, number):
        """An iterator over the batches of epoch `number` (0, 1, ...), with Grain's `get_state` and `set_state` to resume."""
        with require_extra("data"):
            import grain

        plan = self.plan(number)
        dataset = grain.MapDataset.source(plan).map(self._batch)
        return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)))

    def plan(self, number):
        """What the batches of epoch `number` hold: list of (bucket, indices of examples)."""
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


def source_batches(lines, tokenizer, batch_size, widths=None):
    """Batches for decoding, in the order of the input.

    Args:
        lines: iterable of str; it is read batch by batch. A line without tokens becomes one PAD, so that each has a row.
        tokenizer: the source's.
        batch_size: rows of each batch; the last is filled up with rows of length 1.
        widths: what a batch may be padded to, the smallest that holds it; None: the next multiple of 8.

    Yields:
        ({"source": int32 `(batch_size, s)`, "source_lengths": int32 `(batch_size,)`}, how many rows are of the input).

    Raises:
        UsageError: a line has more tokens than the largest width, with its 1-based number; or batch_size is below 1.
    """
    if batch_size < 1 or (widths is not None and not widths):
        raise UsageError(f"Expected batch_size of at least 1, and widths. Received: batch_size={batch_size}, widths={widths}")
    lines, first = iter(lines), 1
    while taken := list(itertools.islice(lines, batch_size)):
        rows = [tokenizer.encode(line) or [PAD] for line in taken]
        lengths = list(map(len, rows))
        longest = max(lengths)
        width = -(-longest // 8) * 8 if widths is None else min((wide for wide in widths if wide >= longest), default=0)
        if not width:
            where = first + lengths.index(longest)
            raise UsageError(f"Expected at most {max(widths or [0])} source tokens. Received: {longest} in line {where}")
        rows += [[PAD]] * (batch_size - len(taken))
        yield {"source": pad(rows, width), "source_lengths": _lengths(rows)}, len(taken)
        first += len(taken)


def _lengths(rows):
    return np.fromiter(map(len, rows), np.int32, len(rows))
