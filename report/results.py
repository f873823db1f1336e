"""Reading logs and result files of experiment folders, some of which may be missing or damaged."""

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
    """The content of an experiment folder."""

    name: str  # the folder's name, or its path if several have the same name
    folder: str
    style: int  # number of its colour and marker in charts
    first: dict  # first record of the log: arguments, commit, versions; {} without a log
    epochs: list  # records of the log, one per epoch
    arguments: dict  # of the training, else of an evaluation, else {}
    results: dict  # {file name: content} of the result files


def read_result(path):
    """The content of a result file; {} if it does not exist, UserError if it is damaged."""
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
        wrong = None if isinstance(content, dict) else 'is not a JSON object'
    except (ValueError, RecursionError) as error:
        wrong = f'cannot be read: {error}'
    if wrong:
        from wsol.errors import UserError  # loads PyTorch

        raise UserError(f'{path} {wrong}: make it again with --override_cache=True')
    return content


def read_arrays(path):
    """{name: array} of a result's .npz (docs/evaluating.md); {} if it does not exist, UserError if it is damaged."""
    if not os.path.isfile(path):
        return {}
    import numpy as np  # loaded only if needed

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        from wsol.errors import UserError  # loads PyTorch

        raise UserError(
            f'{path} is damaged or not a file of arrays ({error}): make it again with --override_cache=True'
        ) from None


def digits_of(metric):
    """Decimal places of a metric's figures."""
    return 2 if metric.title.endswith('(%)') else 3


def maps_scored(folder):
    """The names of the maps with results of cue localization or remove-and-classify; [None] if there are none."""
    return sorted({one for kind in ('cue_location', 'pixel_perturb') for one in maps_with(folder, kind)}) or [None]


def maps_with(folder, kind):
    """The names of the maps with a result KIND_<map>.json in an experiment folder."""
    paths = glob.glob(os.path.join(glob.escape(folder), f'{kind}_*.json'))
    return sorted(os.path.basename(path).removesuffix('.json')[len(kind) + 1 :] for path in paths)


def read_or_note(path, notes):
    """`read_result`; {} for a damaged file, which is added to `notes`."""
    try:
        return read_result(path)
    except (ValueError, OSError) as error:
        notes.append(str(error))
        return {}


def read_log(path, notes):
    """(first record, the last record of each epoch, in order) of a log; damaged lines are counted in `notes`."""
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
    results = {os.path.basename(path): read_or_note(path, notes) for path in paths}
    arguments = first.get('arguments')
    if not arguments:
        arguments = next((content['arguments'] for content in results.values() if 'arguments' in content), {})
    return RunFolder(name, folder, style, first, epochs, arguments if isinstance(arguments, dict) else {}, results)


def read_runs(folders):
    """([`RunFolder` of each folder], notes on unreadable files)."""
    notes = []
    names = [os.path.basename(os.path.normpath(folder)) for folder in folders]
    runs = [
        read_run(folder, name if names.count(name) == 1 else folder, number, notes)
        for number, (folder, name) in enumerate(zip(folders, names))
    ]
    return runs, notes


def was_trained(run):
    """Did a training in the run's folder make its network? Else an evaluation loaded another one."""
    return bool(run.first) or run.results.get('accuracy.json', {}).get('best_val_accuracy') is not None


def method_of(evaluation):
    """The head of the network in the result of an evaluation; 'classifier' for --classifier, '-' if unknown."""
    arguments = evaluation.get('arguments', {})
    return 'classifier' if arguments.get('classifier') else arguments.get('attribution_method', '-')


def results_of(runs, kind):
    """Yield (run, map or rest of the file name, content) of every result KIND[_<map>].json."""
    for run in runs:
        for name, content in run.results.items():
            if re.fullmatch(f'{kind}(_.*)?\\.json', name) and content:
                yield run, name[len(kind) + 1 : -len('.json')], content


# Runs with several seeds: folders NAME-seed0, NAME-seed1, …


def seed_of(folder):
    """(path without -seedN, N) of a folder NAME-seedN; None for other folders."""
    match = re.fullmatch(r'(.+)-seed(\d+)', os.path.normpath(folder))
    return match and (match[1], int(match[2]))


def seed_groups(folders):
    """{path without -seedN: folders sorted by seed} of runs with at least two seeds."""
    groups = {}
    for folder in folders:
        if found := seed_of(folder):
            groups.setdefault(found[0], []).append(folder)
    return {path: sorted(group, key=lambda one: seed_of(one)[1]) for path, group in groups.items() if len(group) > 1}


def run_seeds(path):
    """{seed: folder} of the folders PATH-seedN, in ascending order."""
    found = {seed_of(folder): folder for folder in glob.glob(f'{glob.escape(path)}-seed*')}
    return {key[1]: found[key] for key in sorted(filter(None, found)) if key[0] == os.path.normpath(path)}


def over_seeds(values, digits=2):
    """'mean ± standard deviation' over the seeds; '-' if a value is None."""
    if None in values:
        return '-'
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'
