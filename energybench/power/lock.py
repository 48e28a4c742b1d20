"""One measured run a card: a lock file per board in a folder that all users of the machine share.

The kernel holds the lock (flock) and lets it go when the process ends, however it ends: a file that is left behind
locks nothing. The file says who holds it. Containers meet only where they share the folder.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import re
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from energybench.errors import MeterError

VARIABLE = "ENERGYBENCH_LOCKS"
"""Names a folder for the lock files: one that containers which share cards mount."""

FOLDERS = ("/run/lock", "/var/lock")
SHARED_FILE = 0o666


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the holder wrote it.

    Attributes:
        pid: of the supervisor, in its own system or container.
        user: who started it.
        run: what it is called.
    """

    pid: int
    user: str
    run: str

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user}, run {self.run!r}"


class BusyError(MeterError):
    """Another run holds the lock."""


class Lock:
    """A board that this process measures, from construction to `release`.

    Args:
        key: what identifies the board: its UUID, or "cpu".
        run: what the run is called, for others to read.
        shared: several may hold it so at once, but not beside one that holds it alone.

    Raises:
        BusyError: another run holds it.
        MeterError: no lock file can be made.
    """

    def __init__(self, key: str, run: str, *, shared: bool = False) -> None:
        self._path = directory() / f"energybench-{re.sub(r'[^A-Za-z0-9.-]', '_', key)}.lock"
        self._mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            self._file = _open(self._path)
        except OSError as error:
            remedy = f"name a folder for locks in {VARIABLE}, or set measure.lock=ignore"
            raise MeterError(f"lock {self._path}: {error.strerror}; {remedy}") from error
        if not self._take(self._mode):
            holder = _holder(self._file)
            os.close(self._file)
            who = str(holder) if holder else "a run that has not said its name"
            raise BusyError(f"{key} is being measured by {who}; let it end, or set measure.lock=wait")
        _write(self._file, Holder(os.getpid(), _user(), run))

    def alone(self) -> bool:
        """Whether no other process holds it now; for one that is shared."""
        alone = self._take(fcntl.LOCK_EX)
        self._take(self._mode)  # back again; a try that failed may have lost the lock: flock(2)
        return alone

    def release(self) -> None:
        """Lets it go; a second call does nothing."""
        if self._file >= 0:
            if self._mode == fcntl.LOCK_EX:
                _write(self._file, None)
            # Not left to the closing: a program that is just being started has the file open for a moment longer.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = -1

    def _take(self, mode: int) -> bool:
        try:
            fcntl.flock(self._file, mode | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.EWOULDBLOCK:
                raise
            return False
        return True


def directory() -> Path:
    """Where the lock files are: $ENERGYBENCH_LOCKS, else the system's folder of locks, else that of temporary files."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    writable = [folder for folder in FOLDERS if os.access(folder, os.W_OK)]
    return Path(writable[0] if writable else tempfile.gettempdir())


def _open(path: Path) -> int:
    """Opens the file, which whoever comes first makes for all users.

    In a folder with the sticky bit the kernel refuses O_CREAT on another user's file (fs.protected_regular), so that it
    is asked for only where there is none. Python's descriptors are not inherited by programs that are started.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    while True:
        try:
            file = os.open(path, flags)
        except FileNotFoundError:
            with suppress(FileExistsError):
                made = os.open(path, flags | os.O_CREAT | os.O_EXCL, SHARED_FILE)
                os.fchmod(made, SHARED_FILE)  # whatever the umask
                return made
            continue
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "not a regular file")
        return file


def _holder(file: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(file, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _write(file: int, holder: Holder | None) -> None:
    """A full disk keeps nobody from the lock itself."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        if holder is not None:
            os.pwrite(file, json.dumps(asdict(holder)).encode() + b"\n", 0)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return str(os.getuid())
