"""Resuming a stopped run: which commands are the same, claims on results, and the marker file left by a stop."""

import hashlib
import json
import os
from contextlib import contextmanager
from typing import NamedTuple

import flags
import util
from data.texts import read_object
from engine import machine, processes
from engine.command import Stopped
from wsol.errors import UserError

from .locks import Lock

TRAINED = 'accuracy.json'  # the result of a training or a test
MARKER = 'requeue'  # prefix of marker files

# Flags that may differ between two calls of the same command.
RUN_FLAGS = flags.names_of(flags.NOTHING, flags.PLACE) | {'log_folder'}
PLACES = flags.names_of(flags.PLACE)
SCORE_FLAGS = flags.names_of(flags.TRAINING)  # for scores: a checkpoint is identified by its size and time
GROWING = flags.names_of(flags.TRAINING, grows=True)  # may be larger than at the stop of a training
TASK_FLAGS = flags.names_of(flags.MAPS, grows=True)  # finished tasks do not depend on these


class Run(NamedTuple):
    """The running command, as recorded in its files."""

    folder: str  # the experiment's
    arguments: dict  # all flags, as logs and results record them; a drawn seed is added
    resume: bool  # continue an earlier call
    override: bool  # may replace results of an earlier call

    def provenance(self):
        """{arguments, commit, versions, device}, for logs and results."""
        return {
            'arguments': dict(self.arguments),
            'commit': machine.commit(),
            'versions': machine.versions(),
            'device': machine.device_name(processes.accelerator()),
        }


def marker(folder, result=TRAINED):
    """The marker file that tells a batch script of a stop (torchrun hides the exit codes of its processes).

    requeue_JOB in a SLURM job; elsewhere `requeue` for a training and requeue_RESULT for an evaluation.
    """
    own = os.environ.get('SLURM_JOB_ID') or (None if result == TRAINED else os.path.splitext(result)[0])
    return os.path.join(folder, '_'.join(filter(None, [MARKER, own])))


def stop_marked(folder, result=TRAINED):
    """End a run whose state is saved: write the marker of `result` and raise Stopped, with a message in rank 0 only."""
    with open(marker(folder, result), 'w') as file:
        file.write('stopped on request; run the same command with --resume to continue\n')
    message = f'stopped on request, its state is in {folder}: run the same command with --resume to continue'
    first = processes.rank() == 0
    processes.finish()
    raise Stopped(message if first else '')


def digest(*values):
    """A digest of lists and dicts of plain values: of the images and labels of a split, or of a command's flags."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def same_images(here, saved, where):
    """UserError if the images of a command, a `digest`, are not those of `saved`; older files have none."""
    if saved not in (None, here):
        raise UserError(
            f'{where} was made with other images or labels (the files of the split have changed since): restore them '
            'for --resume, or give another --experiment_name'
        )


def read_saved(path):
    """The content of a result file or of a plan (arguments only); UserError if it is damaged."""
    advice = 'give --override_cache=True to compute it again, or another --experiment_name'
    saved = read_object(path, advice)
    arguments = saved.get('arguments', saved)
    if not isinstance(arguments, dict) or 'seed' not in arguments:
        raise UserError(f'{path} is damaged (it does not contain the arguments of its command): {advice}')
    return saved


def same_command(arguments, saved, where, free=()):
    """UserError listing the flags whose values differ from `saved`, read from `where`; RUN_FLAGS and `free` may differ.

    Different PLACES are reported, as data may have moved.
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
        if saved[flag] and here[flag] and os.path.realpath(here[flag]) != os.path.realpath(saved[flag]):
            processes.tell_once(
                f'{where} was made with --{flag}={saved[flag]}, now it is {here[flag]}: fine if the data moved; for '
                'other data give another --experiment_name'
            )


@contextmanager
def claim(run, result, others=(), kept=None, free=()):
    """A context that locks the file `result` of the experiment folder; yields False if --resume finds it complete.

    Errors, before anything is changed: InUse if another run holds the lock; AlreadyThere if the result or one of
    `others` exists, without --resume and --override_cache; UserError if --resume finds a result of other arguments.
    If the saved state `kept` exists, the result is not complete; a table (a result with `methods`) is complete if it
    has all requested --methods. All processes get the same answer.
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
    """Is the result to be computed? `claim` in rank 0, which has the lock."""
    path = os.path.join(run.folder, result)
    continues = run.resume and kept and os.path.isfile(os.path.join(run.folder, kept))
    if not continues and run.resume and os.path.isfile(path):
        saved = read_saved(path)
        same_command(run.arguments, saved['arguments'], path, {*free, *TASK_FLAGS, *GROWING})
        if result == TRAINED and run.arguments['is_train']:
            _check_grown(run, saved['arguments'], path)
        continues = not _has_all(saved, run.arguments.get('methods'))
        if not continues:
            print(f'{path} is complete: nothing to do', flush=True)
            return False
    if not continues:
        util.check_claim(run.folder, [result, *others], run.override)
    if os.path.exists(marker(run.folder, result)):
        os.unlink(marker(run.folder, result))  # of an earlier stop
    return True


def _check_grown(run, saved, path):
    """UserError if a finished training, whose state is gone, would be extended."""
    for flag in sorted(GROWING):
        if run.arguments[flag] != saved[flag]:
            raise UserError(
                f'{path} is finished with --{flag}={saved[flag]}, and only a stopped training can be continued: give '
                f'--{flag}={saved[flag]}, or start another from it with --load_checkpoint={run.folder} and another '
                '--experiment_name'
            )


def _has_all(saved, methods):
    """Does a finished result have all requested methods? None and 'all', which depend on the network, must be equal."""
    if 'methods' not in saved or methods == saved['arguments']['methods']:
        return True
    return isinstance(methods, list) and {*methods} <= saved['methods'].keys()
