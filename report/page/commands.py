"""The command lines that make missing results of an experiment folder."""

import os
import shlex
from html import escape

import util
from data import folder_truth, folders
from data_loaders import DATASETS
from engine.experiments import DESCRIBING, default_arguments
from wsol.network import HEADS

from ..results import results_of, was_trained

KINDS = {  # of results: {name of their files: title}
    'accuracy': 'accuracy',
    'cue_location': 'cue localization',
    'pixel_perturb': 'remove-and-classify',
    'wsol': 'weakly supervised localization',
    'attribution': 'attribution scores',
}
PAPER_SCALE = {'jointll': ['--norm_type=clipping', '--threshold_type=log']}  # {map: flags of cue localization}


def own_map(run):
    """The own map of a run's head."""
    head = 'classifier' if classifier_of(run) else run.arguments.get('attribution_method')
    return HEADS.get(head, HEADS['CAM']).own_map


def classifier_of(run):
    """The --classifier that a run's results evaluate; None for checkpoints."""
    return None if was_trained(run) else run.arguments.get('classifier')


def network_flag(run):
    """The flag that loads a run's network: its own checkpoint, else the one, or the classifier, that it evaluated."""
    if classifier_of(run):
        return f'--classifier={classifier_of(run)}'
    own = was_trained(run) or os.path.isfile(os.path.join(run.folder, util.CHECKPOINT.format('last')))
    return f'--load_checkpoint={run.folder if own else run.arguments.get("load_checkpoint") or run.folder}'


def command_line(program, run, *flags):
    """The command line that makes a result of an experiment."""
    usual = default_arguments()
    words = [f'--{key}={run.arguments[key]}' for key in DESCRIBING if run.arguments.get(key, usual[key]) != usual[key]]
    root, name = os.path.split(os.path.normpath(run.folder))
    if root.startswith(usual.save_root + os.sep):
        root = usual.save_root
        name = os.path.relpath(run.folder, usual.save_root)
    places = [] if root == usual.save_root else [f'--save_root={root or "."}']
    return shlex.join(['python', program, f'--experiment_name={name}', *places, *words, network_flag(run), *flags])


def evaluation_command(program, run, *flags):
    """The command line that evaluates the run's own map."""
    return command_line(program, run, f'--score_map_process={own_map(run)}', *flags)


def cue_command(run):
    """The command line of cue localization with the paper's settings."""
    return evaluation_command('eval_cue_location.py', run, *PAPER_SCALE.get(own_map(run), []))


def lacks(run, kind):
    """Is there no result of a kind of KINDS yet, although the run's data have the ground truth that it needs?"""
    if any(results_of([run], kind)) or run.arguments.get('images'):  # photographs without a data set
        return False
    name = run.arguments.get('dataset')
    if kind == 'accuracy' and classifier_of(run):  # main.py tests checkpoints only
        return False
    if kind == 'cue_location':
        return name not in DATASETS or bool(DATASETS[name].parts)
    if kind == 'wsol' and name == folders.NAME:
        return folder_truth.truth_kind(run.arguments['data_root']) is not None
    return True


def missing_lines(runs):
    """A line for each run without some of the results, for the terminal; the page has the commands."""
    for run in runs:
        without = [title for kind, title in KINDS.items() if lacks(run, kind)]
        if without:
            yield f'{run.name} has no result yet of {", ".join(without)}: the page has the commands'


def missing_results(runs, kind, command_of):
    """HTML that lists the runs that lack this kind of result, with the command that makes it, command_of(run)."""
    without = [run for run in runs if lacks(run, kind)]
    if not without:
        return ''
    lines = ''.join(f'<li>{escape(run.name)}: <code>{escape(command_of(run))}</code></li>' for run in without)
    return f'<div class="missing"><p>No {escape(kind)} result yet. To make it:</p><ul>{lines}</ul></div>'
