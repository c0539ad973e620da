"""Files that are replaced, written to or refused."""

import io
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from k3seq.data.files import check_writable, print_to_standard_error, replacing, restore_standard_output

pytestmark = pytest.mark.once


def write(path, text="new"):
    with replacing(path) as temporary:
        temporary.write_text(text)


@pytest.fixture
def folder(tmp_path):
    """An empty folder, which holds no temporary file at the end of the test."""
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_a_link_is_followed_and_stays(folder):
    (folder / "there").mkdir()
    (folder / "there" / "target").write_text("old")
    (folder / "link").symlink_to("there/target")
    (folder / "link of link").symlink_to("link")
    write(folder / "link of link")
    assert (folder / "link").is_symlink() and (folder / "link of link").is_symlink()
    assert (folder / "there" / "target").read_text() == "new"


def test_the_target_of_a_dangling_link_is_created(folder):
    (folder / "link").symlink_to("absent")
    check_writable(folder / "link")
    assert not (folder / "absent").exists()
    write(folder / "link")
    assert (folder / "link").is_symlink() and (folder / "absent").read_text() == "new"


def test_a_pipe_receives_the_content_and_stays_a_pipe(folder):
    pipe, received = folder / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    check_writable(pipe)
    write(pipe)
    reader.join(10)
    assert received == ["new"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_device_stays_a_device():
    check_writable(os.devnull)
    write(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_full_device_is_named():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(folder):
    (folder / "file").write_text("old")
    with pytest.raises(OSError, match=r"No space left on device: '.*/file'"), replacing(folder / "file") as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert (folder / "file").read_text() == "old"


def test_an_older_file_keeps_its_mode_and_a_new_one_has_that_of_the_umask(folder):
    (folder / "old").write_text("old")
    (folder / "old").chmod(0o640)
    write(folder / "old")
    write(folder / "new")
    umask = os.umask(0)
    os.umask(umask)
    modes = [stat.S_IMODE((folder / name).stat().st_mode) for name in ("old", "new")]
    assert modes == [0o640, 0o666 & ~umask]


def test_a_minus_is_standard_output(capsys):
    write("-", "ä")
    assert capsys.readouterr().out == "ä"


def test_prints_go_to_standard_error_while_standard_output_is_written_to(capsys):
    print_to_standard_error([None, "file"])
    print("as usual")
    print_to_standard_error(["-"])
    print("a table")
    write("-")
    restore_standard_output()
    print("as usual")
    shown = capsys.readouterr()
    assert shown.out == "as usual\nnewas usual\n" and shown.err == "a table\n"


def test_a_path_to_standard_output_is_written_to(tmp_path, monkeypatch):
    """`--json /dev/stdout > file`: the file stays the one that the shell has opened."""
    saved, path = os.dup(1), tmp_path / "file"
    try:
        with open(path, "wb") as file:
            os.dup2(file.fileno(), 1)
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(open(1, "wb", closefd=False)))
        inode = path.stat().st_ino
        print("a table")
        write(path)
        sys.stdout.flush()
        assert path.read_text() == "a table\nnew" and path.stat().st_ino == inode
    finally:
        monkeypatch.undo()
        os.dup2(saved, 1)
        os.close(saved)


@pytest.mark.parametrize(
    "name, error",
    [
        ("", FileNotFoundError),
        ("no/such/folder/file", FileNotFoundError),
        ("file/inside a file", NotADirectoryError),
        ("folder", IsADirectoryError),
        ("loop", OSError),
        ("x" * 300, OSError),
    ],
)
def test_what_cannot_be_written_is_refused_before_and_changes_nothing(folder, monkeypatch, name, error):
    monkeypatch.chdir(folder)
    Path("file").write_text("old")
    Path("folder").mkdir()
    Path("loop").symlink_to("loop")
    before = sorted(os.listdir())
    with pytest.raises(error):
        check_writable(name)
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_without_files_is_refused():
    with pytest.raises(OSError, match="/proc"):
        check_writable("/proc/file")


@pytest.mark.parametrize("name", ["file", "pipe"])
def test_a_file_without_permission_is_refused(folder, monkeypatch, name):
    (folder / "file").write_text("old")
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to everything
    with pytest.raises(PermissionError, match=name):
        check_writable(folder / name)


def test_a_check_creates_no_file(folder):
    check_writable(folder / "file")
    assert not list(folder.iterdir())
