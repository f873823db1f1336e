"""Evaluation: the one way from images to a result that all evaluators go."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import NamedTuple

import cv2
import torch

import util
from config import map_options, pick
from data_loaders import Split, load_split, make_loader
from engine import arrays, models, processes, resuming, sharding
from engine.map_maker import MapMaker
from wsol import attribution
from wsol.errors import MissingFile, UserError


def split_loader(setting, split, crop_size, workers, batches):
    """The loader of a split's images for an evaluation's network: square, in order, in `batches` of image numbers."""
    size = max(map(len, batches), default=1)
    how = {'batches': batches, 'preprocessing': setting.model.preprocessing, 'device': setting.device}
    return make_loader(split, False, size, workers, crop_size=crop_size, **how)


class Request(NamedTuple):
    """What an evaluator is asked for."""

    run: resuming.Run
    spec: models.Spec  # the network
    speed: models.Speed  # how it is run
    source: models.Source | None  # its checkpoint; None: a classifier or saved maps are evaluated
    classifier: str | None  # a trained classifier in place of a checkpoint
    architecture: str | None  # of a classifier that is a file of weights
    dataset: str  # a name of data_loaders.DATASETS
    split: str | None  # 'val' or 'test'; None: the evaluator brings images of its own
    num_classes: int | None  # of a checkpoint without a split
    size: int | None  # side of the images; None: the classifier's own
    data_root: str
    metadata_root: str  # folder of the split files
    maps: list | Callable  # names of attribution.MAPS, or (model, size of its images, options) -> names
    options: attribution.Options
    ksize: int  # smoothing of gradient maps
    batch_size: int  # images


def _named_checkpoint(args):
    """The checkpoint file that the arguments name, None where there is none: `evaluate` says what is wrong then."""
    try:
        return pick(models.Source, args).path()
    except MissingFile:
        return None


def request(args, maps=None, split='test', saved_maps=False):
    """The `Request` of a command's arguments; maps: without them --score_map_process; split: None for images that the
    evaluator brings."""
    return Request(
        run=resuming.Run(args.log_folder, dict(args), args.resume, args.override_cache),
        spec=pick(models.Spec, args),
        speed=pick(models.Speed, args),
        source=None if saved_maps or args.classifier else pick(models.Source, args),
        classifier=None if saved_maps else args.classifier,
        architecture=args.architecture,
        dataset=args.dataset,
        split=split,
        num_classes=args.get('num_classes'),
        size=args.crop_size,
        data_root=args.data_root,
        metadata_root=models.metadata_root(args, _named_checkpoint(args)),
        maps=maps or args.score_map_process.split(','),
        options=map_options(args, sys.stderr.isatty() and processes.rank() == 0),
        ksize=args.smoothing_ksize,
        batch_size=args.batch_size,
    )


class Setting(NamedTuple):
    """What `evaluate` hands to an evaluator once the result is its own."""

    run: resuming.Run
    device: torch.device
    seed: int
    split: Split | None  # None where the evaluator brings images; None, the model too, where saved maps are evaluated
    model: torch.nn.Module | None  # in eval mode, on the device
    makers: dict  # {map: MapMaker}
    size: int  # side of the images


class Evaluation(NamedTuple):
    """What an evaluator hands back: its data, its work on a batch and its report."""

    count: int  # images, numbered from 0
    batches: Callable  # batches of image numbers -> iterable of what `score` takes, one a batch
    score: Callable  # (image numbers, item) -> `wsol.scoring.Part`: totals are added up over all batches
    report: Callable  # (totals, log): writes and prints the result; called in the first process
    title: str  # of the progress bar
    arrays: Callable | None = None  # totals -> the arrays kept beside the result; None: the rows of all images
    parts: tuple = ()  # names: each is finished by itself, score then takes (image numbers, item, part)
    together: Callable | None = None  # {name: rows} of some images -> the `Part` that all parts give together
    earlier: dict | None = None  # {name: rows} for `together`, of the finished result to which the parts are added


def evaluate(asked, name, prepare, others=(), lacks=None):
    """Claim the result `name`.json (and `name`.npz, what each image gave, and `others`), go through all images in
    shards, report, clean up.

    asked: a `Request`; a seed is drawn where none is given, the same in every process. prepare(setting) ->
    `Evaluation`. Nothing is done where --resume finds the result complete; lacks: as for `resuming.claim`.
    """
    _evaluate(asked, {name: asked.run}, lambda setting: lambda *_: prepare(setting), lambda _: others, lacks)


def evaluate_maps(asked, name_of, prepare, others=lambda name: ()):
    """`evaluate` of each of the maps asked for, name_of(map).json, which go through the images together.

    prepare(setting) -> a function: (map, its `resuming.Run`) -> its `Evaluation`; others: of a result's name. Results,
    and what a stop leaves behind, are those of each map's own command.
    """
    runs = {
        name_of(one): asked.run._replace(arguments={**asked.run.arguments, 'score_map_process': one})
        for one in asked.maps
    }
    _evaluate(asked, runs, prepare, others)


def _evaluate(asked, runs, prepare, others, lacks=None):
    """`evaluate` of several results {name: its `resuming.Run`}; prepare(setting) -> function of (map, run)."""
    device = processes.start()
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32: an accelerator's scores are the CPU's
    checkpoint = [_checkpoint(run, name, asked.source) for name, run in runs.items()][-1]
    with ExitStack() as claims:

        def claimed(name, run):
            files = [f'{name}.npz', *others(name)]
            plan = sharding.plan_of(name)
            return claims.enter_context(resuming.claim(run, f'{name}.json', files, plan, resuming.SCORE_FLAGS, lacks))

        mine = {name: run for name, run in runs.items() if claimed(name, run)}
        if mine:
            if asked.source and not checkpoint:
                asked.source.path()  # it is gone: that is a mistake where there is something to do
            _go_through(asked, mine, prepare, device, checkpoint)
    processes.finish()


def _go_through(asked, runs, prepare, device, checkpoint):
    """`_evaluate` where there is something to do."""
    given = asked.run.arguments['seed']
    seed = util.set_seed(sharding.planned_seed(asked.run, *runs) if given is None else given)
    for run in (asked.run, *runs.values()):
        run.arguments['seed'] = seed
    first = next(iter(runs.values()))
    of_map = prepare(_setting(asked._replace(run=first), device, checkpoint))
    evaluations = [of_map(run.arguments.get('score_map_process'), run) for run in runs.values()]
    shards = [  # of each evaluation, of each of its parts
        [
            sharding.Shards(run, name, one.count, asked.batch_size, part, one.earlier is not None)
            for part in one.parts or [None]
        ]
        for (name, run), one in zip(runs.items(), evaluations)
    ]
    works = [work for one in evaluations for work in _works(one)]
    several = [part for parts in shards for part in parts]
    if given is None and processes.rank() == 0:
        util.tell_seed(seed)
    batches = sharding.batches_of_all(several)
    images = asked.batch_size * processes.world()  # that a step takes in all processes
    with closing(_stream(evaluations[0].batches(batches))) as items:
        shown = util.progress(items, len(batches), evaluations[0].title, images, processes.rank() == 0)
        sharding.run_together(several, shown, works, apart=any(one.parts for one in evaluations))
    for (name, run), own, one in zip(runs.items(), shards, evaluations):
        _finish(name, run, own, one)


def _works(evaluation):
    """What scores a batch (image numbers, item): of each part of an evaluation, or of the whole."""
    if not evaluation.parts:
        return [evaluation.score]
    return [lambda numbers, item, part=part: evaluation.score(numbers, item, part) for part in evaluation.parts]


def _finish(name, run, shards, evaluation):
    """Write what an evaluation gave, in the first process; shards: of its parts."""
    totals = sharding.total_of(shards, evaluation.together, evaluation.earlier)
    if totals is None:
        return
    path = os.path.join(run.folder, f'{name}.npz')
    if evaluation.arrays:
        arrays.write(path, evaluation.arrays(totals))
    else:
        sharding.write_rows(shards, path, evaluation.earlier is not None)
    evaluation.report(totals, util.Log(os.path.join(run.folder, f'log_{name}.jsonl'), run.provenance()))
    shards[0].remove()


def _checkpoint(run, name, source):
    """The checkpoint file; its size and time go into the arguments, where --resume compares them.

    A finished result outlives its checkpoint: with --resume it is no mistake that the file is gone.
    """
    if source is None:
        return None
    if not source.use_load_checkpoint:
        raise UserError(
            'nothing to evaluate: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True for the one in the '
            'experiment folder, or --classifier=NAME of a trained network (eval_wsol.py also takes --scoremap_root=DIR '
            'of saved maps)'
        )
    try:
        path = source.path()
    except MissingFile:
        if run.resume and os.path.isfile(os.path.join(run.folder, f'{name}.json')):
            return None
        raise
    run.arguments['checkpoint_bytes'] = os.path.getsize(path)
    run.arguments['checkpoint_time'] = os.path.getmtime(path)
    return path


def _setting(asked, device, checkpoint):
    """The `Setting` of a request: the split, the model, its map makers."""
    seed = asked.run.arguments['seed']
    if asked.source is None and asked.classifier is None:
        return Setting(asked.run, device, seed, None, None, {}, asked.size)
    split = asked.split and load_split(asked.dataset, asked.split, asked.data_root, asked.metadata_root)
    num_classes = split.num_classes if split else asked.num_classes
    size = asked.size
    if asked.classifier:
        model, own_size = models.load_trained(asked.classifier, asked.architecture, num_classes, device)
        size = size or own_size
    else:
        model = models.load_model(asked.spec._replace(compile=False), num_classes, device, checkpoint)
    model = models.for_inference(model, asked.speed)
    names = asked.maps(model, size, asked.options) if callable(asked.maps) else asked.maps
    makers = {name: MapMaker(model, name, asked.options, seed, asked.ksize) for name in names}
    return Setting(asked.run, device, seed, split, model, makers, size)


def _stream(items):
    """The items as a generator, so that what makes them ends when it is closed."""
    yield from items


def one_thread():
    """For a process that scores beside others: one thread, as the images are spread over the processes."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
