"""The shards of an evaluation: pieces of its images, dealt to processes, kept as files, gone on with, added up."""

import copy
import hashlib
import json
import os
import shutil

import numpy as np
import torch

import util
from engine import arrays, processes, resuming
from wsol.errors import AlreadyThere, UserError
from wsol.scoring import Part, add_up

SHARD_IMAGES = 8  # at least so many images make a shard of an evaluation
FORM = 2  # of the shards' files: those of another form are not gone on with
TOTAL, ROWS = 'total/', 'rows/'  # before the names in a shard's file
EXTENDS = 'extends'  # in a plan: are parts added to a finished result?
TOGETHER = 'together'  # in the names of the files of what the parts of an evaluation give together


def plan_of(name):
    """The file that says what the shards of the evaluation `name` belong to, below the experiment folder."""
    return os.path.join(f'shards_{name}', 'plan.json')


def planned_seed(run, *names):
    """The seed of the first of these evaluations that --resume goes on with or extends, else a new one; every process
    gets the same."""
    for name in names:
        plan, result = (os.path.join(run.folder, path) for path in (plan_of(name), f'{name}.json'))
        for path in (plan, result):
            if processes.agreed(run.resume and os.path.isfile(path)):
                with open(path) as file:
                    saved = json.load(file)
                return saved.get('arguments', saved)['seed']
    return processes.agreed(util.draw_seed())


def extended(run, name):
    """The finished result `name`.json to which --resume adds parts; {} where a new one is made."""
    plan, result = (os.path.join(run.folder, path) for path in (plan_of(name), f'{name}.json'))
    if not run.resume or not os.path.isfile(result):
        return {}
    if os.path.isfile(plan):
        with open(plan) as file:
            if not json.load(file).get(EXTENDS):
                return {}  # it was to replace that result
    with open(result) as file:
        return json.load(file)


class Shards:
    """An evaluation's images 0..count-1 in batches, the batches in shards; each process takes every world()-th shard.

    A batch gives a `wsol.scoring.Part`. Totals are added up and rows put one behind the other, in an order that the
    number of processes does not change: that of the images. A finished shard is a file below the experiment folder, so
    that --resume repeats none. Without --resume the files of a stopped evaluation are AlreadyThere, or replaced with
    --override_cache.

    part: the name of a part of the evaluation, which has files of its own: --resume may ask for other parts beside it
    (PART_FLAGS). extends: are the parts added to a finished result?
    """

    def __init__(self, run, name, count, batch_size, part=None, extends=False):
        self.experiment = run.folder
        self.name = name
        self.batch_size = batch_size
        self.done = 0
        self.plan = os.path.join(run.folder, plan_of(name))
        self.folder = os.path.dirname(self.plan)
        size = batch_size * -(-SHARD_IMAGES // batch_size)
        self.shards = [range(first, min(first + size, count)) for first in range(0, count, size)]
        self.part = part
        self.free = resuming.SCORE_FLAGS | (resuming.PART_FLAGS if part else set())
        free = (resuming.RUN_FLAGS | self.free) - {'seed'}
        identity = {flag: value for flag, value in run.arguments.items() if flag not in free}
        digest = hashlib.sha256(json.dumps([FORM, identity], sort_keys=True).encode()).hexdigest()
        self.key = digest[:8]  # in the files' names: no other command's are taken
        processes.first_alone(lambda: self._prepare(run, extends))
        mine = list(enumerate(self.shards))[processes.rank() :: processes.world()]
        self.todo = [(index, shard) for index, shard in mine if not os.path.exists(self._file(index))]

    def _file(self, index):
        return os.path.join(self.folder, '.'.join(filter(None, [f'{index:06}', self.key, self.part, 'npz'])))

    def _prepare(self, run, extends):
        """In the first process: make the folder; one that is there must belong to the same command."""
        planned = os.path.isfile(self.plan)
        if planned and run.resume:
            with open(self.plan) as file:
                resuming.same_command(run.arguments, json.load(file), self.plan, self.free)
        elif planned and not run.override and self._any_finished():
            raise AlreadyThere(
                f'{self.folder} holds the finished part of an evaluation that was stopped: give --resume to '
                'go on with it, or --override_cache=True to begin anew'
            )
        else:
            if run.override:
                shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder, exist_ok=True)
            util.write_json(self.plan, {**run.arguments, EXTENDS: extends})

    def _any_finished(self):
        return any(name.endswith('.npz') for name in os.listdir(self.folder))

    def _batches_of(self, shard):
        return [list(shard[i : i + self.batch_size]) for i in range(0, len(shard), self.batch_size)]

    def _save(self, index, part):
        totals = {TOTAL + name: _on_host(value) for name, value in part.totals.items()}
        rows = {ROWS + name: np.concatenate([_on_host(one) for one in some]) for name, some in part.rows.items()}
        arrays.write(self._file(index), {**totals, **rows})

    def read(self, index, kind):
        """{name: array} of a finished shard; kind: TOTAL or ROWS."""
        with np.load(self._file(index)) as file:
            return {name[len(kind) :]: file[name] for name in file.files if name.startswith(kind)}

    def remove(self):
        """Remove the shards, once the result is written."""
        shutil.rmtree(self.folder)


def _todo_of_all(several):
    """The shards (index, images) that one of several `Shards` of the same images still lacks, in order."""
    return sorted(dict(one for shards in several for one in shards.todo).items())


def batches_of_all(several):
    """The batches of this process that one of several `Shards` of the same images still lacks, lists of numbers."""
    return [batch for _, shard in _todo_of_all(several) for batch in several[0]._batches_of(shard)]


def run_together(several, items, works, apart=False):
    """Call each of `works`, (image numbers, item) -> Part, for its one of several `Shards` of the same images.

    The items belong to `batches_of_all`, in their order.

    They take each batch in turn, and are saved together; `apart`, a shard's batches are taken by one after the other,
    and each is saved as soon as it is done. Tensors stay on their device until their shard is done. Asked to stop, it
    returns after the batch under way.
    """
    items = iter(items)
    for index, shard in _todo_of_all(several):
        lacking = [(one, work, Part({}, {})) for one, work in zip(several, works) if (index, shard) in one.todo]
        read = []  # the shard's items
        for group in [[one] for one in lacking] if apart else [lacking]:
            for i, numbers in enumerate(several[0]._batches_of(shard)):
                if processes.stop_asked():
                    return  # `total_of` makes all processes leave
                if i == len(read):
                    read.append(next(items))
                for _, work, whole in group:
                    part = work(numbers, read[i])
                    add_up(whole.totals, part.totals)
                    add_up(whole.rows, part.rows)  # lists: one behind the other
            for one, _, whole in group:
                one._save(index, whole)
                one.done += 1
    next(items, None)  # a progress bar ends with its last item


def total_of(several, together=None, earlier=None):
    """The sum over all shards of several `Shards` of the same images {name: array} in the first process, None in the
    others. Waits for them.

    together: {name: rows} that all of them have of a shard's images -> the `Part` of what they give together; a
    `Shards` of it is made anew and joins `several`. earlier: {name: rows} of all images that `together` takes from a
    finished result, among them their `ids`.
    Where a process was asked to stop before its last shard, all raise util.Stopped; one that is gone is an error.
    """
    if processes.largest(sum(len(one.todo) - one.done for one in several)):
        resuming.stop_marked(several[0].experiment, f'{several[0].name}.json')
    if processes.rank():
        return None
    if together:
        several.append(_together(several, together, earlier or {}))
    total = {}
    for index in range(len(several[0].shards)):
        for one in several:
            add_up(total, one.read(index, TOTAL))
    return total


def _together(several, together, earlier):
    """The `Shards` of what `together` makes of the rows of several and of `earlier`."""
    made = copy.copy(several[0])
    made.part = TOGETHER
    end = 0
    for index in range(len(made.shards)):
        rows = {name: some for one in several for name, some in one.read(index, ROWS).items()}
        start, end = end, end + max(map(len, rows.values()), default=0)
        others = {name: some[start:end] for name, some in earlier.items()}
        if earlier and not np.array_equal(rows.get('ids', []), others['ids']):
            raise UserError(
                f'the images are not those of the finished result in {made.experiment} any more, so nothing can be '
                'added to it: give another --experiment_name'
            )
        made._save(index, together({**others, **rows}))
    return made


def write_rows(several, path, extends=False):
    """Write the rows of all images of several `Shards`, in their order, as a file of arrays. One array of one shard is
    in memory. extends: keep the arrays of the file that is there, where several have none of that name."""
    names = {}  # {name: the files that have it}; none where no image of a shard could be scored
    for stored in (one._file(index) for index in range(len(several[0].shards)) for one in several):
        with np.load(stored) as file:
            for name in file.files:
                if name.startswith(ROWS):
                    names.setdefault(name, []).append(stored)
    kept = {}
    if extends:
        with np.load(path) as file:
            kept = {name: arrays.Stored(name, [path]) for name in file.files}
    arrays.write(path, {**kept, **{name[len(ROWS) :]: arrays.Stored(name, files) for name, files in names.items()}})


def _on_host(value):
    """An array, tensor or number as an array."""
    return value.cpu().numpy() if torch.is_tensor(value) else np.asarray(value)
