"""A decision on a sequence is the sum of what the network says of its samples, in every engine."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
from gluon_runs import batches

from energybench.run.worker import share_right

SEQUENCES = np.array([0, 0, 1, 1, 1, 2, 0, 3, 3, 1], np.int64)
SIZES = (4, 4, 2)


@pytest.fixture(params=[pytest.param("gluon", marks=pytest.mark.gluon), pytest.param("torch", marks=pytest.mark.torch)])
def trainer(request, tmp_path):
    """Trains LeNet in batches of 4."""
    if request.param == "gluon":
        if find_spec("mxnet") is None:
            pytest.skip("needs MXNet (pip install 'energybench[gluon]')")
        from gluon_runs import trainer_of

        return trainer_of(contexts=2, batch=4)
    pytest.importorskip("torch", reason="needs PyTorch (pip install 'energybench[torch]')")
    from torch_runs import trainer_of

    return trainer_of(directory=tmp_path, batch=4)


def given():
    return [batch for size in SIZES for batch in batches(1, size)]


def test_the_sums_are_those_of_the_samples(trainer):
    plain = trainer.evaluate(trainer.feed(given()))
    found, sums = trainer.evaluate_sequences(trainer.feed(given()), SEQUENCES)
    assert (found.images, found.correct_top1, found.correct_top5) == (10, plain.correct_top1, plain.correct_top5)
    assert found.loss == pytest.approx(plain.loss, rel=1e-5)
    one_by_one = np.zeros((4, 10))
    images = np.concatenate([batch.images for batch in given()])
    labels = np.concatenate([batch.labels for batch in given()])
    for image, label, sequence in zip(images, labels, SEQUENCES, strict=True):
        single = [type(given()[0])(image[None], np.array([label]))]
        one_by_one[sequence] += trainer.evaluate_sequences(trainer.feed(single), np.zeros(1, np.int64))[1][0]
    assert sums.shape == (4, 10)
    np.testing.assert_allclose(sums, one_by_one, atol=1e-4)
    np.testing.assert_allclose(sums.sum(axis=1), [3, 4, 1, 2], rtol=1e-4)


def test_a_sequence_is_right_where_its_largest_sum_is():
    sums = np.array([[0.2, 0.8], [1.1, 0.9], [0.4, 0.6]], np.float32)
    sequences = np.array([0, 1, 1, 2])
    assert share_right(sums, sequences, [1, 0, 0, 0]) == pytest.approx(2 / 3)
    assert share_right(sums, sequences, [1, 1, 1, 1]) == pytest.approx(2 / 3)


def test_ranks_take_their_own_part_of_each_batch():
    torch = pytest.importorskip("torch", reason="needs PyTorch (pip install 'energybench[torch]')")
    from energybench_plugins.engines.torch_validation import SequenceSums

    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 3)))
    whole = SequenceSums(SEQUENCES, 4, 0, 1, 3, torch.device("cpu"))
    whole.add(logits)
    together = torch.zeros_like(whole.sums)
    for rank in range(2):
        mine = SequenceSums(SEQUENCES, 4, rank, 2, 3, torch.device("cpu"))
        for start, size in ((0, 4), (4, 4), (8, 2)):
            mine.add(logits[start + size * rank // 2 : start + size * (rank + 1) // 2])
        together += mine.sums
    torch.testing.assert_close(together, whole.sums)
