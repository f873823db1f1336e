"""What a cluster asks of a run: torchrun's processes, signals that stop it, and shards of an evaluation that survive both."""

import hashlib
import io
import json
import os
import shutil
import signal
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

import util
from wsol.errors import AlreadyThere, UserError

MARKER = 'requeue'  # a file beside the saved state, for batch scripts: torchrun hides the exit codes of its processes
SHARD_IMAGES = 8  # at least so many images make a shard of an evaluation
# Flags that do not change a result: two calls that differ in nothing else are the same command.
RUN_FLAGS = {
    'config',
    'data_root',
    'experiment_name',
    'log_folder',
    'metadata_root',
    'mask_root',
    'override_cache',
    'resume',
    'save_minutes',
    'save_root',
    'seed',
    'tensorboard',
    'workers',
}

# Flags beside those that do not change a score: it names its checkpoint by size and time, whatever path leads there.
SCORE_FLAGS = {
    'amp',
    'epochs',
    'freeze_bn',
    'gradient_reg',
    'gradient_reg_error',
    'is_train',
    'load_checkpoint',
    'lr',
    'lr_classifier_ratio',
    'lr_decay_frequency',
    'momentum',
    'sync_bn',
    'use_load_checkpoint',
    'weight_decay',
}

_asked = []  # signals that came
_control = []  # the group of processes for words between hosts, beside the one for gradients


def start():
    """This process's device. Under torchrun it joins the others first: nccl on accelerators, gloo elsewhere.

    From here on SIGTERM and SIGUSR1 ask the run to stop (`stop_asked`) instead of ending it.
    """
    for name in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, lambda number, frame: _asked.append(number))
    accelerated = torch.cuda.is_available()
    device = (
        torch.device('cuda', int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count())
        if accelerated
        else torch.device('cpu')
    )
    if accelerated:
        torch.cuda.set_device(device)
    if 'TORCHELASTIC_RUN_ID' in os.environ and not dist.is_initialized():
        dist.init_process_group('nccl' if accelerated else 'gloo')
        _control.append(dist.new_group(backend='gloo', timeout=timedelta(days=1)))  # one may wait for another's shards
    return device


def finish():
    """Leave the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
        _control.clear()


def rank():
    """The number of this process, 0 for the one that writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world():
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait():
    """Wait for every other process."""
    if world() > 1:
        dist.barrier(group=_control[0])


def total_of(tensor):
    """The sum of a tensor over all processes, in place where there are several; returned."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor


def agreed(value):
    """The first process's value, for every process: a plain object."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, src=0, group=_control[0])
    return box[0]


def stop_asked():
    """Was this process asked to stop?"""
    return bool(_asked)


class Vote:
    """The largest number that any process gives, once a step: every process has it a step later, so that none waits."""

    def __init__(self):
        self.pending = None

    def __call__(self, number):
        """The result of the step before; of this step where there is one process."""
        if world() == 1:
            return number
        before = self.close()
        box = torch.tensor([number])  # on the host: the accelerator is not waited for
        self.pending = dist.all_reduce(box, dist.ReduceOp.MAX, group=_control[0], async_op=True), box
        return before

    def close(self):
        """The result of the last step, 0 where there was none."""
        if not self.pending:
            return 0
        (work, box), self.pending = self.pending, None
        work.wait()
        return int(box)


def leave(folder):
    """End a run whose state is saved: marks `folder` for the batch script and raises util.Stopped."""
    with open(os.path.join(folder, MARKER), 'w') as file:
        file.write('asked to stop; run the same command with --resume to go on\n')
    raise util.Stopped(f'stopped as asked, its state is in {folder}: run the same command with --resume to go on')


def unmark(folder):
    """Take an earlier stop's mark away."""
    if rank() == 0 and os.path.exists(os.path.join(folder, MARKER)):
        os.unlink(os.path.join(folder, MARKER))


def same_command(args, saved, where, free=()):
    """ValueError that names the flags in which the arguments `saved` in `where` differ from args; RUN_FLAGS and `free` may."""
    here = json.loads(json.dumps(dict(args)))
    keys = sorted((here.keys() & saved.keys()) - RUN_FLAGS - set(free))
    differing = [f'--{key}={saved[key]}' for key in keys if here[key] != saved[key]]
    if here.get('seed') is not None and here['seed'] != saved.get('seed'):
        differing.append(f'--seed={saved.get("seed")}')
    if differing:
        raise UserError(
            f'{where} is of another command, with {", ".join(differing)}: give the same flags to --resume, '
            'or another --experiment_name'
        )


def claim(args, result, others=(), kept=None, free=()):
    """Claim the file `result` and `others` of the experiment folder; False where --resume finds the result complete.

    An existing file is a FileExistsError without --resume or --override_cache. With --resume, a result of other arguments
    is a ValueError; where the file `kept` exists, the state to go on from, nothing is complete yet. All processes agree.
    """
    path = os.path.join(args.log_folder, result)
    going_on = agreed(bool(args.resume and kept and os.path.isfile(os.path.join(args.log_folder, kept))))
    if not going_on and agreed(args.resume and os.path.isfile(path)):
        with open(path) as file:
            same_command(args, json.load(file)['arguments'], path, free)
        if rank() == 0:
            print(f'{path} is complete: nothing to do', flush=True)
        return False
    if rank() == 0 and not going_on:
        util.check_claim(args.log_folder, [result, *others], args.override_cache)
    wait()
    unmark(args.log_folder)
    return True


def plan_of(name):
    """The file that says what the shards of the evaluation `name` belong to, below the experiment folder."""
    return os.path.join(f'shards_{name}', 'plan.json')


def planned_seed(args, name):
    """The seed of the evaluation that --resume goes on with, else a new one; every process gets the same."""
    path = os.path.join(args.log_folder, plan_of(name))
    if agreed(args.resume and os.path.isfile(path)):
        with open(path) as file:
            return json.load(file)['seed']
    return agreed(util.draw_seed())


def add(total, part):
    """Add the values of `part` to those of `total`, in place; a name that is new comes in as it is."""
    for name, value in part.items():
        total[name] = total[name] + value if name in total else value


class Shards:
    """An evaluation's images 0..count-1 in batches, the batches in shards; each process takes every world()-th shard.

    A batch gives a part, {name: array, tensor or number}; parts are added up, in an order that the number of processes does not
    change. A finished shard is a file below the experiment folder, so that --resume repeats none. Without --resume the
    files of a stopped evaluation are a FileExistsError, or replaced with --override_cache.
    """

    def __init__(self, args, name, count):
        self.experiment, self.batch_size, self.done = args.log_folder, args.batch_size, 0
        self.plan = os.path.join(args.log_folder, plan_of(name))
        self.folder = os.path.dirname(self.plan)
        size = args.batch_size * -(-SHARD_IMAGES // args.batch_size)
        self.shards = [range(first, min(first + size, count)) for first in range(0, count, size)]
        told = {key: value for key, value in dict(args).items() if key not in (RUN_FLAGS | SCORE_FLAGS) - {'seed'}}
        self.key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[
            :8
        ]  # no other command's files are taken
        self._prepare(args)
        mine = list(enumerate(self.shards))[rank() :: world()]
        self.todo = [(number, shard) for number, shard in mine if not os.path.exists(self._file(number))]

    def _file(self, number):
        return os.path.join(self.folder, f'{number:06}.{self.key}.npz')

    def _prepare(self, args):
        """Make the folder; one that is there must belong to the same command."""
        planned = agreed(os.path.isfile(self.plan))
        if planned and args.resume:
            with open(self.plan) as file:
                same_command(args, json.load(file), self.plan, SCORE_FLAGS)
        elif (
            planned
            and not args.override_cache
            and agreed(any(name.endswith('.npz') for name in os.listdir(self.folder)))
        ):
            raise AlreadyThere(
                f'{self.folder} holds the finished part of an evaluation that was stopped: give --resume to '
                'go on with it, or --override_cache=True to begin anew'
            )
        elif rank() == 0:
            if args.override_cache:
                shutil.rmtree(self.folder, ignore_errors=True)
            os.makedirs(self.folder, exist_ok=True)
            util.write_json(self.plan, dict(args))
        wait()

    def batches(self):
        """This process's batches that are still to do, lists of image numbers."""
        return [
            list(shard[i : i + self.batch_size])
            for _, shard in self.todo
            for i in range(0, len(shard), self.batch_size)
        ]

    def run(self, items, work):
        """Call work(number of its first image, item) -> part on the items that belong to `batches`, in their order.

        Tensors stay on their device until their shard is done. Asked to stop, it returns after the batch under way."""
        items = iter(items)
        for number, shard in self.todo:
            total = {}
            for first in shard[:: self.batch_size]:
                if stop_asked():
                    return  # `total` makes all processes leave
                add(total, work(first, next(items)))
            self._save(number, total)
            self.done += 1
        next(items, None)  # a progress bar ends with its last item

    def _save(self, number, total):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: torch.as_tensor(value).cpu().numpy() for name, value in total.items()})
        util.atomically(self._file(number), lambda file: file.write(buffer.getbuffer()))

    def total(self):
        """The sum over all shards {name: array} in the first process, None in the others. Waits for them.

        Where a process was asked to stop before its last shard, all raise util.Stopped; one that is gone is an error.
        """
        left = torch.tensor(len(self.todo) - self.done)
        if world() > 1:
            dist.all_reduce(left, dist.ReduceOp.MAX, group=_control[0])
        if left:
            leave(self.experiment)
        if rank():
            return None
        total = {}
        for number in range(len(self.shards)):
            with np.load(self._file(number)) as part:
                add(total, part)
        return total

    def remove(self):
        """Remove the shards, once the result is written."""
        shutil.rmtree(self.folder)
