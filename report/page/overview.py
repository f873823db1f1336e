"""The page's sections on the runs: results at a glance, arguments, learning curves.

Each section is a function: runs -> HTML text.
"""

import json
import os

from ..results import seed_groups
from ..tables import COLUMNS, seed_rows, summaries
from .charts import Series, line_chart
from .markup import html_list, html_table


def reader_of(run):
    """A function: path of a result -> its content in `run`, {} if missing."""

    def read(path):
        return run.results.get(os.path.basename(path), {})

    return read


def summary_section(runs):
    """The table of scripts/report.py."""
    rows = [[run.name, *one.row()] for run in runs for one in summaries(run.folder, reader_of(run))]
    rows += [[os.path.basename(path), *row] for path, row in seed_rows(seed_groups([run.folder for run in runs]))]
    return html_table(('experiment', *COLUMNS), rows, label='Results at a glance') + (
        '<p class="note">top-1 in percent. cue: mean pixel average precision over the class pairs, in percent, higher '
        'is better. R_k: accuracy with the highest k percent of the pixels erased, over that with random ones erased; '
        'lower is better. Brackets: the 95 % interval over the test images (cue: over the class pairs), without the '
        'variation over seeds. ±: the standard deviation over the seeds of a run.</p>'
    )


def argument_rows(runs):
    """Rows [name, value in each run] of all arguments, the commit, the device and the versions."""
    rows = []
    for key in dict.fromkeys(key for run in runs for key in run.arguments):
        values = [json.dumps(run.arguments[key], ensure_ascii=False) if key in run.arguments else '-' for run in runs]
        rows.append([key, *values])
    rows.append(['commit', *(str(run.first.get('commit') or '-')[:12] for run in runs)])
    rows.append(['device', *(str(run.first.get('device') or '-') for run in runs)])
    versions = [run.first.get('versions') or {} for run in runs]
    for package in dict.fromkeys(package for found in versions for package in found):
        rows.append([package, *(str(found.get(package, '-')) for found in versions)])
    return rows


def evaluation_rows(runs):
    """Rows [run, result, arguments in which the evaluation differs from its run]."""
    rows = []
    for run in runs:
        for name, content in run.results.items():
            arguments = content.get('arguments')
            if isinstance(arguments, dict):
                changes = [
                    f'{key}={json.dumps(value)}' for key, value in arguments.items() if run.arguments.get(key) != value
                ]
                rows.append([run.name, name, ', '.join(changes) or 'the same'])
    return rows


def arguments_section(runs):
    """The arguments of the runs, differing ones first, and those of evaluations that differ from their run's."""
    lost = html_list(
        f'{run.name}: no log.jsonl or result with arguments; main.py writes them' for run in runs if not run.arguments
    )
    runs = [run for run in runs if run.arguments]
    rows = argument_rows(runs)
    head = ['argument', *(run.name for run in runs)]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    same = [row for row in rows if row not in differing]
    several = len(runs) > 1
    pieces = []
    if several:
        pieces.append(f'<h3>Differing between the runs</h3>{html_table(head, differing, label="Differing arguments")}')
    pieces.append(
        f'<details{"" if several else " open"}><summary>{"All others" if several else "Arguments"} ({len(same)})'
        f'</summary>{html_table(head, same, label="Arguments that are the same")}</details>'
    )
    evaluations = html_table(
        ('experiment', 'result', 'arguments'), evaluation_rows(runs), label='Arguments of the evaluations'
    )
    pieces.append(
        '<details><summary>Arguments of the evaluations that are not those of the training</summary>'
        f'{evaluations}</details>'
    )
    return ''.join(pieces) + lost


def epoch_line(run, key, name, dashed=False):
    """A number of each epoch as `Series`."""
    return Series(name, [(record['epoch'], record.get(key)) for record in run.epochs], run.style, dashed)


def learning_rates(run):
    """`Series` of learning rates: of the first parameter group, and of groups that differ from it."""
    rates = [record['lr'] if isinstance(record.get('lr'), list) else [record.get('lr')] for record in run.epochs]
    groups = [n for n in range(min(map(len, rates))) if n == 0 or any(one[n] != one[0] for one in rates)]
    return [
        Series(
            run.name + (f', group {n + 1}' if n else ''),
            [(record['epoch'], one[n]) for record, one in zip(run.epochs, rates)],
            run.style,
            dashed=n > 0,
        )
        for n in groups
    ]


def curve_charts(trained):
    """The charts of runs with epochs."""
    losses = [epoch_line(run, 'loss', run.name) for run in trained]
    accuracies = [
        epoch_line(run, f'{split}_accuracy', f'{run.name}, {split}', dashed=split == 'train')
        for run in trained
        for split in ('val', 'train')
    ]
    rates = [series for run in trained for series in learning_rates(run)]
    return [
        line_chart("Training loss (each method's own)", 'epoch', 'loss', losses),
        line_chart('Accuracy', 'epoch', 'percent', accuracies),
        line_chart('Learning rate', 'epoch', 'rate', rates, log=True),
    ]


def curves_section(runs):
    """Losses, accuracies and learning rates by epoch."""
    trained = [run for run in runs if run.epochs]
    charts = ''.join(curve_charts(trained)) if trained else ''
    return f'<div class="charts">{charts}</div>' + html_list(
        f'{run.name}: no epochs in {run.folder}/log.jsonl; main.py writes it as it trains'
        for run in runs
        if not run.epochs
    )
