"""`dataset=walkers`: made once, the same for the same options, and read as samples of motion."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import fed as fed_by
import numpy as np
import psutil
import pytest

from energybench.dataset import Adapting, Batch, Consumer, DatasetInfo, Holding, Split
from energybench.errors import ConfigError, DataError
from energybench.images import HeldBatch
from energybench.prepared import Prepared
from energybench_plugins.datasets.walkers import MadeUpWalk, Walkers, WalkersOptions
from energybench_plugins.gait.walk import see
from energybench_plugins.gait.walks_dataset import SHAPE

pytest.importorskip("cv2", reason="needs OpenCV (pip install 'energybench[images]')")

OPTIONS = WalkersOptions(persons=2, frames=31, flow="dis_ultrafast", mirror=False)
SAMPLES = 2  # of each walk


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Walkers:
    plugin = Walkers(dataclasses.replace(OPTIONS, prepared=str(tmp_path_factory.mktemp("walkers"))))
    plugin.make()
    return plugin


def test_what_is_said_before_they_are_made_is_so_afterwards(made: Walkers, tmp_path: Path) -> None:
    unmade = Walkers(dataclasses.replace(OPTIONS, prepared=str(tmp_path / "none")))
    expected = DatasetInfo(2, True, 2 * 7 * SAMPLES, 2 * 3 * SAMPLES, generated=True)
    assert unmade.info() == expected
    assert made.info() == expected
    assert "to be made on first use" in str(unmade.check())
    assert "made, in" in str(made.check())
    with pytest.raises(DataError, match="run energybench prepare dataset=walkers"):
        unmade.open(SHAPE, 0)


def test_they_are_made_once(made: Walkers, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(made.preparation().folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    made.make()
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert capsys.readouterr().out == ""


def test_the_same_options_give_the_same_bytes_and_others_do_not(made: Walkers) -> None:
    walk = MadeUpWalk(OPTIONS, 1, 7, "w002-n06", 17)
    again = see(walk.frames(), OPTIONS.flow, "background")
    split = Prepared(made.preparation().folder).open("validation")
    chosen = np.flatnonzero(split.numbers("walk") == 17)
    kept = np.stack([split[int(index)] for index in chosen])
    np.testing.assert_array_equal(kept.reshape(again.maps.shape), again.maps)
    assert split.numbers("column")[chosen].tolist() == again.columns.tolist()
    for changed in ({"set_seed": 1}, {"difficulty": 0.5}):
        other = dataclasses.replace(walk, options=dataclasses.replace(OPTIONS, **changed))
        assert not np.array_equal(next(iter(other.frames())), next(iter(walk.frames())))


def test_samples_are_shuffled_by_seed_and_epoch_and_validated_in_order(made: Walkers) -> None:
    data = made.open(SHAPE, 0)
    validation = list(data.batches("validation", 5, 1))
    assert [len(batch.labels) for batch in validation] == [5, 5, 2]
    labels = np.concatenate([batch.labels for batch in validation])
    assert labels.tolist() == [0] * 6 + [1] * 6
    walks, labels_of = data.sequences("validation")
    assert walks.tolist() == np.repeat(np.arange(6), SAMPLES).tolist()
    assert labels_of.tolist() == [0] * 3 + [1] * 3
    images = np.concatenate([batch.images for batch in validation])
    assert images.shape == (12, *SHAPE) and images.dtype == np.float32
    assert 0.3 < images.std() < 3

    def order(seed: int, epoch: int) -> list[float]:
        batches = made.open(SHAPE, seed).batches("train", 6, epoch)
        return [float(value) for batch in batches for value in batch.images.std(axis=(1, 2, 3))]

    assert len(order(0, 1)) == 24  # of 28; what is left over is dropped
    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) and order(0, 1) != order(1, 1)


def test_a_mirror_turns_some_training_samples_and_no_validation_samples(made: Walkers) -> None:
    plain = made.open(SHAPE, 0)
    mirrored = Walkers(dataclasses.replace(made._options, mirror=True)).open(SHAPE, 0)
    turned = 0
    for one, other in zip(plain.batches("train", 4, 1), mirrored.batches("train", 4, 1), strict=True):
        for image, maybe in zip(one.images, other.images, strict=True):
            x, y = image[::2, :, ::-1], image[1::2, :, ::-1]
            if not np.array_equal(image, maybe):
                turned += 1
                np.testing.assert_allclose(maybe[::2], -x, atol=1e-5)
                np.testing.assert_allclose(maybe[1::2], y, atol=1e-5)
    assert 6 <= turned <= 22
    for one, other in zip(plain.batches("validation", 8, 1), mirrored.batches("validation", 8, 1), strict=True):
        np.testing.assert_array_equal(one.images, other.images)


@pytest.mark.parametrize("mirror", [True, False])
def test_samples_that_devices_keep_make_the_same_batches(made: Walkers, mirror: bool) -> None:
    """Of each engine: to the last bit, epoch after epoch, those in the mirror too."""
    options = dataclasses.replace(made._options, mirror=mirror)
    sent, kept = (Walkers(dataclasses.replace(options, resident=resident)).open(SHAPE, 0) for resident in (False, True))
    assert isinstance(kept, Adapting)
    kept.adapt(Consumer(kinds=(HeldBatch,)))
    splits: tuple[Split, ...] = ("train", "validation")
    for fed in fed_by.engines():
        both = (
            fed([b for epoch in (1, 2) for split in splits for b in data.batches(split, 5, epoch)])
            for data in (kept, sent)
        )
        for (images, labels), (wanted, expected) in zip(*both, strict=True):
            np.testing.assert_array_equal(images, wanted)
            np.testing.assert_array_equal(labels, expected)
    [held] = {batch.held for batch in kept.batches("train", 5, 1) if isinstance(batch, HeldBatch)}
    assert isinstance(kept, Holding) and kept.held("train") is held
    assert len(held.pixels) == 28 * (2 if mirror else 1)
    assert kept.sequences("validation")[0].tolist() == sent.sequences("validation")[0].tolist()


def test_each_worker_is_given_its_part_of_kept_samples(made: Walkers) -> None:
    resident = dataclasses.replace(made._options, mirror=True, resident=True)

    def batches(split: Split, rank: int, world: int) -> list[Batch]:
        data = Walkers(resident).open(SHAPE, 0)
        data.adapt(Consumer(rank, world, (HeldBatch,)))
        return list(data.batches(split, 5, 1))

    for split in ("train", "validation"):
        for batch, *shares in zip(batches(split, 0, 1), *(batches(split, rank, 2) for rank in range(2)), strict=True):
            assert {share.whole for share in shares} == {len(batch.labels)}
            np.testing.assert_array_equal(np.concatenate([share.images for share in shares]), batch.images)
            assert np.concatenate([share.labels for share in shares]).tolist() == batch.labels.tolist()


def test_samples_that_cannot_be_kept_are_refused_in_one_line(made: Walkers, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Walkers(dataclasses.replace(made._options, mirror=True, resident=True)).open(SHAPE, 0)
    with pytest.raises(DataError, match="the engine keeps no images"):
        data.adapt(Consumer())
    free = psutil.virtual_memory()._replace(available=(2 * 28 + 12) * 180_000 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(DataError, match=r"dataset\.resident=true: .* GB of memory are free; use fewer walks"):
        data.adapt(Consumer(kinds=(HeldBatch,)))


def test_a_network_of_another_input_is_refused(made: Walkers) -> None:
    with pytest.raises(DataError, match=r"'walkers' has samples of 50x60x60 and the network takes 1x28x28"):
        made.open((1, 28, 28), 0)


def test_without_a_folder_of_their_own_options_share_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    changes = ({}, {"persons": 3}, {"set_seed": 1}, {"difficulty": 2.0}, {"frames": 40}, {"flow": "farneback"})
    folders = [Walkers(dataclasses.replace(OPTIONS, **change)).preparation().folder for change in changes]
    assert len(set(folders)) == len(changes)
    assert all(os.path.commonpath([folder, tmp_path]) == str(tmp_path) for folder in folders)
    assert Walkers(dataclasses.replace(OPTIONS, mirror=True)).preparation().folder == folders[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"persons": 1}, "from 2"),
        ({"frames": 25}, "from 26"),
        ({"difficulty": -1.0}, "0 to 10"),
        ({"set_seed": -1}, "0"),
    ],
)
def test_what_makes_no_walkers_is_refused(options: dict[str, float], words: str) -> None:
    [key] = options
    with pytest.raises(ConfigError, match=rf"dataset\.{key}=.*{words}"):
        WalkersOptions(**options)
