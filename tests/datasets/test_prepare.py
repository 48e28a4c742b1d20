"""Prepared files: packed in parallel, whole or not there, gone on with after a kill, checked."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fakes.preparing import SHAPE, Job

from energybench.errors import DataError
from energybench.prepare import JOURNAL, Progress, prepare, verify
from energybench.prepared import MANIFEST, Manifest, Preparation, Prepared, Skipped, write_part

JOBS = (Job("train", 0, 5), Job("train", 5, 4, bad=6), Job("validation", 100, 3))


def plan(folder: Path, jobs: tuple[Job, ...] = JOBS, **made_of: object) -> Preparation:
    return Preparation("counted", folder, {"to": 9, **made_of}, {"shape": SHAPE}, jobs)


def quiet(progress: Progress) -> None:
    pass


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """JOBS, prepared once; what was told of it."""
    folder, told = tmp_path_factory.mktemp("packed"), list[Progress]()
    prepare(plan(folder), 2, told.append)
    return folder, told


@pytest.fixture
def folder(packed: tuple[Path, list[Progress]], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(packed[0], tmp_path / "prepared"))


def test_what_was_packed_is_read_back(packed: tuple[Path, list[Progress]]) -> None:
    folder, told = packed
    found = Prepared(folder)
    assert (found.count("train"), found.count("validation")) == (8, 3)
    assert found.manifest.about == {"shape": list(SHAPE)}
    assert found.skipped("train") == [Skipped("sample 6", "cannot be had")]
    train = found.open("train")
    kept = [0, 1, 2, 3, 4, 5, 7, 8]
    assert train.numbers("label").tolist() == [number % 7 for number in kept]
    assert train.numbers("walk").tolist() == [number // 2 for number in kept]
    assert [train[i].view(np.float16).tolist() for i in range(8)] == [[n] * 6 for n in kept]
    out = np.empty((3, *SHAPE), np.float16)
    train.take(np.array([7, 0, 5]), out)
    assert out[:, 0, 0].tolist() == [8, 0, 5]
    assert [part.shape for part in train.arrays(SHAPE, np.float16)] == [(5, *SHAPE), (3, *SHAPE)]
    assert told[-1].parts == told[-1].of_parts == 3 and told[-1].samples == told[-1].of_samples == 12
    assert told[-1].left_s == 0 and told[-1].skipped == 1 and told[0].left_s is None


def test_a_split_that_is_sent_to_another_process_is_mapped_there(folder: Path) -> None:
    again = pickle.loads(pickle.dumps(Prepared(folder).open("validation")))
    assert again.numbers("label").tolist() == [100 % 7, 101 % 7, 102 % 7]


def test_samples_of_another_size_are_refused_as_arrays(folder: Path) -> None:
    with pytest.raises(DataError, match=r"other than 24 bytes"):
        Prepared(folder).open("train").arrays(SHAPE, np.float32)


def test_a_killed_process_ends_the_run_and_the_next_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    alive = folder / "kill"
    alive.touch()
    jobs = (JOBS[0], Job("train", 5, 4, killed_by=alive))
    with pytest.raises(DataError, match=r"was killed .*it goes on"):
        prepare(plan(folder, jobs), 2, quiet)
    assert not (folder / MANIFEST).exists()
    with pytest.raises(DataError, match="holds no prepared data"):
        Prepared(folder)
    written = (folder / "train-00000.arrow").stat().st_mtime_ns
    alive.unlink()
    told: list[Progress] = []
    prepare(plan(folder, jobs), 1, told.append)
    assert told[0].reused == 1
    assert (folder / "train-00000.arrow").stat().st_mtime_ns == written
    assert Prepared(folder).count("train") == 9
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "train-00000.arrow", "train-00001.arrow"]


SCRIPT = """
import sys
from pathlib import Path
from fakes.preparing import Job
from energybench.prepare import prepare
from energybench.prepared import Preparation
jobs = [Job("train", 0, 5), *(Job("train", 5 + 4 * n, 4, slow_s=30) for n in range(3))]
if __name__ == "__main__":
    plan = Preparation("counted", Path(sys.argv[1]), {}, {}, jobs)
    prepare(plan, 2, lambda progress: print(progress.parts, flush=True))
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_after_a_kill_nothing_is_left_running_and_what_was_done_is_kept(ending: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "prepared"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    assert process.stdout.readline() == b"1\n"
    process.send_signal(ending)
    process.wait(20)
    process.stdout.close()
    process.stderr.close()
    deadline = time.monotonic() + 20
    while _members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _members(process.pid) == []
    lines = (folder / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["file"] for line in lines[1:]] == ["train-00000.arrow"]


def test_what_fails_ends_its_own_processes_alone(tmp_path: Path) -> None:
    """Another that is started meanwhile, as another thread may do, lives on."""
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))

    def fail(progress: Progress) -> None:
        if progress.parts:
            other.start()
            raise DataError("enough")

    jobs = (JOBS[0], *(Job("train", 5 + 4 * n, 4, slow_s=30) for n in range(3)))
    begun = time.monotonic()
    try:
        with pytest.raises(DataError, match="enough"):
            prepare(plan(tmp_path / "prepared", jobs), 2, fail)
        assert time.monotonic() - begun < 25
        assert multiprocessing.active_children() == [other]
    finally:
        other.terminate()
        other.join()


def _members(session: int) -> list[int]:
    """Processes of a session that still live."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def test_a_torn_part_is_refused_and_made_anew_alone(folder: Path) -> None:
    torn = folder / "train-00001.arrow"
    torn.write_bytes(torn.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-00001\.arrow is missing or torn"):
        Prepared(folder)
    assert verify(folder) == [torn.name]
    told: list[Progress] = []
    prepare(plan(folder), 1, told.append)
    assert told[0].reused == 2
    assert verify(folder) == []


def test_a_changed_byte_is_found_by_the_checksum(folder: Path) -> None:
    path = folder / "validation-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert verify(folder) == [path.name]


def test_a_torn_journal_line_costs_its_part_alone(folder: Path) -> None:
    manifest = Manifest.read(folder)
    (folder / MANIFEST).unlink()
    lines = [{"made_of": manifest.made_of}, *map(dataclasses.asdict, manifest.parts)]
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines)[:-30])
    told: list[Progress] = []
    prepare(plan(folder), 1, told.append)
    assert told[0].reused == 2 and Prepared(folder).count("validation") == 3


def test_what_was_made_of_something_else_is_never_used(folder: Path) -> None:
    other = plan(folder, (Job("train", 50, 2),), to=3)
    with pytest.raises(DataError, match=r"prepared from something else \(to\); add --again"):
        prepare(other, 1, quiet)
    prepare(other, 1, quiet, again=True)
    assert Prepared(folder).open("train").numbers("walk").tolist() == [25, 25]
    assert sorted(path.name for path in folder.iterdir()) == [MANIFEST, "train-00000.arrow"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not readable"), ('{"version": 99}', "format 99, not 1"), ('{"version": 1}', "not readable")],
)
def test_a_manifest_that_is_none_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=message):
        Manifest.read(tmp_path)


def test_an_empty_part_is_a_part(tmp_path: Path) -> None:
    write_part(tmp_path / "part", [])
    prepare(plan(tmp_path / "all", (Job("train", 0, 1, bad=0), Job("train", 1, 2))), 1, quiet)
    train = Prepared(tmp_path / "all").open("train")
    assert len(train) == 2 and train.numbers("label").tolist() == [1, 2]
