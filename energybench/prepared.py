"""Prepared data: samples packed into a few large files, which training maps into memory.

`energybench prepare dataset=NAME ...` makes them (`energybench.prepare`). A data plugin says what is to be packed by a
method `preparation` (`Preparable`) and reads it back with `Prepared`. A folder holds `prepared.json`, the manifest, and
the parts: Arrow files of one record batch each, with a column `data` (bytes of a sample: a JPEG, the memory of an
array) and a column of int64 for each number that belongs to a sample (`label`, ...).

Light by design: a plugin module imports this and no array library until it reads or writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from energybench.dataset import Split
from energybench.errors import DataError
from energybench.whole import whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike, NDArray

VERSION = 1
"""Of the format; a folder of another is made anew."""

MANIFEST = "prepared.json"
DATA = "data"


@dataclass(frozen=True)
class Sample:
    """One sample to be packed.

    Attributes:
        data: bytes, or anything that has them in one piece: a C-contiguous array.
        numbers: what belongs to it, such as its label; every sample of a data set has the same names.
    """

    data: Any
    numbers: Mapping[str, int]


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be had: its name (a path, a record's number) and why, in one line."""

    name: str
    reason: str


class PartJob(Protocol):
    """What goes into one part. It is pickled and made in a process of its own, so it holds paths, not data."""

    @property
    def split(self) -> Split:
        """That the part belongs to."""

    @property
    def expected(self) -> int:
        """Samples, about; only the progress that is shown depends on it."""

    def samples(self) -> Iterator[Sample | Skipped]:
        """The samples in order. Raises DataError for what must not be skipped."""


@dataclass(frozen=True)
class Preparation:
    """All that is to be packed of one data set.

    Attributes:
        dataset: its registered name.
        folder: of the prepared files.
        made_of: all that decides their content: options, and what tells the sources from others (plain JSON values).
            Parts of a folder that was made of something else are never used.
        about: what a reader wants to know of the samples: classes, shape, dtype (plain JSON values).
        jobs: one a part, in the order in which the samples stand; a part of some 100 MB is good.
    """

    dataset: str
    folder: Path
    made_of: Mapping[str, Any]
    about: Mapping[str, Any]
    jobs: Sequence[PartJob]


@runtime_checkable
class Preparable(Protocol):
    """A data plugin whose data set can be prepared."""

    def preparation(self) -> Preparation:
        """What is to be done; raises DataError where the sources are not there."""


@dataclass(frozen=True)
class Part:
    """A finished part.

    Attributes:
        file: its name in the folder.
        split: that it belongs to.
        samples: in it.
        size: of the file, bytes.
        sha256: of the file, hexadecimal.
        skipped: what was left out.
    """

    file: str
    split: Split
    samples: int
    size: int
    sha256: str
    skipped: tuple[Skipped, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Part:
        """From plain JSON values; raises TypeError or KeyError where it is none."""
        return cls(**{**data, "skipped": tuple(Skipped(**one) for one in data["skipped"])})

    def whole(self, folder: Path) -> bool:
        """Whether the file is there in its full length."""
        try:
            return (folder / self.file).stat().st_size == self.size
        except OSError:
            return False


@dataclass(frozen=True)
class Manifest:
    """What a folder of prepared files holds: see `Preparation` and `Part`."""

    dataset: str
    made_of: dict[str, Any]
    about: dict[str, Any]
    parts: tuple[Part, ...]
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Appears whole or not at all."""
        with whole(folder / MANIFEST) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises DataError where there is none, or one that is not understood."""
        path = folder / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["version"] != VERSION:
                raise DataError(f"{path}: format {data['version']}, not {VERSION}; prepare it again")
            return cls(**{**data, "parts": tuple(map(Part.from_json, data["parts"]))})
        except FileNotFoundError as error:
            raise DataError(f"{folder} holds no prepared data; run energybench prepare") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not readable as a manifest ({error}); prepare it again") from error


@dataclass
class Prepared:
    """Prepared files, opened for reading. May be pickled, and is then mapped anew.

    Attributes:
        folder: of the files.
        manifest: what they hold.

    Raises:
        DataError: they are not there, or not whole.
    """

    folder: Path
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = Manifest.read(self.folder)
        torn = [part.file for part in self.manifest.parts if not part.whole(self.folder)]
        if torn:
            raise DataError(f"{self.folder / torn[0]} is missing or torn; run energybench prepare again")

    def count(self, split: Split) -> int:
        """Samples of a split; maps nothing."""
        return sum(part.samples for part in self.manifest.parts if part.split == split)

    def skipped(self, split: Split) -> list[Skipped]:
        """What was left out of a split when it was prepared."""
        return [one for part in self.manifest.parts if part.split == split for one in part.skipped]

    def open(self, split: Split) -> PreparedSplit:
        """Maps the parts of a split."""
        return PreparedSplit(self.folder, [part for part in self.manifest.parts if part.split == split])


class PreparedSplit:
    """The samples of one split, mapped into memory.

    Args:
        folder: of the files.
        parts: of the split, in order.
    """

    def __init__(self, folder: Path, parts: Sequence[Part]) -> None:
        self._folder = folder
        self._parts = [part for part in parts if part.samples]

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedSplit, (self._folder, self._parts)

    def __len__(self) -> int:
        return sum(part.samples for part in self._parts)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        import numpy as np

        return np.cumsum([0, *(part.samples for part in self._parts)])

    @cached_property
    def _maps(self) -> list[_Map]:
        return [_Map(self._folder / part.file) for part in self._parts]

    def numbers(self, name: str) -> NDArray[np.int64]:
        """(samples,) int64, one for each sample; raises KeyError where no such were packed."""
        import numpy as np

        return np.concatenate([np.empty(0, np.int64), *(one.numbers(name) for one in self._maps)])

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """The bytes of one sample, (length,) uint8, read-only: a view of the file."""
        part = int(self._starts.searchsorted(index, "right")) - 1
        return self._maps[part][index - int(self._starts[part])]

    def arrays(self, shape: tuple[int, ...], dtype: DTypeLike) -> list[NDArray[Any]]:
        """Of samples that are arrays of one shape: (samples of the part, *shape) of each part, read-only views.

        Raises:
            DataError: a sample has another size.
        """
        import numpy as np

        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return [one.rows(size).view(dtype).reshape(-1, *shape) for one in self._maps]

    def take(self, chosen: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copies samples that are arrays of one shape: sample number `chosen[i]` to `out[i]`.

        Args:
            chosen: (n,) int64.
            out: (n, *shape), C-contiguous.
        """
        arrays = self.arrays(out.shape[1:], out.dtype)
        parts = self._starts.searchsorted(chosen, "right") - 1
        for row, (part, index) in enumerate(zip(parts.tolist(), (chosen - self._starts[parts]).tolist(), strict=True)):
            out[row] = arrays[part][index]


class _Map:
    """One part, mapped; an Arrow file of one record batch."""

    def __init__(self, path: Path) -> None:
        import numpy as np
        import pyarrow as pa

        try:
            self._batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: {error}; run energybench prepare again") from error
        column = self._batch.column(DATA)
        _, offsets, data = column.buffers()
        self._path = path
        self._offsets: NDArray[np.int64] = np.frombuffer(offsets, np.int64)[: len(column) + 1]
        self._bytes: NDArray[np.uint8] = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)

    def numbers(self, name: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self._batch.column(name).to_numpy()
        return found

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._bytes[self._offsets[index] : self._offsets[index + 1]]

    def rows(self, size: int) -> NDArray[np.uint8]:
        """(samples, size) uint8."""
        import numpy as np

        if not np.all(np.diff(self._offsets) == size):
            raise DataError(f"{self._path}: holds samples of other than {size} bytes; prepare it again")
        return self._bytes[self._offsets[0] : self._offsets[-1]].reshape(-1, size)


def write_part(path: Path, samples: Sequence[Sample]) -> None:
    """Writes one part, whole or not at all; its samples are held in memory until then."""
    import pyarrow as pa

    names = sorted(samples[0].numbers) if samples else []
    columns = {DATA: pa.array([_bytes(sample.data) for sample in samples], pa.large_binary())}
    columns |= {name: pa.array([sample.numbers[name] for sample in samples], pa.int64()) for name in names}
    batch = pa.record_batch(columns)
    with whole(path) as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else memoryview(data).tobytes()
