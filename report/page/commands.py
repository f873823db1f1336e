"""The command lines that make missing results of an experiment folder."""

import os
import shlex
from html import escape

from engine.experiments import DESCRIBING, default_arguments
from wsol.network import HEADS

from ..results import results_of

PAPER_SCALE = {'jointll': ['--norm_type=clipping', '--threshold_type=log']}  # {map: flags of cue localization}


def own_map(run):
    """The own map of a run's head."""
    head = HEADS.get(run.arguments.get('attribution_method'), HEADS['CAM'])
    return head.own_map


def command_line(program, run, *flags):
    """The command line that makes a result of an experiment."""
    usual = default_arguments()
    words = [f'--{key}={run.arguments[key]}' for key in DESCRIBING if run.arguments.get(key, usual[key]) != usual[key]]
    root, name = os.path.split(os.path.normpath(run.folder))
    if root.startswith(usual.save_root + os.sep):
        root = usual.save_root
        name = os.path.relpath(run.folder, usual.save_root)
    places = [] if root == usual.save_root else [f'--save_root={root or "."}']
    checkpoint = f'--load_checkpoint={run.folder}'
    return shlex.join(['python', program, f'--experiment_name={name}', *places, *words, checkpoint, *flags])


def evaluation_command(program, run, *flags):
    """The command line that evaluates the run's own map."""
    return command_line(program, run, f'--score_map_process={own_map(run)}', *flags)


def cue_command(run):
    """The command line of cue localization with the paper's settings."""
    return evaluation_command('eval_cue_location.py', run, *PAPER_SCALE.get(own_map(run), []))


def missing_results(runs, kind, command_of):
    """HTML that lists the runs without this kind of result, with the command that makes it, command_of(run)."""
    without = [run for run in runs if not any(results_of([run], kind))]
    if not without:
        return ''
    lines = ''.join(f'<li>{escape(run.name)}: <code>{escape(command_of(run))}</code></li>' for run in without)
    return f'<div class="missing"><p>No {escape(kind)} result yet. To make it:</p><ul>{lines}</ul></div>'
