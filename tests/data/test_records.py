"""Shards: what is written is read; what is damaged, missing or out of range is named or counted."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k3seq.data import records
from k3seq.data.records import read_shards, shard_paths, write_shards
from k3seq.errors import DataError, UsageError

pytestmark = pytest.mark.once


def examples(count):
    return [{"ids": np.arange(i % 7, dtype=np.int32), "text": f"nr {i} ü"} for i in range(count)]


def plain(found):
    return [(example["ids"].tolist(), example["text"]) for example in found]


def spoil(path, number):
    """Flips the bits of a byte in the record of example `number`."""
    data = bytearray(path.read_bytes())
    at = data.find(f"nr {number} ".encode())
    assert at > 0
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_examples_come_back_in_the_order_in_which_they_were_written(tmp_path, shards):
    written = examples(10)
    paths = write_shards(iter(written), tmp_path, "set", shards)
    assert [path.name for path in paths] == [f"set-{i:05d}-of-{shards:05d}.array_record" for i in range(shards)]
    assert sorted(os.listdir(tmp_path)) == [path.name for path in paths]
    found = read_shards(reversed(paths))
    assert len(found) == 10 and plain(found) == plain(written) and not found.skipped
    assert plain([found[7], found[-1]]) == plain([written[7], written[9]])
    with pytest.raises(IndexError):
        found[10]


def test_an_empty_set_has_no_examples(tmp_path):
    assert len(read_shards(write_shards([], tmp_path, "none", 2))) == 0


INTEGERS = st.sampled_from([np.uint8, np.int16, np.int32, np.int64])


@given(
    st.dictionaries(
        st.sampled_from(["a", "source", "_x"]), st.one_of(st.text(), st.tuples(INTEGERS, st.lists(st.integers(0, 99))))
    )
)
def test_a_record_keeps_names_values_and_dtypes(example):
    example = {name: value if isinstance(value, str) else np.array(value[1], value[0]) for name, value in example.items()}
    found = records.unpack(records.pack(example))
    assert sorted(found) == sorted(example)
    for name, value in example.items():
        assert type(found[name]) is type(value)
        if not isinstance(value, str):
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)
        else:
            assert found[name] == value


@pytest.mark.parametrize(
    "example, words",
    [
        ({"a": [1.5]}, "a to be str or a 1-D integer array. Received: float64 of shape \\(1,\\) in example 1"),
        ({"a": [[1]]}, "int64 of shape \\(1, 1\\)"),
        ({"a b": [1]}, "identifiers. Received: 'a b' in example 1"),
        ({"a.utf8": [1]}, "identifiers"),
    ],
)
def test_what_is_no_example_is_refused_and_leaves_no_file(tmp_path, example, words):
    with pytest.raises(UsageError, match=words):
        write_shards([{"a": [1]}, example], tmp_path, "set", 2)
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_older_set_as_it_was(tmp_path):
    paths = write_shards(examples(3), tmp_path, "set")
    with pytest.raises(UsageError):
        write_shards([{"ids": [0.5]}], tmp_path, "set")
    assert plain(read_shards(paths)) == plain(examples(3))


def test_a_full_disk_is_one_line_and_leaves_no_file(tmp_path):
    # A limit on the size of files replaces the full disk: the write fails in the same place.
    code = (
        "import resource, signal, sys\n"
        "from k3seq.data.records import write_shards\n"
        "from k3seq.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n"
        "    write_shards(({'ids': list(range(100))} for _ in range(int(sys.argv[2]))), sys.argv[1], 'set', 2)\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    root = Path(__file__).resolve().parents[2]

    def printed(count):
        return subprocess.run(
            [sys.executable, "-c", code, tmp_path, str(count)], capture_output=True, text=True, check=True, cwd=root
        ).stdout

    text = printed(5000)
    assert text.startswith(f"{tmp_path / 'set'}: Expected to write 2 shards. Received: ") and "File too large" in text
    assert text.count("\n") == 1 and os.listdir(tmp_path) == []
    assert printed(50) == "" and len(os.listdir(tmp_path)) == 2


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="Expected to write 1 shards. Received: Not a directory"):
        write_shards(examples(1), tmp_path / "file" / "inside", "set")


def test_a_damaged_record_is_refused_with_file_and_record_number(tmp_path):
    paths = write_shards(examples(10), tmp_path, "set", 2)
    spoil(paths[0], 4)  # the third record of the first shard
    found = read_shards(paths)
    assert plain([found[3], found[5]]) == plain([examples(10)[3], examples(10)[5]])
    with pytest.raises(DataError) as caught:
        found[4]
    assert str(caught.value).startswith(f"{paths[0]}:3: Expected a whole record. Received: ") and "\n" not in str(caught.value)
    assert (caught.value.path, caught.value.line) == (paths[0], 3)


def test_damaged_records_are_skipped_and_counted_when_asked(tmp_path):
    paths = write_shards(examples(10), tmp_path, "set", 2)
    spoil(paths[0], 4)
    found = read_shards(paths, on_error="skip")
    assert dict(found.skipped) == {"corrupt record": 1}
    assert plain(found) == plain(examples(4) + examples(10)[5:])


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_a_truncated_shard_is_refused_or_counted(tmp_path, kept):
    paths = write_shards(examples(10), tmp_path, "set", 2)
    paths[1].write_bytes(paths[1].read_bytes()[:kept])
    with pytest.raises(DataError, match="00001-of-00002.array_record: Expected a whole ArrayRecord file. Received: .* cut off"):
        read_shards(paths)
    found = read_shards(paths, on_error="skip")
    assert dict(found.skipped) == {"unreadable shard": 1} and plain(found) == plain(examples(10)[::2])


def test_a_missing_shard_is_named(tmp_path):
    paths = write_shards(examples(10), tmp_path, "set", 3)
    with pytest.raises(DataError, match="Expected 3 shards. Received: 2, without set-00001-of-00003.array_record"):
        read_shards([paths[0], paths[2]])
    paths[1].unlink()
    with pytest.raises(DataError, match="Expected a shard. Received: No such file or directory"):
        read_shards(paths)
    with pytest.raises(DataError, match="without set-00001"):
        read_shards(shard_paths(tmp_path, "set"))


def test_a_set_is_found_by_its_name_and_two_of_one_name_are_refused(tmp_path):
    paths = write_shards(examples(4), tmp_path, "set", 2)
    write_shards(examples(4), tmp_path, "set-b", 1)
    assert shard_paths(tmp_path, "set") == paths
    with pytest.raises(DataError, match="Received: none"):
        shard_paths(tmp_path, "other")
    more = write_shards(examples(4), tmp_path, "set", 3)
    with pytest.raises(DataError, match="Received: set-\\*-of-00002, set-\\*-of-00003"):
        shard_paths(tmp_path, "set")
    with pytest.raises(DataError, match="shards of one set"):
        read_shards(paths + more)
    with pytest.raises(DataError, match="Expected files named"):
        read_shards([tmp_path / "set.array_record"])


def test_ids_out_of_range_are_refused_or_counted(tmp_path):
    paths = write_shards([{"ids": [0, 4]}, {"ids": [1, 5]}, {"ids": [-1]}], tmp_path, "set")
    assert read_shards(paths, vocabularies={"ids": 6})[1]["ids"].tolist() == [1, 5]
    found = read_shards(paths, vocabularies={"ids": 5})
    with pytest.raises(DataError, match=r"array_record:2: Expected ids ids in 0..4. Received: 5 at position 1"):
        found[1]
    with pytest.raises(DataError, match=r"array_record:3: .* Received: -1 at position 0"):
        found[2]
    found = read_shards(paths, "skip", {"ids": 5})
    assert dict(found.skipped) == {"id out of range": 2} and [e["ids"].tolist() for e in found] == [[0, 4]]
    with pytest.raises(DataError, match="Expected a field other of ids. Received: fields ids"):
        read_shards(paths, vocabularies={"other": 5})[0]


def test_a_record_that_is_not_an_example_is_refused(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    path = tmp_path / "set-00000-of-00001.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(b"something else")
    writer.close()
    with pytest.raises(DataError, match=":1: Expected a whole record"):
        read_shards([path])[0]


def test_grain_reads_the_shards_in_any_order(tmp_path):
    import grain

    found = read_shards(write_shards(examples(20), tmp_path, "set", 3))
    dataset = grain.MapDataset.source(found).shuffle(seed=3)
    shuffled = plain(dataset[i] for i in range(20))
    assert sorted(shuffled) == sorted(plain(examples(20))) and shuffled != plain(examples(20))


@pytest.mark.parametrize("arguments", [("a/b", 1), ("", 1), ("set", 0), ("set", 100000)])
def test_bad_names_and_numbers_of_shards_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError, match="Expected a file name and 1 to 99999 shards"):
        write_shards([], tmp_path, *arguments)
