"""Makes prepared files: parts in parallel, each whole or not there, and goes on where an earlier run was stopped."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any

from energybench.errors import DataError
from energybench.prepared import MANIFEST, Manifest, Part, PartJob, Preparation, Sample, Skipped, write_part
from energybench.whole import remove_partial, whole, writable

JOURNAL = "parts.jsonl"
"""Finished parts, a line each, while not all are: what a run that goes on begins with."""

CHUNK_BYTES = 1024**2
PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>: the signal this process gets when its parent dies."""


@dataclass(frozen=True)
class Progress:
    """How far a preparation is.

    Attributes:
        parts, of_parts: done, and in all.
        samples: expected in the parts that are done, and `of_samples` in all.
        left_s: seconds until the end if it goes on as until now; None before it can be told.
        reused: parts that were there already.
        skipped: samples left out so far.
    """

    parts: int
    of_parts: int
    samples: int
    of_samples: int
    left_s: float | None
    reused: int
    skipped: int


Report = Callable[[Progress], None]


def prepare(plan: Preparation, workers: int, report: Report, *, again: bool = False) -> Manifest:
    """Makes every part that is not there yet, and the manifest.

    Args:
        plan: what to make.
        workers: processes.
        report: called when something has become ready.
        again: make everything anew, also what is there.

    Raises:
        DataError: the folder holds what was made of something else, a source is wrong, or a process was killed.
        ConfigError: nothing can be written into the folder.
    """
    writable(plan.folder)
    if again:
        _clear(plan.folder)
    remove_partial(plan.folder)  # another that runs at the same time is not foreseen
    done = _done(plan)
    reused, began_s = len(done), time.monotonic()
    expected = {name: job.expected for name, job in _named(plan)}

    def tell() -> None:
        ready = sum(expected[name] for name in done)
        fresh = ready - before
        rate = fresh / max(time.monotonic() - began_s, 1e-9)
        left_s = (sum(expected.values()) - ready) / rate if fresh else None
        skipped = sum(len(part.skipped) for part in done.values())
        report(Progress(len(done), len(expected), ready, sum(expected.values()), left_s, reused, skipped))

    before = sum(expected[name] for name in done)
    tell()
    missing = [(name, job) for name, job in _named(plan) if name not in done]
    with (plan.folder / JOURNAL).open("a", encoding="utf-8") as journal:
        for part in _made(plan.folder, missing, workers):
            done[part.file] = part
            journal.write(json.dumps(asdict(part)) + "\n")
            journal.flush()
            tell()
    parts = tuple(done[name] for name, _ in _named(plan))
    manifest = Manifest(plan.dataset, dict(plan.made_of), dict(plan.about), parts)
    manifest.write(plan.folder)
    (plan.folder / JOURNAL).unlink()
    return manifest


def verify(folder: Path, report: Callable[[Part, bool], None] | None = None) -> list[str]:
    """Reads every byte of a prepared folder; names of the parts whose checksum is another, or that are not there."""
    wrong = []
    for part in Manifest.read(folder).parts:
        path = folder / part.file
        good = path.is_file() and checksum(path) == part.sha256
        if not good:
            wrong.append(part.file)
        if report is not None:
            report(part, good)
    return wrong


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _named(plan: Preparation) -> list[tuple[str, PartJob]]:
    """Each job with the file's name of its part."""
    counts: dict[str, int] = {}
    named = []
    for job in plan.jobs:
        number = counts.get(job.split, 0)
        counts[job.split] = number + 1
        named.append((f"{job.split}-{number:05d}.arrow", job))
    return named


def _clear(folder: Path) -> None:
    for pattern in (MANIFEST, JOURNAL, "*-[0-9][0-9][0-9][0-9][0-9].arrow"):
        for path in folder.glob(pattern):
            path.unlink()


def _done(plan: Preparation) -> dict[str, Part]:
    """Parts that an earlier run finished and that are whole; begins the journal where there is none."""
    head: dict[str, object] = {"made_of": dict(plan.made_of)}
    known = _told(plan.folder)
    if known is None:
        _begin(plan.folder, head, [])
        return {}
    made_of, parts = known
    wanted = json.loads(json.dumps(head["made_of"]))
    if made_of != wanted:
        differing = sorted(key for key in {*made_of, *wanted} if made_of.get(key) != wanted.get(key))
        raise DataError(
            f"{plan.folder} was prepared from something else ({', '.join(differing)}); add --again to make it anew, "
            "or choose another folder"
        )
    names = {name for name, _ in _named(plan)}
    whole = [part for part in parts if part.file in names and part.whole(plan.folder)]
    _begin(plan.folder, head, whole)
    return {part.file: part for part in whole}


def _told(folder: Path) -> tuple[dict[str, object], Sequence[Part]] | None:
    """What the manifest, or the journal of a run that was stopped, says of the folder."""
    if (folder / MANIFEST).is_file():
        manifest = Manifest.read(folder)
        return manifest.made_of, manifest.parts
    try:
        lines = (folder / JOURNAL).read_text(encoding="utf-8").splitlines()
        made_of: dict[str, object] = json.loads(lines[0])["made_of"]
    except (OSError, ValueError, LookupError):
        return None
    parts = []
    for line in lines[1:]:
        try:
            parts.append(Part.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            break  # torn by what ended the run
    return made_of, parts


def _begin(folder: Path, head: dict[str, object], parts: Sequence[Part]) -> None:
    lines = [json.dumps(head), *(json.dumps(asdict(part)) for part in parts)]
    with whole(folder / JOURNAL) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    (folder / MANIFEST).unlink(missing_ok=True)


def _made(folder: Path, jobs: Sequence[tuple[str, PartJob]], workers: int) -> Iterator[Part]:
    """The parts, in the order in which they become ready."""
    if workers == 1 or not jobs:
        yield from (_make(folder, name, job) for name, job in jobs)
        return
    context = _Spawning()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _quiet, (os.getpid(),))
    try:
        for ready in as_completed([pool.submit(_make, folder, name, job) for name, job in jobs]):
            yield ready.result()
    except BrokenProcessPool as error:
        raise DataError(
            f"{folder}: a packing process was killed (out of memory?); run it again with fewer --workers: it goes on"
        ) from error
    except BaseException:
        context.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # at once: a pool let go of is waited for when Python ends, badly


class _Spawning(SpawnContext):
    """Starts processes anew, as whoever calls this may have threads, and knows which are its own."""

    def __init__(self) -> None:
        self._started: list[SpawnProcess] = []

    def Process(self, *args: Any, **keys: Any) -> SpawnProcess:  # type: ignore[override]  # noqa: N802
        process = SpawnProcess(*args, **keys)
        self._started.append(process)
        return process

    def terminate(self) -> None:
        """Ends them at once."""
        for process in self._started:
            if process.is_alive():
                process.terminate()


def _quiet(parent: int) -> None:
    """A worker ends with its parent, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _make(folder: Path, name: str, job: PartJob) -> Part:
    """Makes one part, which appears when it is complete and on the disk."""
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for one in job.samples():
        samples.append(one) if isinstance(one, Sample) else skipped.append(one)
    path = folder / name
    write_part(path, samples)
    return Part(name, job.split, len(samples), path.stat().st_size, checksum(path), tuple(skipped))
