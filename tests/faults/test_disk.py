"""Disks that fill, and files that are cut in the middle of a write."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest
from conftest import PATIENCE_S, files, said, until
from standin_runs import planned
from views import Silent

from energybench.errors import DataError
from energybench.power.trace import read_trace
from energybench.run.execute import Place, execute
from energybench.run.reserve import RESERVE_BYTES
from energybench.run.result import Result


@pytest.fixture
def disk(tmp_path):
    """A file system of its own: a function that mounts it with so many bytes."""
    if os.geteuid() or subprocess.run(["mount", "-V"], capture_output=True).returncode:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size):
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip(f"cannot mount a file system here: {done.stderr.decode().strip()}")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], capture_output=True)


def fill(folder):
    """Until there is no byte left."""
    with (folder / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


def test_a_disk_that_fills_while_a_run_goes_on(disk, start, ended, row, tmp_path):
    folder = disk("4m")
    process = start("hydra.run.dir=disk/mine", "checkpoint.every_epochs=1", "budget.epochs=1000")
    until(said, tmp_path, '"checkpoint"', 2)
    fill(folder)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (1, False)
    result = Result.read(folder / "mine")
    assert result.failure.kind == "disk"
    assert result.metrics["energy_j"] > 0
    assert result.failure.message in " ".join(out.split())
    kept = files(folder / "mine")
    (folder / "filler").unlink()
    code, _ = ended("hydra.run.dir=disk/mine", "checkpoint.resume=auto", "budget.epochs=1000", "budget.steps=30")
    assert Result.read(folder / "mine").status == "finished"
    assert code == 0
    row(
        "disk full",
        result.failure.message,
        f"{kept}; status {result.status}, the energy until then",
        "when there is room: with checkpoint.resume=auto from the last checkpoint, the joules of both added up",
    )


@pytest.mark.usefixtures("fakes")
def test_a_disk_that_is_full_before(disk, row):
    folder = disk(RESERVE_BYTES // 2)
    fill(folder)
    (folder / "filler").unlink()
    result = execute(planned(), Place(folder), Silent())
    assert result.failure.kind == "disk"
    assert result.phases == ()
    assert Result.read(folder).failure == result.failure
    row("disk full before the run", result.failure.message, files(folder), "runs, when there is room")


def test_a_trace_that_is_cut_in_the_middle_of_a_write(start, ended, row, tmp_path):
    """A file may not grow beyond a limit: the readings of a run do."""
    words = ["hydra.run.dir=mine", "budget.epochs=1", "meter.period_s=0.0005", "meter.power=true"]
    process = start(*words, "dataset.images=2400")
    until(said, tmp_path, '"train"')
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (1, False)
    result = Result.read(tmp_path / "mine")
    assert result.failure.kind == "disk"
    assert "power.parquet" in result.failure.message
    assert result.metrics["energy_j"] > 0
    kept = files(tmp_path / "mine")
    assert "power.parquet" not in kept
    code, _ = ended(*words)
    assert code == 0
    trace = tmp_path / "mine" / "power.parquet"
    assert read_trace(trace)[0]
    trace.write_bytes(trace.read_bytes()[:-1000])  # as a machine without power may leave a file that was whole
    with pytest.raises(DataError, match=r"power\.parquet"):
        read_trace(trace)
    row("trace cut in the middle of a write", result.failure.message, kept, "runs anew")
