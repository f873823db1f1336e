"""Scores of pixels against masks: thresholds, score histograms, average precision (PxAP), mask files.

N maps of S x S pixels, T thresholds, bins = T + 3. Source: the released code and the WSOL evaluation protocol (Choe et
al., CVPR 2020). Memory: one histogram [2, bins] for any number of pixels.
"""

import os

import cv2
import numpy as np
import torch

from ..errors import UserError
from ..masks import read_region, square


def thresholds(threshold_type, interval):
    """The protocol's thresholds [T], ascending: 'even' in [0, 1) or 'log' from about 1e-7 to 1."""
    if threshold_type == 'even':
        return np.arange(0, 1, interval)
    if threshold_type == 'log':  # scalar powers: NumPy's array power rounds differently
        return np.array([10**-t for t in np.arange(0, 7, interval * 7)[::-1]])
    raise UserError(f'unknown threshold type {threshold_type!r}: choose one of even, log')


def histogram_edges(taus):
    """Bin edges [T + 4]: -inf, the thresholds, 1, 2, 3. The first bin holds scores below the first threshold."""
    return np.concatenate([[-np.inf], taus, [1, 2, 3]])


def pixel_histogram(maps, masks, edges, keep=None):
    """Counts [N, 2, bins] of the scores at negative (0) and positive (1) pixels.

    maps: scores in [0, 1] [N, S, S]; masks: bool [N, S, S]; edges: [bins + 1], half-open bins [a, b); keep: bool
    [N, S, S], pixels that count (None: all).
    """
    bins = len(edges) - 1
    scores = torch.as_tensor(maps).to(torch.float64).flatten(1)  # [N, SS]
    index = torch.bucketize(scores, torch.as_tensor(edges, device=scores.device), right=True) - 1  # [N, SS]
    index += bins * torch.as_tensor(masks, device=scores.device).flatten(1)
    index += 2 * bins * torch.arange(len(scores), device=scores.device)[:, None]
    if keep is not None:
        index = index[torch.as_tensor(keep, device=scores.device).flatten(1)]
    counts = torch.bincount(index.flatten(), minlength=2 * bins * len(scores))
    return counts.view(len(scores), 2, bins).cpu().numpy()


def pixel_average_precision(histogram):
    """PxAP in percent from counts [2, bins] (negatives, positives), ascending bins; None without positive pixels."""
    negative, positive = histogram[:, ::-1].astype(np.float64)
    tp = positive.cumsum()
    fp = negative.cumsum()
    if tp[-1] == 0:
        return None
    some = tp + fp > 0
    precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=some)
    recall = tp / tp[-1]
    return float(100 * (precision[1:] * np.diff(recall))[some[1:]].sum())


def mask_histogram(score_map, foreground, ignore, taus):
    """Counts [2, bins] of the scores [S, S] at background and foreground pixels, without ignored background.

    foreground, ignore: bool [S, S].
    """
    keep = foreground | ~ignore
    return pixel_histogram(score_map[None], foreground[None], histogram_edges(taus), keep=keep[None])[0]


def mask_counts(histogram):
    """Counts of one image: {histogram: [2, bins] from `mask_histogram`; images: 1}."""
    return {'histogram': histogram, 'images': 1}


def mask_figures(counts):
    """{PxAP} in percent from summed `mask_counts`; None without foreground pixels."""
    return {'PxAP': pixel_average_precision(counts['histogram'])}


def read_mask(path, size):
    """A mask file as bool [size, size]: grey, OpenCV's nearest pixel, > .5. Raises UserError if missing or damaged."""
    grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE) if os.path.isfile(path) else None
    if grey is None:
        raise UserError(f'mask {path} is {"unreadable" if os.path.isfile(path) else "missing"}: restore the file')
    return cv2.resize(grey.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST) > 0.5


def read_ground_truth(folder, masks, ignore, size):
    """(foreground, ignore), bool [size, size]: the union of the instance masks, and the ignore mask (empty without
    one).

    masks: paths below `folder`; ignore: one path, '' for none; None: masks of the user's photographs (`wsol.masks`),
    which do not follow the protocol.
    """
    paths = [os.path.join(folder, path) for path in masks]
    if ignore is None:
        foreground = np.any([square(read_region(path), size) for path in paths], axis=0)
    else:
        foreground = np.any([read_mask(path, size) for path in paths], axis=0)
    return foreground, read_mask(os.path.join(folder, ignore), size) if ignore else np.zeros_like(foreground)
