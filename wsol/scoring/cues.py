"""Cue localization: the difference of two classes' maps against the parts that tell the classes apart.

Maps of side S; a pair is two classes (cub_parts.Pair). Memory is one histogram [pairs, 2, bins] a ground truth,
however many images come.
"""

from typing import NamedTuple

import numpy as np
import torch

from .. import cub_parts
from .maps import normalize
from .pixels import pixel_average_precision, pixel_histogram

COUNTS = (1, 2, 3)  # numbers of differing parts that pairs are grouped by


class Cues(NamedTuple):
    """What an evaluation's images are scored by, the same for all of them."""

    parts: np.ndarray  # bool [pairs, 8]: the parts in which a pair differs
    labels: np.ndarray | None  # the same of the true part labels; None where the data set has none
    edges: np.ndarray  # of the histograms' bins [bins + 1]
    norm_type: str  # how differences come to [0, 1]: 'max', 'minmax' or 'clipping'


class CueImage(NamedTuple):
    """One image: N pairs have its class."""

    rows: np.ndarray  # the pairs' rows [N]
    differences: np.ndarray  # of the two classes' maps, a pair each, [N, S, S]; the sign does not matter
    parts: np.ndarray  # the part at each pixel, uint8 [S, S], 0 for none
    exact: np.ndarray  # the true part label at each pixel [S, S], 0 for none
    visible: np.ndarray  # the parts that can be seen, bool [8]


def _membership(sets, width):
    """Bool [len(sets), width]: which numbers below `width` are in each set."""
    return np.array([np.isin(np.arange(width), list(members)) for members in sets]).reshape(len(sets), width)


def make_cues(pairs, edges, exact_labels, norm_type):
    """The `Cues` of the pairs; exact_labels: {label: part name} of the data set's true part pixels, or None."""
    parts = _membership([pair.parts for pair in pairs], 8)
    labels = None
    if exact_labels:
        sets = [cub_parts.exact_labels_of(pair, exact_labels) for pair in pairs]
        labels = _membership(sets, 1 + max(exact_labels))
    return Cues(parts, labels, edges, norm_type)


def class_rows(pairs):
    """{class: (rows of its pairs [N], LongTensor [1 + N] of itself and its partner in each)}."""
    table = {}
    for y in sorted({pair.a for pair in pairs} | {pair.b for pair in pairs}):
        rows = [row for row, pair in enumerate(pairs) if y in (pair.a, pair.b)]
        partners = [pairs[row].b if pairs[row].a == y else pairs[row].a for row in rows]
        table[y] = np.array(rows), torch.tensor([y, *partners])
    return table


def cue_counts(cues, images):
    """What a batch of `CueImage`s adds: {histogram [pairs, 2, bins], exact (with labels) the same, images [pairs]}.

    A pair counts where one of its parts can be seen. The images are taken one by one.
    """
    shape = (len(cues.parts), 2, len(cues.edges) - 1)
    counts = {'histogram': np.zeros(shape, np.int64), 'images': np.zeros(shape[0], np.int64)}
    if cues.labels is not None:
        counts['exact'] = np.zeros(shape, np.int64)
    for image in images:
        scored = (cues.parts[image.rows] & image.visible).any(axis=1)  # [N]
        rows = image.rows[scored]
        if not len(rows):
            continue
        scores = normalize(np.abs(image.differences[scored]), cues.norm_type)
        counts['histogram'][rows] += pixel_histogram(scores, cues.parts[rows][:, image.parts], cues.edges)
        if cues.labels is not None:
            counts['exact'][rows] += pixel_histogram(scores, cues.labels[rows][:, image.exact], cues.edges)
        counts['images'][rows] += 1
    return counts


def cue_figures(counts):
    """{mode: [PxAP of each pair]} of summed `cue_counts`.

    released: the running value over the pairs; per_pair: each alone; exact: each against the true part pixels. The
    first bin holds the scores under the first threshold: `released` leaves it out, the other modes count it.
    """
    modes = {'released': counts['histogram'][:, :, 1:].cumsum(axis=0), 'per_pair': counts['histogram']}
    if 'exact' in counts:
        modes['exact'] = counts['exact']
    return {mode: [pixel_average_precision(one) for one in table] for mode, table in modes.items()}


def _mean(values):
    return float(np.mean(values)) if values else None


def summarize(pairs, pxap):
    """{cue_1, cue_2, cue_3, mean}: means over the pairs of a count, and over all; None where nothing was scored."""
    known = [(len(pair.parts), value) for pair, value in zip(pairs, pxap) if value is not None]
    means = {f'cue_{n}': _mean([value for count, value in known if count == n]) for n in COUNTS}
    return {**means, 'mean': _mean([value for _, value in known])}
