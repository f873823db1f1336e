"""The shards of an evaluation: groups of images that are split across processes, saved, resumed and summed."""

import os
import shutil
import sys

import numpy as np
import torch

import util
from engine import arrays, processes
from wsol.errors import AlreadyThere
from wsol.scoring import add_up

from . import resuming

SHARD_IMAGES = 8  # minimum images per shard
FORM = 2  # version of the shard files; other versions are not resumed
IMAGES = 'images_digest'  # key in the plan
TOTAL, ROWS = 'total/', 'rows/'  # prefixes of the arrays in a shard file


def plan_of(name):
    """The path, below the experiment folder, of the file with the arguments of the evaluation `name`."""
    return os.path.join(f'shards_{name}', 'plan.json')


def _read_json(path):
    """The content of a result or plan; {} if there is none."""
    return resuming.read_saved(path) if os.path.isfile(path) else {}


def planned_seed(runs):
    """The seed of the first of the results {name: run} that --resume continues, else a new one."""
    for name, run in runs.items():
        for path in (plan_of(name), f'{name}.json'):
            saved = processes.agreed(_read_json(os.path.join(run.folder, path)) if run.resume else {})
            if saved:
                return saved.get('arguments', saved)['seed']
    return processes.agreed(util.draw_seed())


def added_to(run, name):
    """The finished result `name`.json to which --resume adds methods; {} if a new one is made.

    If the plan was made without --resume, its evaluation replaces the result.
    """
    plan = _read_json(os.path.join(run.folder, plan_of(name)))
    if not run.resume or plan and not plan['resume']:
        return {}
    return _read_json(os.path.join(run.folder, f'{name}.json'))


class Shards:
    """The shards of one task: images 0..count-1 in batches, and batches in shards; process r of n takes every n-th.

    A finished shard is a file below the experiment folder, which --resume does not repeat. Totals are summed and rows
    concatenated in the order of the images, for any number of processes. Without --resume, shards of a stopped
    evaluation are AlreadyThere, or replaced with --override_cache.

    task: its name if the result has several, to which --resume may add (TASK_FLAGS). images: a digest of the images and
    what they are compared with, which --resume requires to be the same.
    """

    def __init__(self, run, name, count, batch_size, task=None, images=None):
        self.experiment = run.folder
        self.name = name
        self.batch_size = batch_size
        self.plan = os.path.join(run.folder, plan_of(name))
        self.folder = os.path.dirname(self.plan)
        size = batch_size * -(-SHARD_IMAGES // batch_size)
        self.shards = [range(first, min(first + size, count)) for first in range(0, count, size)]
        self.task = task
        self.images = images
        self.free = resuming.SCORE_FLAGS | (resuming.TASK_FLAGS if task else set())
        free = (resuming.RUN_FLAGS | self.free) - {'seed'}
        identity = {flag: value for flag, value in run.arguments.items() if flag not in free}
        self.key = resuming.digest(FORM, identity)[:8]  # in the file names: identifies the command
        processes.first_alone(lambda: self._prepare(run))
        mine = range(len(self.shards))[processes.rank() :: processes.world()]
        self.todo = {index for index in mine if not self._is_done(index)}

    def _file(self, index):
        return os.path.join(self.folder, '.'.join(filter(None, [f'{index:06}', self.key, self.task, 'npz'])))

    def _is_done(self, index):
        """Is a shard saved? A damaged one is reported and computed again."""
        path = self._file(index)
        whole = arrays.is_whole(path)
        if not whole and os.path.exists(path):
            print(f'{path} is damaged: its images are scored again', file=sys.stderr, flush=True)
        return whole

    def _prepare(self, run):
        """In rank 0: make the folder; an existing one must belong to the same command."""
        planned = os.path.isfile(self.plan)
        if planned and run.resume:
            plan = _read_json(self.plan)
            resuming.same_command(run.arguments, plan, self.plan, self.free)
            resuming.same_images(self.images, plan.get(IMAGES), self.plan)
        elif planned and not run.override and any(name.endswith('.npz') for name in os.listdir(self.folder)):
            raise AlreadyThere(
                f'{self.folder} holds the finished images of a stopped evaluation: give --resume to continue it, or '
                '--override_cache=True to start over'
            )
        else:
            if run.override:
                shutil.rmtree(self.folder, ignore_errors=True)
            util.make_folder(self.folder)
            util.write_json(self.plan, {**run.arguments, 'resume': run.resume, IMAGES: self.images})

    def batches(self, index):
        """The batches of a shard: lists of image numbers."""
        shard = self.shards[index]
        return [list(shard[i : i + self.batch_size]) for i in range(0, len(shard), self.batch_size)]

    def save(self, index, tally):
        """Save the `wsol.scoring.Tally` of a shard."""
        totals = {TOTAL + name: _on_host(value) for name, value in tally.totals.items()}
        rows = {ROWS + name: np.concatenate([_on_host(one) for one in some]) for name, some in tally.rows.items()}
        arrays.write(self._file(index), {**totals, **rows})
        self.todo.remove(index)

    def files(self):
        """The paths of all shards, in the order of the images."""
        return [self._file(index) for index in range(len(self.shards))]

    def remove(self):
        """Remove the shards, after the result is written."""
        shutil.rmtree(self.folder)


def missing(several):
    """[(index, batches)] of the shards that this process must compute for any of several `Shards`."""
    several = list(several)
    indices = sorted(set().union(*(one.todo for one in several)))
    return [(index, several[0].batches(index)) for index in indices]


def leave_if_stopped(several):
    """Raise Stopped in all processes if one stopped before its last shard; waits for all."""
    several = list(several)
    if processes.largest(sum(len(one.todo) for one in several)):
        resuming.stop_marked(several[0].experiment, f'{several[0].name}.json')


def total_of(several):
    """{name: array} of the sums over all shards of several `Shards` of the same images."""
    total = {}
    for files in zip(*(one.files() for one in several)):
        for path in files:
            with np.load(path) as file:
                add_up(total, {name[len(TOTAL) :]: file[name] for name in file.files if name.startswith(TOTAL)})
    return total


def rows_of(several):
    """{name: `arrays.Stored`} of the per-image arrays of several `Shards`, in the order of the images."""
    names = {}  # {name: files that have it}; a shard without scored images has none
    for files in zip(*(one.files() for one in several)):
        for path in files:
            with np.load(path) as file:
                for name in file.files:
                    if name.startswith(ROWS):
                        names.setdefault(name, []).append(path)
    return {name[len(ROWS) :]: arrays.Stored(name, paths) for name, paths in names.items()}


def _on_host(value):
    """A tensor, array or number as an array."""
    return value.cpu().numpy() if torch.is_tensor(value) else np.asarray(value)
