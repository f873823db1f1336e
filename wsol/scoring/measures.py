"""How a score is computed from sums over images, and from means over resampled images for its interval.

A map's sums are {name: array}, its rows {name: [n, ...]} for n images; both also contain what all maps share.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import boxes, erasing, means, pixels


def kept_as(kind):
    """A function that stores per-image values [B, ...] with this type."""
    return lambda values: np.asarray(values).astype(kind)


class Measure(NamedTuple):
    """How a score gets from images to its figure."""

    name: str  # of the per-image value
    figure: Callable  # (a map's sums, settings) -> a number, or None if undefined
    of_images: Callable  # (a map's rows, settings) -> (columns [n, d], function: their means [..., d] -> figure)
    kept: Callable = kept_as(float)  # per-image values [B, ...] -> what is stored of them, one row per image
    curve: bool = False  # is the mean over images a curve that results contain?


def percent(name, kind=float):
    """The sum of that name in percent of the images; kind: type of the per-image value."""
    return Measure(
        name,
        lambda total, settings: float(100 * total[name] / total['images']),
        lambda rows, settings: (means.column(rows[name]), means.percent),
        kept_as(kind),
    )


def mean_area(name):
    """Area under the mean curve of that name, which equals the mean area."""
    return Measure(
        name,
        lambda total, settings: float(erasing.area_under(total[name] / total['images'])),
        lambda rows, settings: (means.column(rows[name]), means.plain),
        erasing.area_under,
        curve=True,
    )


def mean_of(name):
    """Mean over the images."""
    return Measure(
        name,
        lambda total, settings: float(np.mean(total[name] / total['images'])),
        lambda rows, settings: (means.column(rows[name]), means.plain),
    )


def mean_curve(name):
    """Mean over the images and over the points of each image's curve."""
    return mean_of(name)._replace(
        of_images=lambda rows, settings: (means.column(rows[name].mean(axis=1)), means.plain), curve=True
    )


def box_accuracy(name):
    """MaxBoxAcc or MaxBoxAccV2: that entry of `boxes.box_figures`."""

    def figure(total, settings):
        counts = {'correct': total['max_box'], 'images': int(total['images'])}
        taus = pixels.thresholds('even', settings.cam_curve_interval)
        return boxes.box_figures(counts, taus, settings.iou_thresholds)[name]

    def of_images(rows, settings):
        counted = boxes.counted_ious(settings.iou_thresholds)
        if name == 'MaxBoxAcc':
            return means.highest([rows['max_box'][:, 0, counted.index(boxes.MAX_BOX_ACC_IOU)]])
        return means.highest([rows['max_box'][:, 1, counted.index(iou)] for iou in sorted({*settings.iou_thresholds})])

    return Measure('max_box', figure, of_images, kept_as(np.bool_))


# Remove-and-classify.


def ratios(total, settings):
    """R_k for each k."""
    random = total['correct_random'] / settings.random_repeats
    return erasing.erasing_ratios(total['correct_topk'].tolist(), random.tolist())


def mean_ratio(total, settings):
    """Mean of the defined R_k."""
    known = [value for value in ratios(total, settings) if value is not None]
    return float(np.mean(known)) if known else None


def _ratio_of_images(rows, settings):
    random = rows['correct_random'] / settings.random_repeats
    return np.concatenate([rows['correct_topk'], random], axis=1), means.mean_ratio


MEAN_RATIO = Measure('correct_topk', mean_ratio, _ratio_of_images, kept_as(np.bool_))


# Wins.


def mean_win(total, settings):
    """Percent of images won against another map, averaged over the others; None if there is no other."""
    others = len(total['wins']) - 1
    return float(100 * total['wins'].sum() / total['images'] / others) if others else None


def _wins_of_images(rows, settings):
    return means.column(rows['wins'] / max(1, rows['maps'] - 1)), means.percent  # maps: number of maps compared


MEAN_WIN = Measure('wins', mean_win, _wins_of_images, kept_as(np.uint16))


# Histograms and curves over thresholds.


def mask_iou_curve(total):
    """Mean IoU(d) over images in percent, per threshold d: mLoc of Grad-CAM++ (`regions.mask_ious`)."""
    return 100 * total['mask_iou'] / total['images']  # [T]


BEST_MASK_IOU = Measure(
    'mask_iou',
    lambda total, settings: float(mask_iou_curve(total).max()),
    lambda rows, settings: means.highest([rows['mask_iou']]),
    kept_as(np.float32),
)
AVERAGE_PRECISION = Measure(
    'histogram',
    lambda total, settings: pixels.mask_figures(total)['PxAP'],
    lambda rows, settings: means.average_precision(rows['histogram']),
    kept_as(np.uint32),
)
