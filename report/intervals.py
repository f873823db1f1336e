"""Percentile bootstrap intervals of figures and of differences, and permutation tests, by SciPy.

n: units; d: columns; F: scores; R: resamples. Units are resampled jointly for all scores and for both sides of a
comparison. docs/evaluating.md says what the intervals cover.
"""

import functools
import os
import warnings
from typing import NamedTuple

import numpy as np

from .samples import read_sample, stem_of

LEVEL = 0.95
RESAMPLES = 9999
MANY = 100  # with more columns (scores that choose a threshold, histograms), fewer resamples are drawn
RESAMPLES_OF_MANY = 1999
SEED = 0
TIES = 10  # decimals to which differences are compared, so that rounding does not break ties
DRAWN = 2_000_000  # units drawn at once; bounds the memory


class Difference(NamedTuple):
    """The difference of a score between two runs on the same units."""

    name: str
    a: float  # NaN: undefined
    b: float
    difference: float  # b - a
    interval: tuple | None  # of the difference (low, high); None: undefined
    p: float  # two-sided, null hypothesis: the units of the two runs are exchangeable; NaN: undefined


class Columns(NamedTuple):
    """The concatenated columns of several scores, for each run, and the figures as functions of their means."""

    values: list  # for each run [n, d]
    ends: np.ndarray  # end column of each score
    figures: list  # for each score: means of its columns -> figure

    def __call__(self, means):
        """Figures [..., F] of means [..., d]."""
        own = np.split(means, self.ends[:-1], axis=-1)
        return np.stack([figure(one) for figure, one in zip(self.figures, own)], axis=-1)

    def resamples(self, count):
        """The number of resamples to draw instead of `count`."""
        return min(count, RESAMPLES_OF_MANY) if self.ends[-1] > MANY else count


def columns_of(*runs):
    """The `Columns` of runs, each a list of `samples.Score`; columns that a figure never needs are dropped."""
    values = []
    figures = []
    for scores in zip(*runs, strict=True):
        columns = [score.columns for score in scores]
        figure = scores[0].figure
        if hasattr(figure, 'needs'):
            kept, figure = figure.needs(np.concatenate(columns))
            columns = [one[:, kept] for one in columns]
        values.append(columns)
        figures.append(figure)
    ends = np.cumsum([columns[0].shape[1] for columns in values])
    return Columns([np.concatenate(own, axis=1).astype(float) for own in zip(*values)], ends, figures)


def _drawn(index, n):
    """How often each of n units was drawn, from indices [R, n]: floats [R, n]."""
    rows = index.reshape(-1, n)
    flat = (rows + n * np.arange(len(rows))[:, None]).ravel()
    return np.bincount(flat, minlength=rows.size).reshape(rows.shape).astype(float)


def _bootstrap(n, figures, resamples, seed):
    """[(low, high) or None] for each figure; figures: counts of draws of each unit [R, n] -> [R, F].

    A figure that is undefined in a resample counts as infinite; an interval that is not finite is None.
    """
    from scipy.stats import bootstrap  # takes a second to load; tables without arrays do not need it

    def statistic(index, axis=-1):
        values = figures(_drawn(index, n)).T  # [F, R]
        return np.where(np.isnan(values), np.inf, values)

    with warnings.catch_warnings(), np.errstate(invalid='ignore'):
        warnings.simplefilter('ignore')  # of infinite values
        found = bootstrap(
            (np.arange(n),),
            statistic,
            n_resamples=resamples,
            batch=max(1, DRAWN // n),
            vectorized=True,
            confidence_level=LEVEL,
            method='percentile',
            rng=np.random.default_rng(seed),
        ).confidence_interval
    bounds = zip(found.low.tolist(), found.high.tolist())
    return [pair if np.isfinite(pair).all() else None for pair in bounds]


def intervals(scores, resamples=RESAMPLES, seed=SEED):
    """[95 % interval (low, high) of each score]; None if undefined, not `resampled`, or with fewer than two units."""
    columns = columns_of(scores)
    [values] = columns.values
    n = len(values)
    if n < 2:
        return [None] * len(scores)
    found = _bootstrap(n, lambda drawn: columns(drawn @ values / n), columns.resamples(resamples), seed)
    return [bounds if score.resampled else None for score, bounds in zip(scores, found)]


def result_intervals(folder, kind, map_name=None):
    """{score: interval} of a result in an experiment folder; {} without arrays. Arguments as for `read_sample`."""
    files = [f'{stem_of(folder, kind, map_name)}.{extension}' for extension in ('json', 'npz')]
    if not all(map(os.path.isfile, files)):
        return {}
    return _intervals_of(folder, kind, map_name, *(os.stat(path).st_mtime_ns for path in files))


@functools.cache
def _intervals_of(folder, kind, map_name, *_times):
    """`result_intervals`, cached by the files' modification times."""
    scores = read_sample(folder, kind, map_name).scores
    return dict(zip([score.name for score in scores], intervals(scores)))


def compare(a, b, resamples=RESAMPLES, seed=SEED):
    """[`Difference`] between the scores a and b of two runs with the same units in the same order."""
    columns = columns_of(a, b)
    n = len(columns.values[0])
    resamples = columns.resamples(resamples)
    figures = [columns(values.mean(axis=0)).tolist() for values in columns.values]

    def differences(drawn):
        one, other = (columns(drawn @ values / n) for values in columns.values)
        return other - one

    bounds = _bootstrap(n, differences, resamples, seed) if n > 1 else [None] * len(a)
    rows = zip(a, b, *figures, bounds, _permute(columns, resamples, seed))
    return [_difference(*row) for row in rows]


def _difference(a, b, of_a, of_b, bounds, p):
    """The `Difference` of two scores; exactly zero if all units are equal."""
    if (a.columns == b.columns).all() and not np.isnan(of_a):
        return Difference(a.name, of_a, of_b, 0.0, (0.0, 0.0), 1.0)
    if np.isnan(of_b - of_a) or not a.resampled:
        bounds, p = None, np.nan
    return Difference(a.name, of_a, of_b, of_b - of_a, bounds, p)


def _permute(columns, resamples, seed):
    """The p-value of each score's difference; units that are equal in both runs are dropped."""
    from scipy.stats import permutation_test

    first, second = columns.values
    unlike = (first != second).any(axis=1)
    gain = (second - first)[unlike] / len(first)  # [u, d]
    count = len(gain)
    if count < 2:  # no unit to swap, or one, whose two arrangements differ only in sign
        return [1.0] * len(columns.ends)
    means = first.mean(axis=0), second.mean(axis=0)

    def statistic(one, other, axis=-1):
        moved = (one >= count) @ gain  # [R, d]: gain of the swapped units
        return np.round(columns(means[1] - moved) - columns(means[0] + moved), TIES)

    with np.errstate(invalid='ignore'):
        found = permutation_test(
            (np.arange(count), count + np.arange(count)),
            statistic,
            permutation_type='samples',
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, DRAWN // count),
            rng=np.random.default_rng(seed),
        )
    return np.where(np.isnan(found.statistic), np.nan, found.pvalue).tolist()
