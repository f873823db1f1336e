"""What experiment folders hold, for report_html.py: logs, results, and the commands that make what is missing."""

import glob
import json
import os
import re
import shlex
from html import escape

import report
import report_gallery
from munch import Munch

# The flags that say which network and data an evaluator is to take.
IDENTITY = (
    'dataset',
    'data_root',
    'metadata_root',
    'crop_size',
    'architecture',
    'attribution_method',
    'use_bn',
    'large_feature_map',
)


def read_json(path, notes):
    """A result's object; {} where the file is missing, or damaged, which is noted."""
    try:
        value = report.read(path)
    except (ValueError, OSError) as error:
        notes.append(f'{path} cannot be read: {error}')
        return {}
    if isinstance(value, dict):
        return value
    notes.append(f'{path} holds no JSON object')
    return {}


def read_log(path, notes):
    """(first record, epoch records in order, each epoch's last one) of a log; lines cut off or damaged are counted in a note."""
    records, bad = [], 0
    if os.path.isfile(path):
        with open(path, errors='replace') as file:
            for line in file:
                try:
                    records.append(dict(json.loads(line)))
                except (ValueError, TypeError):
                    bad += 1
    if bad:
        notes.append(f'{path}: {bad} lines cannot be read')
    epochs = {one['epoch']: one for one in records if isinstance(one.get('epoch'), int) and 'loss' in one}
    return next((one for one in records if 'arguments' in one), {}), [epochs[n] for n in sorted(epochs)]


def load(folders):
    """([experiment], notes): of each folder its name, place in the colours, arguments, epochs and results {file name: content}."""
    notes, names = [], [os.path.basename(os.path.normpath(folder)) for folder in folders]
    runs = []
    for n, folder in enumerate(folders):
        first, epochs = read_log(os.path.join(folder, 'log.jsonl'), notes)
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), '*.json')))
        found = {os.path.basename(path): read_json(path, notes) for path in paths}
        arguments = first.get('arguments') or next(
            (one['arguments'] for one in found.values() if 'arguments' in one), {}
        )
        runs.append(
            Munch(
                name=names[n] if names.count(names[n]) == 1 else folder,
                folder=folder,
                style=n,
                first=first,
                epochs=epochs,
                arguments=arguments if isinstance(arguments, dict) else {},
                results=found,
            )
        )
    return runs, notes


def results(runs, kind):
    """(run, map or rest of the name, content) of every result KIND_<map>.json."""
    for run in runs:
        for name, content in run.results.items():
            if re.fullmatch(f'{kind}(_.*)?\\.json', name) and content:
                yield run, name[len(kind) + 1 : -5], content


def command(program, run, *flags):
    """The command line that makes a result of an experiment."""
    usual = report_gallery.defaults()
    words = [f'--{key}={run.arguments[key]}' for key in IDENTITY if run.arguments.get(key, usual[key]) != usual[key]]
    root, name = os.path.split(os.path.normpath(run.folder))
    if root.startswith(usual.save_root + os.sep):
        root, name = usual.save_root, os.path.relpath(run.folder, usual.save_root)
    root = [] if root == usual.save_root else [f'--save_root={root or "."}']
    return shlex.join(
        ['python', program, f'--experiment_name={name}', *root, *words, f'--load_checkpoint={run.folder}', *flags]
    )


def own_map(run):
    """The map that an experiment's own method has."""
    return 'jointll' if str(run.arguments.get('attribution_method')).startswith('CALM') else 'vanilla'


def missing(runs, kind, make):
    """A paragraph for the runs without a result of the kind, with the command that makes it: make(run)."""
    without = [run for run in runs if not any(results([run], kind))]
    if not without:
        return ''
    lines = ''.join(f'<li>{escape(run.name)}: <code>{escape(make(run))}</code></li>' for run in without)
    return f'<div class="missing"><p>No {escape(kind)} result yet. To make it:</p><ul>{lines}</ul></div>'
