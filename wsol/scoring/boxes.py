"""Boxes around regions above a threshold against true boxes: MaxBoxAcc and MaxBoxAccV2.

S is the side of the score map; T thresholds, K contours, G true boxes, I IoU thresholds. A box is x0, y0, x1, y1 with
inclusive pixels. Boxes come from the protocol's contours (Choe et al., CVPR 2020 and the extended TPAMI version):
MaxBoxAcc uses the largest contour, MaxBoxAccV2 any contour. Memory is [2, I, T] for any number of images.
"""

import cv2
import numpy as np

MAX_BOX_ACC_IOU = 50  # percent


def scale_boxes(boxes, image_size, size):
    """Boxes of an image of (width, height) pixels on its size x size map, truncated to integers [G, 4]."""
    return np.array([[int(value * size / side) for value, side in zip(box, image_size * 2)] for box in boxes])


def contour_boxes(binary):
    """(boxes [K, 4] of all contours, index of the one of largest area); without contours the box 0, 0, 0, 0.

    binary: uint8 [S, S]. The far sides are x + width and y + height, one pixel beyond the contour, at most S - 1. Boxes
    and areas (shoelace formula, as cv2.contourArea) are vectorised because noise has thousands of contours.
    """
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    if not contours:
        return np.zeros((1, 4), np.int64), 0
    ends = np.cumsum([len(contour) for contour in contours])
    starts = np.concatenate([[0], ends[:-1]])
    points = np.concatenate(contours)[:, 0]  # [P, 2]
    after = np.concatenate([points[1:], points[:1]])
    after[ends - 1] = points[starts]
    crosses = points[:, 0] * after[:, 1] - after[:, 0] * points[:, 1]  # [P]
    areas = np.abs(np.add.reduceat(crosses, starts))  # twice the area [K]
    far = np.minimum(np.maximum.reduceat(points, starts) + 1, np.array(binary.shape[::-1]) - 1)
    return np.concatenate([np.minimum.reduceat(points, starts), far], axis=1), int(areas.argmax())


def _area(low, high):
    """Pixels of boxes with corners low and high [..., 2], both included; 0 if high lies before low: [...]."""
    return np.maximum(high - low + 1, 0).prod(axis=-1)


def inclusive_iou(a, b):
    """IoU of boxes a [K, 4] and b [G, 4], far sides included: [K, G]."""
    a = a[:, None]  # [K, 1, 4]
    b = b[None]  # [1, G, 4]
    both = _area(np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:]))  # [K, G]
    return both / (_area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both)


def best_ious(score_map, boxes, taus):
    """Highest IoU with any true box per threshold, of the largest contour (0) and of all contours (1): [2, T].

    score_map: [S, S] in [0, 1]; boxes: true boxes [G, 4]. Thresholds with the same foreground share one contour search.
    """
    image = (score_map * 255).astype(np.uint8)
    values = np.unique(image)
    levels = (taus * int(image.max())).astype(np.int64)  # [T], 8 bits; pixels above are foreground
    lowest = np.searchsorted(values, levels, side='right')  # foreground: values[lowest] and above
    found, row = np.unique(lowest, return_inverse=True)
    ious = np.zeros((len(found), 2))
    for n, first in enumerate(found):
        binary = (image >= values[first]).astype(np.uint8) if first < len(values) else np.zeros_like(image)
        proposals, largest = contour_boxes(binary)
        best = inclusive_iou(proposals, boxes).max(axis=1)
        ious[n] = best[largest], best.max()
    return ious[row].T  # [2, T]


def whole_percent(ious):
    """IoUs in percent rounded down, uint8: >= n exactly if the IoU is >= n / 100, as in `box_counts`."""
    return np.searchsorted(np.arange(1, 101) / 100, ious, side='right').astype(np.uint8)


def counted_ious(iou_percent):
    """The counted IoUs in percent [I], ascending: iou_percent and MaxBoxAcc's."""
    return sorted({*iou_percent, MAX_BOX_ACC_IOU})


def box_counts(ious, iou_percent):
    """Counts of one image: {correct: localized at each counted IoU and threshold, int64 [2, I, T]; images: 1}.

    ious: the image's `best_ious` [2, T]; iou_percent: MaxBoxAccV2's IoUs.
    """
    reached = ious[:, None] >= np.array(counted_ious(iou_percent))[:, None] / 100  # [2, I, T]
    return {'correct': reached.astype(np.int64), 'images': 1}


def box_figures(counts, taus, iou_percent):
    """{MaxBoxAcc, MaxBoxAccV2, and per choice of contours {IoU: {accuracy, threshold}}}, in percent of the images.

    counts: summed `box_counts` with the same iou_percent and thresholds taus [T]. Ties: the first threshold.
    """
    accuracy = 100 * counts['correct'] / counts['images']  # [2, I, T]
    tables = [
        {
            str(iou): {'accuracy': float(row.max()), 'threshold': float(taus[row.argmax()])}
            for iou, row in zip(counted_ious(iou_percent), rows)
        }
        for rows in accuracy
    ]
    largest_contour, all_contours = tables
    return {
        'MaxBoxAcc': largest_contour[str(MAX_BOX_ACC_IOU)]['accuracy'],
        'MaxBoxAccV2': float(np.mean([all_contours[str(iou)]['accuracy'] for iou in sorted(set(iou_percent))])),
        'largest_contour': largest_contour,
        'all_contours': all_contours,
    }
