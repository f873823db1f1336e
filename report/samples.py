"""Scores as what each image, or each pair of classes, gave: the arrays beside a result, ready to be resampled.

n units (images or pairs of classes), d numbers of each. Every score is a function of the means of its d columns over
the units, so a resample of the units costs a product of matrices. Needs no PyTorch.
"""

import glob
import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .results import MODES, read_arrays, read_result

COUNTS = {'cue_1': '1 part', 'cue_2': '2 parts', 'cue_3': '3 parts', 'mean': 'mean'}
MAP_KINDS = ('cue_location', 'pixel_perturb', 'wsol')  # results of one map each


class Score(NamedTuple):
    """One figure of a result."""

    name: str
    value: float | None  # as the result has it; None: not defined
    columns: np.ndarray  # what each unit gave [n, d]
    figure: Callable  # means of the columns [..., d] -> the figure [...]; NaN where it is not defined
    digits: int = 2  # behind the point, as tables show it
    resampled: bool = True  # False: the units' values depend on each other, so that no resample tells anything


class Sample(NamedTuple):
    """The units of a result, and its scores."""

    path: str  # of the arrays
    unit: str  # what is resampled: 'images' or 'class pairs'
    ids: np.ndarray  # of the units [n]
    scores: list


# Figures of means [..., d].


def percent(means):
    """Of shares [..., 1], or values in [0, 1]."""
    return 100 * means[..., 0]


def plain(means):
    """Of means [..., 1] as they are."""
    return means[..., 0]


def ratio(means):
    """The first column over the second [..., 2]."""
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(means[..., 1] > 0, means[..., 0] / means[..., 1], np.nan)


def mean_ratio(means):
    """The mean of the ratios of the first to the second half of the columns, of those that are defined."""
    half = means.shape[-1] // 2
    ratios = ratio(np.stack([means[..., :half], means[..., half:]], axis=-1))  # [..., K]
    known = ~np.isnan(ratios)
    return ratio(np.stack([np.where(known, ratios, 0).sum(axis=-1), known.sum(axis=-1)], axis=-1))


class Highest(NamedTuple):
    """In percent the highest column of each group, the mean over the groups."""

    starts: list  # the first column of each group, ascending from 0

    def __call__(self, means):
        return 100 * np.maximum.reduceat(means, self.starts, axis=-1).mean(axis=-1)

    def needs(self, columns):
        """(which columns count, the figure of those): of neighbours that are alike for all units, the first."""
        kept = np.r_[True, (columns[:, 1:] != columns[:, :-1]).any(axis=0)]
        kept[self.starts] = True
        return kept, Highest([int(kept[:start].sum()) for start in self.starts])


class PixelAveragePrecision(NamedTuple):
    """PxAP in percent of histograms [..., 2 bins]: of the negatives, then of the positives, bins ascending."""

    def __call__(self, means):
        negative, positive = np.moveaxis(means.reshape(*means.shape[:-1], 2, -1)[..., ::-1], -2, 0)
        tp = positive.cumsum(axis=-1)
        both = tp + negative.cumsum(axis=-1)
        with np.errstate(divide='ignore', invalid='ignore'):
            precision = np.where(both > 0, tp / both, 0)[..., 1:]
            return 100 * (precision * np.diff(tp / tp[..., -1:])).sum(axis=-1)

    def needs(self, columns):
        """(which columns count, the figure of those): the bins in which something lies."""
        used = columns.any(axis=0).reshape(2, -1).any(axis=0)
        used[-1] = True  # the last bin, which is empty, is where recall begins
        return np.tile(used, 2), self


# Scores of each kind of result.


def _column(values):
    """Values [n] as one column."""
    return np.asarray(values, float)[:, None]


def _highest(groups):
    """(columns, figure) of `Highest`; groups: arrays [n, T]."""
    return np.concatenate(groups, axis=1), Highest([n * groups[0].shape[1] for n in range(len(groups))])


def _histograms(histogram):
    """(columns, figure) of `PixelAveragePrecision`; histogram: [n, 2, bins]."""
    return histogram.reshape(len(histogram), -1), PixelAveragePrecision()


def accuracy_scores(result, rows, _):
    """Top-1 accuracy."""
    return [Score('top-1', result['test_accuracy'], _column(rows['correct']), percent)]


def erasing_scores(result, rows, _):
    """R_k of each k; images are resampled jointly in both counts."""
    random = rows['random'] / result['arguments']['random_repeats']
    top1 = Score('top-1', 100 * result['correct'] / result['images'], _column(rows['correct']), percent)
    return [top1] + [
        Score(f'R_{100 * k:.0f}', value, np.stack([rows['topk'][:, i], random[:, i]], axis=1), ratio, 3)
        for i, (k, value) in enumerate(zip(result['k'], result['ratio']))
    ]


def cue_name(mode, pairs='mean'):
    """The name of a score of cue localization; pairs: a value of COUNTS."""
    return f'cue {mode.replace("_", " ")}, {pairs}'


def cue_scores(result, rows, _):
    """The means of PxAP over the pairs that differ in so many parts, and over all, in each mode."""
    scores = []
    for mode in MODES:
        if mode not in rows:
            continue
        known = ~np.isnan(rows[mode])
        for number, key in enumerate(COUNTS, 1):
            chosen = known if key == 'mean' else known & (rows['differing_parts'] == number)
            columns = np.stack([np.where(chosen, rows[mode], 0), chosen], axis=1)
            name = cue_name(mode, COUNTS[key])
            # a pair's running value contains the earlier pairs
            scores.append(Score(name, result[mode][key], columns, ratio, resampled=mode != 'released'))
    return scores


def box_scores(result, rows, _):
    """MaxBoxAcc and MaxBoxAccV2, or PxAP. The threshold is chosen anew in each resample."""
    if 'histogram' in rows:
        return [Score('PxAP', result['PxAP'], *_histograms(rows['histogram']))]
    largest, any_contour = np.moveaxis(rows['iou'], 1, 0)  # [n, T], whole percents
    asked = sorted({*result['arguments']['iou_thresholds']})
    return [
        Score('MaxBoxAcc', result['MaxBoxAcc'], *_highest([largest >= 50])),
        Score('MaxBoxAccV2', result['MaxBoxAccV2'], *_highest([any_contour >= percent for percent in asked])),
    ]


def _map_scores(result, own, random):
    """{metric: (columns, figure)} of a map's arrays `own` in a result of eval_attribution.py; random: [n, K] of all."""
    others = max(1, len(result['methods']) - 1)
    ious = sorted({*result['arguments']['iou_thresholds'], 50})
    asked = sorted({*result['arguments']['iou_thresholds']})
    found = {
        'average_drop': lambda: (_column(own['drop']), percent),
        'average_increase': lambda: (_column(own['increase']), percent),
        'win': lambda: (_column(own['wins'] / others), percent),
        'deletion': lambda: (_column(own['deletion']), plain),
        'insertion': lambda: (_column(own['insertion']), plain),
        'remove_and_classify': lambda: (np.concatenate([own['correct_topk'], random], axis=1), mean_ratio),
        'loc_iou': lambda: (_column(own['located']), percent),
        'loc_mask_iou': lambda: _highest([own['mask_iou']]),
        'max_box_acc': lambda: _highest([own['max_box'][:, 0, ious.index(50)]]),
        'max_box_acc_v2': lambda: _highest([own['max_box'][:, 1, ious.index(iou)] for iou in asked]),
        'proportion': lambda: (_column(own['proportion']), percent),
        'pointing_game': lambda: (_column(own['pointing']), percent),
        'pxap': lambda: _histograms(own['histogram']),
        'road': lambda: (_column(own['road']), plain),
        'randomization': lambda: (_column(own['agreement'].mean(axis=1)), plain),
        'randomization_abs': lambda: (_column(own['agreement_abs'].mean(axis=1)), plain),
        'randomization_ssim': lambda: (_column(own['ssim'].mean(axis=1)), plain),
        'max_sensitivity': lambda: (_column(own['sensitivity']), plain),
        'infidelity': lambda: (_column(own['infidelity']), plain),
        'sparseness': lambda: (_column(own['gini']), plain),
        'coherency': lambda: (_column(own['coherency']), percent),
        'complexity': lambda: (_column(own['complexity']), percent),
        'adcc': lambda: (_column(own['adcc']), percent),
    }
    return {name: found[name]() for name in result['metrics'] if name in found}


def attribution_scores(result, rows, map_name):
    """Every score of a map."""
    random = rows['correct_random'] / result['arguments']['random_repeats'] if 'correct_random' in rows else None
    prefix = f'{map_name}/'
    own = {key.removeprefix(prefix): array for key, array in rows.items() if key.startswith(prefix)}
    scores = []
    for metric, how in _map_scores(result, own, random).items():
        digits = 2 if result['metrics'][metric]['title'].endswith('(%)') else 3
        scores.append(Score(metric, result['methods'][map_name][metric], *how, digits))
    return scores


SCORES = {
    'accuracy': accuracy_scores,
    'cue_location': cue_scores,
    'pixel_perturb': erasing_scores,
    'wsol': box_scores,
    'attribution_scores': attribution_scores,
}


def stem_of(folder, kind, map_name=None):
    """The path of a result without its ending."""
    return os.path.join(folder, f'{kind}_{map_name}' if kind in MAP_KINDS else kind)


def maps_of(folder, kind):
    """The maps of which an experiment folder has a result of the kind and its arrays."""
    if kind not in MAP_KINDS:
        stem = stem_of(folder, kind)
        result = read_result(f'{stem}.json') if os.path.isfile(f'{stem}.npz') else {}
        return sorted(result.get('methods', {}))
    paths = glob.glob(os.path.join(glob.escape(folder), f'{kind}_*.npz'))
    return sorted(os.path.basename(path).removesuffix('.npz')[len(kind) + 1 :] for path in paths)


def read_sample(folder, kind, map_name=None):
    """The `Sample` of a map's result in an experiment folder; None where the result or its arrays are missing.

    kind: of SCORES; map_name: None for accuracy. Arrays whose figures are not those of the result are a UserError: one
    of the two files is of another run.
    """
    stem = stem_of(folder, kind, map_name)
    if not os.path.isfile(f'{stem}.npz'):
        return None
    result = read_result(f'{stem}.json')
    if not result:
        return None
    rows = read_arrays(f'{stem}.npz')
    scores = SCORES[kind](result, rows, map_name)
    for score in scores:
        found = float(score.figure(score.columns.mean(axis=0)))
        value = np.nan if score.value is None else score.value
        if not np.isclose(found, value, rtol=1e-5, atol=1e-7, equal_nan=True):
            from wsol.errors import UserError  # with PyTorch

            raise UserError(
                f'{stem}.npz is not of {stem}.json: it gives {score.name} {found:.4f} in place of {value:.4f}; '
                'make both again with --override_cache=True'
            )
    return Sample(f'{stem}.npz', 'class pairs' if kind == 'cue_location' else 'images', rows['ids'], scores)
