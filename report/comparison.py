"""Paired comparison of two runs on the same images: scripts/report.py --compare A B."""

import glob
import os
from typing import NamedTuple

import numpy as np

import flags
from wsol.attribution import MAPS
from wsol.errors import MissingFile, UserError
from wsol.network import HEADS

from .intervals import compare
from .results import read_result
from .samples import MAP_KINDS, maps_of, read_sample, stem_of
from .tables import interval_text, markdown, number_text

COMMANDS = {'pixel_perturb': 'eval_pixel_perturb', 'cue_location': 'eval_cue_location', 'wsol': 'eval_wsol'}
CHOICES = {'metrics', 'max_images'}  # flags that choose scores and images, not how they are scored
ALWAYS = {'dataset', 'crop_size'}  # flags that count for every score
KINDS = (*MAP_KINDS, 'attribution_scores')  # results that are compared per map
HEAD = ('score', 'map', 'A', 'B', 'B - A', '95 % interval', 'p', 'n')


class Side(NamedTuple):
    """One side of the comparison."""

    name: str  # as given
    folder: str
    map: str | None  # the requested map


class Compared(NamedTuple):
    """The differences between two results."""

    maps: str  # the names of the two maps, '-' for none
    unit: str
    counts: tuple  # number of units of A, of B, common
    differences: list  # of `intervals.Difference`
    digits: list  # decimal places of each
    numbers: list  # common units used for each
    changes: tuple = ()  # texts of the settings in which the two results differ


def read_side(text):
    """The `Side` of FOLDER or FOLDER:MAP; MissingFile if the folder does not exist."""
    folder, colon, map_name = text.rpartition(':')
    if os.path.isdir(text):
        return Side(text, text, None)
    if colon and os.path.isdir(folder):
        return Side(text, folder, map_name)
    raise MissingFile(f'no folder {text}: --compare takes two experiment folders, each FOLDER or FOLDER:MAP')


def own_map(side, kind, maps):
    """The one of `maps` that is the own map of the network's head; None if there is none."""
    for name in maps:
        arguments = read_result(f'{stem_of(side.folder, kind, name)}.json').get('arguments', {})
        head = HEADS.get(arguments.get('attribution_method'))
        if head and head.own_map == name:
            return name
    return None


def map_pairs(a, b, kind):
    """[(map of A, map of B)] to compare: the requested ones, else equal names and the networks' own maps."""
    known = [maps_of(side.folder, kind) for side in (a, b)]
    if a.map or b.map:
        chosen = [[side.map] if side.map in maps else maps * (not side.map) for side, maps in zip((a, b), known)]
        if a.map and b.map:
            return [(one, other) for one in chosen[0] for other in chosen[1]]
        return [(one, other) for one in chosen[0] for other in chosen[1] if one == other]
    own = tuple(own_map(side, kind, maps) for side, maps in zip((a, b), known))
    pairs = [(name, name) for name in known[0] if name in known[1]]
    return pairs if None in own or own in pairs else [own, *pairs]


def common_rows(one, other):
    """(rows in `one`, rows in `other`) of the units with the same ids."""
    for sample in (one, other):
        if len({*sample.ids.tolist()}) < len(sample.ids):
            raise UserError(f'{sample.path} has the same id twice: its {sample.unit} cannot be paired')
    _, rows, others = np.intersect1d(one.ids, other.ids, assume_unique=True, return_indices=True)
    order = np.argsort(rows)
    return rows[order], others[order]


def compare_samples(one, other, maps, without=()):
    """The `Compared` of two samples; None if they have no common score; without: names of scores to skip."""
    names = [score.name for score in other.scores]
    pairs = [
        (score, other.scores[names.index(score.name)])
        for score in one.scores
        if score.name in names and score.name not in without
    ]
    rows = common_rows(one, other)
    if not pairs:
        return None
    if not len(rows[0]):
        raise UserError(f'{one.path} and {other.path} have none of their {one.unit} in common: nothing can be paired')
    sides = [[pair[side]._replace(columns=pair[side].columns[rows[side]]) for pair in pairs] for side in (0, 1)]
    counts = len(one.ids), len(other.ids), len(rows[0])
    digits = [score.digits for score in sides[0]]
    # for cue scores, only pairs with the score's number of differing parts count
    numbers = [counts[2] if one.unit == 'images' else int(score.columns[:, 1].sum()) for score in sides[0]]
    return Compared(maps, one.unit, counts, compare(*sides), digits, numbers)


def changed_settings(kind, names, scores, a, b):
    """Texts of what differs in how two results were scored: flags, the compared methods, the commit.

    kind: of KINDS; names: the maps; scores: names of the compared scores; a, b: contents of the two result files.
    """
    command = COMMANDS.get(kind, 'eval_attribution')
    one, other = a.get('arguments', {}), b.get('arguments', {})
    used = {flag.name for flag in flags.FLAGS if flag.affects == flags.SCORES and command in flag.commands} - CHOICES
    if kind in COMMANDS:  # without suffixes of results, such as _blur8
        names = [side.get('score_map_process', name) for side, name in zip((one, other), names)]
    if names[0] == names[1] and names[0] in MAPS:
        used |= {*MAPS[names[0]].options} - {'batch_size'}
        if MAPS[names[0]].kind == 'gradient':
            used.add('smoothing_ksize')
    if 'win' in scores:
        used.add('methods')  # it depends on the other maps
    keys = sorted(key for key in {*used, *ALWAYS} & one.keys() & other.keys() if one[key] != other[key])
    texts = [f'--{key} {_value(one[key])} / {_value(other[key])}' for key in keys]
    commits = [(result.get('commit') or '')[:12] for result in (a, b)]
    return (*texts, f'commit {" / ".join(commits)}') if all(commits) and len({*commits}) > 1 else tuple(texts)


def _value(value):
    """The value of a flag as text."""
    return ','.join(map(str, value)) if isinstance(value, list) else str(value)


def compare_runs(a, b):
    """[`Compared`] of all results that both sides have; UserError if there are none."""
    jobs = [('accuracy', None, None)]
    jobs += [(kind, *pair) for kind in KINDS for pair in map_pairs(a, b, kind)]
    known = [sorted({one for kind in KINDS for one in maps_of(side.folder, kind)}) for side in (a, b)]
    for side, maps in zip((a, b), known):
        if side.map and side.map not in maps:
            raise UserError(f'no map {side.map!r} in {side.folder}: choose among {", ".join(maps) or "none"}')
    for side, other, maps in ((a, b, known[1]), (b, a, known[0])):
        if side.map and not other.map and side.map not in maps:
            raise UserError(
                f'{other.folder} has no map {side.map!r} to compare with {side.name}: choose {other.folder}:MAP with '
                f'MAP among {", ".join(maps) or "none"}'
            )
    found = []
    accuracy = ()  # scores to skip: remove-and-classify repeats the test accuracy
    for kind, one, other in jobs:
        samples = read_sample(a.folder, kind, one), read_sample(b.folder, kind, other)
        if None not in samples:
            maps = ' / '.join(dict.fromkeys([one, other])) if one else '-'
            compared = compare_samples(*samples, maps, accuracy)
            if compared:
                results = [
                    read_result(f'{stem_of(side.folder, kind, name)}.json') for side, name in ((a, one), (b, other))
                ]
                scores = {difference.name for difference in compared.differences}
                found.append(compared._replace(changes=changed_settings(kind, (one, other), scores, *results)))
            accuracy = ('top-1',) if kind in ('accuracy', 'pixel_perturb') else accuracy
    if found:
        return found
    for side in (a, b):
        if not _stems(side):
            raise UserError(
                f'{side.folder} holds no arrays (*.npz) of single images: evaluate it again, with '
                '--override_cache=True if it has results'
            )
    have = ' and '.join(f'{side.name} has {", ".join(_stems(side))}' for side in (a, b))
    raise UserError(f'no score in common: {have}')


def _stems(side):
    """The names of the results of an experiment that have arrays."""
    stems = [path.removesuffix('.npz') for path in glob.glob(os.path.join(glob.escape(side.folder), '*.npz'))]
    return sorted(os.path.basename(stem) for stem in stems if os.path.isfile(f'{stem}.json'))


def rows_of(compared):
    """Yield the rows of a `Compared`, texts in the columns of HEAD."""
    for one, digits, number in zip(compared.differences, compared.digits, compared.numbers):
        numbers = [None if np.isnan(value) else value for value in (one.a, one.b, one.difference)]
        yield [
            one.name,
            compared.maps,
            *(number_text(value, digits) for value in numbers),
            interval_text(one.interval, digits).strip() or '-',
            p_text(one.p),
            str(number),
        ]


def p_text(p):
    """A p-value as text; '-' if undefined."""
    return '-' if np.isnan(p) else '< 0.001' if p < 0.001 else f'{p:.3f}'


def _by_changes(found):
    """{changes: the scores, with their maps, of the results that have them}, without those that have none."""
    groups = {}
    for one in found:
        if one.changes:
            scores = ', '.join(difference.name for difference in one.differences)
            groups.setdefault(one.changes, []).append(f'{scores} of {one.maps}' if one.maps != '-' else scores)
    return groups


def print_comparison(first, second):
    """Print the comparison of two experiments, each FOLDER or FOLDER:MAP."""
    a, b = read_side(first), read_side(second)
    found = compare_runs(a, b)
    print(markdown(HEAD, [row for compared in found for row in rows_of(compared)]))
    print(f'A: {a.name}. B: {b.name}. n: common images; for cue localization, pairs of classes.')
    for counts, unit in dict.fromkeys((one.counts, one.unit) for one in found):
        if counts[2] < max(counts[:2]):
            print(f'{counts[2]} {unit} are paired: A has {counts[0]}, B has {counts[1]}.')
    for changes, results in _by_changes(found).items():
        print(f'scored differently, A / B: {"; ".join(changes)} ({", ".join(results)})')
    print('No interval includes the variation over seeds: docs/evaluating.md, "How sure is a figure?"')
