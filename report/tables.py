"""Tables of results as text: of experiments, of the paper with its numbers beside ours, of attribution scores.

Markdown and CSV. The published numbers are in scripts/paper_numbers.yaml. Needs no PyTorch, so that it starts at once.
"""

import csv
import io
import os

import yaml

from .results import maps_scored, read_result

COLUMNS = (
    'method',
    'map',
    'top-1',
    'cue released',
    'cue per pair',
    'cue exact',
    'R_10',
    'R_30',
    'R_50',
    'R_70',
    'R_90',
)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NUMBERS = os.path.join(ROOT, 'scripts', 'paper_numbers.yaml')
SETS = ('CUB', 'OpenImages', 'ILSVRC')  # the paper's


def number_text(value, digits=2, mark=''):
    """A number as a table shows it, with a mark behind; '-' for None."""
    return '-' if value is None else f'{value:.{digits}f}{mark}'


def markdown(head, rows):
    """A Markdown table with aligned columns, of texts."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ['-' * width for width in widths], *rows]
    return '\n'.join('| ' + ' | '.join(text.ljust(width) for text, width in zip(line, widths)) + ' |' for line in lines)


# Experiments as they are.


def summary_rows(folder, read=read_result):
    """The rows of an experiment under COLUMNS, texts. read: path -> a result's content, {} where there is none."""
    accuracy = read(os.path.join(folder, 'accuracy.json'))
    for map_name in maps_scored(folder):
        cue = read(os.path.join(folder, f'cue_location_{map_name}.json'))
        erasing = read(os.path.join(folder, f'pixel_perturb_{map_name}.json'))
        arguments = (cue or erasing or accuracy).get('arguments', {})
        top1 = accuracy.get('test_accuracy')
        if top1 is None and erasing:
            top1 = 100 * erasing['correct'] / erasing['images']
        means = [cue.get(mode, {}).get('mean') for mode in ('released', 'per_pair', 'exact')]
        yield [
            arguments.get('attribution_method', '-'),
            map_name or '-',
            *map(number_text, [top1, *means, *erasing.get('ratio', [None] * 5)]),
        ]


def print_summary(folders):
    """The table of experiment folders."""
    print(markdown(COLUMNS, [row for folder in folders for row in summary_rows(folder)]))


# The paper's tables.


def cue_means(mode):
    """A function: cue localization result -> [cue_1, cue_2, cue_3, mean] in a mode."""

    def means(result):
        return [result.get(mode, {}).get(key) for key in ('cue_1', 'cue_2', 'cue_3', 'mean')]

    return means


def erasing_ratios(result):
    """Remove-and-classify result -> R_k of each k."""
    return result.get('ratio', [None] * 5)


def top1_accuracy(result):
    """Classification result -> [test accuracy]."""
    return [result.get('test_accuracy')]


def localization_scores(result):
    """Localization result -> its three scores."""
    return [result.get(key) for key in ('MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')]


# Of each table: the result file, and {suffix of our columns: result -> numbers, as `columns` of the YAML file}.
TABLES = {
    'cue_localization': ('cue_location_{map}.json', {'': cue_means('released'), ' per pair': cue_means('per_pair')}),
    'remove_and_classify': ('pixel_perturb_{map}.json', {'': erasing_ratios}),
    'classification': ('accuracy.json', {'': top1_accuracy}),
    'wsol': ('wsol_{map}.json', {'': localization_scores}),
}


def read_published(table):
    """The published numbers of a table: {columns, head, notes, rows, digitised}, as the YAML file has them."""
    with open(NUMBERS) as file:
        return yaml.safe_load(file)[table]


def run_name(row, dataset):
    """The experiment folder's name of a published row on a data set: ResNet-50 is not named."""
    return '_'.join(filter(None, (row['method'], dataset, row.get('architecture'))))


def our_numbers(table, row, dataset, root):
    """The lists of numbers for a published row in a save root: of the given checkpoint, then of the trained run."""
    pattern, kinds = TABLES[table]
    name = run_name(row, dataset)
    found = [read_result(os.path.join(root, *place, name, pattern.format(**row))) for place in (('given',), ())]
    return [numbers_of(result) for result in found for numbers_of in kinds.values()]


def paper_rows(table, published, root, datasets):
    """Rows [set, method, map, backbone, number's name, paper, README, ours...]."""
    columns = published['columns']
    mark = '~' if published.get('digitised') else ''
    for dataset in datasets:
        for row in published['rows']:
            if row.get('architecture') and dataset not in SETS:
                continue  # the toy set has one backbone
            paper, readme = (row.get(origin, {}).get(dataset, [None] * len(columns)) for origin in ('paper', 'readme'))
            ours = our_numbers(table, row, dataset, root)
            backbone = row.get('architecture') or ('resnet50' if dataset in SETS else 'vgg_tiny')
            for i, column in enumerate(columns):
                if table == 'wsol' and (column == 'PxAP') != (dataset == 'OpenImages'):
                    continue  # boxes and masks have different scores
                numbers = [number_text(paper[i], mark=mark), *map(number_text, [readme[i], *(one[i] for one in ours)])]
                yield [dataset, row['name'], row.get('map', '-'), backbone, column, *numbers]


def print_paper_table(table, root, datasets):
    """One of the paper's tables: published numbers and those of a save root. datasets: None for all that it has."""
    published = read_published(table)
    ours = [place + suffix for place in ('given', 'trained') for suffix in TABLES[table][1]]
    known = {dataset for row in published['rows'] for dataset in row.get('paper', {})}
    datasets = datasets or [dataset for dataset in SETS if dataset in known]
    head = ('set', 'method', 'map', 'backbone', published['head'], 'paper', 'README', *ours)
    print(markdown(head, list(paper_rows(table, published, root, datasets))))
    print(*published['notes'], sep='\n')
    print('given: a given checkpoint evaluated here; trained: a run trained here; -: not known or not computed.')


# Attribution scores. rows: {map name: {metric: figure or None}}; metrics: {metric: a row of scores.METRICS}.


def score_text(value, metric):
    """A metric's figure as the tables show it."""
    return number_text(value, 2 if metric.title.endswith('(%)') else 3)


def best_score(rows, name, metric):
    """The best figure of a metric, or None where none is defined."""
    known = [row[name] for row in rows.values() if row[name] is not None]
    best = max if metric.better == 'higher' else min
    return best(known) if known else None


def winners(rows, metrics):
    """{metric: the names of the maps that have its best figure, as far as the tables show it}."""
    found = {}
    for name, metric in metrics.items():
        best = score_text(best_score(rows, name, metric), metric)
        known = [map_name for map_name, row in rows.items() if row[name] is not None]
        found[name] = [map_name for map_name in known if score_text(rows[map_name][name], metric) == best]
    return found


def title_with_arrow(title, better):
    """A metric's title with the arrow to its better side ('higher' or 'lower')."""
    return f'{title} {"↑" if better == "higher" else "↓"}'


def scores_csv(rows, metrics, costs=()):
    """Attribution scores, and what a map costs, as CSV: a row a map, full digits, nothing where a figure is not
    defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(['method', *metrics, *costs])
    writer.writerows([map_name, *(row[name] for name in (*metrics, *costs))] for map_name, row in rows.items())
    return text.getvalue()


def scores_markdown(rows, metrics, note, costs=None):
    """Attribution scores as Markdown, the best figure of each column in bold, and the note below it.

    costs: {column: (title, digits)} of what a map costs, which are the last columns.
    """
    costs = costs or {}
    best = winners(rows, metrics)

    def cell(map_name, name):
        text = score_text(rows[map_name][name], metrics[name])
        return f'**{text}**' if map_name in best[name] else text

    lines = [
        [
            'method',
            *(title_with_arrow(metric.title, metric.better) for metric in metrics.values()),
            *(title for title, _ in costs.values()),
        ],
        ['---', *('---:' for _ in (*metrics, *costs))],
        *(
            [
                map_name,
                *(cell(map_name, name) for name in metrics),
                *(number_text(row[name], digits) for name, (_, digits) in costs.items()),
            ]
            for map_name, row in rows.items()
        ),
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + f'\n\n{note}\n'
