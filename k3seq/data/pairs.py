"""Text pairs from UTF-8 files: one pair in each line, source and target with one tab between them."""

import collections
import os
from collections.abc import Iterable

from k3seq.data.files import decode_line
from k3seq.errors import DataError, UsageError


class Pairs(list[tuple[str, str]]):
    """A list of (source, target).

    Attributes:
        skipped: `collections.Counter` of the lines left out, by reason.
        path: the file, or None.
        lines: 1-based line of each pair in the file; empty where the pairs come from no file.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), path: str | os.PathLike[str] | None = None):
        super().__init__(pairs)
        self.skipped: collections.Counter[str] = collections.Counter()
        self.path, self.lines = path, []


def read_pairs(path: str | os.PathLike[str], on_error: str = "raise", limit: int | None = None) -> Pairs:
    """The pairs of a file, in order.

    Lines end in LF or CRLF. A byte order mark at the start of the file is ignored. White space in a side is kept.

    Args:
        path: the file.
        on_error: "raise", or "skip" to leave a bad line out and count it in `skipped`.
        limit: maximum number of pairs; None reads all.

    Returns:
        `Pairs`.

    Raises:
        DataError: the file cannot be read; or, with the line's number, a line is not UTF-8, has no tab or more than one, or a
            side is empty or only white space.
        UsageError: on_error is neither, or limit is below 1.
    """
    check_on_error(on_error)
    if limit is not None and limit < 1:
        raise UsageError(f"Expected limit of at least 1. Received: limit={limit}")
    pairs = Pairs(path=path)
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                pair, reason, message = _parse(line)
                if pair is not None:
                    pairs.append(pair)
                    pairs.lines.append(number)
                elif on_error == "raise":
                    raise DataError(message, path, number)
                else:
                    pairs.skipped[reason] += 1
                if len(pairs) == limit:
                    break
    except OSError as error:
        raise DataError(f"Expected a file of text pairs. Received: {error.strerror}", path) from error
    return pairs


def check_on_error(on_error: str) -> None:
    """Raises UsageError unless `on_error` is "raise" or "skip"."""
    if on_error not in ("raise", "skip"):
        raise UsageError(f"Expected on_error to be raise or skip. Received: on_error={on_error!r}")


def references(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The targets of each source, without repeats. Sources and targets are in the order of `pairs`."""
    targets: dict[str, dict[str, None]] = {}
    for source, target in pairs:
        targets.setdefault(source, {})[target] = None
    return {source: list(found) for source, found in targets.items()}


def _parse(line):
    """(pair, "", ""), or (None, reason, message)."""
    try:
        text = decode_line(line)
    except ValueError as error:
        return None, "bad UTF-8", str(error)
    sides = text.split("\t")
    if len(sides) == 1:
        return None, "no tab", "Expected source, tab, target. Received: a line without a tab"
    if len(sides) > 2:
        return None, "more than one tab", f"Expected source, tab, target. Received: {len(sides) - 1} tabs"
    for name, side in zip(("source", "target"), sides, strict=True):
        if not side.strip():
            return None, f"empty {name}", f"Expected a {name} that is not empty. Received: {side!r}"
    return (sides[0], sides[1]), "", ""
