"""Run directories: created by one training, replaced at once wherever a process is killed, verified when they are read."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k3seq.data import runs
from k3seq.data.runs import create_run_directory, read_run, replace_run, write_record
from k3seq.errors import DataError, UsageError

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]


def save(directory, version):
    """Saves a run in which every file holds `version`."""
    with replace_run(directory, {"version": version}) as folder:
        for name in runs.PARTS:
            (folder / name).write_text(f"{name} {version}")


def load(directory):
    """The version that all files of a run hold."""
    found = read_run(directory, lambda record, parts: {record["version"], *(p.read_text().split()[1] for p in parts.values())})
    (version,) = found
    return version


def test_a_saved_run_is_read_and_replaced(tmp_path):
    save(tmp_path / "new" / "run", "old")
    assert load(tmp_path / "new" / "run") == "old"
    save(tmp_path / "new" / "run", "new")
    assert load(tmp_path / "new" / "run") == "new"
    assert sorted(os.listdir(tmp_path / "new" / "run")) == ["model.keras", "run.json", "source.json", "target.json"]


def test_a_save_keeps_other_files_but_not_the_picture_of_the_older_run(tmp_path):
    save(tmp_path, "old")
    for name in ("notes.txt", "losses.png"):
        (tmp_path / name).write_text("")
    save(tmp_path, "new")
    assert (tmp_path / "notes.txt").exists() and not (tmp_path / "losses.png").exists()


def test_a_save_that_fails_leaves_the_older_run(tmp_path):
    save(tmp_path, "old")
    with pytest.raises(ZeroDivisionError), replace_run(tmp_path, {"version": "new"}) as folder:
        (folder / "source.json").write_text("source.json new")
        raise ZeroDivisionError
    with pytest.raises(DataError, match="model.keras: Expected a file of the run"), replace_run(tmp_path, {}):
        pass
    assert load(tmp_path) == "old" and len(os.listdir(tmp_path)) == 4


def test_a_directory_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(DataError, match="file.*: Expected a run directory that can be written. Received: "):
            save(path, "new")
        with pytest.raises(UsageError, match="Expected a run directory that can be written. Received: .*file"):
            create_run_directory(path).__enter__()


# Saves a run over another one, in one child process after another, and ends each at another file operation.
KILL = """
import os, sys
sys.path.insert(0, os.path.join(os.getcwd(), "tests", "data"))
from test_runs import load, save
seen = []
for last in range(int(sys.argv[2]), 1000, int(sys.argv[3])):
    directory = os.path.join(sys.argv[1], str(last))
    save(directory, "old")
    child = os.fork()
    if not child:
        count = 0
        def hook(event, arguments):
            global count
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "shutil.rmtree"):
                count += 1
                if count == last:
                    os._exit(9)
        sys.addaudithook(hook)
        save(directory, "new")
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    seen.append(load(directory))
    save(directory, "later")
    assert load(directory) == "later"
    if not code:
        break
print(*seen)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.heavy)])
def test_a_save_killed_at_any_file_operation_leaves_the_old_or_the_new_run(tmp_path, step):
    command = [sys.executable, "-c", KILL, str(tmp_path), "1", str(step)]
    seen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert len(seen) > 20 // step and {*seen} == {"old", "new"} and seen == sorted(seen, reverse=True)


def test_reading_while_another_process_saves_gives_one_run(tmp_path):
    save(tmp_path, "0")
    code = (
        "import sys; sys.path.insert(0, 'tests/data'); from test_runs import save\n"
        "for version in range(1, 60): save(sys.argv[1], str(version))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT) for _ in range(2)]
    while any(writer.poll() is None for writer in writers):
        assert 0 <= int(load(tmp_path)) < 60
    assert [writer.returncode for writer in writers] == [0, 0] and load(tmp_path) == "59"


@pytest.mark.parametrize("number, code", [(errno.ENOTEMPTY, None), (errno.EEXIST, None), (errno.EACCES, "Permission denied")])
def test_a_save_that_meets_another_one_is_tried_again(tmp_path, monkeypatch, number, code):
    """The other process may have moved its files away before this one looks."""
    rename, errors = Path.rename, [OSError(number, os.strerror(number))]

    def renamed(self, target):
        if errors and Path(target).name == ".saved":
            raise errors.pop()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    if code is None:
        save(tmp_path, "new")
        assert load(tmp_path) == "new" and not errors
    else:
        with pytest.raises(DataError, match=code):
            save(tmp_path, "new")


def test_the_record_alone_is_replaced(tmp_path):
    with pytest.raises(UsageError, match="without run.json"):
        write_record(tmp_path, {})
    save(tmp_path, "old")
    write_record(tmp_path, {"version": "old", "epochs": [1, 2]})
    assert read_run(tmp_path, lambda record, parts: record) == {"version": "old", "epochs": [1, 2]}


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])), st.lists)


@settings(max_examples=20)
@given(st.dictionaries(st.sampled_from(["epochs", "options", "ü"]), JSON))
def test_any_record_comes_back(tmp_path_factory, record):
    directory = tmp_path_factory.getbasetemp() / "record"
    save(directory, "any")
    write_record(directory, record)
    assert read_run(directory, lambda record, parts: record) == record


@settings(max_examples=20)
@given(st.sampled_from(runs.PARTS), st.integers(0, 10), st.integers(1, 255))
def test_a_part_with_another_byte_is_refused_with_its_name(tmp_path_factory, name, place, change):
    directory = tmp_path_factory.getbasetemp() / "changed"
    save(directory, "any")
    content = bytearray((directory / name).read_bytes())
    content[place] ^= change
    (directory / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: Expected the file that was saved with run.json, of SHA-256 "):
        load(directory)


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"\xff", b"{}", b"null", b'{"format": 1}', b'{"format": 2, "sha256": {"model.keras": 1}}']
)
def test_a_damaged_record_is_refused_with_its_name(tmp_path, content):
    save(tmp_path, "any")
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError, match="run.json: Expected the ") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_training_holds_a_directory_at_a_time(tmp_path):
    path = tmp_path / "runs" / "mine"
    with create_run_directory(path) as directory:
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="mine, where another one is running"):
                create_run_directory(path, overwrite).__enter__()
        save(directory, "first")
    with pytest.raises(UsageError, match="Expected a new run directory, or --overwrite .*mine, with a run"):
        create_run_directory(path).__enter__()
    with create_run_directory(path, overwrite=True):
        assert load(path) == "first"


def test_two_processes_that_start_at_once_never_get_one_directory(tmp_path):
    code = (
        "import sys; from k3seq.data.runs import create_run_directory\n"
        "with create_run_directory(sys.argv[1] or None, name='cmu[1]') as directory:\n"
        "    print(directory, flush=True); sys.stdin.read()"
    )

    def started(path):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return [subprocess.Popen([sys.executable, "-c", code, path], cwd=tmp_path, env=environment, **pipes) for _ in range(3)]

    def printed(processes):
        lines = [process.stdout.readline().strip() for process in processes]  # an empty line where it has failed
        return sorted(lines), [process.communicate() for process in processes] and [process.returncode for process in processes]

    lines, codes = printed(started(""))
    assert [Path(line).name for line in lines] == ["cmu[1]-1", "cmu[1]-2", "cmu[1]-3"] and codes == [0, 0, 0]
    lines, codes = printed(started("same"))
    assert lines == ["", "", "same"] and sorted(codes) == [0, 1, 1]


def test_the_first_free_number_is_taken_and_empty_directories_are_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        with create_run_directory(name="cmu[1]") as directory:
            assert directory == Path("runs", f"cmu[1]-{number}") and directory.is_dir()
            save(directory, "any")
    with pytest.raises(KeyboardInterrupt), create_run_directory(name="cmu[1]"):
        raise KeyboardInterrupt
    assert sorted(os.listdir("runs")) == ["cmu[1]-1", "cmu[1]-2"]
    os.mkdir("made")
    with create_run_directory("made"):
        pass
    assert os.path.isdir("made")  # it was not created here


def test_what_a_killed_training_left_is_removed(tmp_path):
    (tmp_path / ".unfinished-x").mkdir()
    (tmp_path / ".unfinished-x" / "model.keras").write_text("half")
    with create_run_directory(tmp_path):
        assert os.listdir(tmp_path) == []


def test_the_record_is_plain_json(tmp_path):
    save(tmp_path, "ü")
    content = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert content["format"] == 2 and sorted(content["sha256"]) == sorted(runs.PARTS) and content["version"] == "ü"
