"""Digits: every image once, the same split for every seed, brought to the network's input."""

from __future__ import annotations

import numpy as np
import pytest

from energybench.errors import ConfigError, DataError
from energybench_plugins.datasets.digits import CLASSES, SAMPLES, Digits, DigitsOptions

SHAPE = (1, 8, 8)


def opened(seed=0, shape=SHAPE, **options):
    return Digits(DigitsOptions(**options)).open(shape, seed)


def gathered(dataset, split, batch=64, epoch=1):
    parts = list(dataset.batches(split, batch, epoch))
    return np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts])


def rows(images):
    return sorted(map(bytes, images))


@pytest.fixture(scope="module")
def digits():
    return opened()


def test_sizes_are_those_that_are_announced(digits):
    info = Digits(DigitsOptions()).info()
    assert (info.classes, info.labelled, info.train_images + info.validation_images) == (CLASSES, True, SAMPLES)
    assert len(gathered(digits, "validation")[0]) == info.validation_images
    assert len(gathered(digits, "train", batch=1)[0]) == info.train_images


def test_batches(digits):
    sizes = [len(batch.images) for batch in digits.batches("train", 64, 1)]
    assert set(sizes) == {64}
    assert len(sizes) == 1437 // 64
    assert [len(batch.images) for batch in digits.batches("validation", 100, 1)] == [100, 100, 100, 60]
    for batch in digits.batches("train", 64, 1):
        assert (batch.images.dtype, batch.labels.dtype) == (np.float32, np.int64)
        assert batch.images.flags.c_contiguous
        assert batch.images.shape == (64, *SHAPE)
        assert 0.0 <= batch.images.min() < batch.images.max() <= 1.0
        assert set(batch.labels) <= set(range(CLASSES))


def test_training_and_validation_share_no_sample():
    from sklearn.datasets import load_digits

    dataset = opened()
    both = np.concatenate([gathered(dataset, split, batch=1)[0] for split in ("train", "validation")])
    assert rows(both) == rows((load_digits().images[:, None] / 16).astype(np.float32))


def test_the_split_does_not_depend_on_the_seed(digits):
    for first, second in zip(gathered(digits, "validation"), gathered(opened(seed=5), "validation"), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_order_depends_on_seed_and_epoch_alone(digits):
    images = gathered(digits, "train")[0]
    np.testing.assert_array_equal(gathered(opened(), "train")[0], images)
    assert not np.array_equal(gathered(digits, "train", epoch=2)[0], images)
    assert not np.array_equal(gathered(opened(seed=1), "train")[0], images)
    assert rows(gathered(digits, "train", 1, epoch=2)[0]) == rows(gathered(digits, "train", 1)[0])


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 8), (3, 32, 20)])
def test_it_is_brought_to_the_networks_input(digits, shape):
    images = gathered(opened(shape=shape), "validation")[0]
    assert images.shape[1:] == shape
    assert images.dtype == np.float32
    assert images.min() >= 0.0
    assert images.max() <= 1.0 + 1e-6
    assert images.mean() == pytest.approx(gathered(digits, "validation")[0].mean(), rel=0.05)
    assert np.array_equal(images[:, 0], images[:, -1])


@pytest.mark.parametrize("count", [-1, SAMPLES, SAMPLES + 1])
def test_options_are_checked(count):
    with pytest.raises(ConfigError, match=f"dataset.validation_images={count}: give a number from 0 to {SAMPLES - 1}"):
        DigitsOptions(validation_images=count)


def test_without_validation_there_is_none():
    dataset = opened(validation_images=0)
    assert list(dataset.batches("validation", 64, 1)) == []
    assert len(gathered(dataset, "train", batch=1)[0]) == SAMPLES


def test_it_is_there():
    assert Digits(DigitsOptions()).check().ok


def test_channels_that_do_not_fit_are_refused():
    from energybench.resizing import fit_images

    with pytest.raises(DataError, match="'photos' has 3 channels and the network takes 1"):
        fit_images(np.zeros((2, 3, 8, 8), np.float32), (1, 8, 8), "photos")
