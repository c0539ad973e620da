"""Examples in ArrayRecord shards: binary, checksummed, read in any order.

A record is one example in the safetensors form, without pickle. Shards of a set are named `name-00000-of-00002.array_record`.
"""

import collections
import contextlib
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from k3seq.data.files import replacing
from k3seq.data.pairs import check_on_error
from k3seq.errors import DataError, UsageError, require_extra
from k3seq.typing import NDArray

Example = Mapping[str, NDArray[Any] | list[int] | str]

# One record in each group: a damaged group costs one record, and reading in random order unpacks no group twice.
_WRITE, _READ = "group_size:1", "readahead_buffer_size:0,max_parallelism:0"
_TEXT = ".utf8"
_SHARD = re.compile(r"(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.array_record")


def write_shards(
    examples: Iterable[Example], directory: str | os.PathLike[str], name: str, shards: int = 1
) -> list[pathlib.Path]:
    """Writes each example to the next shard of a set. All shards are complete before one gets its final name.

    Args:
        examples: iterable of dict: name -> 1-D integer array, list of int, or str. Names are Python identifiers.
        directory: created where it is missing.
        name: name of the set.
        shards: number of files, 1 to 99999.

    Returns:
        The paths, in order.

    Raises:
        UsageError: an example, the name or the number of shards is not as above.
        DataError: a file cannot be written, for example because the disk is full. No incomplete file has a final name.
    """
    if not 1 <= shards <= 99999 or not name or pathlib.Path(name).name != name:
        raise UsageError(f"Expected a file name and 1 to 99999 shards. Received: name={name!r}, shards={shards}")
    directory = pathlib.Path(directory)
    paths = [directory / f"{name}-{index:05d}-of-{shards:05d}.array_record" for index in range(shards)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            temporaries = [stack.enter_context(replacing(path)) for path in paths]
            _write(temporaries, examples)
    except (OSError, RuntimeError) as error:  # ArrayRecord raises RuntimeError for a failed write
        reason = " ".join((getattr(error, "strerror", None) or str(error)).split())
        raise DataError(f"Expected to write {shards} shards. Received: {reason}", directory / name) from error
    return paths


def _write(paths, examples):
    with require_extra("data"):
        from array_record.python.array_record_module import ArrayRecordWriter

    writers, counts = [ArrayRecordWriter(str(path), _WRITE) for path in paths], [0] * len(paths)
    try:
        for number, example in enumerate(examples):
            writers[number % len(paths)].write(pack(example, number))
            counts[number % len(paths)] += 1
        for writer in writers:
            writer.close()
    finally:
        for writer in writers:
            if writer.is_open():
                with contextlib.suppress(
                    RuntimeError
                ):  # it fails as the write before it did, and that error is the one to report
                    writer.close()
    for path, count in zip(paths, counts, strict=True):
        found = _open(path).num_records()
        if found != count:
            raise DataError(f"Expected {count} records in a shard just written. Received: {found}", path)


def shard_paths(directory: str | os.PathLike[str], name: str) -> list[pathlib.Path]:
    """The paths of the set `name` in a directory, in order. `read_shards` checks that none is missing.

    Raises:
        DataError: there is no such set, or there are several with different numbers of shards.
    """
    found = {}
    for path in sorted(pathlib.Path(directory).glob("*.array_record")):
        match = _SHARD.fullmatch(path.name)
        if match and match["name"] == name:
            found.setdefault(match["count"], []).append(path)
    if len(found) != 1:
        sets = ", ".join(f"{name}-*-of-{count}" for count in found) or "none"
        raise DataError(f"Expected one set of shards called {name}. Received: {sets}", directory)
    return next(iter(found.values()))


def read_shards(
    paths: Iterable[str | os.PathLike[str]], on_error: str = "raise", vocabularies: Mapping[str, int] | None = None
) -> "Records":
    """The examples of the shards of one set.

    Args:
        paths: all files of the set, in any order.
        on_error: "raise" when a bad record is read, or "skip" to read and check every record at once, and to leave out and
            count the bad ones.
        vocabularies: dict field -> vocabulary size. A record with an id of that field outside 0..size-1 is bad.

    Returns:
        `Records`.

    Raises:
        DataError: a shard of the set is missing, or cannot be read (with "skip" it is counted).
        UsageError: bad on_error.
    """
    return Records(_whole_set(paths), on_error, vocabularies)


class Records:
    """The examples of a set of shards, a random-access source for Grain (`len(records)`, `records[i]`).

    They come in the order in which they were written. Strings come back as str, the rest as 1-D integer arrays. Made by
    `read_shards`.

    Attributes:
        skipped: `collections.Counter` of what was left out: "unreadable shard", "corrupt record", "id out of range".
    """

    def __init__(
        self, paths: Iterable[str | os.PathLike[str]], on_error: str = "raise", vocabularies: Mapping[str, int] | None = None
    ):
        check_on_error(on_error)
        self.skipped: collections.Counter[str] = collections.Counter()
        self._vocabularies = dict(vocabularies or {})
        self._paths, self._readers = [], []
        for path in paths:
            try:
                reader = _open(path)
            except DataError:
                if on_error == "raise":
                    raise
                self.skipped["unreadable shard"] += 1
            else:
                self._paths.append(path)
                self._readers.append(reader)
        counts = [reader.num_records() for reader in self._readers]
        shard, record = np.repeat(np.arange(len(counts)), counts), np.concatenate([np.zeros(0, int), *map(np.arange, counts)])
        order = np.lexsort((shard, record))  # written in turn: the first record of every shard, then the second
        self._places = list(zip(shard[order].tolist(), record[order].tolist(), strict=True))
        if on_error == "skip":
            self._places = [place for place in self._places if self._is_good(*place)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Raises DataError, with the shard and the 1-based record in it, where the record is bad."""
        return self._read(*self._places[index])

    def _is_good(self, shard, record):
        try:
            self._read(shard, record)
        except DataError as error:
            self.skipped["id out of range" if isinstance(error, _OutOfRange) else "corrupt record"] += 1
            return False
        return True

    def _read(self, shard, record):
        path = self._paths[shard]
        try:
            example = unpack(self._readers[shard].read([record])[0])
        except Exception as error:  # RuntimeError, SafetensorError or UnicodeDecodeError
            raise DataError(f"Expected a whole record. Received: {' '.join(str(error).split())}", path, record + 1) from error
        for name, size in self._vocabularies.items():
            ids = example.get(name)
            if not isinstance(ids, np.ndarray):
                raise DataError(f"Expected a field {name} of ids. Received: fields {', '.join(example)}", path, record + 1)
            bad = np.flatnonzero((ids < 0) | (ids >= size))
            if bad.size:
                found = f"{ids[bad[0]]} at position {bad[0]}"
                raise _OutOfRange(f"Expected {name} ids in 0..{size - 1}. Received: {found}", path, record + 1)
        return example


class _OutOfRange(DataError):
    pass


def pack(example: Example, number: int = 0) -> bytes:
    """The bytes of an example. Raises UsageError, which names `number`, for anything else."""
    with require_extra("data"):
        from safetensors.numpy import save

    tensors = {}
    for name, value in example.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f"Expected field names that are identifiers. Received: {name!r} in example {number}")
        if isinstance(value, str):
            tensors[name + _TEXT] = np.frombuffer(value.encode(), np.uint8)
            continue
        array = np.asarray(value, np.int32) if isinstance(value, list) and not value else np.asarray(value)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            kind = f"{array.dtype} of shape {array.shape}"
            raise UsageError(f"Expected {name} to be str or a 1-D integer array. Received: {kind} in example {number}")
        tensors[name] = np.ascontiguousarray(array)
    return save(tensors)


def unpack(record: bytes) -> dict[str, Any]:
    """The example of such bytes, with its fields in alphabetical order."""
    with require_extra("data"):
        from safetensors.numpy import load

    tensors = load(bytes(record))
    return {
        name.removesuffix(_TEXT): tensors[name].tobytes().decode() if name.endswith(_TEXT) else tensors[name]
        for name in sorted(tensors)
    }


def _open(path):
    with require_extra("data"):
        from array_record.python.array_record_module import ArrayRecordReader

    try:
        size = os.stat(path).st_size
        with open(path, "rb"):
            pass
    except OSError as error:
        raise DataError(f"Expected a shard. Received: {error.strerror}", path) from error
    reader = ArrayRecordReader(str(path), _READ)
    if not reader.ok():
        raise DataError(f"Expected a whole ArrayRecord file. Received: {size} bytes that are damaged or cut off", path)
    return reader


def _whole_set(paths):
    paths = [pathlib.Path(path) for path in paths]
    matches = [match for path in paths if (match := _SHARD.fullmatch(path.name))]
    if not paths or len(matches) < len(paths):
        raise DataError(f"Expected files named NAME-00000-of-00001.array_record. Received: {[str(path) for path in paths]}")
    first = matches[0]
    if len({(path.parent, match["name"], match["count"]) for path, match in zip(paths, matches, strict=True)}) > 1:
        raise DataError(f"Expected shards of one set. Received: {paths[0]} and others of another set")
    by_index = {int(match["index"]): path for path, match in zip(paths, matches, strict=True)}
    for index in range(int(first["count"])):
        if index not in by_index:
            name = f"{first['name']}-{index:05d}-of-{first['count']}.array_record"
            raise DataError(
                f"Expected {int(first['count'])} shards. Received: {len(by_index)}, without {name}", paths[0].parent
            )
    return [by_index[index] for index in sorted(by_index)]
