"""Histograms and PxAP: golden figures, slow independent versions, hand cases, mask files."""

import os

import cv2
import numpy as np
import pytest
from conftest import MINICUB

from data.metadata import read_masks
from wsol.scoring import add_up, pixels


def test_thresholds_are_the_released_lists():
    even = pixels.thresholds('even', 0.001)
    assert len(even) == 1000 and even[1] == 0.001 and even[-1] == pytest.approx(0.999)
    log = pixels.thresholds('log', 0.001)
    assert len(log) == 1000 and log[-1] == 1 and log[0] == pytest.approx(10**-6.993) and (np.diff(log) > 0).all()
    released = [10 ** (th * (-1)) for th in np.arange(0, 7, 0.001 * 7)[::-1]]
    assert log.tolist() == released
    with pytest.raises(ValueError, match='even, log'):
        pixels.thresholds('linear', 0.1)


@pytest.mark.parametrize('kind', ['even', 'log'])
def test_histogram_equals_numpys(kind):
    rng = np.random.default_rng(0)
    maps = rng.random((3, 9, 7)).astype(np.float32) ** 6
    maps[0, 0, :4] = [0, 1, 0.001, 0.5]
    masks = rng.random(maps.shape) < 0.3
    taus = pixels.thresholds(kind, 0.01)
    counts = pixels.pixel_histogram(maps, masks, pixels.histogram_edges(taus))
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
        assert pixels.pixel_average_precision(counts) == pytest.approx(
            slow_average_precision(counts[1].tolist(), counts[0].tolist())
        )


def test_pixel_average_precision_by_hand():
    assert pixels.pixel_average_precision(np.array([[4, 0, 0, 0], [0, 0, 2, 0]])) == 100  # positives above negatives
    assert pixels.pixel_average_precision(np.array([[0, 0, 2, 0], [2, 0, 0, 0]])) == 50  # and below
    assert pixels.pixel_average_precision(np.array([[3, 0], [0, 0]])) is None


@pytest.mark.parametrize('interval', [0.001, 0.01])
def test_mask_scores_are_the_golden_ones(golden, golden_maps, interval):
    taus = pixels.thresholds('even', interval)
    total = {}
    for image_id, masks in read_masks(os.path.join(MINICUB, 'metadata/OpenImages/test')).items():
        truth = pixels.read_ground_truth(os.path.join(MINICUB, 'dataset/OpenImages'), *masks, 224)
        histogram = pixels.mask_histogram(golden_maps['OpenImages'][image_id], *truth, taus)
        add_up(total, pixels.mask_counts(histogram))
    assert pixels.mask_figures(total)['PxAP'] == pytest.approx(golden[f'OpenImages/interval={interval}'], abs=1e-9)


def test_ignored_background_is_in_neither_histogram():
    score_map = np.array([[0.9, 0.8], [0.7, 0.1]])
    foreground = np.array([[False, True], [False, False]])
    ignore = np.array([[True, True], [False, False]])
    taus = pixels.thresholds('even', 0.05)
    total = {}
    add_up(total, pixels.mask_counts(pixels.mask_histogram(score_map, foreground, ignore, taus)))
    assert total['histogram'].sum(axis=1).tolist() == [2, 1] and total['images'] == 1
    assert pixels.mask_figures(total)['PxAP'] == 100
    add_up(total, pixels.mask_counts(pixels.mask_histogram(score_map, foreground, np.zeros_like(ignore), taus)))
    assert total['histogram'].sum(axis=1).tolist() == [5, 2] and total['images'] == 2
    assert pixels.mask_figures(total)['PxAP'] == pytest.approx(100 * 2 / 3)


def test_mask_figures_equal_the_slow_version_of_the_summed_histograms():
    rng = np.random.default_rng(5)
    histograms = rng.integers(0, 5, (3, 2, 12))
    histograms[:, :, -1] = 0
    total = {}
    for histogram in histograms:
        add_up(total, pixels.mask_counts(histogram))
    negative, positive = histograms.sum(axis=0).tolist()
    assert pixels.mask_figures(total) == {'PxAP': pytest.approx(slow_average_precision(positive, negative))}
    assert pixels.mask_figures(pixels.mask_counts(np.array([[3, 0], [0, 0]]))) == {'PxAP': None}


def test_masks_are_united_and_read_by_the_nearest_pixel(tmp_path):
    grey = np.zeros((4, 4), np.uint8)
    grey[0, 0], grey[3, 3] = 1, 255
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    cv2.imwrite(str(tmp_path / 'b.png'), grey[::-1])
    foreground, ignore = pixels.read_ground_truth(tmp_path, ['a.png', 'b.png'], '', 8)
    want = np.zeros((8, 8), bool)
    want[:2, :2] = want[6:, 6:] = want[:2, 6:] = want[6:, :2] = True
    np.testing.assert_array_equal(foreground, want)
    assert not ignore.any()
    (tmp_path / 'b.png').write_bytes(b'no picture')
    for name, text in (('b.png', 'unreadable'), ('c.png', 'missing')):
        with pytest.raises(ValueError, match=f'{name} is {text}'):
            pixels.read_mask(str(tmp_path / name), 8)
