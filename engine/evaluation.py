"""Evaluation: a subclass of `Evaluator` per command, and `evaluate`, the loop that they all share."""

import os
import sys
from contextlib import ExitStack, closing

import torch

import util
from config import map_options, pick
from data_loaders import load_split, make_loader
from engine import arrays, models, processes
from engine.map_maker import MapMaker
from engine.resume import resuming, sharding
from wsol.errors import MissingFile, UserError
from wsol.scoring import Tally


class Evaluator:
    """The evaluation of one command: its inputs, the score of a batch, and its results.

    A task is scored and saved separately: by default each map of --score_map_process, with its own result.
    A subclass defines `title` (of the progress bar), `name_of`, `batches`, `score`, `report` and, if needed,
    `requested`, `prepare` and `arrays`. `evaluate` sets, in this order: `device`; `runs` {name: `resuming.Run`}, the
    results to compute; `seed`; and, with a network, `split`, `model` (in eval mode, on the device), `size` (side of the
    images) and `makers` {map: `MapMaker`}.
    """

    title = ''
    files = ()  # extensions of further files, besides NAME.json and NAME.npz
    grows = False  # does a result consist of several tasks, to which --resume may add?

    def __init__(self, args, split='test', network=True):
        """split: None if the evaluator has its own images; network: False for saved maps."""
        self.args = args
        self.run = resuming.Run(args.log_folder, dict(args), args.resume, args.override_cache)
        self.maps = args.score_map_process.split(',')
        self.split_name = split
        self.source = pick(models.Source, args)
        self.checkpoint = _checkpoint_of(self.source)
        self.metadata_root = models.metadata_root(args, self.checkpoint)
        self.network = network
        self.split = self.model = None
        self.makers = {}
        self.size = args.crop_size

    def name_of(self, task):
        """The NAME of the result NAME.json that a task belongs to."""
        raise NotImplementedError

    def requested(self):
        """{task: {flag: its value in the result}} of all requested tasks."""
        return {one: {'score_map_process': one} for one in self.maps}

    def all_runs(self):
        """{name: `resuming.Run`} of all requested results."""
        flags = self.run.arguments
        return {
            self.name_of(task): self.run._replace(arguments={**flags, **own}) for task, own in self.requested().items()
        }

    def tasks(self):
        """The tasks to compute."""
        return [task for task in self.requested() if self.name_of(task) in self.runs]

    def load(self):
        """Load the split and the network; make the `makers`."""
        args = self.args
        if self.split_name:
            self.split = load_split(args.dataset, self.split_name, args.data_root, self.metadata_root)
        num_classes = self.split.num_classes if self.split else args.get('num_classes')
        if args.classifier:
            model, own_size = models.load_trained(args.classifier, args.architecture, num_classes, self.device)
            self.size = self.size or own_size
        else:
            spec = pick(models.Spec, args)._replace(compile=False)
            model = models.load_model(spec, num_classes, self.device, self.source.path())
        self.model = models.for_inference(model, pick(models.Speed, args))
        self.options = map_options(args, sys.stderr.isatty() and processes.rank() == 0)
        how = self.options, self.seed, args.smoothing_ksize
        self.makers = {name: MapMaker(self.model, name, *how) for name in self.choose_maps()}

    def choose_maps(self):
        """The names of the maps to compute; called once the network is loaded."""
        return self.maps

    def prepare(self):
        """Prepare the scoring; sets `count`, the number of images."""
        self.count = len(self.split.image_ids)

    def compared(self):
        """What --resume requires to be the same besides the flags: plain values, for a digest."""
        return [self.split.image_ids, self.split.labels] if self.split else []

    def batches(self, numbers):
        """Yield what all tasks need of each batch; numbers: a list of image numbers for each batch."""
        raise NotImplementedError

    def score(self, task, batch):
        """The `wsol.scoring.Tally` of a batch for a task; totals are summed over all images."""
        raise NotImplementedError

    def arrays(self, totals, rows):
        """{name: array} for NAME.npz; rows: {name: `arrays.Stored`} of all images."""
        return rows

    def report(self, name, totals, rows, log):
        """Write and print NAME.json, in the first process; rows: from `arrays`."""
        raise NotImplementedError

    def path(self, name, extension):
        """The path of a result's file."""
        return os.path.join(self.run.folder, f'{name}.{extension}')

    def write(self, name, result):
        """Write NAME.json: the result and its provenance."""
        util.write_json(self.path(name, 'json'), {**result, **self.runs[name].provenance()})

    def loader(self, split, batches):
        """The `ImageLoader` of a split; batches: lists of image numbers."""
        return make_loader(
            split,
            False,
            max(map(len, batches), default=1),
            self.args.workers,
            crop_size=self.size,
            batches=batches,
            preprocessing=self.model.preprocessing,
            device=self.device,
        )


def evaluate(evaluator):
    """Claim the evaluator's results, score all images, write and report the results, remove the shards.

    The images are split into shards over all processes; finished shards are kept for --resume. With --resume, complete
    results are left alone. Without --seed one is drawn, the same in every process.
    """
    evaluator.device = processes.start()
    torch.backends.cudnn.allow_tf32 = False  # full float32: scores on an accelerator match the CPU's
    if evaluator.network and not evaluator.args.classifier:
        _note_checkpoint(evaluator)
    with ExitStack() as claims:
        evaluator.runs = {
            name: run
            for name, run in evaluator.all_runs().items()
            if claims.enter_context(_claim(name, run, evaluator.files))
        }
        if evaluator.runs:
            _seed(evaluator)
            if evaluator.network:
                evaluator.load()
            evaluator.prepare()
            shards = _shards(evaluator)
            if evaluator.args.seed is None and processes.rank() == 0:
                util.tell_seed(evaluator.seed)
            _score(evaluator, shards)
            sharding.leave_if_stopped(shards.values())
            if processes.rank() == 0:
                _finish(evaluator, shards)
    processes.finish()


def _checkpoint_of(source):
    """The checkpoint file of a `models.Source`; None if it is missing, which `_note_checkpoint` reports."""
    try:
        return source.path()
    except MissingFile:
        return None


def _note_checkpoint(evaluator):
    """Add the checkpoint's size and time to the arguments, which --resume compares.

    With --resume the checkpoint of finished results may be missing.
    """
    run = evaluator.run
    if not evaluator.source.use_load_checkpoint:
        raise UserError(
            'nothing to evaluate: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True for the one in the '
            'experiment folder, or --classifier=NAME of a trained network (eval_wsol.py also takes --scoremap_root=DIR '
            'of saved maps)'
        )
    if evaluator.checkpoint:
        run.arguments['checkpoint_bytes'] = os.path.getsize(evaluator.checkpoint)
        run.arguments['checkpoint_time'] = os.path.getmtime(evaluator.checkpoint)
    elif not run.resume or not all(os.path.isfile(evaluator.path(name, 'json')) for name in evaluator.all_runs()):
        evaluator.source.path()  # raises


def _claim(name, run, extensions):
    """`resuming.claim` of a result and its files."""
    files = [f'{name}.{extension}' for extension in ('npz', *extensions)]
    return resuming.claim(run, f'{name}.json', files, sharding.plan_of(name), resuming.SCORE_FLAGS)


def _seed(evaluator):
    """Draw a seed if none is given, and record it in the arguments of all runs."""
    given = evaluator.args.seed
    evaluator.seed = util.set_seed(sharding.planned_seed(evaluator.runs) if given is None else given)
    for run in evaluator.runs.values():
        run.arguments['seed'] = evaluator.seed


def _shards(evaluator):
    """{task: `sharding.Shards`}."""
    shards = {}
    images = resuming.digest(evaluator.compared())
    for task in evaluator.tasks():
        name = evaluator.name_of(task)
        own = task if evaluator.grows else None
        sizes = evaluator.count, evaluator.args.batch_size
        shards[task] = sharding.Shards(evaluator.runs[name], name, *sizes, own, images)
    return shards


def _score(evaluator, shards):
    """Score and save the missing shards of every task; on a stop request, return after the current batch."""
    todo = sharding.missing(shards.values())
    batches = [numbers for _, shard in todo for numbers in shard]
    with closing(evaluator.batches(batches)) as items:
        images = evaluator.args.batch_size * processes.world()  # per step, over all processes
        shown = util.progress(items, len(batches), evaluator.title, images, processes.rank() == 0)
        for index, shard in todo:
            read = []  # the batches of this shard, read once for all tasks
            for task in [one for one in shards if index in shards[one].todo]:
                whole = _score_shard(evaluator, task, len(shard), read, shown)
                if whole is None:
                    return
                shards[task].save(index, whole)
        next(shown, None)  # lets the progress bar finish


def _score_shard(evaluator, task, count, read, shown):
    """The `Tally` of a shard of `count` batches; None on a stop request.

    Batches not in `read` yet are taken from `shown`. Tensors stay on their device until the shard is finished.
    """
    whole = Tally({}, {})
    for i in range(count):
        if processes.stop_asked():
            return None
        if i == len(read):
            read.append(next(shown))
        whole.add(evaluator.score(task, read[i]))
    return whole


def _finish(evaluator, shards):
    """Write and report each result, in the first process."""
    for name, run in evaluator.runs.items():
        own = [one for task, one in shards.items() if evaluator.name_of(task) == name]
        totals = sharding.total_of(own)
        rows = evaluator.arrays(totals, sharding.rows_of(own))
        arrays.write(evaluator.path(name, 'npz'), rows)
        log = util.Log(os.path.join(run.folder, f'log_{name}.jsonl'), run.provenance())
        evaluator.report(name, totals, rows, log)
        own[0].remove()
