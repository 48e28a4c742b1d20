"""Locks between real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from energybench.errors import MeterError
from energybench.power import lock as locking
from energybench.power.lock import BusyError, Lock, directory

HOLD = """
import sys
from energybench.power.lock import Lock
held = Lock(sys.argv[1], "night", shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere():
    """Holds a lock in another process; what it returns is that process."""
    processes = []

    def hold(key, how="alone"):
        command = [sys.executable, "-c", HOLD, key, how]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.communicate()


def test_one_holder_and_the_next_is_told_who(elsewhere):
    process = elsewhere("GPU-1")
    with pytest.raises(BusyError, match=rf"^GPU-1 is being measured by process {process.pid} of \S+, run 'night'; "):
        Lock("GPU-1", "day")
    Lock("GPU-2", "day").release()


def test_a_killed_holder_leaves_no_lock(elsewhere):
    process = elsewhere("GPU-1")
    process.kill()
    process.wait()
    Lock("GPU-1", "day").release()


def test_released_it_is_free_for_others_and_names_nobody(elsewhere, locks):
    held = Lock("GPU-1", "day")
    [file] = locks.iterdir()
    assert json.loads(file.read_text())["pid"] == os.getpid()
    held.release()
    held.release()
    assert file.read_text() == ""
    elsewhere("GPU-1")


def test_within_one_process_too():
    held = Lock("GPU-1", "one")
    with pytest.raises(BusyError, match=rf"process {os.getpid()} .*'one'"):
        Lock("GPU-1", "two")
    held.release()


def test_several_share_it_and_know_of_each_other(elsewhere):
    ours = Lock("cpu", "day", shared=True)
    assert ours.alone()
    process = elsewhere("cpu", "shared")
    assert not ours.alone()
    process.kill()
    process.wait()
    assert ours.alone()
    ours.release()


def test_who_shares_keeps_out_who_wants_it_alone(elsewhere):
    elsewhere("cpu", "shared")
    with pytest.raises(BusyError):
        Lock("cpu", "day")
    assert not Lock("cpu", "day", shared=True).alone()


def test_who_looked_whether_it_is_alone_still_holds_it(elsewhere):
    ours = Lock("cpu", "day", shared=True)
    other = elsewhere("cpu", "shared")
    assert not ours.alone()
    other.kill()
    other.wait()
    with pytest.raises(BusyError):
        Lock("cpu", "another")
    ours.release()


def test_a_program_that_is_started_does_not_inherit_it():
    held = Lock("GPU-1", "day")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        held.release()
        Lock("GPU-1", "again").release()
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_every_user_may_lock_whatever_the_umask(locks):
    before = os.umask(0o077)
    try:
        Lock("GPU-1", "day").release()
    finally:
        os.umask(before)
    [file] = locks.iterdir()
    assert file.stat().st_mode & 0o777 == 0o666


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_another_user_s_file_is_no_obstacle_in_a_sticky_folder(locks):
    locks.chmod(0o1777)
    for parent in locks.parents:
        if parent.stat().st_mode & 0o777 == 0o700:  # pytest's own folders
            parent.chmod(0o755)
    nobody = "import os\nos.setgid(65534); os.setuid(65534)\nheld ="
    Lock("GPU-1", "root's").release()
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.replace("held =", nobody), "GPU-1", "alone"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"process {process.pid} of "):
            Lock("GPU-1", "root's")
    finally:
        process.kill()
        process.communicate()


def test_keys_are_no_paths(locks):
    Lock("../MIG-GPU-1/2", "day").release()
    assert [file.name for file in locks.iterdir()] == ["energybench-.._MIG-GPU-1_2.lock"]


def test_a_folder_that_is_not_there_is_a_line(monkeypatch, tmp_path):
    monkeypatch.setenv("ENERGYBENCH_LOCKS", str(tmp_path / "absent" / "folder"))
    with pytest.raises(MeterError, match=r"ENERGYBENCH_LOCKS, or set measure\.lock=ignore$"):
        Lock("GPU-1", "day")


def test_a_link_or_a_pipe_in_its_place_is_refused(locks, tmp_path):
    (locks / "energybench-a.lock").symlink_to(tmp_path / "target")
    os.mkfifo(locks / "energybench-b.lock")
    for key in ("a", "b"):
        with pytest.raises(MeterError, match="lock"):
            Lock(key, "day")
    assert not (tmp_path / "target").exists()


def test_the_folder_is_the_machine_s(monkeypatch, tmp_path):
    monkeypatch.delenv("ENERGYBENCH_LOCKS")
    monkeypatch.setattr(locking, "FOLDERS", (str(tmp_path / "absent"), str(tmp_path)))
    assert directory() == tmp_path
    monkeypatch.setattr(locking, "FOLDERS", ())
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    assert str(directory()) == "/tmp"
