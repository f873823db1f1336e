"""Weakly supervised localization: boxes and masks against score maps (Choe et al., CVPR 2020 and the extended TPAMI version).

S is the side of the score map; T thresholds, K contours, G true boxes, I IoU thresholds. A box is x0, y0, x1, y1 with
inclusive pixels. Boxes come from the protocol's contours: MaxBoxAcc takes the largest one, MaxBoxAccV2 any of them.
"""

import os

import cv2
import numpy as np

from . import metrics
from .errors import UserError

MAX_BOX_ACC_IOU = 50  # percent


def score_maps(maps, size):
    """Maps [N, h, w] to score maps [N, size, size] in [0, 1]: OpenCV's bicubic filter, then min-max."""
    return metrics.normalize(metrics.resize(maps, size, cv2.INTER_CUBIC), 'minmax')


def scale_boxes(boxes, image_size, size):
    """Boxes of an image of (width, height) pixels on its size x size map, truncated to integers [G, 4]."""
    return np.array([[int(value * size / side) for value, side in zip(box, image_size * 2)] for box in boxes])


def levels(image, taus):
    """The 8-bit level int(tau * maximum) of each threshold [T]; foreground is what lies above it. image: uint8 [S, S]."""
    return (taus * int(image.max())).astype(np.int64)


def contour_boxes(binary):
    """(boxes [K, 4] of all contours, index of the one of largest area); without a contour the box 0, 0, 0, 0.

    binary: uint8 [S, S]. The far sides are x + width and y + height, one pixel beyond the contour, at most S - 1.
    Noise has thousands of contours: boxes and areas (the shoelace formula, cv2.contourArea's figure) are made of all at once.
    """
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), np.int64), 0
    ends = np.cumsum([len(contour) for contour in contours])
    starts = np.concatenate([[0], ends[:-1]])
    points = np.concatenate(contours)[:, 0]  # [P, 2]
    after = np.concatenate([points[1:], points[:1]])
    after[ends - 1] = points[starts]
    area = np.abs(
        np.add.reduceat(points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1], starts)
    )  # twice the area [K]
    far = np.minimum(np.maximum.reduceat(points, starts) + 1, np.array(binary.shape[::-1]) - 1)
    return np.concatenate([np.minimum.reduceat(points, starts), far], axis=1), int(area.argmax())


def inclusive_iou(a, b):
    """IoU of boxes a [K, 4] and b [G, 4], far sides included: [K, G]."""
    a, b = a[:, None], b[None]  # [K, 1, 4], [1, G, 4]
    area = lambda low, high: np.maximum(high - low + 1, 0).prod(axis=-1)
    both = area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))  # [K, G]
    return both / (area(a[..., :2], a[..., 2:]) + area(b[..., :2], b[..., 2:]) - both)


def best_ious(score_map, boxes, taus):
    """Highest IoU with any true box at each threshold, of the largest contour (0) and of all contours (1): [2, T].

    score_map: [S, S] in [0, 1]; boxes: true boxes [G, 4]. Thresholds with the same foreground share one search for contours.
    """
    image = (score_map * 255).astype(np.uint8)
    values = np.unique(image)
    lowest = np.searchsorted(values, levels(image, taus), side='right')  # foreground: values[lowest] and above
    found, row = np.unique(lowest, return_inverse=True)
    ious = np.zeros((len(found), 2))
    for n, first in enumerate(found):
        binary = (image >= values[first]).astype(np.uint8) if first < len(values) else np.zeros_like(image)
        proposals, largest = contour_boxes(binary)
        best = inclusive_iou(proposals, boxes).max(axis=1)
        ious[n] = best[largest], best.max()
    return ious[row].T  # [2, T]


class BoxScores:
    """Counts of images localized at each threshold and IoU; memory is [2, I, T], however many images come."""

    def __init__(self, taus, iou_percent):
        self.taus, self.iou_percent = taus, sorted({*iou_percent, MAX_BOX_ACC_IOU})
        self.chosen = sorted(set(iou_percent))
        self.correct = np.zeros((2, len(self.iou_percent), len(taus)), np.int64)
        self.images = 0

    def accumulate(self, ious):
        """Add one image's `best_ious` [2, T]."""
        self.correct += ious[:, None] >= np.array(self.iou_percent)[:, None] / 100  # [2, I, T]
        self.images += 1

    def counts(self):
        """{name: array or number} of what was accumulated."""
        return {'correct': self.correct, 'images': self.images}

    def compute(self):
        """{MaxBoxAcc, MaxBoxAccV2, and for each choice of contours {IoU: {accuracy, threshold}}}, in percent of the images."""
        accuracy = 100 * self.correct / self.images
        tables = [
            {
                str(iou): {'accuracy': float(row.max()), 'threshold': float(self.taus[row.argmax()])}
                for iou, row in zip(self.iou_percent, rows)
            }
            for rows in accuracy
        ]
        return {
            'MaxBoxAcc': tables[0][str(MAX_BOX_ACC_IOU)]['accuracy'],
            'MaxBoxAccV2': float(np.mean([tables[1][str(iou)]['accuracy'] for iou in self.chosen])),
            'largest_contour': tables[0],
            'all_contours': tables[1],
        }


class MaskScores:
    """Score histograms of the foreground and the background; memory is [2, bins]."""

    def __init__(self, taus):
        self.histogram = np.zeros((2, len(taus) + 3), np.int64)
        self.images = 0

    def accumulate(self, histogram):
        """Add one image's histogram [2, bins] from `mask_histogram`."""
        self.histogram += histogram
        self.images += 1

    def counts(self):
        """{name: array or number} of what was accumulated."""
        return {'histogram': self.histogram, 'images': self.images}

    def compute(self):
        """{PxAP} in percent, None without a foreground pixel."""
        return {'PxAP': metrics.pixel_average_precision(self.histogram)}


def mask_histogram(score_map, foreground, ignore, taus):
    """Counts [2, bins] of the scores [S, S] at background and foreground; ignored background (bool [S, S]) is in neither."""
    counts = metrics.pixel_histogram(
        score_map[None], foreground[None], metrics.histogram_edges(taus), keep=foreground[None] | ~ignore[None]
    )
    return counts[0]


def read_mask(path, size):
    """A mask file as bool [size, size]: grey, OpenCV's nearest pixel, > .5. A missing or damaged file is a ValueError."""
    grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE) if os.path.isfile(path) else None
    if grey is None:
        raise UserError(f'mask {path} is {"unreadable" if os.path.isfile(path) else "missing"}: restore the file')
    return cv2.resize(grey.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST) > 0.5


def read_ground_truth(folder, masks, ignore, size):
    """(foreground, ignore) bool [size, size]: the union of the instance masks, and the ignore mask or nothing where there is none."""
    foreground = np.any([read_mask(os.path.join(folder, path), size) for path in masks], axis=0)
    return foreground, read_mask(os.path.join(folder, ignore), size) if ignore else np.zeros_like(foreground)
