"""Ratios, each taken in one run on this machine: training and the evaluators over the passes they cannot do without.

    python scripts/benchmark.py [--architecture resnet50] [--size 224] [--batch 16] [--images 32] [--only loss,step]

loss    CALM's losses, forward and backward, over the direct form, which writes them as the paper states them, over all
        classes
step    a CALM-EM training step over a plain one: the same torchvision backbone and maps, mean over them, cross entropy,
        SGD; and the images per second of the training loader over those of the step, with `--workers` processes
item    a training item of the photographs in --photographs over the same steps in plain torchvision code; the inputs of
        the network are compared bit for bit first
erase   remove-and-classify of a map at hand over its 11 exact forward passes, exact and in the --forms
score   Score-CAM and SS-CAM of one image over their masked passes, and their memory; score_light: Score-CAM of
        tf_efficientnet_lite0
start   each command to its first batch over importing torch, in seconds of the processor
photo   inference.py of one photograph over loading its network in plain code, of the processor
cue     cue localization over one forward pass of its images (of ToyBirds, which scripts/make_toybirds.py draws)
"""

import argparse
import os

import checkout  # noqa: F401
import torch
from benchmarks import evaluators, growth, loading, starting, training

import wsol
from config import PRECISIONS
from engine import machine, processes

ROWS = {
    'loss': training.loss_rows,
    'step': training.step_rows,
    'item': loading.item_rows,
    'erase': evaluators.erase_rows,
    'cue': evaluators.cue_rows,
    'score': evaluators.score_cam_rows,
    'score_light': evaluators.light_score_cam_rows,
    'start': starting.start_rows,
    'photo': starting.photograph_rows,
}  # each: (arguments, device) -> lines of the table


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--architecture', default='resnet50', choices=wsol.ARCHITECTURES)
    numbers = {'size': 224, 'batch': 16, 'images': 32, 'files': 64, 'repeats': 5, 'workers': os.cpu_count() or 1}
    for name, default in numbers.items():
        parser.add_argument(f'--{name}', type=int, default=default, help='default %(default)s')
    parser.add_argument('--data_root', default='dataset/')
    parser.add_argument('--metadata_root', default='metadata/')
    parser.add_argument('--photographs', default='../shared/photographs/imagenet_samples', help='default %(default)s')
    parser.add_argument('--amp', default='off', choices=PRECISIONS, help='mixed precision of the training steps')
    parser.add_argument('--channels_last', action='store_true', help='memory format of the training steps')
    parser.add_argument(
        '--forms', default='--amp=bf16', help="of erase, beside exact: '--compile,--amp=bf16'; default %(default)s"
    )
    parser.add_argument('--growth', metavar='FILE.png', help='how cost grows with the sizes, a table and this plot')
    parser.add_argument('--only', default=','.join(ROWS), help='comma-separated; default %(default)s')
    return parser.parse_args()


def main():
    """Prints the table that --only names."""
    args = parse()
    torch.manual_seed(0)
    device = processes.accelerator()
    name = machine.device_name(device)
    print(f'{name}; {args.architecture} at {args.size} px, batches of {args.batch}; medians of {args.repeats}')
    print(', '.join(f'{package} {version}' for package, version in machine.versions().items()))
    if args.growth:
        torch.set_num_threads(1)
        rows = growth.growth(args, device)
        growth.print_growth(rows)
        growth.plot_growth(rows, args.growth)
        return
    print('\n| | over | ratio | goal | |\n|---|---|---|---|---|')
    for name in args.only.split(','):
        for row in ROWS[name](args, device):
            print(f'| {row.what} | {row.over} | {row.ratio:.2f} | {row.goal} | {row.note} |', flush=True)


if __name__ == '__main__':
    main()
