"""The study of docs/study.md: does CALM localize cues better than CAM, and what does it depend on? Networks x kinds of
cues x heads x seeds on ToyBirds; every step is a command of the README.

    python -m studies.toybirds
    python -m studies.toybirds --networks lite0 --designs combined single --seeds 0

Running it again skips finished steps and resumes interrupted ones. The whole study takes about three hours on two CPU
cores; different networks or designs may run in parallel. `python -m studies.toybirds_page` then writes the figures into
docs/study.md.
"""

import os
import subprocess
import sys

from engine.command import command
from studies.steps import BOXES, CUE, ERASE, HEADS, Trained, blurred, choose, common_parser, run, score, train

DESIGNS = {  # design: data set
    'combined': 'ToyBirds',  # a class is a combination of eight looks
    'single': 'ToyBirdsSingle',  # one look of one part determines the class
}
NETWORKS = {  # network: its flags; sized for CPUs: twenty core-minutes per design and seed
    'lite0': ('--channels_last=True',),  # ImageNet weights, 160 px, 10 x 10 maps
    'vgg_tiny': (),  # from scratch, 96 px, 24 x 24 maps
    'lite0_fine': ('--channels_last=True', '--large_feature_map=True'),  # 20 x 20 maps, for a GPU; never run
    # from scratch, 224 px, 28 x 28 maps, for a GPU; never run
    'resnet50': ('--architecture=resnet50', '--use_bn=True', '--crop_size=224', '--amp=bf16'),
}
TRAINING = {'resnet50': ('--resize_size=256',)}  # network: additional training flags
ON_A_CPU = ('lite0', 'vgg_tiny')
STUDIED = ('CAM', 'CALM-EM', 'CAM-longer', 'CALM-ML', 'CALM-EM-ema', 'CALM-EM-epoch', 'random')
STEPS = ('train', 'cue', 'erase', 'wsol', 'contrast', 'blur')
FIRST_SEED_ONLY = ('contrast', 'blur')
TWO_HEADS = ('CAM', 'CALM-EM')  # for erase, contrast and blur
BLURS = (4, 8, 16)  # deviations, px
CONTRASTS = ('input_grad', 'grad_cam', 'layer_cam')


def trained(network, design, head, seed, args):
    """The `Trained` of a head."""
    config = f'configs/{HEADS[head].method}_ToyBirds'
    if network.startswith('lite0'):
        config += '_tf_efficientnet_lite0'
    flags = (
        f'--config={config}.yaml',
        f'--dataset={DESIGNS[design]}',
        f'--data_root={args.save_root}/dataset',
        f'--metadata_root={args.save_root}/metadata',
        f'--seed={seed}',
        f'--workers={args.workers}',
        '--batch_size=16',
        *NETWORKS[network],
    )
    return Trained(f'{network}-{design}', head, seed, flags)


def epochs(network, head):
    """Flags for a training's length."""
    if head == 'random':
        return ('--epochs=1',)
    second = HEADS[head].start is not None
    if network.startswith('lite0'):
        count, decay = (2, 2) if second else (4, 4)
    else:
        count, decay = (8, 6) if second else (24, 18)
    return (f'--epochs={count}', f'--lr_decay_frequency={decay}')


def steps_of(network, name, step):
    """The `Step`s of one kind for a `Trained`; name: its network."""
    if step == 'train':
        yield train(network, *TRAINING.get(name, ()), *epochs(name, network.head))
    elif step == 'cue':
        yield score(network, CUE)
    elif step == 'wsol':
        yield score(network, BOXES)
    elif step == 'erase':
        yield score(network, ERASE)
    elif step == 'blur':
        yield blurred(network, BLURS)
    else:
        for one in CONTRASTS:
            yield score(network, CUE, one)
            yield score(network, CUE, one, ('--contrast=score',), ('_contrast',))


def plan(args):
    """All requested steps in order."""
    for seed in args.seeds:
        for name in args.networks:
            for design in args.designs:
                for head in args.heads:
                    network = trained(name, design, head, seed, args)
                    for step in args.steps:
                        of_two = step in ('erase', *FIRST_SEED_ONLY)
                        if of_two and head not in TWO_HEADS or step in FIRST_SEED_ONLY and seed != args.seeds[0]:
                            continue
                        yield from steps_of(network, name, step)


def draw_birds(args):
    """Render the missing data of each design."""
    for design in args.designs:
        places = ('--data_root', f'{args.save_root}/dataset', '--metadata_root', f'{args.save_root}/metadata')
        sizes = (f'--train={args.train}', '--val=2', '--test=8')
        words = ('scripts/make_toybirds.py', f'--design={design}', *sizes, *places)
        subprocess.run([sys.executable, *words], check=True)


def parse(argv=None):
    parser = common_parser(__doc__)
    choose(parser, 'networks', tuple(NETWORKS), 'networks', ON_A_CPU)
    choose(parser, 'designs', tuple(DESIGNS), 'kinds of cues')
    choose(parser, 'heads', STUDIED, 'heads')
    choose(parser, 'steps', STEPS, 'steps; contrast and blur only for the first seed')
    parser.add_argument('--train', type=int, default=20, metavar='N', help='training images per class (default: 20)')
    parser.add_argument('--save_root', default='save/study', metavar='DIR', help='results (default: save/study)')
    args = parser.parse_args(argv)
    args.save_root = os.path.abspath(args.save_root)
    return args


def main():
    args = parse()
    if not args.list:
        draw_birds(args)
    run(plan(args), args.save_root, args.list)


if __name__ == '__main__':
    command(main)
