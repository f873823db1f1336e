"""The page's sections of the runs themselves: results at a glance, arguments, learning curves.

Each section is a function: runs -> HTML text.
"""

import json
import os

from ..results import seed_groups
from ..tables import COLUMNS, seed_rows, summary_rows
from .charts import Series, line_chart
from .markup import html_list, html_table


def reader_of(run):
    """A function: path of a result -> its content as it was read, {} where there is none."""

    def read(path):
        return run.results.get(os.path.basename(path), {})

    return read


def summary_section(runs):
    """The table of scripts/report.py, from the results as they were read."""
    rows = [[run.name, *row] for run in runs for row in summary_rows(run.folder, reader_of(run))]
    rows += [[os.path.basename(path), *row] for path, row in seed_rows(seed_groups([run.folder for run in runs]))]
    return html_table(('experiment', *COLUMNS), rows, label='Results at a glance') + (
        '<p class="note">top-1 in percent. cue: mean pixel average precision over the class pairs, in percent, higher '
        'is better. R_k: right with the highest k percent of the pixels erased, over right with random ones erased; '
        'lower is better. In brackets the 95 % interval over the test images, for cue over the class pairs; what '
        'another seed would change is not in it. ±: the standard deviation over the seeds of a run.</p>'
    )


def argument_rows(runs):
    """Rows [argument, its value in each run] of all arguments, of the commit, of the device and of the versions."""
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
    """Rows [run, result, the arguments in which the evaluation differs from its run]."""
    rows = []
    for run in runs:
        for name, content in run.results.items():
            arguments = content.get('arguments')
            if isinstance(arguments, dict):
                changes = [f'{key}={json.dumps(arguments[key])}' for key in arguments if differs(run, key, arguments)]
                rows.append([run.name, name, ', '.join(changes) or 'the same'])
    return rows


def differs(run, key, arguments):
    """Is an argument another one than the run's?"""
    return run.arguments.get(key) != arguments[key]


def arguments_section(runs):
    """The runs' arguments, those in which they differ first, and how each evaluation's differ from its run's."""
    lost = html_list(
        f'{run.name}: no log.jsonl or result with arguments; main.py writes it' for run in runs if not run.arguments
    )
    runs = [run for run in runs if run.arguments]
    rows = argument_rows(runs)
    head = ['argument', *(run.name for run in runs)]
    differing = [row for row in rows if len(set(row[1:])) > 1]
    same = [row for row in rows if row not in differing]
    several = len(runs) > 1
    pieces = []
    if several:
        pieces.append(f'<h3>In which the runs differ</h3>{html_table(head, differing, label="Differing arguments")}')
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
    """A number of the log's epochs as `Series`."""
    return Series(name, [(record['epoch'], record.get(key)) for record in run.epochs], run.style, dashed)


def learning_rates(run):
    """The learning rate of each parameter group as `Series`, the first and those that ever differ from it."""
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
    """The charts of runs that have epochs."""
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
    """Loss, accuracies and learning rates over the epochs."""
    trained = [run for run in runs if run.epochs]
    charts = ''.join(curve_charts(trained)) if trained else ''
    return f'<div class="charts">{charts}</div>' + html_list(
        f'{run.name}: no epochs in {run.folder}/log.jsonl; main.py writes it as it trains'
        for run in runs
        if not run.epochs
    )
