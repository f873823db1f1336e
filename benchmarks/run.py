"""Measures ratios on this machine: the project's time over the passes that cannot be avoided.

    python benchmarks/run.py [--only loss,step] [--architecture resnet50] [--size 224] [--batch 16] [--images 32]

loss    CALM's losses, forward and backward, over the paper's equations evaluated directly for all classes
step    a training step of each of --heads over a plain one: same backbone and maps, mean over locations, cross entropy,
        SGD; and a forward pass
load    images per second of the training loader with --workers processes, over those of the step (ToyBirds)
item    a training item from --photographs over the same steps in plain torchvision code, after checking that the
        network inputs are bit-identical
erase   remove-and-classify of precomputed maps over its 11 exact forward passes, in each of --forms
cue     cue localization over one forward pass of its images (ToyBirds), without and with reading the files
score   Score-CAM and SS-CAM of one image over their masked passes, and their memory; score_light: Score-CAM of
        tf_efficientnet_lite0
start   each command until its first batch over importing torch, CPU seconds
photo   inference.py of one photograph over loading its network in plain code, CPU time
maps    each attribution map of a batch of --images over the passes it needs, with captum, torchcam and grad-cam
objects Grad-CAM of one image by a reusable Explainer over the objects of captum, torchcam and grad-cam
boxes   box scores of --images maps over a contour search at every threshold
growth  growth of time and memory with each problem size; --plot draws it

agree   per-image results on this device against the CPU: how many counts differ, by how much (ToyBirds, one short
        training)

--architecture, --classes and --forms take several comma-separated values: step uses each of them, erase, cue and score
each architecture. --output also writes the rows to a file as they are measured; rows already in it are not measured
again.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import torch

import wsol
from benchmarks import agreement, boxes, evaluators, growth, loading, maps, objects, records, starting, training
from engine import machine, processes
from engine.command import command
from wsol.errors import UserError


class Work(NamedTuple):
    """A benchmark named by --only."""

    rows: Callable  # (arguments, device) -> Rows
    threads: int | None = None  # PyTorch threads without --threads; None: PyTorch's default
    each: tuple = ()  # multi-valued flags for which it runs once per value


WORK = {
    'loss': Work(training.loss_rows),
    'step': Work(training.step_rows, each=('architecture', 'classes', 'form')),
    'load': Work(training.load_rows),
    'item': Work(loading.item_rows, threads=1),  # as in a loader's process
    'erase': Work(evaluators.erase_rows, each=('architecture',)),
    'cue': Work(evaluators.cue_rows, each=('architecture',)),
    'score': Work(evaluators.score_cam_rows, each=('architecture',)),
    'score_light': Work(evaluators.light_score_cam_rows),
    'start': Work(starting.start_rows),
    'photo': Work(starting.photograph_rows),
    'maps': Work(maps.map_rows, threads=1),
    'objects': Work(objects.object_rows, threads=1),
    'boxes': Work(boxes.box_rows, threads=1),
    'growth': Work(growth.growth_rows, threads=1),
    'agree': Work(agreement.agreement_rows),
}
USUAL = [name for name in WORK if name not in ('maps', 'objects', 'boxes', 'growth', 'agree')]


def make_parser():
    """The parser of all benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {'size': 224, 'batch': 16, 'images': 32, 'files': 64, 'repeats': 5, 'samples': 5}
    parser.add_argument('--only', default=','.join(USUAL), metavar='NAME,…', help='default %(default)s')
    parser.add_argument('--architecture', default='resnet50', metavar='NAME,…', help=', '.join(wsol.ARCHITECTURES))
    parser.add_argument('--classes', default='200', metavar='COUNT,…', help='default %(default)s')
    parser.add_argument(
        '--forms', default='float32', metavar='FORM,…', help='words of benchmarks/forms.py: float32,bf16+channels_last'
    )
    parser.add_argument('--heads', default='CALM-EM', metavar='NAME,…', help='step: heads; default %(default)s')
    for name, default in {**numbers, 'workers': os.cpu_count() or 1}.items():
        parser.add_argument(f'--{name}', type=int, default=default, help='default %(default)s')
    parser.add_argument(
        '--threads', type=int, help='PyTorch threads; default: 1 for maps, objects, boxes, growth, item, else its own'
    )
    parser.add_argument('--device', choices=('cpu', 'cuda'), help='default: the accelerator if there is one')
    parser.add_argument('--data_root', default='dataset/')
    parser.add_argument('--metadata_root', default='metadata/')
    parser.add_argument('--photographs', default='docs/photographs', help='item: folder; default %(default)s')
    parser.add_argument('--methods', metavar='NAME,…', help='maps: entries to time; default: all but score_cam')
    parser.add_argument('--blur', type=float, default=0, help='boxes: deviation of a Gaussian; default: pixel noise')
    parser.add_argument('--plot', metavar='FILE.png', help='growth: where to draw it')
    parser.add_argument('--save_root', default='save/', help='agree: folder for its network and results')
    parser.add_argument('--epochs', type=int, default=8, help='agree: training epochs; default %(default)s')
    parser.add_argument('--output', metavar='FILE.json', help='write the rows to this file, resuming it if it exists')
    return parser


def jobs(args):
    """[(job name, work, its arguments)]: one job per value of the flags in Work.each."""
    lists = {
        'architecture': args.architecture.split(','),
        'classes': [int(count) for count in args.classes.split(',')],
        'form': args.forms.split(','),
    }
    found = []
    for name in args.only.split(','):
        first = {key: values[0] for key, values in lists.items()}
        choices = [(name, {**vars(args), **first})]
        for key in lookup(name).each:
            choices = [(f'{job} {value}', {**one, key: value}) for job, one in choices for value in lists[key]]
        found += [(job, WORK[name], argparse.Namespace(**one)) for job, one in choices]
    return found


def lookup(name):
    """The `Work` of that name; raises UserError."""
    if name not in WORK:
        raise UserError(f'--only={name}: name some of {", ".join(WORK)}')
    return WORK[name]


def main():
    """Run the benchmarks in --only and print their table."""
    args = make_parser().parse_args()
    asked = jobs(args)
    device = torch.device(args.device) if args.device else processes.accelerator()
    print(f'{machine.device_name(device)}; {args.size} px, batches of {args.batch}; medians of {args.repeats}')
    print(', '.join(f'{package} {version}' for package, version in machine.versions().items()))
    print('\n' + records.HEAD)
    record = records.Record(args.output, device)
    threads = torch.get_num_threads()
    for job, work, own in asked:
        torch.manual_seed(0)
        torch.set_num_threads(args.threads or work.threads or threads)
        for row in record.rows_of(job, lambda work=work, own=own: work.rows(own, device)):
            print(records.text_of(row), flush=True)
    record.finish()


if __name__ == '__main__':
    command(main)
