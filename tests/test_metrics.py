"""Scores against slow independent versions."""

import cv2
import numpy as np
import pytest
import torch

from wsol import metrics


def test_thresholds_are_the_released_lists():
    even = metrics.thresholds('even', 0.001)
    assert len(even) == 1000 and even[1] == 0.001 and even[-1] == pytest.approx(0.999)
    log = metrics.thresholds('log', 0.001)
    assert len(log) == 1000 and log[-1] == 1 and log[0] == pytest.approx(10**-6.993) and (np.diff(log) > 0).all()
    released = [10 ** (th * (-1)) for th in np.arange(0, 7, 0.001 * 7)[::-1]]
    assert log.tolist() == released
    with pytest.raises(ValueError, match='even, log'):
        metrics.thresholds('linear', 0.1)


@pytest.mark.parametrize('kind', ['even', 'log'])
def test_histogram_equals_numpys(kind):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 9, 7)).astype(np.float32) ** 6
    maps[0, 0, :4] = [0, 1, 0.001, 0.5]
    masks = rng.random(maps.shape) < 0.3
    taus = metrics.thresholds(kind, 0.01)
    counts = metrics.pixel_histogram(maps, masks, metrics.histogram_edges(taus))
    for n in range(3):
        for row, chosen in ((0, ~masks[n]), (1, masks[n])):
            scores = maps[n][chosen].astype(np.float64)
            want, _ = np.histogram(scores, bins=np.append(taus, [1.0, 2.0, 3.0]))
            assert counts[n, row, 1:].tolist() == want.tolist()
            assert counts[n, row, 0] == (scores < taus[0]).sum()


def slow_average_precision(positive, negative):
    """Over the bins from the highest down: sum of precision times recall gained, the first bin left out."""
    tp = fp = area = previous = 0
    total = sum(positive)
    for step, (p, n) in enumerate(zip(reversed(positive), reversed(negative))):
        tp, fp = tp + p, fp + n
        if tp + fp == 0:
            continue
        if step > 0:
            area += tp / (tp + fp) * (tp / total - previous)
        previous = tp / total
    return 100 * area


def test_pixel_average_precision_equals_the_slow_version():
    rng = np.random.default_rng(1)
    for _ in range(20):
        counts = rng.integers(0, 5, (2, 12)) * (rng.random((2, 12)) < 0.6)
        counts[1, 3] += 1
        counts[:, -1] = 0
        assert metrics.pixel_average_precision(counts) == pytest.approx(
            slow_average_precision(counts[1].tolist(), counts[0].tolist())
        )


def test_pixel_average_precision_by_hand():
    assert metrics.pixel_average_precision(np.array([[4, 0, 0, 0], [0, 0, 2, 0]])) == 100  # positives above negatives
    assert metrics.pixel_average_precision(np.array([[0, 0, 2, 0], [2, 0, 0, 0]])) == 50  # and below
    assert metrics.pixel_average_precision(np.array([[3, 0], [0, 0]])) is None


def test_normalize_follows_the_protocol():
    maps = np.array(
        [[[2.0, 4.0], [1.0, 3.0]], [[5.0, 5.0], [5.0, 5.0]], [[np.nan, 1.0], [0.0, 2.0]], [[-1.0, 0.0], [0.5, 2.0]]],
        np.float32,
    )
    kept = maps.copy()
    assert metrics.normalize(maps, 'max')[0].tolist() == [[0.5, 1.0], [0.25, 0.75]]
    assert metrics.normalize(maps, 'minmax')[0, 1].tolist() == [0, pytest.approx(2 / 3)]
    assert metrics.normalize(maps, 'clipping')[3].tolist() == [[0, 0], [0.5, 1]]
    for kind in ('max', 'minmax', 'clipping'):
        assert not metrics.normalize(maps, kind)[1:3].any()
    np.testing.assert_array_equal(maps, kept)
    with pytest.raises(ValueError, match='minmax'):
        metrics.normalize(maps, 'sum')


def test_resize_is_opencvs_bilinear_filter_on_each_map():
    maps = np.random.default_rng(2).random((3, 5, 5)).astype(np.float32)
    resized = metrics.resize(maps, 17)
    np.testing.assert_array_equal(resized[1], cv2.resize(maps[1], (17, 17)))
    assert metrics.resize(resized, 17) is resized


def test_rank_breaks_ties_by_index_and_erase_takes_the_highest():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0, 2.0]])
    assert metrics.descending_rank(scores).tolist() == [[3, 0, 1, 4, 2]]
    images = torch.ones(1, 3, 1, 5)
    assert metrics.erase(images, metrics.descending_rank(scores), 0.5)[0, 0, 0].tolist() == [
        1,
        0,
        0,
        1,
        1,
    ]  # int(2.5) = 2
    assert images.all()


@pytest.mark.parametrize('k', metrics.ERASE_K)
def test_erase_counts_pixels_as_the_released_code(k):
    rank = metrics.descending_rank(torch.rand(2, 224 * 224))
    erased = metrics.erase(torch.ones(2, 3, 224, 224), rank, k)
    assert (erased[:, 0] == 0).flatten(1).sum(1).tolist() == [int(k * 224 * 224)] * 2
    assert torch.equal(erased[:, 0], erased[:, 2])


def test_ratio_with_nothing_right_is_undefined():
    assert metrics.erasing_ratios([1, 2], [4, 0]) == [0.25, None]


def test_smoothing_keeps_a_constant_and_refuses_even_sizes():
    flat = np.full((1, 9, 9), 0.5, np.float32)
    np.testing.assert_allclose(metrics.smooth(flat, 5), flat, rtol=1e-6)
    assert metrics.smooth(flat, 1) is flat
    with pytest.raises(ValueError, match='odd'):
        metrics.smooth(flat, 4)
