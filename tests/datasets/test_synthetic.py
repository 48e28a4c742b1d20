"""Random data: as many as asked for, the same for a seed, without labels that mean anything."""

from __future__ import annotations

import numpy as np
import pytest

from energybench.errors import ConfigError
from energybench_plugins.datasets import synthetic
from energybench_plugins.datasets.synthetic import Synthetic, SyntheticOptions

SHAPE = (3, 5, 4)


def opened(seed=0, **options):
    return Synthetic(SyntheticOptions(**({"classes": 7, "images": 50, "validation_images": 23} | options))).open(
        SHAPE, seed
    )


def sizes(dataset, split, batch):
    return [len(part.images) for part in dataset.batches(split, batch, 1)]


@pytest.mark.parametrize(
    ("split", "batch", "expected"),
    [
        ("train", 10, [10] * 5),
        ("train", 16, [16] * 3),
        ("train", 50, [50]),
        ("train", 51, []),
        ("validation", 10, [10, 10, 3]),
        ("validation", 23, [23]),
        ("validation", 100, [23]),
    ],
)
def test_sizes(split, batch, expected):
    assert sizes(opened(), split, batch) == expected


def test_what_a_batch_is():
    labels = []
    for batch in opened().batches("train", 10, 1):
        assert (batch.images.shape, batch.images.dtype) == ((10, *SHAPE), np.float32)
        assert batch.images.flags.c_contiguous
        assert batch.labels.dtype == np.int64
        labels.extend(batch.labels)
    assert len(set(labels)) > 1
    assert set(labels) <= set(range(7))


def test_it_is_unlabelled_so_that_no_accuracy_comes_of_it():
    info = Synthetic(SyntheticOptions()).info()
    assert (info.labelled, info.classes, info.train_images, info.validation_images) == (False, 1000, 1280, 0)


def test_a_seed_makes_it_again():
    def images(seed):
        return np.concatenate([batch.images for batch in opened(seed).batches("train", 10, 1)])

    np.testing.assert_array_equal(images(3), images(3))
    assert not np.array_equal(images(3), images(4))


def test_pixels_are_standard_normal():
    images = np.concatenate([part.images for part in opened(images=4000).batches("train", 100, 1)])
    assert images.mean() == pytest.approx(0.0, abs=0.02)
    assert images.std() == pytest.approx(1.0, abs=0.02)


def test_a_small_pool_goes_round_in_whole_batches(monkeypatch):
    monkeypatch.setattr(synthetic, "POOL_BYTES", 4 * 60 * 13)  # 13 images
    parts = list(opened().batches("train", 5, 1))
    images = np.concatenate([part.images for part in parts])
    assert len(images) == 50
    assert all(part.images.flags.c_contiguous for part in parts)
    np.testing.assert_array_equal(images, images[np.arange(50) % 10])
    assert len(np.unique(images[:10, 0, 0, 0])) == 10


@pytest.mark.parametrize("pool", [13, 3])
def test_batches_of_the_same_key_and_size_are_the_same(monkeypatch, pool):
    monkeypatch.setattr(synthetic, "POOL_BYTES", 4 * 60 * pool)
    dataset, seen = opened(), {}
    for part in [
        *dataset.batches("train", 5, 1),
        *dataset.batches("validation", 5, 1),
        *dataset.batches("train", 5, 2),
    ]:
        first = seen.setdefault((part.key, len(part.labels)), part)
        np.testing.assert_array_equal(part.images, first.images)
        np.testing.assert_array_equal(part.labels, first.labels)
    assert len(seen) == (3 if pool == 13 else 2)  # the last batch of a validation has 3 samples


def test_a_pool_smaller_than_a_batch(monkeypatch):
    monkeypatch.setattr(synthetic, "POOL_BYTES", 1)
    assert sizes(opened(), "train", 50) == [50]


def test_without_validation_there_is_none():
    assert sizes(opened(validation_images=0), "validation", 10) == []


@pytest.mark.parametrize(("key", "value"), [("classes", 1), ("images", 0), ("validation_images", -1)])
def test_options_are_checked(key, value):
    with pytest.raises(ConfigError, match=f"dataset.{key}={value}: give a whole number from"):
        SyntheticOptions(**{key: value})
