"""Cue localization: the difference of two classes' maps against the parts that distinguish the classes.

Maps of side S; a pair is two classes (cub_parts.Pair). Memory: one histogram [pairs, 2, bins] per ground truth, for any
number of images.
"""

from typing import NamedTuple

import numpy as np
import torch

from .. import cub_parts
from ..attribution import normalize as normalize_maps
from ..attribution import upsample
from .maps import blur
from .pixels import pixel_average_precision, pixel_histogram

COUNTS = (1, 2, 3)  # numbers of differing parts, for grouping pairs
PAIRS_AT_ONCE = 64  # per chunk on an accelerator: bounds the memory


class Cues(NamedTuple):
    """Scoring inputs shared by all images of an evaluation."""

    parts: np.ndarray  # bool [pairs, 8]: differing parts of each pair
    labels: np.ndarray | None  # the same for the true part labels; None if the data set has none
    edges: np.ndarray  # of the histogram bins [bins + 1]
    norm_type: str  # scaling of differences to [0, 1]: 'max', 'minmax' or 'clipping'
    blur: float = 0  # deviation of the Gaussian blur on differences, px; 0: none


class CueImage(NamedTuple):
    """One image, with N pairs that include its class."""

    rows: np.ndarray  # rows of the pairs [N]
    differences: np.ndarray  # of the two classes' maps, one per pair, [N, S, S]; the sign does not matter
    parts: np.ndarray  # part at each pixel, uint8 [S, S], 0 for none
    exact: np.ndarray  # true part label at each pixel [S, S], 0 for none
    visible: np.ndarray  # visible parts, bool [8]


def _membership(sets, width):
    """Bool [len(sets), width]: which numbers below `width` each set contains."""
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
    """{class: (rows of its pairs [N], LongTensor [1 + N] of the class and its partner in each)}."""
    table = {}
    for y in sorted({pair.a for pair in pairs} | {pair.b for pair in pairs}):
        rows = [row for row, pair in enumerate(pairs) if y in (pair.a, pair.b)]
        partners = [pairs[row].b if pairs[row].a == y else pairs[row].a for row in rows]
        table[y] = np.array(rows), torch.tensor([y, *partners])
    return table


def covered(differences):
    """Share of the image that each map covers, in millionths, LongTensor [N]: (mean |d|)^2 / mean d^2.

    differences: tensor [N, S, S] of any scale. A map that is constant on a part of the image and 0 elsewhere covers
    that part; a zero map covers nothing. Integers, so that sums do not depend on their order.
    """
    flat = differences.flatten(1)
    one, two = (torch.linalg.vector_norm(flat, order, dim=1, dtype=torch.float64) for order in (1, 2))
    share = (one / two) ** 2 / flat.shape[1]
    return (1e6 * share.nan_to_num(0)).round().long()


def cue_counts(cues, images):
    """Sums over a batch of `CueImage`s, by pair: {histogram [pairs, 2, bins], exact, images [pairs], area [pairs]}.

    histogram: `pixel_histogram` against the parts; exact: the same against the true part labels, if there are any;
    images: how many were scored, those that show one of the pair's parts; area: their sum of `covered`.
    """
    shape = (len(cues.parts), 2, len(cues.edges) - 1)
    counts = {'histogram': np.zeros(shape, np.int64)}
    counts['images'], counts['area'] = np.zeros((2, shape[0]), np.int64)
    if cues.labels is not None:
        counts['exact'] = np.zeros(shape, np.int64)
    for image in images:
        scored = (cues.parts[image.rows] & image.visible).any(axis=1)  # [N]
        rows = image.rows[scored]
        if not len(rows):
            continue
        shown = blur(torch.from_numpy(image.differences[scored]), cues.blur).abs()
        scores = normalize_maps(shown, cues.norm_type).numpy()
        counts['histogram'][rows] += pixel_histogram(scores, cues.parts[rows][:, image.parts], cues.edges)
        if cues.labels is not None:
            counts['exact'][rows] += pixel_histogram(scores, cues.labels[rows][:, image.exact], cues.edges)
        counts['images'][rows] += 1
        counts['area'][rows] += covered(shown).numpy()
    return counts


def batch_counts(cues, rows, owner, differences, parts, exact, visible):
    """`cue_counts` of a batch in a few operations on its device, where the sums stay; P pairs of all images together.

    rows: of the pairs, LongTensor [P]; owner: image of each pair among B, LongTensor [P]; differences: tensor
    [P, h, w], resized by PyTorch; parts, exact: tensors [B, S, S]; visible: bool [B, 8]. For maps of size S the counts
    equal those of `cue_counts`; with resizing, a pixel near a threshold may fall into the next bin.
    """
    device = differences.device
    bins = len(cues.edges) - 1
    edges = torch.from_numpy(cues.edges).to(device)
    sets = torch.from_numpy(cues.parts).to(device)  # [pairs, 8]
    pairs = len(sets)
    scored = (sets[rows] & visible[owner]).any(dim=1)  # [P]
    place = torch.where(scored, rows, pairs)  # unscored pairs go to an extra last row
    targets = {'histogram': (sets, parts)}
    if cues.labels is not None:
        targets['exact'] = torch.from_numpy(cues.labels).to(device), exact
    one = torch.ones(1, dtype=torch.long, device=device)
    area = torch.zeros(pairs + 1, dtype=torch.long, device=device)
    counts = {name: torch.zeros((pairs + 1) * 2 * bins, dtype=torch.long, device=device) for name in targets}
    for some in torch.arange(len(rows), device=device).split(PAIRS_AT_ONCE):
        shown = blur(upsample(differences[some].float(), parts.shape[1]), cues.blur).abs()
        maps = normalize_maps(shown, cues.norm_type)
        area.scatter_add_(0, place[some], covered(shown))
        bin_of = torch.bucketize(maps.double().flatten(1), edges, right=True) - 1  # [p, SS]
        for name, (members, labels) in targets.items():
            inside = members[rows[some]].gather(1, labels[owner[some]].flatten(1).long())  # [p, SS]
            index = (2 * place[some, None] + inside) * bins + bin_of
            counts[name].scatter_add_(0, index.flatten(), one.expand(index.numel()))
    images = torch.zeros(pairs + 1, dtype=torch.long, device=device).scatter_add_(0, place, one.expand(len(rows)))
    tables = {name: table.view(pairs + 1, 2, bins)[:-1] for name, table in counts.items()}
    return {**tables, 'images': images[:-1], 'area': area[:-1]}


def cue_figures(counts):
    """{mode: [PxAP of each pair]} from summed `cue_counts`.

    released: cumulative over the pairs; per_pair: each alone; exact: each against the true part pixels. The first bin
    holds the scores below the first threshold: `released` leaves it out, the other modes count it.
    """
    modes = {'released': counts['histogram'][:, :, 1:].cumsum(axis=0), 'per_pair': counts['histogram']}
    if 'exact' in counts:
        modes['exact'] = counts['exact']
    return {mode: [pixel_average_precision(one) for one in table] for mode, table in modes.items()}


def _mean(values):
    return float(np.mean(values)) if values else None


def summarize(pairs, pxap):
    """{cue_1, cue_2, cue_3, mean}: means over the pairs of each count, and over all; None if nothing was scored."""
    known = [(len(pair.parts), value) for pair, value in zip(pairs, pxap) if value is not None]
    means = {f'cue_{n}': _mean([value for count, value in known if count == n]) for n in COUNTS}
    return {**means, 'mean': _mean([value for _, value in known])}
