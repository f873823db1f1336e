"""Going on where a run was stopped: what makes a command the same, who owns a result, the word that is left of a
stop."""

import functools
import json
import os
import sys
from contextlib import contextmanager
from typing import NamedTuple

import flags
import util
from data.texts import read_object
from engine import machine, processes
from engine.command import Stopped
from wsol.errors import UserError

from .locks import Lock

TRAINED = 'accuracy.json'  # the result of a training, and of its test alone
MARKER = 'requeue'  # what the file of `marker` is called

# Which flags may differ between two calls of the same command, read off their tables.
RUN_FLAGS = flags.names_of(flags.NOTHING, flags.PLACE) | {'log_folder'}  # which is made of two of them
PLACES = flags.names_of(flags.PLACE)
SCORE_FLAGS = flags.names_of(flags.TRAINING)  # beside those: scores are of a checkpoint, known by its size and time
TASK_FLAGS = flags.names_of(flags.MAPS, grows=True)  # a finished task stays finished whatever others are asked for


class Run(NamedTuple):
    """The command under way, as its files know it."""

    folder: str  # the experiment's
    arguments: dict  # every flag, as logs and results record them; the seed that is drawn is written into it
    resume: bool  # go on where an earlier call was stopped
    override: bool  # results of an earlier call may be replaced

    def provenance(self):
        """What logs and results say of where they come from: {arguments, commit, versions, device}."""
        return {
            'arguments': dict(self.arguments),
            'commit': machine.commit(),
            'versions': machine.versions(),
            'device': machine.device_name(processes.accelerator()),
        }


def marker(folder, result=TRAINED):
    """The file that tells a batch script of a stop, as torchrun hides the exit codes of its processes.

    Each SLURM job has its own; elsewhere it is `requeue` for a training, and each evaluator has one that names its
    `result`, so that those of one folder are told apart.
    """
    own = os.environ.get('SLURM_JOB_ID') or (None if result == TRAINED else os.path.splitext(result)[0])
    return os.path.join(folder, '_'.join(filter(None, [MARKER, own])))


def stop_marked(folder, result=TRAINED):
    """End a run whose state is saved: marks `folder` for the batch script and raises Stopped, which speaks in the
    first process alone. result: the name of the file that the run makes."""
    with open(marker(folder, result), 'w') as file:
        file.write('stopped on request; run the same command with --resume to continue\n')
    words = f'stopped on request, its state is in {folder}: run the same command with --resume to continue'
    first = processes.rank() == 0
    processes.finish()
    raise Stopped(words if first else '')


def read_saved(path):
    """The content of a result, or of a plan, which is the arguments alone; a damaged one is a UserError."""
    advice = 'give --override_cache=True to compute it again, or another --experiment_name'
    saved = read_object(path, advice)
    arguments = saved.get('arguments', saved)
    if not isinstance(arguments, dict) or 'seed' not in arguments:
        raise UserError(f'{path} is damaged (it does not say the arguments of its command): {advice}')
    return saved


def same_command(arguments, saved, where, free=()):
    """UserError that names the flags in which the arguments `saved` in `where` differ; RUN_FLAGS and `free` may.

    Data may have moved: that PLACES differ is said.
    """
    here = json.loads(json.dumps(arguments))
    keys = sorted((here.keys() & saved.keys()) - RUN_FLAGS - set(free))
    differing = [f'--{key}={saved[key]}' for key in keys if here[key] != saved[key]]
    if here.get('seed') is not None and here['seed'] != saved.get('seed'):
        differing.append(f'--seed={saved.get("seed")}')
    if differing:
        raise UserError(
            f'{where} was made by another command, with {", ".join(differing)}: give the same flags to --resume, '
            'or another --experiment_name'
        )
    for flag in sorted(PLACES & here.keys() & saved.keys()):
        if saved[flag] and here[flag] and not _one_place(here[flag], saved[flag]):
            _tell_once(
                f'{where} was made with --{flag}={saved[flag]}, now it is {here[flag]}: data that moved are the same, '
                'for others give another --experiment_name'
            )


def _one_place(one, other):
    return os.path.realpath(one) == os.path.realpath(other)


@functools.cache
def _tell_once(line):
    """On standard error, as standard output lists results; the tasks of an evaluation ask in turn."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def claim(run, result, others=(), kept=None, free=()):
    """Within it, no other run makes the file `result` of the experiment folder; False where --resume finds it complete.

    Where another run is making it that is an InUse error, and nothing is touched. An existing file, of `others` too, is
    AlreadyThere without --resume or --override_cache. With --resume, a result of other arguments is a UserError; where
    the file `kept` exists, the state to go on from, nothing is complete yet, and a table (a result with `methods`) is
    complete when it has all --methods that are asked for. All processes agree.
    """
    lock = Lock(run.folder, result)

    def take():
        lock.take()
        return _is_ours(run, result, others, kept, free)

    try:
        yield processes.first_alone(take)
    finally:
        lock.release()


def _is_ours(run, result, others, kept, free):
    """`claim` in the first process, once it has the lock."""
    path = os.path.join(run.folder, result)
    going_on = run.resume and kept and os.path.isfile(os.path.join(run.folder, kept))
    if not going_on and run.resume and os.path.isfile(path):
        saved = read_saved(path)
        same_command(run.arguments, saved['arguments'], path, {*free, *TASK_FLAGS})
        going_on = not _has_all(saved, run.arguments.get('methods'))
        if not going_on:
            print(f'{path} is complete: nothing to do', flush=True)
            return False
    if not going_on:
        util.check_claim(run.folder, [result, *others], run.override)
    if os.path.exists(marker(run.folder, result)):
        os.unlink(marker(run.folder, result))  # of an earlier stop
    return True


def _has_all(saved, methods):
    """Does a finished result have all methods that are asked for? Those of None and 'all' depend on the network: they
    are the methods of a result that was asked for in the same words."""
    if 'methods' not in saved or methods == saved['arguments']['methods']:
        return True
    return isinstance(methods, list) and {*methods} <= saved['methods'].keys()
