"""What experiment folders hold: logs and result files, read with care for files that are missing or damaged."""

import glob
import json
import os
import re
import statistics
import zipfile
import zlib
from typing import NamedTuple

MODES = ('released', 'per_pair', 'exact')  # of cue localization
SCORES = 'attribution_scores.json'  # of many maps, by eval_attribution.py


class RunFolder(NamedTuple):
    """What the folder of an experiment holds."""

    name: str  # the folder's name, or its path where two folders have the same name
    folder: str
    style: int  # its number among the folders: its colour and marker in charts
    first: dict  # the first record of its log: arguments, commit, versions; {} without a log
    epochs: list  # records of the log, one an epoch
    arguments: dict  # of its training, else of one of its evaluations, else {}
    results: dict  # {file name: content} of its result files


def read_result(path):
    """A result file's content; {} where there is none. A damaged file is a UserError."""
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        wrong = None if isinstance(content, dict) else 'holds no JSON object'
    except (ValueError, RecursionError) as error:
        wrong = f'cannot be read: {error}'
    if wrong:
        from wsol.errors import UserError  # with PyTorch, which is not needed otherwise

        raise UserError(f'{path} {wrong}: make it again with --override_cache=True')
    return content


def read_arrays(path):
    """{name: array} of a file that holds what each image gave (docs/evaluating.md); {} where there is none.

    A damaged file is a UserError.
    """
    if not os.path.isfile(path):
        return {}
    import numpy as np  # as below: what is not needed need not be loaded

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        from wsol.errors import UserError  # with PyTorch

        raise UserError(f'{path} is damaged or no file of arrays: {error}') from None


def maps_scored(folder):
    """Names of the maps whose cue localization or remove-and-classify an experiment folder holds; [None] for none."""
    kinds = ('cue_location', 'pixel_perturb')
    paths = [path for kind in kinds for path in glob.glob(os.path.join(glob.escape(folder), f'{kind}_*.json'))]
    return sorted({os.path.basename(path).removesuffix('.json').split('_', 2)[2] for path in paths}) or [None]


def read_object(path, notes):
    """A result's object; {} where the file is missing, or damaged, which is noted."""
    try:
        return read_result(path)
    except (ValueError, OSError) as error:
        notes.append(str(error))
        return {}


def read_log(path, notes):
    """(first record, epoch records in order, each epoch's last one) of a log.

    Lines cut off or damaged are counted in a note.
    """
    records = []
    damaged = 0
    if os.path.isfile(path):
        with open(path, errors='replace') as file:
            for line in file:
                try:
                    records.append(dict(json.loads(line)))
                except (ValueError, TypeError):
                    damaged += 1
    if damaged:
        notes.append(f'{path}: {damaged} lines cannot be read')
    epochs = {
        record['epoch']: record for record in records if isinstance(record.get('epoch'), int) and 'loss' in record
    }
    first = next((record for record in records if 'arguments' in record), {})
    return first, [epochs[number] for number in sorted(epochs)]


def read_run(folder, name, style, notes):
    """The `RunFolder` of an experiment folder."""
    first, epochs = read_log(os.path.join(folder, 'log.jsonl'), notes)
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), '*.json')))
    results = {os.path.basename(path): read_object(path, notes) for path in paths}
    arguments = first.get('arguments')
    if not arguments:
        arguments = next((content['arguments'] for content in results.values() if 'arguments' in content), {})
    return RunFolder(name, folder, style, first, epochs, arguments if isinstance(arguments, dict) else {}, results)


def read_runs(folders):
    """([`RunFolder` of each folder], notes on what cannot be read)."""
    notes = []
    names = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    runs = [
        read_run(folder, name if names.count(name) == 1 else folder, number, notes)
        for number, (folder, name) in enumerate(zip(folders, names))
    ]
    return runs, notes


def results_of(runs, kind):
    """(run, map or rest of the name, content) of every result KIND_<map>.json."""
    for run in runs:
        for name, content in run.results.items():
            if re.fullmatch(f'{kind}(_.*)?\\.json', name) and content:
                yield run, name[len(kind) + 1 : -len('.json')], content


# Several seeds of a run: the folders NAME-seed0, NAME-seed1, …


def seed_of(folder):
    """(path without the ending, seed) of a folder NAME-seedN; None of another."""
    match = re.fullmatch(r'(.+)-seed(\d+)', os.path.normpath(folder))
    return match and (match[1], int(match[2]))


def seed_groups(folders):
    """{path without the ending: its folders by seed} of runs that have two seeds or more among the folders."""
    groups = {}
    for folder in folders:
        if found := seed_of(folder):
            groups.setdefault(found[0], []).append(folder)
    return {path: sorted(group, key=lambda one: seed_of(one)[1]) for path, group in groups.items() if len(group) > 1}


def run_seeds(path):
    """{seed: folder} of the run NAME at `path` in its place, ascending."""
    found = {seed_of(folder): folder for folder in glob.glob(f'{glob.escape(path)}-seed*')}
    return {key[1]: found[key] for key in sorted(filter(None, found)) if key[0] == os.path.normpath(path)}


def over_seeds(values, digits=2):
    """'mean ± standard deviation' of a figure over the seeds; '-' where one of them is not known."""
    if None in values:
        return '-'
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'
