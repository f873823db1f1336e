"""The study of docs/cub.md: CAM and CALM on CUB-200-2011; every step is a command of the README.

    python -m studies.cub --data_root dataset --metadata_root metadata
    python -m studies.cub --networks lite0 --seeds 0 --list
    python -m studies.cub --recipe paper                         on a GPU: the published recipe, 28 x 28 maps

Steps run in order of importance, so that stopping early leaves the most useful results. Running it again skips finished
steps and resumes interrupted ones; --list shows their state. `python -m studies.cub_page` then writes the figures into
docs/cub.md.

The recipe `cpu` takes hours of a CPU core: the networks lite0 (tf_efficientnet_lite0 with ImageNet weights, trained at
160 px, scored at 160, 224 and 320 px) and vgg16 (28 x 28 maps at 224 px), first CAM and from it the other heads. The
recipe `paper` is the published one, for ResNet-50 (the network of the published commands) and VGG-16: 40 epochs in
batches of 64, each head from ImageNet weights; then CALM-EM, CALM-ML and CAM-longer from CAM, 15 epochs each. Heads
named -low-lr have a tenth of its learning rate.
"""

import os
from argparse import Namespace
from collections.abc import Callable
from typing import NamedTuple

import util
from data.metadata import read_image_ids, read_labels
from data.texts import read_text
from engine.command import command
from studies import masks
from studies.steps import BOXES, CUE, ERASE, HEADS, Trained, accuracy, blurred, choose, common_parser, run, score, train
from wsol import cub_parts
from wsol.scoring.cues import COUNTS, class_rows

GRADIENTS = {'CAM': ('input_grad', 'integrated_grad', 'smooth_grad,var_grad')}  # head: the paper's rows, by command
SUBSET = 2  # test images per class with a pair, for maps that need many passes
SUBSET_SETTING = 'subset'  # suffix of their result folder


class Network(NamedTuple):
    """A network of the study."""

    flags: tuple  # for all commands
    training: tuple  # additional training flags
    epochs: dict  # {head: (epochs, --lr_decay_frequency)}
    sizes: tuple  # test image sizes, px; the first is the training's
    cell: int  # side of a map location, px
    seeds: int  # largest number of seeds

    @property
    def blurs(self):
        """Deviations of the blurred maps, px: half a location, one and two."""
        return (self.cell // 2, self.cell, 2 * self.cell)


RESNET50 = ('--architecture=resnet50', '--use_bn=True', '--large_feature_map=True')  # 28 x 28 maps at 224 px
VGG16 = ('--architecture=vgg16', *RESNET50[1:])
SECOND = (4, 3)  # for heads that start from CAM's checkpoint
FIRST = {'CAM': (8, 6), 'CALM-EM': SECOND, 'CALM-ML': SECOND, 'CAM-longer': SECOND}
ONE_STEP = {f'{head}-onestep': (12, 9) for head in ('CALM-EM', 'CALM-ML', 'CAM')}
PUBLISHED = {
    **dict.fromkeys(('CAM', 'CALM-EM-onestep', 'CALM-ML-onestep', 'CALM-EM-onestep-low-lr'), (40, 30)),
    **dict.fromkeys(('CALM-EM', 'CALM-ML', 'CAM-longer', 'CALM-EM-low-lr', 'CALM-ML-low-lr'), (15, 11)),
}
NETWORKS = {
    'lite0': Network(
        ('--architecture=timm/tf_efficientnet_lite0', '--crop_size=160', '--batch_size=32', '--channels_last=True'),
        ('--resize_size=182', '--compile=True'),
        {**FIRST, **ONE_STEP},
        (160, 224, 320),
        16,
        3,
    ),
    'vgg16': Network(
        (*VGG16, '--batch_size=32'),
        ('--lr=0.001',),
        {head: FIRST[head] for head in ('CAM', 'CALM-EM', 'CAM-longer')},
        (224,),
        8,
        1,
    ),
    **{
        f'{name}-paper': Network(
            (*flags, '--batch_size=64', '--channels_last=True'), ('--amp=bf16',), PUBLISHED, (224,), 8, 3
        )
        for name, flags in (('resnet50', RESNET50), ('vgg16', VGG16))
    },
}
STUDIED = tuple(head for head in HEADS if any(head in network.epochs for network in NETWORKS.values()))
RECIPES = {'cpu': ('lite0', 'vgg16'), 'paper': ('resnet50-paper', 'vgg16-paper')}
MANY_SEEDS = ('CAM', 'CAM-longer', 'CALM-EM')  # heads with more than one seed
BLURRED = ('CAM', 'CAM-longer', 'CALM-EM', 'CALM-EM-low-lr')
COMPARED = ('CAM', 'CALM-EM', 'CALM-EM-low-lr')  # for remove-and-classify, mask controls and the subset


def setting_of(name, size):
    """Result folder of a network for a test image size."""
    return name if size == NETWORKS[name].sizes[0] else f'{name}-{size}px'


def trained(name, head, seed, args):
    """The `Trained` of a head."""
    flags = (
        *NETWORKS[name].flags,
        '--dataset=CUB',
        f'--data_root={args.data_root}',
        f'--metadata_root={args.metadata_root}',
        f'--seed={seed}',
        f'--workers={args.workers}',
    )
    return Trained(name, head, seed, flags)


def at_sizes(network):
    """(flags, setting) for each test image size."""
    for size in NETWORKS[network.setting].sizes:
        setting = setting_of(network.setting, size)
        yield ((f'--crop_size={size}',) if setting != network.setting else ()), setting


def training(network, _):
    recipe = NETWORKS[network.setting]
    epochs, decay = recipe.epochs[network.head]
    yield train(network, *recipe.training, f'--epochs={epochs}', f'--lr_decay_frequency={decay}')


def cue(network, _):
    """Cue localization at every size."""
    for flags, setting in at_sizes(network):
        yield score(network, CUE, None, flags, setting=setting)


def top1(network, _):
    """Accuracy at the sizes other than the training's."""
    for flags, setting in at_sizes(network):
        if flags:
            yield accuracy(network, flags, setting)


def blur(network, _):
    """Cue localization of maps blurred by half, one and two locations, at every size."""
    for flags, setting in at_sizes(network):
        yield blurred(network, NETWORKS[network.setting].blurs, flags, setting)


def other_masks(network, args):
    """Cue localization against the mask controls."""
    for name in masks.names(args):
        place = (f'--data_root={masks.data_root(args.save_root, name)}',)
        yield score(network, CUE, None, place, setting=f'{network.setting}-{name}')


def boxes(network, _):
    yield score(network, BOXES)


def precision(network):
    """The mixed precision of a network's training, for steps of many passes."""
    return tuple(flag for flag in NETWORKS[network.setting].training if flag.startswith('--amp='))


def gradients(network, args):
    """Cue localization of the head's map and the paper's gradient maps, on a subset of the test images."""
    place = (f'--metadata_root={args.save_root}/metadata_{SUBSET_SETTING}',)
    setting = f'{network.setting}-{SUBSET_SETTING}'
    dear = precision(network) or ('--batch_size=4',)
    yield score(network, CUE, None, place, setting=setting)
    for name in GRADIENTS.get(network.head, ()):
        yield score(network, CUE, name, (*place, *dear), setting=setting)


def erase(network, _):
    yield score(network, ERASE, None, precision(network))


class Kind(NamedTuple):
    """A kind of steps."""

    steps: Callable  # (`Trained`, the study's arguments) -> steps
    heads: tuple | None = None  # heads it applies to; None: all


KINDS = {
    'train': Kind(training),
    'cue': Kind(cue),
    'wsol': Kind(boxes),
    'top1': Kind(top1),
    'blur': Kind(blur, BLURRED),
    'masks': Kind(other_masks, COMPARED),
    'gradients': Kind(gradients, COMPARED),
    'erase': Kind(erase, COMPARED),
}


def steps_of(name, heads, seed, args, kinds):
    """The steps of these kinds for some heads of a network, head by head."""
    for head in heads:
        network = trained(name, head, seed, args)
        for kind in kinds:
            steps, own = KINDS[kind]
            if kind in args.steps and head in (own or heads):
                yield from steps(network, args)


def plan(args):
    """All requested steps, most important first."""
    first, *others = args.seeds
    names = args.networks or RECIPES[args.recipe]
    for name in names:
        heads = [head for head in NETWORKS[name].epochs if head in args.heads]
        later = [head for head in heads if head.endswith('-onestep') and args.recipe == 'cpu']
        plain = [head for head in heads if head not in later]
        yield from steps_of(name, plain, first, args, ('train', 'cue'))
        yield from steps_of(name, plain, first, args, ('blur', 'masks', 'wsol'))
        many = MANY_SEEDS if args.recipe == 'cpu' else [head for head in plain if not head.endswith('-low-lr')]
        for seed in others[: NETWORKS[name].seeds - 1]:
            again = [head for head in plain if head in many]
            yield from steps_of(name, again, seed, args, ('train', 'cue', 'wsol'))
        yield from steps_of(name, later, first, args, ('train', 'cue', 'wsol'))
        yield from steps_of(name, plain, first, args, ('top1', 'gradients', 'erase'))


def whole_plan(recipe, names, save_root):
    """All steps of some networks of a recipe, for listing progress."""
    places = {'save_root': save_root, 'data_root': 'dataset', 'metadata_root': 'metadata', 'segmentations': []}
    everything = {'heads': STUDIED, 'steps': tuple(KINDS), 'seeds': (0, 1, 2), 'workers': 1}
    return list(plan(Namespace(recipe=recipe, networks=names, **places, **everything)))


def write_subset(args):
    """Write the split files of the test subset for maps that need many passes."""
    folder = os.path.join(args.metadata_root, 'CUB', 'test')
    labels = read_labels(folder)
    of_pairs = class_rows(cub_parts.pairs_by_count(cub_parts.class_pairs(f'{args.data_root}/CUB'), COUNTS))
    chosen = {y: [] for y in of_pairs}
    for image_id in read_image_ids(folder):
        y = labels.get(image_id)
        if y in chosen and len(chosen[y]) < SUBSET:
            chosen[y].append(image_id)
    kept = {image_id for images in chosen.values() for image_id in images}
    place = os.path.join(args.save_root, f'metadata_{SUBSET_SETTING}', 'CUB', 'test')
    os.makedirs(place, exist_ok=True)
    for name in ('image_ids.txt', 'class_labels.txt', 'image_sizes.txt', 'localization.txt'):
        lines = [line.rstrip() for line in read_text(os.path.join(folder, name)).split('\n')]
        text = ''.join(f'{line}\n' for line in lines if line.split(',')[0] in kept)
        util.write_text(os.path.join(place, name), text)


def add_folders(parser):
    """The flags of the folders of the data and results."""
    parser.add_argument('--save_root', default='save/cub', metavar='DIR', help='results (default: save/cub)')
    parser.add_argument('--data_root', default='dataset', metavar='DIR', help='folder with CUB/ (default: dataset)')
    parser.add_argument(
        '--metadata_root',
        default='metadata',
        metavar='DIR',
        help='folder with the split files of CUB (default: metadata)',
    )


def parse_with_folders(parser, argv=None):
    """The arguments, with absolute folders; a folder that is missing is an error."""
    args = parser.parse_args(argv)
    for flag in ('save_root', 'data_root', 'metadata_root'):
        setattr(args, flag, os.path.abspath(getattr(args, flag)))
    for folder in (f'{args.data_root}/CUB', f'{args.metadata_root}/CUB'):
        if not os.path.isdir(folder):
            parser.error(f'{folder} is not a folder: give --data_root and --metadata_root of CUB (docs/data.md)')
    return args


def parse(argv=None):
    parser = common_parser(__doc__)
    parser.add_argument('--recipe', choices=tuple(RECIPES), default='cpu', help='training recipe (default: cpu)')
    parser.add_argument(
        '--networks',
        nargs='+',
        metavar='NAME',
        help='cpu: lite0, vgg16; paper: resnet50-paper, vgg16-paper (default: all of the recipe)',
    )
    choose(parser, 'heads', STUDIED, 'heads')
    choose(parser, 'steps', tuple(KINDS), 'steps; all but train, cue and wsol only for the first seed')
    add_folders(parser)
    parser.add_argument(
        '--segmentations',
        nargs='+',
        default=[],
        metavar='DIR',
        help="folders of other segmentations in CUB's layout, as further controls; results use the folders' names",
    )
    args = parse_with_folders(parser, argv)
    masks.check_names(parser, args.segmentations, SUBSET_SETTING)
    for name in args.networks or ():
        if name not in RECIPES[args.recipe]:
            parser.error(f'--networks {name}: --recipe={args.recipe} has {", ".join(RECIPES[args.recipe])}')
    for flag in ('seeds', 'networks'):
        setattr(args, flag, list(dict.fromkeys(getattr(args, flag) or ())))
    most = max(NETWORKS[name].seeds for name in RECIPES[args.recipe])
    if len(args.seeds) > most:
        parser.error(f'--seeds {" ".join(map(str, args.seeds))}: give at most {most}')
    if not any(True for _ in plan(args)):
        parser.error('no network has these steps for these heads: --list without them shows what there is')
    return args


def main():
    args = parse()
    if not args.list:
        if 'gradients' in args.steps:
            write_subset(args)
        if 'masks' in args.steps:
            masks.prepare(args)
    run(plan(args), args.save_root, args.list)


if __name__ == '__main__':
    command(main)
