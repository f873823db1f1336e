"""Boxes: golden figures, slow independent versions, hand cases."""

import os

import cv2
import numpy as np
import pytest
from conftest import MINICUB

from data.metadata import read_boxes, read_image_ids, read_sizes
from wsol.scoring import add_up, boxes
from wsol.scoring.boxes import best_ious, box_counts, box_figures, counted_ious, inclusive_iou, scale_boxes
from wsol.scoring.maps import normalize
from wsol.scoring.pixels import thresholds


def mean(table, chosen=('30', '50', '70')):
    return np.mean([table[iou]['accuracy'] for iou in chosen])


@pytest.mark.parametrize('interval', [0.001, 0.01])
def test_box_scores_are_the_golden_ones(golden, golden_maps, interval):
    folder = os.path.join(MINICUB, 'metadata/CUB/test')
    taus = thresholds('even', interval)
    true_boxes = read_boxes(folder)
    sizes = read_sizes(folder)
    total = {}
    for image_id in read_image_ids(folder):
        true = scale_boxes(true_boxes[image_id], sizes[image_id], 224)
        add_up(total, box_counts(best_ious(golden_maps['CUB'][image_id], true, taus), [30, 50, 70]))
    result = box_figures(total, taus, [30, 50, 70])
    for many, table in enumerate((result['largest_contour'], result['all_contours'])):
        want = [golden[f'CUB/multi_contour={many}/multi_iou={several}/interval={interval}'] for several in (0, 1)]
        assert [table['50']['accuracy'], mean(table)] == pytest.approx(want, abs=1e-9)
    assert (result['MaxBoxAcc'], result['MaxBoxAccV2']) == (
        result['largest_contour']['50']['accuracy'],
        pytest.approx(mean(table)),
    )


def slow_iou(a, b):
    """Pixels in both boxes over pixels in either, counted one by one."""
    inside = [{(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)} for box in (a, b)]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


def slow_best_ious(score_map, boxes, taus):
    """Each threshold on its own, each contour on its own."""
    size, rows = len(score_map), []
    image = (score_map * 255).astype(np.uint8)
    for tau in taus:
        binary = np.where(image > int(tau * image.max()), 255, 0).astype(np.uint8)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        best = []
        for chosen in ([max(contours, key=cv2.contourArea)] if contours else [], contours):
            corners = [cv2.boundingRect(contour) for contour in chosen]
            proposals = [(x, y, min(x + w, size - 1), min(y + h, size - 1)) for x, y, w, h in corners] or [(0, 0, 0, 0)]
            best.append(max(slow_iou(one, true) for one in proposals for true in boxes))
        rows.append(best)
    return np.array(rows).T


@pytest.mark.parametrize('blur', [0, 1, 4])
def test_box_scores_equal_the_slow_version(blur):
    rng = np.random.default_rng(blur)
    taus = thresholds('even', 0.02)
    for _ in range(3):
        noise = rng.random((24, 24), np.float32)
        score_map = normalize((cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise)[None], 'minmax')[0]
        score_map[rng.random((24, 24)) < 0.2] = 0
        boxes = np.array([[3, 2, 12, 17], [10, 11, 20, 23]])
        np.testing.assert_allclose(
            best_ious(score_map, boxes, taus), slow_best_ious(score_map, boxes, taus), rtol=1e-12
        )


def test_contours_are_searched_once_for_each_foreground(monkeypatch):
    calls = []
    search = boxes.contour_boxes
    monkeypatch.setattr(boxes, 'contour_boxes', lambda binary: calls.append(int(binary.sum())) or search(binary))
    score_map = np.zeros((9, 9))
    score_map[2:7, 2:7], score_map[4, 4] = 0.5, 1
    best_ious(score_map, np.array([[2, 2, 7, 7]]), thresholds('even', 0.001))
    assert sorted(calls) == [1, 25]


def test_box_cases_by_hand():
    taus = np.array([0, 0.5])

    def ious(score_map, *true):
        return best_ious(score_map, np.array(true), taus).tolist()

    empty, full, two = np.zeros((8, 8)), np.ones((8, 8)), np.zeros((8, 8))
    assert ious(empty, (0, 0, 0, 0)) == [[1, 1], [1, 1]]  # no foreground: the box 0, 0, 0, 0
    assert ious(empty, (0, 0, 1, 1)) == [[0.25] * 2] * 2
    assert ious(full, (0, 0, 7, 7)) == [[1, 1], [1, 1]]  # the far sides end at the last pixel
    two[0:4, 0:4], two[6, 5:7] = 0.4, 1  # a large weak blob, a small strong one
    assert ious(two, (0, 0, 4, 4)) == [[1, 0], [1, 0]]  # x + width lies one pixel beyond the blob
    assert ious(two, (5, 6, 7, 7)) == [[0, 1], [1, 1]]  # above .5 the small one is the largest left
    assert ious(two, (5, 6, 7, 7), (0, 0, 4, 4)) == [[1, 1], [1, 1]]  # any true box will do
    assert ious(two, (0, 0, 3, 3)) == [[16 / 25, 0], [16 / 25, 0]]


def test_iou_counts_the_far_sides():
    a, b = np.array([[0, 0, 1, 1], [4, 4, 4, 4]]), np.array([[1, 1, 2, 2], [0, 0, 3, 1], [5, 4, 6, 4]])
    assert inclusive_iou(a, b).tolist() == [[1 / 7, 0.5, 0], [0, 0, 0]]
    assert scale_boxes([(10, 20, 99, 50)], (100, 200), 224).tolist() == [[22, 22, 221, 56]]


def test_an_image_counts_when_the_iou_is_reached_and_the_best_threshold_is_the_first():
    total = {}
    for ious in ([[0.5, 0.49, 0.2], [0.7, 0.5, 0.3]], [[0, 0.5, 0.1], [0, 0.5, 0.3]]):
        add_up(total, box_counts(np.array(ious), [30, 70]))
    result = box_figures(total, np.array([0, 0.25, 0.5]), [30, 70])
    assert result['MaxBoxAcc'] == 50 and result['largest_contour']['50'] == {'accuracy': 50, 'threshold': 0}
    assert result['all_contours']['30'] == {'accuracy': 100, 'threshold': 0.25}
    assert result['MaxBoxAccV2'] == 75  # IoU .5 is not among the chosen


def test_counts_and_figures_equal_a_loop_over_images_thresholds_and_ious():
    rng = np.random.default_rng(6)
    taus = np.array([0, 0.2, 0.4, 0.6])
    chosen = [70, 30, 70]
    images = np.round(rng.random((7, 2, 4)), 1)  # round IoUs: some are reached exactly
    total = {}
    for ious in images:
        part = box_counts(ious, chosen)
        assert part['correct'].dtype == np.int64 and part['correct'].shape == (2, 3, 4) and part['images'] == 1
        add_up(total, part)
    assert counted_ious(chosen) == [30, 50, 70] and total['images'] == 7
    result = box_figures(total, taus, chosen)
    for many, name in enumerate(('largest_contour', 'all_contours')):
        assert list(result[name]) == ['30', '50', '70']
        for iou in (30, 50, 70):
            rates = [100 * sum(ious[many, t] >= iou / 100 for ious in images) / 7 for t in range(4)]
            assert result[name][str(iou)]['accuracy'] == pytest.approx(max(rates))
            assert result[name][str(iou)]['threshold'] == taus[rates.index(max(rates))]
    assert result['MaxBoxAcc'] == result['largest_contour']['50']['accuracy']
    assert result['MaxBoxAccV2'] == pytest.approx(mean(result['all_contours'], ('30', '70')))
