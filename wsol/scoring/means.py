"""Figures as functions of means over images, so that a bootstrap resample costs only the means.

Means are arrays [..., d] of d columns, figures [...]; NaN if undefined.
"""

from typing import NamedTuple

import numpy as np


def percent(means):
    """Shares [..., 1], or values in [0, 1], in percent."""
    return 100 * means[..., 0]


def plain(means):
    """Means [..., 1] unchanged."""
    return means[..., 0]


def ratio(means):
    """First column over the second [..., 2]."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(means[..., 1] > 0, means[..., 0] / means[..., 1], np.nan)


def mean_ratio(means):
    """Mean of the defined ratios of the first half of the columns to the second half."""
    half = means.shape[-1] // 2
    ratios = ratio(np.stack([means[..., :half], means[..., half:]], axis=-1))  # [..., K]
    known = ~np.isnan(ratios)
    return ratio(np.stack([np.where(known, ratios, 0).sum(axis=-1), known.sum(axis=-1)], axis=-1))


class Highest(NamedTuple):
    """Mean over groups of columns of each group's highest column, in percent."""

    starts: list  # the first column of each group, ascending from 0

    def __call__(self, means):
        return 100 * np.maximum.reduceat(means, self.starts, axis=-1).mean(axis=-1)

    def needs(self, columns):
        """(columns that count, figure of those): of adjacent columns that are equal for all units, the first."""
        kept = np.r_[True, (columns[:, 1:] != columns[:, :-1]).any(axis=0)]
        kept[self.starts] = True
        return kept, Highest([int(kept[:start].sum()) for start in self.starts])


class PixelAveragePrecision(NamedTuple):
    """PxAP in percent of histograms [..., 2 bins]: negatives, then positives, bins ascending."""

    def __call__(self, means):
        negative, positive = np.moveaxis(means.reshape(*means.shape[:-1], 2, -1)[..., ::-1], -2, 0)
        tp = positive.cumsum(axis=-1)
        both = tp + negative.cumsum(axis=-1)
        with np.errstate(divide='ignore', invalid='ignore'):
            precision = np.where(both > 0, tp / both, 0)[..., 1:]
            return 100 * (precision * np.diff(tp / tp[..., -1:])).sum(axis=-1)

    def needs(self, columns):
        """(columns that count, figure of those): the non-empty bins."""
        used = columns.any(axis=0).reshape(2, -1).any(axis=0)
        used[-1] = True  # recall starts at the last bin, which is empty
        return np.tile(used, 2), self


def column(values):
    """Values [n] as a column [n, 1]."""
    return np.asarray(values, float)[:, None]


def highest(groups):
    """(columns, figure) of `Highest`; groups: arrays [n, T]."""
    return np.concatenate(groups, axis=1), Highest([n * groups[0].shape[1] for n in range(len(groups))])


def average_precision(histogram):
    """(columns, figure) of `PixelAveragePrecision`; histogram: [n, 2, bins]."""
    return histogram.reshape(len(histogram), -1), PixelAveragePrecision()
