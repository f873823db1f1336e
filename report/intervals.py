"""How sure a figure is, and a difference of two: percentile bootstrap intervals and permutation tests of SciPy.

n units, d columns, F scores, R resamples. Units are drawn jointly for all scores, and for both sides of a comparison.
What the intervals cover and what not is said in docs/evaluating.md.
"""

import warnings
from typing import NamedTuple

import numpy as np

LEVEL = 0.95
RESAMPLES = 9999
MANY = 100  # so many columns are resampled less often: those of scores that choose a threshold, or of histograms
RESAMPLES_OF_MANY = 1999
SEED = 0
TIES = 10  # decimals to which differences are told apart: what is equal must not be parted by rounding
BATCH = 500  # resamples at once, which bounds the memory


class Difference(NamedTuple):
    """A score of two runs on the same units."""

    name: str
    a: float  # NaN: not defined
    b: float
    difference: float  # b - a
    interval: tuple | None  # of the difference (low, high); None: not defined
    p: float  # two-sided, of the hypothesis that the two runs' units may be exchanged; NaN: not defined


class Columns(NamedTuple):
    """The columns of several scores side by side, for one run or several, and the figures of their means."""

    values: list  # of each run [n, d]
    ends: np.ndarray  # the column behind each score's last
    figures: list  # of each score: means of its columns -> figure

    def __call__(self, means):
        """Figures [..., F] of means [..., d]."""
        parts = np.split(means, self.ends[:-1], axis=-1)
        return np.stack([figure(part) for figure, part in zip(self.figures, parts)], axis=-1)

    def resamples(self, count):
        """How many resamples are drawn where `count` are wished."""
        return min(count, RESAMPLES_OF_MANY) if self.ends[-1] > MANY else count


def columns_of(*runs):
    """The `Columns` of runs, lists of `samples.Score` with columns of the same kinds [n, d]; those that never count
    are left out."""
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
    """How often each of n units is among those drawn, index [R, n]: floats [R, n]."""
    rows = index.reshape(-1, n)
    flat = (rows + n * np.arange(len(rows))[:, None]).ravel()
    return np.bincount(flat, minlength=rows.size).reshape(rows.shape).astype(float)


def _bootstrap(n, figures, resamples, seed):
    """[(low, high) or None] of each figure; figures: means over resampled units as shares [R, n] -> [R, F].

    Where a figure is not defined in a resample, it counts as infinitely large; an interval that is not finite is None.
    """
    from scipy.stats import bootstrap  # takes a second, and PyTorch is not the only thing that tables do without

    def statistic(index, axis=-1):
        values = figures(_drawn(index, n) / n).T  # [F, R]
        return np.where(np.isnan(values), np.inf, values)

    with warnings.catch_warnings(), np.errstate(invalid='ignore'):
        warnings.simplefilter('ignore')  # of infinite values
        found = bootstrap(
            (np.arange(n),),
            statistic,
            n_resamples=resamples,
            batch=BATCH,
            vectorized=True,
            confidence_level=LEVEL,
            method='percentile',
            rng=np.random.default_rng(seed),
        ).confidence_interval
    bounds = zip(found.low.tolist(), found.high.tolist())
    return [pair if np.isfinite(pair).all() else None for pair in bounds]


def intervals(scores, resamples=RESAMPLES, seed=SEED):
    """[95 % interval (low, high) of each score]; None where it is not defined, or where there are less than two
    units."""
    columns = columns_of(scores)
    [values] = columns.values
    if len(values) < 2:
        return [None] * len(scores)
    return _bootstrap(len(values), lambda shares: columns(shares @ values), columns.resamples(resamples), seed)


def compare(a, b, resamples=RESAMPLES, seed=SEED):
    """[`Difference`] of the scores a and b of two runs, which have the same units in the same order."""
    columns = columns_of(a, b)
    n = len(columns.values[0])
    resamples = columns.resamples(resamples)
    # What the two have in common needs no second resample, and rounds in one way.
    of_a, of_b = (columns(values.mean(axis=0)) for values in columns.values)
    same = [one.columns.shape == two.columns.shape and (one.columns == two.columns).all() for one, two in zip(a, b)]

    def differences(shares):
        return columns(shares @ columns.values[1]) - columns(shares @ columns.values[0])

    bounds = _bootstrap(n, differences, resamples, seed) if n > 1 else [None] * len(a)
    p_values = _permute(columns, resamples, seed)
    return [
        Difference(
            score.name,
            float(of_a[i]),
            float(of_b[i]),
            0.0 if same[i] else float(of_b[i] - of_a[i]),
            bounds[i] and ((0.0, 0.0) if same[i] else bounds[i]),
            1.0 if same[i] else p_values[i],
        )
        for i, score in enumerate(a)
    ]


def _permute(columns, resamples, seed):
    """The p-value of each score's difference; units that are alike in both runs cannot tell them apart, and are left
    out."""
    from scipy.stats import permutation_test

    first, second = columns.values
    unlike = (first != second).any(axis=1)
    gain = (second - first)[unlike] / len(first)  # [u, d]
    count = len(gain)
    if not count:
        return [1.0] * len(columns.ends)
    means = first.mean(axis=0), second.mean(axis=0)

    def statistic(one, other, axis=-1):
        moved = (one >= count) @ gain  # [R, d]: of the units that have changed sides
        return np.round(columns(means[1] - moved) - columns(means[0] + moved), TIES)

    with np.errstate(invalid='ignore'):
        found = permutation_test(
            (np.arange(count), count + np.arange(count)),
            statistic,
            permutation_type='samples',
            vectorized=True,
            n_resamples=resamples,
            batch=BATCH,
            rng=np.random.default_rng(seed),
        )
    return np.where(np.isnan(found.statistic), np.nan, found.pvalue).tolist()
