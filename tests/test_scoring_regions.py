"""Scores by true regions: slow independent versions and hand cases."""

import numpy as np
import pytest

from wsol.scoring import regions


def test_the_region_is_the_union_of_boxes_with_their_far_sides():
    region = regions.box_region(np.array([[1, 2, 3, 2], [3, 0, 4, 9]]), 5)

    def inside(x, y):
        return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in ((1, 2, 3, 2), (3, 0, 4, 9)))

    assert region.tolist() == [[inside(x, y) for x in range(5)] for y in range(5)]
    beyond = regions.box_region(np.array([[-2, -1, 1, 9], [-3, 0, -1, 4]]), 5)  # of a box, what lies in the image
    assert (beyond == (np.arange(5) <= 1)).all()


def test_proportion_equals_the_slow_version():
    rng = np.random.default_rng(3)
    scaled = rng.random((7, 7), np.float32)
    region = rng.random((7, 7)) < 0.4
    keep = rng.random((7, 7)) < 0.7
    for mask in (None, keep):
        inside = total = 0
        for y in range(7):
            for x in range(7):
                if mask is None or mask[y, x]:
                    total += float(scaled[y, x])
                    inside += float(scaled[y, x]) * region[y, x]
        assert regions.proportion(scaled, region, mask) == pytest.approx(inside / total)
    assert regions.proportion(np.zeros((2, 2)), np.ones((2, 2), bool)) == 0
    assert regions.proportion(np.ones((2, 2)), np.array([[True, False], [False, False]])) == 0.25


def test_the_iou_of_the_map_s_mask_and_the_box_by_hand():
    scaled = np.zeros((4, 4))
    region = np.zeros((4, 4), bool)
    region[1:3, 1:3] = True
    scaled[1:3, 1:3] = [[0.9, 0.6], [0.3, 0.1]]
    scaled[0, 3] = 0.5
    taus = np.array([0, 0.3, 0.5, 0.8, 0.9])
    expected = [4 / (4 + 1), 2 / (4 + 1), 2 / 4, 1 / 4, 0]  # what equals a threshold is not above it
    assert regions.mask_ious(scaled, region, taus).tolist() == expected
    assert regions.mask_ious(scaled + 1e-6, region, taus[1:]).tolist() == expected[1:]  # nor what rounding puts there
    assert regions.mask_ious(region.astype(float), region, taus).tolist() == [1] * 5
    assert regions.mask_ious(np.zeros((4, 4)), region, taus).tolist() == [0] * 5
    nowhere = np.zeros((4, 4), bool)
    assert regions.mask_ious(np.zeros((4, 4)), nowhere, taus).tolist() == [0] * 5
    assert regions.mask_ious(scaled, nowhere, taus).tolist() == [0] * 5


def test_the_iou_of_the_map_s_mask_and_the_box_equals_the_slow_version():
    rng = np.random.default_rng(5)
    scaled = rng.random((6, 6), np.float32)
    region = rng.random((6, 6)) < 0.4
    taus = np.arange(0, 1, 0.07)
    for tau, found in zip(taus, regions.mask_ious(scaled, region, taus), strict=True):
        above = [(y, x) for y in range(6) for x in range(6) if float(scaled[y, x]) > tau]
        inside = [cell for cell in above if region[cell]]
        assert found == pytest.approx(len(inside) / (region.sum() + len(above) - len(inside)))


def test_the_pointing_game_by_hand():
    region = np.zeros((20, 20), bool)
    scaled = np.zeros((20, 20))
    region[10:13, 10:13] = True
    scaled[7, 6] = 1  # 3 above and 4 left of the corner: 5 pixels away
    assert regions.pointing_hit(scaled, region, 5) and not regions.pointing_hit(scaled, region, 4.9)
    assert regions.pointing_hit(scaled, region) and not regions.pointing_hit(scaled, region, 0)
    scaled[11, 11] = 1
    assert not regions.pointing_hit(scaled, region, 0)  # of two maxima the first
    scaled[7, 6] = 0.5
    assert regions.pointing_hit(scaled, region, 0)
    assert not regions.pointing_hit(np.zeros((20, 20)), region)
    one = np.zeros((40, 40), bool)
    one[20, 4] = True
    for x, hit in ((18, True), (19, True), (20, False)):  # 15 pixels, unless told otherwise
        peak = np.zeros((40, 40))
        peak[20, x] = 1
        assert regions.pointing_hit(peak, one) == regions.pointing_hit(peak.T, one.T) == hit
    assert not regions.pointing_hit(scaled, np.zeros_like(region))
