"""One map against one image's true region: the image's contribution to scores that need ground truth.

S is the side of the map at image size, G the number of true boxes, T the number of thresholds.
"""

from typing import NamedTuple

import numpy as np

from .boxes import best_ious, box_counts
from .maps import score_maps
from .pixels import mask_histogram, thresholds

POINTING_TOLERANCE = 15  # pixels; Zhang et al., IJCV 2018
ROUNDING = 1e-5  # tolerance above a threshold: upsampled maps with few active cells often hit thresholds exactly
BOX_METRICS = {'max_box_acc', 'max_box_acc_v2'}  # computed together


class Truth(NamedTuple):
    """Ground truth of one image."""

    boxes: np.ndarray | None  # true boxes [G, 4]; None if the truth is a mask
    region: np.ndarray  # pixels in the boxes or the mask, bool [S, S]
    ignore: np.ndarray | None  # pixels to ignore, bool [S, S]; None if the truth is boxes


def box_region(boxes, size):
    """Pixels in any of the boxes [G, 4], far sides included: bool [size, size]."""
    region = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in boxes:
        region[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = True  # a place below 0 counts from the end
    return region


def proportion(scaled, region, keep=None):
    """Share of the map's energy in the region: energy-based pointing game (Score-CAM, Wang et al., CVPRW 2020).

    scaled: [S, S], >= 0; region: bool [S, S]; keep: bool [S, S], pixels that count (None: all). Zero energy gives 0.
    """
    energy = scaled.astype(np.float64) if keep is None else np.where(keep, scaled, 0).astype(np.float64)
    total = energy.sum()
    return float(energy[region].sum() / total) if total > 0 else 0.0


def pointing_hit(scaled, region, tolerance=POINTING_TOLERANCE):
    """Is the map's highest pixel within `tolerance` pixels of the region? The pointing game (Zhang et al., IJCV 2018).

    scaled, region: [S, S]. Ties: the first in reading order. A constant map is a miss.
    """
    if not scaled.min() < scaled.max():
        return False
    y, x = np.unravel_index(scaled.argmax(), scaled.shape)
    rows, columns = region.nonzero()
    return bool(((rows - y) ** 2 + (columns - x) ** 2 <= tolerance**2).any())


def mask_ious(scaled, region, taus):
    """IoU(d) of the map's pixels above d with the region, per threshold d of taus [T]: Loc of Grad-CAM++.

    Pixels above d inside the region, over the region's pixels plus those above d outside it; no box is drawn around the
    map. scaled: [S, S] in [0, 1]; region: bool [S, S]. An empty region gives 0. Source: Chattopadhyay et al., WACV
    2018, section 4.3, Loc_I^c(d).
    """
    inside = _count_above(scaled[region], taus)
    outside = _count_above(scaled[~region], taus)
    return inside / np.maximum(region.sum() + outside, 1)  # [T]; maximum: avoids 0 / 0


def _count_above(values, taus):
    """Number of values [n] above each threshold [T] by more than ROUNDING."""
    return len(values) - np.searchsorted(np.sort(values), taus + ROUNDING, side='right')


def region_scores(native, scaled, truth, settings):
    """{name: value} of one image for the scores by true regions; settings: `scores.Settings`.

    native: the map at its own size [h, w]; scaled: at image size in [0, 1], [S, S]. Scores by boxes around the map, and
    PxAP, use the bicubic score map of `native`; the others use `scaled`.
    """
    wanted = {*settings.metrics}
    found = {}
    if 'proportion' in wanted:
        keep = None if truth.ignore is None else truth.region | ~truth.ignore
        found['proportion'] = proportion(scaled, truth.region, keep)
    if 'pointing_game' in wanted:
        found['pointing'] = pointing_hit(scaled, truth.region, settings.pointing_tolerance)
    taus = thresholds('even', settings.cam_curve_interval)
    score_map = score_maps(native[None], len(scaled))[0]
    if BOX_METRICS & wanted:
        ious = best_ious(score_map, truth.boxes, taus)
        found['max_box'] = box_counts(ious, settings.iou_thresholds)['correct']
    if 'loc_iou' in wanted:
        best = best_ious(score_map, truth.boxes, np.array([settings.box_threshold]))[0, 0]
        found['located'] = best >= settings.box_iou / 100
    if 'loc_mask_iou' in wanted:
        found['mask_iou'] = mask_ious(scaled, truth.region, taus)
    if 'pxap' in wanted:
        found['histogram'] = mask_histogram(score_map, truth.region, truth.ignore, taus)
    return {name: np.asarray(value, float) for name, value in found.items()}
