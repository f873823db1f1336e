"""From a checkpoint to attribution maps: what every evaluator starts from. As a command: maps of photographs, saved maps.

    python inference.py --images 'photos/*.jpg' --load_checkpoint=quickstart/CALM-EM --classes=@1,@2 --method=jointll,grad_cam
    python inference.py --save_scoremaps=save/maps --load_checkpoint=quickstart/CALM-EM --split=test

A panel shows the photograph, the maps of class A and B over it, and their difference, "why A and not B"; it is written to
DIR/<path below the photographs' common folder>.png. What describes the network is taken from the checkpoint's own
arguments where it has them. An image that cannot be read is left out with a line; the exit code is then 2.
"""

import json
import os
import pickle
import sys

import numpy as np
import torch
from munch import Munch

import cluster
import panels
import photographs
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, class_count, load_split, make_loader, read_image_ids
from wsol import attribution, localization, metrics
from wsol.errors import AlreadyThere, MissingFile, UserError


def pick_device():
    """The accelerator where there is one; called once, by the entry script."""
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def load_model(args, num_classes, device, weights=True):
    """The network of the command line on `device`, with the checkpoint's weights where one is asked for.

    weights=False leaves it untrained, for a state that is loaded afterwards.
    """
    path = (
        weights
        and args.use_load_checkpoint
        and util.find_checkpoint(args.load_checkpoint or args.log_folder, args.save_root)
    )
    record = path and util.read_checkpoint(
        path, args.architecture, args.attribution_method, args.large_feature_map, args.is_different_checkpoint
    )
    model = wsol.build_model(
        args.architecture,
        args.attribution_method,
        num_classes,
        args.large_feature_map,
        args.use_bn,
        pretrained=args.pretrained and weights and not record,
    )
    if record:
        try:
            wsol.load_weights(model, record['state_dict'], drop_conv_last=args.is_different_checkpoint)
        except ValueError as error:
            raise UserError(f'{path}: {error}; check --dataset, --architecture and --use_bn') from None
    model = model.to(device, memory_format=torch.channels_last if args.channels_last else torch.contiguous_format)
    if args.compile:
        model.forward_features = torch.compile(model.forward_features)
    return model


def claim_evaluation(args, name, others=(), maps=None):
    """Claim name.json (and `others`) of the experiment folder for an evaluator; False where --resume finds it complete.

    maps: a folder of saved maps, which needs no checkpoint. A seed is drawn where none is given, the same in every process.
    """
    if not (maps or args.use_load_checkpoint):
        raise UserError(
            'nothing to evaluate: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True for the one in the '
            'experiment folder (eval_wsol.py also takes --scoremap_root=DIR of saved maps)'
        )
    try:
        path = None if maps else util.find_checkpoint(args.load_checkpoint or args.log_folder, args.save_root)
    except FileNotFoundError:
        if not (
            args.resume and os.path.isfile(os.path.join(args.log_folder, f'{name}.json'))
        ):  # a finished result outlives it
            raise
    else:
        if path:
            args.checkpoint_bytes, args.checkpoint_time = (
                os.path.getsize(path),
                os.path.getmtime(path),
            )  # --resume compares them
    if not cluster.claim(args, f'{name}.json', others, cluster.plan_of(name), cluster.SCORE_FLAGS):
        return False
    args.seed = util.set_seed(cluster.planned_seed(args, name) if args.seed is None else args.seed)
    return True


def model_and_split(args, name, device):
    """(model in eval mode, the split of that name)."""
    split = load_split(args.dataset, name, args.data_root, args.metadata_root)
    return load_model(args, split.num_classes, device).eval(), split


def progress(args, items, text):
    """The batches of `items`, shown by the first process; images are counted over all processes."""
    return util.progress(items, len(items), text, args.batch_size * cluster.world(), cluster.rank() == 0)


def read_superclasses(path):
    """{class: [classes]} from a JSON file of class numbers (keys as text, as JSON has them)."""
    try:
        with open(path) as file:
            return {int(key): [int(member) for member in members] for key, members in json.load(file).items()}
    except FileNotFoundError:
        raise MissingFile(f'no --superclass file {path}: scripts/make_superclasses.py makes one') from None
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f'--superclass {path} is not a JSON object {{"class": [classes]}}: {error}') from None


class MapMaker:
    """Attribution maps of a model by one process: maps of several classes an image from one forward pass where it can be."""

    def __init__(self, model, args):
        self.model, self.process, self.ksize, self.seed = model, args.score_map_process, args.smoothing_ksize, args.seed
        self.from_output = self.process in attribution.READOUTS or self.process in attribution.SUPERCLASS_READOUTS
        if self.process in attribution.SUPERCLASS_READOUTS and not args.superclass:
            raise UserError(
                f'--score_map_process={self.process} sums over sets of classes: give --superclass=FILE.json'
            )
        self.options = attribution.Options(
            superclass=args.superclass and read_superclasses(args.superclass),
            batch_size=args.batch_size,
            generator=torch.Generator(),
            progress=sys.stderr.isatty() and cluster.rank() == 0,
            target_layer=args.target_layer and args.target_layer.split(','),
            smooth_grad_nr_iter=args.smooth_grad_nr_iter,
            smooth_grad_sigma=args.smooth_grad_sigma,
            integrated_grad_nr_iter=args.integrated_grad_nr_iter,
        )

    def tensors(self, images, output, classes, number=0):
        """Maps for each image, a tensor [K, h, w] for its K classes, on the model's device.

        images [B, 3, H, W]; output: the model's `Output` on them, None where the caller has none; classes: a list of B
        LongTensors [K]; number: that of the batch's first image, noise is drawn from (seed, number).
        """
        if self.from_output:
            with torch.no_grad():
                output = output or self.model(images)
                return [
                    attribution.class_maps(
                        attribution.MAPS[self.process].readout,
                        output.f[b : b + 1],
                        output.h[b : b + 1],
                        y[None],
                        self.options.superclass,
                    )[0]
                    for b, y in enumerate(classes)
                ]
        seed = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)
        self.options.generator.manual_seed(int(seed[0]) >> 1)
        rows = torch.cat([image.expand(len(y), -1, -1, -1) for image, y in zip(images, classes)])
        maps = attribution.explain(self.process, self.model, rows, torch.cat(classes), options=self.options)
        return list(maps.split([len(y) for y in classes]))

    def __call__(self, images, output, classes, number=0):
        """`tensors` as float32 arrays, maps of gradient methods smoothed where the flags ask for it."""
        maps = [one.float().cpu().numpy() for one in self.tensors(images, output, classes, number)]
        return maps if self.from_output else [metrics.smooth(one, self.ksize) for one in maps]


def target_maps(maker, images, output, labels, size, number=0):
    """The labels' maps at image size, a float32 tensor [B, size, size] on the images' device; number: as for `MapMaker`.

    On the host OpenCV resizes, as the protocol has it; on an accelerator PyTorch does, equal but for rounding, and nothing
    is copied.
    """
    classes = list(labels.view(-1, 1))
    if images.device.type == 'cpu' or maker.ksize > 1:
        maps = np.concatenate(maker(images, output, classes, number))
        return torch.from_numpy(metrics.resize(maps, size)).to(images.device)
    return attribution.upsample(torch.cat(maker.tensors(images, output, classes, number)).float(), size)


# The command: pictures of maps, saved maps.

TRAINED = (
    'architecture',
    'attribution_method',
    'large_feature_map',
    'use_bn',
    'crop_size',
    'dataset',
    'data_root',
    'metadata_root',
)


def checkpoint_summary(args):
    """(its training's arguments, its class count) of the checkpoint that `args` name; {} and None where it does not tell."""
    path = util.find_checkpoint(args.load_checkpoint or args.log_folder, args.save_root)
    try:
        record = torch.load(path, map_location='cpu', weights_only=True)
        weights = [value for key, value in record['state_dict'].items() if key.endswith('conv_last.weight')]
        return record.get('args', {}), len(weights[0])
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, TypeError, AttributeError):
        return {}, None  # load_model says what is wrong with it


def arguments(description, add=None, argv=None):
    """The parsed arguments; flags of the network that are not given are those its checkpoint was trained with.

    `score_map_process` is '' where nothing names a map; `num_classes` is the checkpoint's class count.
    """
    choices = {**wsol.CHOICES, 'dataset': tuple(DATASETS)}
    args = get_configs(description, choices, argv, add)
    if not args.use_load_checkpoint:
        raise UserError(
            'no checkpoint to look into: give --load_checkpoint=FOLDER, or --use_load_checkpoint=True for the one '
            'in the experiment folder'
        )
    trained, num_classes = checkpoint_summary(args)

    def with_defaults(parser):
        if add:
            add(parser)
        parser.set_defaults(score_map_process='', **{name: trained[name] for name in TRAINED if name in trained})

    args = get_configs(description, choices, argv, with_defaults)
    args.num_classes = num_classes or class_count(args.dataset, args.metadata_root)
    args.seed = util.set_seed(args.seed)
    return args


def map_makers(model, args, methods=None):
    """{name: MapMaker} of a comma list of methods; without one --score_map_process, or the network's own map."""
    own = 'jointll' if args.attribution_method.startswith('CALM') else 'vanilla'
    names = [name.strip() for name in (methods or args.score_map_process or own).split(',')]
    for name in names:
        attribution.lookup(name)
    return {name: MapMaker(model, Munch(args, score_map_process=name)) for name in names}


def explain_batch(model, makers, images, chosen, number=0):
    """What images [B, 3, S, S] are taken for, and why: (probabilities [B, C], classes [B, K], {method: B arrays [K, h, w]}).

    chosen: K classes, -r being an image's r-th most probable. number: that of the first image, as for `MapMaker`.
    """
    with torch.no_grad():
        output = model(images)
        probs = output.probs
    order = probs.argsort(dim=1, descending=True)  # [B, C]
    classes = torch.stack(
        [order[:, -c - 1] if c < 0 else torch.full_like(order[:, 0], c) for c in chosen], dim=1
    )  # [B, K]
    return (
        probs.cpu(),
        classes.cpu(),
        {name: maker(images, output, list(classes), number) for name, maker in makers.items()},
    )


def save_map(args, name, array):
    """Write a float array as --save_scoremaps/name.npy; an existing file is a FileExistsError without --override_cache."""
    path = os.path.join(args.save_scoremaps, f'{name}.npy')
    if os.path.exists(path) and not args.override_cache:
        raise AlreadyThere(
            f'{path} exists already: give another --save_scoremaps, or --override_cache=True to replace it'
        )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    util.atomically(path, lambda file: np.save(file, array))


def explain_photographs(args, files, titles, failed):
    """Stream of (title, Panel) of the photographs that can be read; the titles of the others are appended to `failed`."""
    device = pick_device()
    names = panels.class_names(args.dataset, args.num_classes, (args.data_root, args.metadata_root))
    chosen = panels.parse_classes(args.classes or '@1', args.num_classes, names)
    model = load_model(args, args.num_classes, device).eval()
    makers, number = map_makers(model, args, args.method), 0
    for batch in photographs.make_loader(files, args.crop_size, args.batch_size, args.workers):
        for wrong in (item.wrong for item in batch if item.wrong):
            print(f'inference.py: left out: {wrong}', file=sys.stderr, flush=True)
            failed.append(wrong)
        good = [item for item in batch if not item.wrong]
        if good:
            probs, classes, maps = explain_batch(
                model, makers, torch.stack([item.tensor for item in good]).to(device), chosen, number
            )
        for row, item in enumerate(good):
            one, title = {name: arrays[row] for name, arrays in maps.items()}, titles[item.index]
            if args.save_scoremaps:
                for name, arrays in one.items():
                    for y, array in zip(classes[row].tolist(), arrays):
                        save_map(args, f'{title}.{name}.{y}', array)
            yield (
                title,
                panels.make(
                    title, item.picture, names, probs[row].tolist(), classes[row].tolist(), one, args.attribution_method
                ),
            )
        number += len(batch)


def draw_photographs(args):
    """A panel of every photograph of --images, and its maps as they are below --save_scoremaps."""
    files, failed = photographs.find(args.images), []
    args.workers = min(args.workers, len(files) // 4)  # a few are done before processes have started
    titles, output = photographs.names_of(files), args.output or os.path.join(args.log_folder, 'panels')
    existing = [path for path in (os.path.join(output, f'{title}.png') for title in titles) if os.path.exists(path)]
    if existing and not args.override_cache:
        raise AlreadyThere(
            f'{existing[0]} exists already{f" (and {len(existing) - 1} more)" if existing[1:] else ""}: '
            'give another --output, or --override_cache=True to replace it'
        )
    with panels.drawing(args.workers) as draw:
        jobs = (
            (os.path.join(output, f'{title}.png'), panel)
            for title, panel in explain_photographs(args, files, titles, failed)
        )
        for path in draw(jobs):
            print(path, flush=True)
    if failed:
        raise UserError(f'{len(failed)} of {len(files)} images were left out, for the reasons above')


def split_score_maps(args, batches, device):
    """Stream of (image id, score map [S, S]) of the images of `batches`: each image's map of its own class by the checkpoint."""
    model, split = model_and_split(args, args.split, device)
    maker = MapMaker(model, args)
    loader = make_loader(split, False, args.batch_size, args.workers, crop_size=args.crop_size, batches=batches)
    for numbers, (images, labels, image_ids) in zip(batches, loader):
        for image_id, one in zip(
            image_ids, maker(images.to(device), None, list(labels.to(device).view(-1, 1)), numbers[0])
        ):
            yield image_id, localization.score_maps(one, args.crop_size)[0]


def save_split(args):
    """The score maps of --split in the protocol's form, <image id>.npy, float32 [S, S] in [0, 1], of each image's own class."""
    methods = list(map_makers(None, args, args.method))
    if len(methods) > 1 or args.classes:
        raise UserError(
            "saved score maps of a split are of one --method and of each image's own class: "
            'give one method and no --classes, or --images'
        )
    args.score_map_process = methods[0]
    count = len(read_image_ids(os.path.join(args.metadata_root, args.dataset, args.split)))
    batches = [list(range(first, min(first + args.batch_size, count))) for first in range(0, count, args.batch_size)]
    for image_id, one in util.progress(split_score_maps(args, batches, pick_device()), count, 'score maps'):
        save_map(args, image_id, one)
    print(f'{count} maps of {args.dataset} {args.split} by {methods[0]} in {args.save_scoremaps}')


def add_flags(parser):
    group = parser.add_argument_group('pictures of maps (inference.py)')
    group.add_argument(
        '--images', nargs='+', metavar='PATTERN', help="photographs: files, folders, or patterns such as 'photos/*.jpg'"
    )
    group.add_argument(
        '--classes',
        metavar='A[,B]',
        help='the classes explained: numbers from 0, names, or @1 for the prediction, '
        '@2 for the runner-up, and so on; without it @1',
    )
    group.add_argument(
        '--method',
        metavar='NAME[,NAME]',
        help='attribution methods, a row each, named as for --score_map_process'
        "; without it that flag's, else jointll for CALM and vanilla for others",
    )
    group.add_argument(
        '--output', metavar='DIR', help='folder of the panels; without it panels/ in the experiment folder'
    )
    group.add_argument(
        '--save_scoremaps',
        metavar='DIR',
        help='with --images: maps as they are, DIR/<image>.<method>.<class>.npy; '
        'without: score maps of --split for eval_wsol.py --scoremap_root',
    )


def main():
    args = arguments(__doc__, add_flags)
    if args.images:
        draw_photographs(args)
    elif args.save_scoremaps:
        save_split(args)
    else:
        raise UserError(
            'nothing to do: give --images=PATTERN for pictures, or --save_scoremaps=DIR for the maps of a split'
        )


if __name__ == '__main__':
    util.command(main)
