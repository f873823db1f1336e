"""Scores as functions of per-unit values, for resampling; a unit is an image or a pair of classes.

n: units; d: columns. Every score is a function of the means of its d columns over the units, so resampling is a matrix
product.
"""

import glob
import os
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from wsol.errors import UserError
from wsol.scoring import boxes, means
from wsol.scoring.scores import METRICS

from .results import MODES, digits_of, read_arrays, read_result

COUNTS = {'cue_1': '1 part', 'cue_2': '2 parts', 'cue_3': '3 parts', 'mean': 'mean'}
MAP_KINDS = ('cue_location', 'pixel_perturb', 'wsol')  # kinds of results with one file per map


class Score(NamedTuple):
    """A figure of a result."""

    name: str
    value: float | None  # in the result; None: undefined
    columns: np.ndarray  # values of the units [n, d]
    figure: Callable  # means of the columns [..., d] -> the figure [...], NaN if undefined
    digits: int = 2  # decimal places in tables
    resampled: bool = True  # False: units depend on each other, so resampling is meaningless


class Sample(NamedTuple):
    """The units and scores of a result."""

    path: str  # of the arrays
    unit: str  # 'images' or 'class pairs'
    ids: np.ndarray  # of the units [n]
    scores: list


# Scores of each kind of result.


def accuracy_scores(result, rows, _):
    """Top-1 accuracy."""
    return [Score('top-1', result['test_accuracy'], means.column(rows['correct']), means.percent)]


def erasing_scores(result, rows, _):
    """Top-1 accuracy and R_k for each k."""
    random = rows['random'] / result['arguments']['random_repeats']
    top1 = Score('top-1', 100 * result['correct'] / result['images'], means.column(rows['correct']), means.percent)
    return [top1] + [
        Score(f'R_{100 * k:.0f}', value, np.stack([rows['topk'][:, i], random[:, i]], axis=1), means.ratio, 3)
        for i, (k, value) in enumerate(zip(result['k'], result['ratio']))
    ]


def cue_name(mode, pairs='mean'):
    """The name of a score of cue localization; pairs: a value of COUNTS."""
    return f'cue {mode.replace("_", " ")}, {pairs}'


def cue_scores(result, rows, _):
    """In each mode, mean PxAP over the pairs with 1, 2 or 3 differing parts, and over all pairs."""
    scores = []
    for mode in MODES:
        if mode not in rows:
            continue
        known = ~np.isnan(rows[mode])
        for number, key in enumerate(COUNTS, 1):
            chosen = known if key == 'mean' else known & (rows['differing_parts'] == number)
            columns = np.stack([np.where(chosen, rows[mode], 0), chosen], axis=1)
            name = cue_name(mode, COUNTS[key])
            # a released value of a pair contains the earlier pairs
            scores.append(Score(name, result[mode][key], columns, means.ratio, resampled=mode != 'released'))
    return scores


def box_scores(result, rows, _):
    """MaxBoxAcc and MaxBoxAccV2, or PxAP; each resample chooses its own threshold."""
    if 'histogram' in rows:
        return [Score('PxAP', result['PxAP'], *means.average_precision(rows['histogram']))]
    largest, any_contour = np.moveaxis(rows['iou'], 1, 0)  # [n, T], whole percents
    asked = sorted({*result['arguments']['iou_thresholds']})
    return [
        Score('MaxBoxAcc', result['MaxBoxAcc'], *means.highest([largest >= boxes.MAX_BOX_ACC_IOU])),
        Score('MaxBoxAccV2', result['MaxBoxAccV2'], *means.highest([any_contour >= percent for percent in asked])),
    ]


def attribution_scores(result, rows, map_name):
    """All scores of a map, as METRICS defines them."""
    prefix = f'{map_name}/'
    shared = {key: array for key, array in rows.items() if '/' not in key}
    own = {key.removeprefix(prefix): array for key, array in rows.items() if key.startswith(prefix)}
    own = {**shared, **own, 'maps': len(result['methods'])}
    settings = Namespace(**result['arguments'])
    scores = []
    for name in (name for name in result['metrics'] if name in METRICS):
        value = result['methods'][map_name][name]
        columns = METRICS[name].measure.of_images(own, settings)
        scores.append(Score(name, value, *columns, digits_of(METRICS[name])))
    return scores


SCORES = {
    'accuracy': accuracy_scores,
    'cue_location': cue_scores,
    'pixel_perturb': erasing_scores,
    'wsol': box_scores,
    'attribution_scores': attribution_scores,
}


def stem_of(folder, kind, map_name=None):
    """The path of a result without extension."""
    return os.path.join(folder, f'{kind}_{map_name}' if kind in MAP_KINDS else kind)


def maps_of(folder, kind):
    """The maps for which an experiment folder has arrays of this kind of result."""
    if kind not in MAP_KINDS:
        stem = stem_of(folder, kind)
        result = read_result(f'{stem}.json') if os.path.isfile(f'{stem}.npz') else {}
        return sorted(result.get('methods', {}))
    paths = glob.glob(os.path.join(glob.escape(folder), f'{kind}_*.npz'))
    return sorted(os.path.basename(path).removesuffix('.npz')[len(kind) + 1 :] for path in paths)


def read_sample(folder, kind, map_name=None):
    """The `Sample` of a result in an experiment folder; None if the result or its arrays are missing.

    kind: a key of SCORES; map_name: None for accuracy. UserError if the arrays do not give the figures of the result,
    so that one of the two files belongs to another run.
    """
    stem = stem_of(folder, kind, map_name)
    if not os.path.isfile(f'{stem}.npz'):
        return None
    result = read_result(f'{stem}.json')
    if not result:
        return None
    rows = read_arrays(f'{stem}.npz')
    try:
        scores = SCORES[kind](result, rows, map_name)
        ids = rows['ids']
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # as for other arrays than the result's
        raise UserError(
            f'{stem}.json and {stem}.npz do not have what this version writes ({type(error).__name__}: {error}): make '
            'both again with --override_cache=True'
        ) from error
    for score in scores:
        found = float(score.figure(score.columns.mean(axis=0)))
        value = np.nan if score.value is None else score.value
        if not np.isclose(found, value, rtol=1e-5, atol=1e-7, equal_nan=True):
            raise UserError(
                f'{stem}.npz does not belong to {stem}.json: it gives {score.name} {found:.4f} instead of {value:.4f}; '
                'make both again with --override_cache=True'
            )
    return Sample(f'{stem}.npz', 'class pairs' if kind == 'cue_location' else 'images', ids, scores)
