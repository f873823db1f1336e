"""The page's sections of scores: tables and charts, published numbers, commands for missing results.

Each section is a function: runs -> HTML text.
"""

from functools import partial
from html import escape

from ..attribution_scores import is_table, score_rows
from ..intervals import result_intervals
from ..results import results_of
from ..samples import COUNTS, cue_name
from ..tables import interval_text, number_text, read_published
from .charts import Bars, Series, bar_chart, line_chart
from .commands import command_line, cue_command, evaluation_command, missing_results
from .markup import html_table, tables_of_anything

MODES = {
    'released': 'one histogram for all pairs, as in the released code and the paper',
    'per_pair': 'each pair separately',
    'exact': 'each pair separately, against the true pixels of the parts',
}
PAPER_HEAD = ('experiment', 'set', 'map')  # the first columns of every table of scores


def words_of(mode):
    """A mode of cue localization as text."""
    return mode.replace('_', ' ')


def dataset_of(run):
    """The data set of a run, as a table cell."""
    return run.arguments.get('dataset', '-')


def styles_of(found, runs):
    """A colour for each result: its run's, or a separate one if runs have several results."""
    return [number if len(found) > len(runs) else run.style for number, (run, *_) in enumerate(found)]


def published_rows(published, tail):
    """The published rows [source and name, set, map, *numbers, *tail] that have numbers."""
    mark = '~' if published.get('digitised') else ''
    rows = []
    for row in published['rows']:
        name = ', '.join(filter(None, (row['name'], row.get('architecture'))))
        for origin, title in (('paper', 'paper'), ('readme', 'README')):
            for dataset, values in row.get(origin, {}).items():
                if any(value is not None for value in values):
                    numbers = [number_text(value, mark=mark) for value in values]
                    rows.append([f'{title}: {name}', dataset, row.get('map', '-'), *numbers, *tail])
    return rows


def beside_paper(kind, runs, head, rows, label, tail=()):
    """A table of our rows and the published ones of the same data sets; if there are none, all published rows below.

    head: PAPER_HEAD, the paper's columns, further columns; tail: values of the published rows in further columns.
    """
    published = read_published(kind)
    known = published_rows(published, tail)
    sets = {run.arguments.get('dataset') for run in runs}
    same = [row for row in known if row[1] in sets]
    notes = f'<p class="note">{escape(" ".join(published["notes"]))}</p>'
    if same:
        return html_table(head, rows, same, label) + notes
    others = html_table(('published', *head[1:]), known, label=f'{label}, published')
    summary = 'Published numbers, on other data sets than these runs: for orientation, not for comparison'
    return (html_table(head, rows, label=label) if rows else '') + (
        f'<details{" open" if len(known) < 10 else ""}><summary>{summary}</summary>{others}{notes}</details>'
    )


def figure_text(value, interval):
    """A figure as text, followed by its interval."""
    return number_text(value) + interval_text(interval)


def accuracy_section(runs):
    """Test and best validation accuracy, with published numbers."""
    rows = [
        [
            run.name,
            dataset_of(run),
            '-',
            figure_text(result.get('test_accuracy'), result_intervals(run.folder, 'accuracy').get('top-1')),
            number_text(result.get('best_val_accuracy')),
            result.get('images', '-'),
        ]
        for run, _, result in results_of(runs, 'accuracy')
    ]
    head = (*PAPER_HEAD, 'top-1 (test)', 'best top-1 (val)', 'test images')
    make = partial(command_line, 'main.py')
    return beside_paper('classification', runs, head, rows, 'Accuracy', ['-', '-']) + missing_results(
        runs, 'accuracy', lambda run: make(run, '--is_train=False')
    )


def cue_intervals(run, map_name, mode):
    """The intervals, or None, of COUNTS."""
    known = result_intervals(run.folder, 'cue_location', map_name)
    return [known.get(cue_name(mode, pairs)) for pairs in COUNTS.values()]


def cue_chart(mode, found, styles):
    """The chart of cue localization in one mode, by the number of differing parts."""
    series = [
        Bars(
            f'{run.name}, {map_name}',
            [result[mode].get(key) for key in COUNTS],
            style,
            cue_intervals(run, map_name, mode),
        )
        for (run, map_name, result), style in zip(found, styles)
        if mode in result
    ]
    title = f'Cue localization, {words_of(mode)}'
    return bar_chart(title, 'differing parts', 'mean PxAP (%)', ['1', '2', '3', 'all'], series)


def cue_section(runs):
    """Cue localization by the number of differing parts, in each mode."""
    found = list(results_of(runs, 'cue_location'))
    styles = styles_of(found, runs)
    charts = [cue_chart(mode, found, styles) for mode in MODES if any(mode in result for *_, result in found)]
    rows = [
        [
            f'{run.name}, {words_of(mode)}',
            dataset_of(run),
            map_name,
            *(
                figure_text(result[mode].get(key), interval)
                for key, interval in zip(COUNTS, cue_intervals(run, map_name, mode))
            ),
        ]
        for run, map_name, result in found
        for mode in MODES
        if mode in result
    ]
    head = ('experiment, mode', *PAPER_HEAD[1:], '1 part', '2 parts', '3 parts', 'mean')
    notes = ''.join(f'<li>{escape(words_of(mode))}: {escape(text)}</li>' for mode, text in MODES.items())
    return (
        f'<div class="charts">{"".join(charts)}</div><ul class="note">{notes}</ul>'
        + beside_paper('cue_localization', runs, head, rows, 'Cue localization')
        + missing_results(runs, 'cue_location', cue_command)
    )


def erasing_section(runs):
    """R_k of remove-and-classify over k."""
    found = list(results_of(runs, 'pixel_perturb'))
    known = [  # the intervals of R_k, or None, of each result
        [result_intervals(run.folder, 'pixel_perturb', map_name).get(f'R_{100 * k:.0f}') for k in result['k']]
        for run, map_name, result in found
    ]
    series = [
        Series(
            f'{run.name}, {map_name}',
            [(100 * k, ratio) for k, ratio in zip(result['k'], result['ratio'])],
            style,
            intervals={100 * k: bounds for k, bounds in zip(result['k'], intervals)},
        )
        for (run, map_name, result), style, intervals in zip(found, styles_of(found, runs), known)
    ]
    title = 'Remove-and-classify (lower is better)'
    chart = line_chart(title, 'erased pixels k (%)', 'R_k', series, bottom=0, level=1) if found else ''
    rows = [
        [run.name, dataset_of(run), name, *map(figure_text, result['ratio'], intervals)]
        for (run, name, result), intervals in zip(found, known)
    ]
    head = (*PAPER_HEAD, 'R_10', 'R_30', 'R_50', 'R_70', 'R_90')
    numbers = beside_paper('remove_and_classify', runs, head, rows, 'Remove-and-classify')
    missing = missing_results(runs, 'pixel_perturb', partial(evaluation_command, 'eval_pixel_perturb.py'))
    return f'<div class="charts">{chart}</div>{numbers}{missing}'


def localization_by_iou(found):
    """The collapsed table of box accuracies by IoU; empty without results."""
    rows = [
        [
            f'{run.name}, {map_name}',
            which.replace('_', ' '),
            iou,
            number_text(cell['accuracy']),
            number_text(cell['threshold'], 3),
        ]
        for run, map_name, result in found
        for which in ('largest_contour', 'all_contours')
        for iou, cell in result.get(which, {}).items()
    ]
    if not rows:
        return ''
    head = ('experiment, map', 'boxes of', 'IoU (%)', 'accuracy', 'at threshold')
    table = html_table(head, rows, label='Localization by IoU')
    return f'<details><summary>By IoU threshold</summary>{table}</details>'


def localization_section(runs):
    """Weakly supervised localization."""
    found = list(results_of(runs, 'wsol'))
    scores = ('MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')
    rows = [
        [
            run.name,
            dataset_of(run),
            map_name,
            *(figure_text(result.get(key), result_intervals(run.folder, 'wsol', map_name).get(key)) for key in scores),
            result.get('split', '-'),
        ]
        for run, map_name, result in found
    ]
    head = (*PAPER_HEAD, *scores, 'split')
    return (
        beside_paper('wsol', runs, head, rows, 'Localization', ['test'])
        + localization_by_iou(found)
        + missing_results(runs, 'wsol', partial(evaluation_command, 'eval_wsol.py'))
    )


def attribution_table(run, result):
    """The table of attribution scores, a row per map; other results are shown as generic tables."""
    if not is_table(result):
        return ''.join(tables_of_anything(result))
    head, rows = score_rows(run.folder, result)
    note = f'<p class="note">{escape(str(result.get("note", "")))}</p>'
    return html_table(head, rows, label=f'Attribution scores of {run.name}') + note


def attribution_section(runs):
    """The results of eval_attribution.py."""
    pieces = []
    for run, name, result in results_of(runs, 'attribution'):
        title = ', '.join(filter(None, (run.name, name)))
        pieces.append(f'<h3>{escape(title)}</h3>{attribution_table(run, result)}')
    return ''.join(pieces) + missing_results(runs, 'attribution', partial(command_line, 'eval_attribution.py'))
