"""The report of experiments as one HTML file without a network: report.py FOLDER… --html FILE.

Reads the logs and results of each folder (report_results.py), draws the charts (report_charts.py), computes the gallery's maps from
the checkpoints (report_gallery.py) and fills report_template.html. A part whose files are missing says how to make them; a damaged
file is named.
"""

import base64
import hashlib
import json
import os
import re
from html import escape

import report
import report_gallery
import yaml
from report_charts import Series, bar_chart, generic_tables, line_chart, number, table
from report_results import command, load, missing, own_map, results

import util
from wsol import attribution
from wsol.errors import AlreadyThere, MissingFile

TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'report_template.html')
MODES = {
    'released': 'one histogram for all pairs, as the released code and the paper have it',
    'per_pair': 'each pair alone',
    'exact': 'each pair alone, against the true pixels of the parts',
}
COUNTS = {'cue_1': '1', 'cue_2': '2', 'cue_3': '3', 'mean': 'all'}
SCALES = {'jointll': ['--norm_type=clipping', '--threshold_type=log']}  # the paper's, for cue localization
BROKEN = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    ZeroDivisionError,
)  # what a damaged result can raise


def beside_paper(kind, runs, head, rows, label, tail=()):
    """A table of our rows and the paper's: in one where it has the runs' data sets, else in one of its own below.

    head: experiment, set, map, the paper's columns, then those of `tail`, the published rows' values of more columns.
    """
    with open(report.NUMBERS) as file:
        source = yaml.safe_load(file)[kind]
    mark, known = '~' if source.get('digitised') else '', []
    for row in source['rows']:
        for origin in ('paper', 'readme'):
            for dataset, values in row.get(origin, {}).items():
                if any(value is not None for value in values):
                    words = (
                        origin.replace('readme', 'README')
                        + ': '
                        + ', '.join(filter(None, (row['name'], row.get('architecture'))))
                    )
                    known.append(
                        [
                            words,
                            dataset,
                            row.get('map', '-'),
                            *(report.text_of(value, mark=mark) for value in values),
                            *tail,
                        ]
                    )
    sets = {run.arguments.get('dataset') for run in runs}
    same = [row for row in known if row[1] in sets]
    notes = f'<p class="note">{escape(" ".join(source["notes"]))}</p>'
    if same:
        return table(head, rows, same, label) + notes
    others = table(('published', *head[1:]), known, label=f'{label}, published')
    return (table(head, rows, label=label) if rows else '') + (
        f'<details{" open" if len(known) < 10 else ""}><summary>The published numbers, of other data sets than these runs have: for '
        f'orientation, not for comparison</summary>{others}{notes}</details>'
    )


def bullets(lines):
    """A marked list of what is missing or damaged; nothing for no line."""
    items = ''.join(f'<li>{escape(line)}</li>' for line in lines)
    return f'<ul class="missing">{items}</ul>' if items else ''


def place(run):
    """The data set of a run, as a table cell."""
    return run.arguments.get('dataset', '-')


def summary(runs):
    """The table of report.py."""
    read = lambda run: lambda path: run.results.get(os.path.basename(path), {})
    rows = [[run.name, *row] for run in runs for row in report.rows(run.folder, read(run))]
    return table(('experiment', *report.COLUMNS), rows, label='Results at a glance') + (
        '<p class="note">top-1 in percent. cue: mean pixel average precision over the class pairs, in percent, higher is better. R_k: '
        'right with the highest k percent of the pixels erased, over right with random ones erased; lower is better.</p>'
    )


def arguments(runs):
    """The runs' arguments, those in which they differ first, and how each evaluation's differ from its run's."""
    lost = bullets(
        f'{run.name}: no log.jsonl or result with arguments; main.py writes it' for run in runs if not run.arguments
    )
    runs = [run for run in runs if run.arguments]
    keys = list(dict.fromkeys(key for run in runs for key in run.arguments))
    text = lambda run, key: json.dumps(run.arguments[key], ensure_ascii=False) if key in run.arguments else '-'
    rows = [[key, *(text(run, key) for run in runs)] for key in keys]
    rows += [['commit', *(str(run.first.get('commit') or '-')[:12] for run in runs)]]
    rows += [
        [package, *(str((run.first.get('versions') or {}).get(package, '-')) for run in runs)]
        for package in ('python', 'torch', 'torchvision', 'numpy')
    ]
    head, differ = ['argument', *(run.name for run in runs)], [row for row in rows if len(set(row[1:])) > 1]
    evaluations = [
        [
            run.name,
            name,
            ', '.join(
                f'{key}={json.dumps(value)}'
                for key, value in content['arguments'].items()
                if run.arguments.get(key) != value
            )
            or 'the same',
        ]
        for run in runs
        for name, content in run.results.items()
        if isinstance(content.get('arguments'), dict)
    ]
    parts = (
        [f'<h3>In which the runs differ</h3>{table(head, differ, label="Differing arguments")}']
        if len(runs) > 1
        else []
    )
    same = [row for row in rows if row not in differ]
    parts.append(
        f'<details{"" if parts else " open"}><summary>{"All others" if parts else "Arguments"} ({len(same)})</summary>'
        f'{table(head, same, label="Arguments that are the same")}</details>'
    )
    parts.append(
        '<details><summary>Arguments of the evaluations that are not those of the training</summary>'
        f'{table(("experiment", "result", "arguments"), evaluations, label="Arguments of the evaluations")}</details>'
    )
    return ''.join(parts) + lost


def rates(run):
    """The learning rate of each parameter group as `Series`, the first and those that ever differ from it."""
    groups = [one['lr'] if isinstance(one.get('lr'), list) else [one.get('lr')] for one in run.epochs]
    kept = [n for n in range(min(map(len, groups))) if n == 0 or any(one[n] != one[0] for one in groups)]
    return [
        Series(
            run.name + (f', group {n + 1}' if n else ''),
            [(one['epoch'], group[n]) for one, group in zip(run.epochs, groups)],
            run.style,
            n > 0,
        )
        for n in kept
    ]


def curves(runs):
    """Loss, accuracies and learning rates over the epochs."""
    trained = [run for run in runs if run.epochs]
    line = lambda run, key, name, dashed=False: Series(
        name, [(one['epoch'], one.get(key)) for one in run.epochs], run.style, dashed
    )
    charts = [
        line_chart(
            "Training loss (each method's own)", 'epoch', 'loss', [line(run, 'loss', run.name) for run in trained]
        ),
        line_chart(
            'Accuracy',
            'epoch',
            'percent',
            [
                line(run, key, f'{run.name}, {name}', name == 'train')
                for run in trained
                for name, key in (('val', 'val_accuracy'), ('train', 'train_accuracy'))
            ],
        ),
        line_chart('Learning rate', 'epoch', 'rate', [one for run in trained for one in rates(run)], log=True),
    ]
    charts = charts if trained else []
    return f'<div class="charts">{"".join(charts)}</div>' + bullets(
        f'{run.name}: no epochs in {run.folder}/log.jsonl; main.py writes it as it trains'
        for run in runs
        if not run.epochs
    )


def accuracy(runs):
    """Test and best validation accuracy beside the published ones."""
    rows = [
        [
            run.name,
            place(run),
            '-',
            report.text_of(one.get('test_accuracy')),
            report.text_of(one.get('best_val_accuracy')),
            one.get('images', '-'),
        ]
        for run, _, one in results(runs, 'accuracy')
    ]
    head = ('experiment', 'set', 'map', 'top-1 (test)', 'best top-1 (val)', 'test images')
    return beside_paper('classification', runs, head, rows, 'Accuracy', ['-', '-']) + missing(
        runs, 'accuracy', lambda run: command('main.py', run, '--is_train=False')
    )


def cue(runs):
    """Cue localization by the number of differing parts, in each mode."""
    found = list(results(runs, 'cue_location'))
    charts = [
        bar_chart(
            f'Cue localization, {mode.replace("_", " ")}',
            'differing parts',
            'mean PxAP (%)',
            list(COUNTS.values()),
            [
                (
                    f'{run.name}, {name}',
                    [one[mode].get(key) for key in COUNTS],
                    n if len(found) > len(runs) else run.style,
                )
                for n, (run, name, one) in enumerate(found)
                if mode in one
            ],
        )
        for mode in MODES
        if any(mode in one for *_, one in found)
    ]
    rows = [
        [
            f'{run.name}, {mode.replace("_", " ")}',
            place(run),
            name,
            *(report.text_of(one[mode].get(key)) for key in COUNTS),
        ]
        for run, name, one in found
        for mode in MODES
        if mode in one
    ]
    head = ('experiment, mode', 'set', 'map', '1 part', '2 parts', '3 parts', 'mean')
    notes = ''.join(f'<li>{escape(mode.replace("_", " "))}: {escape(text)}</li>' for mode, text in MODES.items())
    return (
        f'<div class="charts">{"".join(charts)}</div><ul class="note">{notes}</ul>'
        + beside_paper('cue_localization', runs, head, rows, 'Cue localization')
        + missing(
            runs,
            'cue_location',
            lambda run: command(
                'eval_cue_location.py', run, f'--score_map_process={own_map(run)}', *SCALES.get(own_map(run), [])
            ),
        )
    )


def erasing(runs):
    """R_k over k."""
    found = list(results(runs, 'pixel_perturb'))
    series = [
        Series(
            f'{run.name}, {name}',
            [(100 * k, value) for k, value in zip(one['k'], one['ratio'])],
            n if len(found) > len(runs) else run.style,
        )
        for n, (run, name, one) in enumerate(found)
    ]
    chart = (
        line_chart('Remove-and-classify (lower is better)', 'erased pixels k (%)', 'R_k', series, 0, level=1)
        if found
        else ''
    )
    rows = [[run.name, place(run), name, *map(report.text_of, one['ratio'])] for run, name, one in found]
    head = ('experiment', 'set', 'map', 'R_10', 'R_30', 'R_50', 'R_70', 'R_90')
    numbers = beside_paper('remove_and_classify', runs, head, rows, 'Remove-and-classify')
    return f'<div class="charts">{chart}</div>{numbers}' + missing(
        runs, 'pixel_perturb', lambda run: command('eval_pixel_perturb.py', run, f'--score_map_process={own_map(run)}')
    )


def wsol_scores(runs):
    """Weakly supervised localization."""
    found = list(results(runs, 'wsol'))
    rows = [
        [
            run.name,
            place(run),
            name,
            *(report.text_of(one.get(key)) for key in ('MaxBoxAcc', 'MaxBoxAccV2', 'PxAP')),
            one.get('split', '-'),
        ]
        for run, name, one in found
    ]
    head = ('experiment', 'set', 'map', 'MaxBoxAcc', 'MaxBoxAccV2', 'PxAP', 'split')
    boxes = [
        [
            f'{run.name}, {name}',
            which.replace('_', ' '),
            iou,
            report.text_of(cell['accuracy']),
            report.text_of(cell['threshold'], 3),
        ]
        for run, name, one in found
        for which in ('largest_contour', 'all_contours')
        for iou, cell in one.get(which, {}).items()
    ]
    by_iou = table(
        ('experiment, map', 'boxes of', 'IoU (%)', 'accuracy', 'at threshold'), boxes, label='Localization by IoU'
    )
    by_iou = f'<details><summary>By IoU threshold</summary>{by_iou}</details>' if boxes else ''
    return (
        beside_paper('wsol', runs, head, rows, 'Localization', ['test'])
        + by_iou
        + missing(runs, 'wsol', lambda run: command('eval_wsol.py', run, f'--score_map_process={own_map(run)}'))
    )


def attribution_scores(runs):
    """What eval_attribution.py wrote: a row a method; a file of another form is shown as it is."""
    parts = []
    for run, name, one in results(runs, 'attribution'):
        scores, methods = one.get('metrics'), one.get('methods')
        if isinstance(scores, dict) and isinstance(methods, dict):
            head = (
                'method',
                *(f'{score["title"]} {"↑" if score["better"] == "higher" else "↓"}' for score in scores.values()),
            )
            rows = [[method, *(number(row.get(score)) for score in scores)] for method, row in methods.items()]
            note = f'<p class="note">{escape(str(one.get("note", "")))}</p>'
            shown = table(head, rows, label=f'Attribution scores of {run.name}') + note
        else:
            shown = ''.join(generic_tables(one))
        parts.append(f'<h3>{escape(", ".join(filter(None, (run.name, name))))}</h3>{shown}')
    return ''.join(parts) + missing(runs, 'attribution', lambda run: command('eval_attribution.py', run))


SECTIONS = (
    ('summary', 'Results at a glance', summary),
    ('gallery', 'Gallery', None),
    ('arguments', 'Arguments', arguments),
    ('curves', 'Learning curves', curves),
    ('accuracy', 'Accuracy', accuracy),
    ('cue', 'Cue localization', cue),
    ('erasing', 'Remove-and-classify', erasing),
    ('wsol', 'Localization (WSOL)', wsol_scores),
    ('attribution', 'Attribution scores', attribution_scores),
)


def section(build, runs):
    """A section's HTML. A run whose results have another form than their commands write is left out of it, with a line."""
    fit, lost = [], []
    for run in runs:
        try:
            build([run])
            fit.append(run)
        except BROKEN as error:
            lost.append(f'{run.name} is left out: a result of it has not the form its command writes ({error!r})')
    return build(fit) + bullets(lost)


def page(runs, notes, gallery, gallery_notes):
    """The whole file as text."""
    with open(TEMPLATE, encoding='utf-8') as file:
        template = file.read()
    before, panel, after = re.split('<!-- GALLERY.*? -->\n', template)
    body = {key: section(build, runs) for key, _, build in SECTIONS if build}
    nothing = bullets(['No maps: they need a checkpoint and the images of its data set, and --gallery over 0.'])
    body['gallery'] = (panel if gallery['runs'] else nothing) + bullets(
        f'Not in the gallery: {note}' for note in gallery_notes
    )
    parts = {
        'title': escape(', '.join(run.name for run in runs)),
        'nav': ''.join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in SECTIONS),
        'notes': bullets(notes),
        'sections': ''.join(
            f'<section id="{key}" aria-labelledby="{key}-title"><h2 id="{key}-title">{title}</h2>{body[key]}</section>'
            for key, title, _ in SECTIONS
        ),
        'data': json.dumps(gallery, allow_nan=False).replace('<', '\\u003c'),
    }
    script = re.search('<script>(.*?)</script>', before + after, re.DOTALL)[1]
    parts['hash'] = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return re.sub(
        r'\{\{(\w+)\}\}', lambda found: parts[found[1]], before + after
    )  # one pass: what is filled in stays as it is


def write(path, folders, overwrite, count, classes, methods, data_root, metadata_root):
    """Write the report of the experiment folders; returns its size in bytes. Mistakes are a ValueError or OSError."""
    if os.path.lexists(path) and not overwrite:
        raise AlreadyThere(f'{path} exists: give another --html, or --overwrite to replace it')
    if not os.path.isdir(os.path.dirname(path) or '.'):
        raise MissingFile(f'no folder {os.path.dirname(path)} for --html {path}: make it first')
    for method in methods:
        if method != report_gallery.OWN:
            attribution.lookup(method)
    runs, notes = load(folders)
    gallery, gallery_notes = {'sets': [], 'runs': []}, []
    if count:
        gallery, gallery_notes = report_gallery.build(
            [(run.name, run.folder, run.arguments) for run in runs], count, classes, methods, data_root, metadata_root
        )
    text = page(runs, notes, gallery, gallery_notes).encode(errors='replace')  # a file name may be no Unicode
    util.atomically(path, lambda file: file.write(text))
    return len(text)
