"""Evaluation: an evaluator is one class, and `evaluate` takes it from the claim of its results to their report."""

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
    """One command's evaluation: what it reads, what a batch gives, what its results say.

    A task is what is scored and saved by itself: here each map of --score_map_process, which has a result of its own.
    A subclass has a `title` (of the progress bar), `name_of`, `batches`, `score` and `report`, and where it needs them
    `prepare` and `arrays`. From `evaluate` it has, in this order: `device`; `runs`, those results {name: its
    `resuming.Run`} that are to be made; `seed`, `split`, `model` (in eval mode, on the device), `size` (side of the
    images) and `makers` {map: `MapMaker`}, of which a command without a network has the seed alone.
    """

    title = ''
    files = ()  # endings of the files beside NAME.json and NAME.npz
    grows = False  # is a result made of several tasks, of which --resume may ask for others?

    def __init__(self, args, split='test', network=True):
        """args: of the command; split: None for images that the evaluator brings; network: False for saved maps."""
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
        """The name of the result that a task belongs to: NAME.json."""
        raise NotImplementedError

    def all_runs(self):
        """{name of each result that is asked for: the `resuming.Run` that makes it}."""
        flags = self.run.arguments
        return {
            self.name_of(one): self.run._replace(arguments={**flags, 'score_map_process': one}) for one in self.maps
        }

    def tasks(self):
        """The names of the tasks that are to be made."""
        return [one for one in self.maps if self.name_of(one) in self.runs]

    def load(self):
        """The split and the network, and the makers of the maps."""
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
        """The names of the maps that are made, once the network is loaded."""
        return self.maps

    def prepare(self):
        """What is left to do before images are read: at the end it has `count`, the number of images."""
        self.count = len(self.split.image_ids)

    def batches(self, numbers):
        """Yield the batch of each of the lists `numbers` of image numbers, with all that its tasks have in common."""
        raise NotImplementedError

    def score(self, task, batch):
        """The `wsol.scoring.Tally` that a batch gives to a task: its totals are added up over all images."""
        raise NotImplementedError

    def arrays(self, totals, rows):
        """{name: array} of NAME.npz; rows: {name: `arrays.Stored`} of all images."""
        return rows

    def report(self, name, totals, rows, log):
        """Write NAME.json and print it; rows: what `arrays` gave. Called in the first process."""
        raise NotImplementedError

    def path(self, name, ending):
        """The file of a result with this ending."""
        return os.path.join(self.run.folder, f'{name}.{ending}')

    def write(self, name, result):
        """Write NAME.json: the result, and where it comes from."""
        util.write_json(self.path(name, 'json'), {**result, **self.runs[name].provenance()})

    def loader(self, split, batches):
        """The loader of a split's images for the network: square, in order, in `batches` of image numbers."""
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
    """Claim the evaluator's results, go through its images, write the results and report them, clean up.

    Tasks are scored in shards of the images, over all processes; what is scored is kept for --resume. A result that
    --resume finds complete is left alone. Without --seed one is drawn, the same in every process.
    """
    evaluator.device = processes.start()
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: an accelerator's scores are the CPU's
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
    """The checkpoint file of a `models.Source`; None where there is none, and `_note_checkpoint` says what is wrong."""
    try:
        return source.path()
    except MissingFile:
        return None


def _note_checkpoint(evaluator):
    """The checkpoint's size and time go into the arguments, where --resume compares them.

    A finished result outlives its checkpoint: with --resume it is no mistake that the file is gone.
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


def _claim(name, run, endings):
    """The sole right to make a result, False where it is complete: `resuming.claim`."""
    files = [f'{name}.{ending}' for ending in ('npz', *endings)]
    return resuming.claim(run, f'{name}.json', files, sharding.plan_of(name), resuming.SCORE_FLAGS)


def _seed(evaluator):
    """Draw the seed where none is given, and write it down in the arguments of all runs."""
    given = evaluator.args.seed
    evaluator.seed = util.set_seed(sharding.planned_seed(evaluator.runs) if given is None else given)
    for run in evaluator.runs.values():
        run.arguments['seed'] = evaluator.seed


def _shards(evaluator):
    """{task: its `sharding.Shards`}."""
    shards = {}
    for task in evaluator.tasks():
        name = evaluator.name_of(task)
        own = task if evaluator.grows else None
        shards[task] = sharding.Shards(evaluator.runs[name], name, evaluator.count, evaluator.args.batch_size, own)
    return shards


def _score(evaluator, shards):
    """Score the images that a task lacks, shard by shard, and save each task's; asked to stop, it returns after the
    batch under way."""
    todo = sharding.lacking(shards.values())
    batches = [numbers for _, shard in todo for numbers in shard]
    with closing(evaluator.batches(batches)) as items:
        images = evaluator.args.batch_size * processes.world()  # that a step takes in all processes
        shown = util.progress(items, len(batches), evaluator.title, images, processes.rank() == 0)
        for index, shard in todo:
            read = []  # its batches, which every task takes in turn
            for task in [one for one in shards if index in shards[one].todo]:
                whole = _score_shard(evaluator, task, len(shard), read, shown)
                if whole is None:
                    return
                shards[task].save(index, whole)
        next(shown, None)  # a progress bar ends with its last item


def _score_shard(evaluator, task, count, read, shown):
    """The `Tally` of a shard of `count` batches, of which those that are not in `read` yet come from `shown`; None when
    a stop is asked for. Tensors stay on their device until the shard is done."""
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
