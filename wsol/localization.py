"""Temporary: the old names of what wsol/scoring/ holds now."""

import numpy as np

from .scoring import add_up
from .scoring.boxes import best_ious, box_counts, box_figures, inclusive_iou, scale_boxes  # noqa: F401
from .scoring.maps import score_maps  # noqa: F401
from .scoring.pixels import mask_counts, mask_figures, mask_histogram, read_ground_truth, read_mask  # noqa: F401


class _Totals:
    """The old classes' common part: sums as attributes."""

    def _add(self, part):
        add_up(vars(self), part)

    def counts(self):
        return {name: getattr(self, name) for name in self.names}


class BoxScores(_Totals):
    names = ('correct', 'images')

    def __init__(self, taus, iou_percent):
        self.taus = taus
        self.chosen = iou_percent
        self.correct = box_counts(np.zeros((2, len(taus))) - 1, iou_percent)['correct']
        self.images = 0

    def accumulate(self, ious):
        self._add(box_counts(ious, self.chosen))

    def compute(self):
        return box_figures(self.counts(), self.taus, self.chosen)


class MaskScores(_Totals):
    names = ('histogram', 'images')

    def __init__(self, taus):
        self.histogram = np.zeros((2, len(taus) + 3), np.int64)
        self.images = 0

    def accumulate(self, histogram):
        self._add(mask_counts(histogram))

    def compute(self):
        return mask_figures(self.counts())
