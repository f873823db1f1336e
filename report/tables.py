"""Markdown tables of experiments, and of the paper's numbers (scripts/paper_numbers.yaml) next to ours.

Does not import PyTorch, so that it starts quickly.
"""

import csv
import glob
import io
import os
from functools import partial
from typing import NamedTuple

import yaml

from .results import (
    MODES,
    SCORES,
    maps_scored,
    maps_with,
    method_of,
    over_seeds,
    read_result,
    run_seeds,
    seed_groups,
    seed_of,
)

FIGURES = ('top-1', 'cue released', 'cue per pair', 'cue exact', 'R_10', 'R_30', 'R_50', 'R_70', 'R_90')
LOCALIZATION = ('MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')
COLUMNS = ('method', 'map', *FIGURES)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NUMBERS = os.path.join(ROOT, 'scripts', 'paper_numbers.yaml')
SETS = ('CUB', 'OpenImages', 'ILSVRC')  # the paper's data sets


def number_text(value, digits=2, mark=''):
    """A number as text, followed by a mark; '-' for None."""
    return '-' if value is None else f'{value:.{digits}f}{mark}'


def markdown(head, rows):
    """A Markdown table of texts with aligned columns."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ['-' * width for width in widths], *rows]
    return '\n'.join('| ' + ' | '.join(text.ljust(width) for text, width in zip(line, widths)) + ' |' for line in lines)


def csv_text(head, rows):
    """A CSV table of texts or numbers."""
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([head, *rows])
    return text.getvalue()


def interval_text(interval, digits=2):
    """An interval as text, to follow its figure; empty for None."""
    return f' [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]' if interval else ''


# Tables of experiments.


class Summary(NamedTuple):
    """The figures of one map of an experiment."""

    method: str
    map: str  # '-' for none
    values: list  # of FIGURES; None: unknown
    intervals: list  # of FIGURES; None: unknown

    def known(self):
        """Is any figure known?"""
        return any(value is not None for value in self.values)

    def row(self):
        """The texts of COLUMNS."""
        cells = [number_text(one) + interval_text(bounds) for one, bounds in zip(self.values, self.intervals)]
        return [self.method, self.map, *cells]


def figures_of(folder, map_name, read=read_result):
    """(method, FIGURES) of a map in an experiment folder, None: unknown; read: path -> result, {} if missing."""
    accuracy = read(os.path.join(folder, 'accuracy.json'))
    cue = read(os.path.join(folder, f'cue_location_{map_name}.json'))
    erasing = read(os.path.join(folder, f'pixel_perturb_{map_name}.json'))
    trained_as = accuracy.get('arguments', {}).get('attribution_method', '-')  # a training starts from its --classifier
    top1 = accuracy.get('test_accuracy')
    if top1 is None and erasing:
        top1 = 100 * erasing['correct'] / erasing['images']
    means = [cue.get(mode, {}).get('mean') for mode in MODES]
    method = method_of(cue or erasing) if cue or erasing else trained_as
    return method, [top1, *means, *erasing_ratios(erasing)]


def summaries(folder, read=read_result):
    """Yield the `Summary` of each map of an experiment; read: as for `figures_of`."""
    for map_name in maps_scored(folder):
        method, values = figures_of(folder, map_name, read)
        yield Summary(method, map_name or '-', values, known_intervals(folder, map_name))


def known_intervals(folder, map_name):
    """The intervals of FIGURES; None for missing arrays."""
    if not glob.glob(os.path.join(glob.escape(folder), '*.npz')):
        return [None] * len(FIGURES)
    from .intervals import result_intervals  # loads NumPy and SciPy
    from .samples import cue_name

    found = result_intervals(folder, 'accuracy')
    if map_name:
        cue = result_intervals(folder, 'cue_location', map_name)
        found = {**result_intervals(folder, 'pixel_perturb', map_name), **found, **cue}
    names = ['top-1', *map(cue_name, MODES), *(name for name in FIGURES if name.startswith('R_'))]
    return [found.get(name) for name in names]


def seed_rows(groups, read=read_result):
    """Yield (path, texts of COLUMNS) of the means over seeds, for each map that all seeds of a run have.

    groups: from `seed_groups`; read: as for `summaries`.
    """
    for path, folders in groups.items():
        runs = [{one.map: one for one in summaries(folder, read)} for folder in folders]
        for map_name, first in runs[0].items():
            if all(map_name in run for run in runs):
                columns = zip(*(run[map_name].values for run in runs))
                yield path, [f'{first.method}, {len(runs)} seeds', map_name, *map(over_seeds, columns)]


def print_summary(folders):
    """Print the table of experiment folders; runs with several seeds get a row of mean ± standard deviation.

    Folders with only attribution scores or localization results, which have tables of their own, have no row.
    """
    groups = seed_groups(folders)
    several = {folder for group in groups.values() for folder in group}
    rows = []
    for folder in folders:
        seed = f', seed {seed_of(folder)[1]}' if folder in several else ''
        known = list(summaries(folder))
        others = os.path.isfile(os.path.join(folder, SCORES)) or maps_with(folder, 'wsol')
        if any(one.known() for one in known) or not others:
            rows += [[method + seed, *rest] for method, *rest in (one.row() for one in known)]
    if rows:
        print(markdown(COLUMNS, [*rows, *(row for _, row in seed_rows(groups))]))


def localization_rows(folders):
    """Yield [folder, method, map, split, *LOCALIZATION] of each result of eval_wsol.py, texts."""
    for folder in folders:
        for map_name in maps_with(folder, 'wsol'):
            from .intervals import result_intervals  # loads NumPy and SciPy

            result = read_result(os.path.join(folder, f'wsol_{map_name}.json'))
            intervals = result_intervals(folder, 'wsol', map_name)
            cells = [number_text(result.get(name)) + interval_text(intervals.get(name)) for name in LOCALIZATION]
            method = '-' if map_name == 'scoremaps' else method_of(result)  # saved maps are of any network
            yield [folder, method, map_name, result.get('split', '-'), *cells]


def print_localization(folders):
    """Print the table of the results of eval_wsol.py, without the scores that none has; nothing without results."""
    rows = list(localization_rows(folders))
    head = ['experiment', 'method', 'map', 'split', *LOCALIZATION]
    shown = [n for n in range(len(head)) if n < 4 or any(row[n] != '-' for row in rows)]
    if rows:
        print('localization:')
        print(markdown([head[n] for n in shown], [[row[n] for n in shown] for row in rows]))


# The paper's tables.


def cue_means(result, mode):
    """Cue localization result -> [cue_1, cue_2, cue_3, mean] of a mode; None: unknown."""
    return [result.get(mode, {}).get(key) for key in ('cue_1', 'cue_2', 'cue_3', 'mean')]


def erasing_ratios(result):
    """Remove-and-classify result -> R_k of each k."""
    return result.get('ratio', [None] * 5)


def top1_accuracy(result):
    """Classification result -> [test accuracy]."""
    return [result.get('test_accuracy')]


def localization_scores(result):
    """Localization result -> its three scores."""
    return [result.get(key) for key in LOCALIZATION]


# {table: (result file, {suffix of our columns: function result -> numbers, in the order of the YAML's `columns`})}.
TABLES = {
    'cue_localization': (
        'cue_location_{map}.json',
        {'': partial(cue_means, mode='released'), ' per pair': partial(cue_means, mode='per_pair')},
    ),
    'remove_and_classify': ('pixel_perturb_{map}.json', {'': erasing_ratios}),
    'classification': ('accuracy.json', {'': top1_accuracy}),
    'wsol': ('wsol_{map}.json', {'': localization_scores}),
}


def read_published(table):
    """The published numbers of a table, {columns, head, notes, rows, digitised}, from the YAML file."""
    with open(NUMBERS) as file:
        return yaml.safe_load(file)[table]


def run_name(row, dataset):
    """The folder name of our run for a published row on a data set; ResNet-50 is omitted."""
    return '_'.join(filter(None, (row['method'], dataset, row.get('architecture'))))


def our_numbers(table, row, dataset, root):
    """Lists of our numbers for a published row: of the given checkpoint, then of the trained run."""
    pattern, kinds = TABLES[table]
    name = run_name(row, dataset)
    found = [read_result(os.path.join(root, *place, name, pattern.format(**row))) for place in (('given',), ())]
    return [numbers_of(result) for result in found for numbers_of in kinds.values()]


def seed_numbers(table, row, dataset, root):
    """{seed: lists of our numbers} for a published row, of runs with several seeds."""
    pattern, kinds = TABLES[table]
    folders = run_seeds(os.path.join(root, run_name(row, dataset)))
    results = {seed: read_result(os.path.join(folder, pattern.format(**row))) for seed, folder in folders.items()}
    return {seed: [numbers_of(result) for numbers_of in kinds.values()] for seed, result in results.items()}


def our_cells(ours, by_seed, seeds, i):
    """The texts of number i in our columns; ours: from `our_numbers`; by_seed: from `seed_numbers`.

    With several seeds, mean ± standard deviation replaces the trained run, and a column for each of `seeds` follows.
    """
    cells = [number_text(one[i]) for one in ours]
    kinds = len(ours) // 2
    if by_seed:
        cells[kinds:] = [over_seeds([numbers[kind][i] for numbers in by_seed.values()]) for kind in range(kinds)]
    for seed in seeds:
        cells += [number_text(one[i]) for one in by_seed[seed]] if seed in by_seed else ['-'] * kinds
    return cells


def paper_rows(table, published, root, datasets, seeds=()):
    """Yield rows [set, method, map, backbone, score, paper, README, ours...]; seeds: those with columns."""
    columns = published['columns']
    mark = '~' if published.get('digitised') else ''
    for dataset in datasets:
        for row in published['rows']:
            if row.get('architecture') and dataset not in SETS:
                continue  # the toy set has one backbone
            paper, readme = (row.get(origin, {}).get(dataset, [None] * len(columns)) for origin in ('paper', 'readme'))
            ours = our_numbers(table, row, dataset, root)
            by_seed = seed_numbers(table, row, dataset, root)
            backbone = row.get('architecture') or ('resnet50' if dataset in SETS else 'vgg_tiny')
            for i, column in enumerate(columns):
                if table == 'wsol' and (column == 'PxAP') != (dataset == 'OpenImages'):
                    continue  # boxes and masks have different scores
                numbers = [number_text(paper[i], mark=mark), number_text(readme[i])]
                ours_here = our_cells(ours, by_seed, seeds, i)
                yield [dataset, row['name'], row.get('map', '-'), backbone, column, *numbers, *ours_here]


def print_paper_table(table, root, datasets, architecture=None):
    """Print a table of the paper with our numbers from the save root.

    datasets: None for all of the table; architecture: of our runs, instead of the paper's.
    """
    published = read_published(table)
    if architecture:
        name = architecture.rpartition('/')[2]
        rows = [row for row in published['rows'] if not row.get('architecture')]
        published = {**published, 'rows': [{**row, 'architecture': name} for row in rows]}
    known = {dataset for row in published['rows'] for dataset in row.get('paper', {})}
    datasets = datasets or [dataset for dataset in SETS if dataset in known]
    runs = {run_name(row, dataset) for row in published['rows'] for dataset in datasets}
    seeds = sorted({seed for name in runs for seed in run_seeds(os.path.join(root, name))})
    places = ['given', 'trained', *(f'seed {seed}' for seed in seeds)]
    ours = [place + suffix for place in places for suffix in TABLES[table][1]]
    head = ('set', 'method', 'map', 'backbone', published['head'], 'paper', 'README', *ours)
    print(markdown(head, list(paper_rows(table, published, root, datasets, seeds))))
    print(*published['notes'], sep='\n')
    print('given: a given checkpoint evaluated here; trained: a run trained here; -: not known or not computed.')
    if seeds:
        print('±: mean and standard deviation over the seeds of a run.')
