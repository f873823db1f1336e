"""What each of the paper's tables costs on 1, 8 and 64 GPUs, from rates that you measured.

    python scripts/estimate_cost.py --train_rate=900 --forward_rate=3000 --load_rate=480

The rates are those of your own machine: images a second that one GPU trains on (`images_per_second` in log.jsonl),
that pass forward through the network there, and that one core reads (scripts/benchmark.py --only item). A backward
pass counts as two forward passes. What is counted: 40 epochs of every network of a table with its validation, its
test, and every map of the table; scripts/reproduce/rows.sh says which those are.

Networks are trained beside each other, a share of the GPUs each. A run on g GPUs takes g times less for its images,
and for each step the time in which the gradients of all GPUs are added up: 2 (g - 1) / g of their bytes over the
network's. That is where it stops scaling, as a batch stays one of 64 images.
"""

import argparse
import math
import os
import subprocess
from typing import NamedTuple

import checkout

from config import make_parser, pick
from data_loaders import DATASETS
from wsol.attribution import Options

TABLES = ('classification', 'cue_localization', 'remove_and_classify', 'wsol')
BACKWARD = 2  # forward passes that a backward pass costs
ERASED = 5  # shares of pixels in remove-and-classify, each erased by the map and by chance
CUE_IMAGES = 2579  # of CUB's test images are of a class with a pair
CUE_PAIRS = 11039 / CUE_IMAGES  # an image
IMAGE_KB = {'CUB': 97, 'ILSVRC': 110, 'OpenImages': 300}  # a file on average, about
CHECKPOINTS = 3  # files of a run: last, best, state; each with the optimizer's momentum
BYTES = 4  # of a parameter


class Rates(NamedTuple):
    """What was measured, and what a training is like: the flags of these names."""

    train_rate: float  # images a second and GPU
    forward_rate: float  # images a second and GPU, without gradients
    load_rate: float  # images a second and core
    bandwidth: float  # gigabytes a second between GPUs, each way
    parameters: float  # millions
    epochs: int
    batch_size: int


class Cost(NamedTuple):
    """What a table costs."""

    gpu_seconds: float  # on one GPU
    hours: list  # for each count of GPUs
    cores: list  # that load images
    reading: list  # megabytes a second from the disk
    disk: float  # gigabytes: images, checkpoints


def networks(table):
    """[(set, network, [maps])] of a table, as scripts/reproduce/rows.sh has them."""
    rows = os.path.join(checkout.ROOT, 'scripts', 'reproduce', 'rows.sh')
    said = f'source {rows}; for s in $(sets_of {table}); do for n in $(networks_of {table} $s); do '
    said += f'echo $s $n $(maps_of {table} $n); done; done'
    lines = subprocess.run(['bash', '-c', said], capture_output=True, text=True, check=True).stdout.splitlines()
    return [(dataset, network, maps) for dataset, network, *maps in map(str.split, lines)]


def gradient_passes(name):
    """How many forward and backward passes a map of one class takes: none for a readout."""
    many = {'input_grad': 1, 'integrated_grad': Options().integrated_grad_nr_iter + 1}
    many.update(dict.fromkeys(('smooth_grad', 'var_grad'), Options().smooth_grad_nr_iter))
    return many.get(name, 0)


def evaluation_passes(table, dataset, maps):
    """Forward passes that the maps of a network take on the test split, backward passes included at their price."""
    images = DATASETS[dataset].counts['test']
    steps = [gradient_passes(name) for name in maps]
    if table == 'cue_localization':  # one forward pass, and a backward pass a class; readouts share a pass
        classes = 1 + CUE_PAIRS
        return CUE_IMAGES * (any(not n for n in steps) + sum(n * (1 + BACKWARD * classes) for n in steps))
    if table == 'remove_and_classify':  # random erasing is of the network
        return images * (1 + ERASED + sum(ERASED + n * (1 + BACKWARD) for n in steps))
    return images * max(1, len(maps))


def run_seconds(dataset, rates, gpus):
    """Seconds of a training on so many GPUs, its validation included."""
    counts = DATASETS[dataset].counts
    steps = math.ceil(counts['train'] / rates.batch_size)
    added_up = 2 * (gpus - 1) / gpus * rates.parameters * 1e6 * BYTES / (rates.bandwidth * 1e9)
    images = counts['train'] / rates.train_rate + counts['val'] / rates.forward_rate
    return rates.epochs * (images / gpus + steps * added_up)


def table_cost(table, rates, gpu_counts):
    """The `Cost` of a table: its trainings and evaluations."""
    rows = networks(table)
    passes = sum(evaluation_passes(table, dataset, maps) for dataset, _, maps in rows)
    alone = [run_seconds(dataset, rates, 1) for dataset, _, _ in rows]
    total = sum(alone) + passes / rates.forward_rate
    hours = []
    for gpus in gpu_counts:
        share = max(1, gpus // len(rows))  # GPUs of one run
        beside = min(gpus, len(rows))  # runs at a time
        trained = [run_seconds(dataset, rates, share) for dataset, _, _ in rows]
        training = max(max(trained), sum(trained) / beside)
        hours.append((training + passes / rates.forward_rate / gpus) / 3600)
    sets = sorted({dataset for dataset, _, _ in rows})
    kilobytes = max(IMAGE_KB[dataset] for dataset in sets)
    images = sum(sum(DATASETS[dataset].counts.values()) * IMAGE_KB[dataset] for dataset in sets) / 1e6
    checkpoints = len(rows) * CHECKPOINTS * 2 * rates.parameters * BYTES / 1e3
    cores = [math.ceil(gpus * rates.train_rate / rates.load_rate) for gpus in gpu_counts]
    reading = [gpus * rates.train_rate * kilobytes / 1e3 for gpus in gpu_counts]
    return Cost(total, hours, cores, reading, images + checkpoints)


def limit(rates):
    """GPUs of one run at which adding the gradients up takes as long as the images of a step."""
    added_up = 2 * rates.parameters * 1e6 * BYTES / (rates.bandwidth * 1e9)  # of many GPUs
    return rates.batch_size / rates.train_rate / added_up


def parse():
    """The arguments."""
    usual = make_parser('').get_default
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ('train_rate', 'forward_rate', 'load_rate'):
        parser.add_argument(f'--{name}', type=float, required=True, metavar='IMAGES_A_SECOND')
    parser.add_argument('--bandwidth', type=float, default=25, help='gigabytes a second between GPUs; %(default)s')
    parser.add_argument('--parameters', type=float, default=24, help='millions; default %(default)s, ResNet-50')
    parser.add_argument('--epochs', type=int, default=usual('epochs'), help='default %(default)s')
    parser.add_argument('--batch_size', type=int, default=usual('batch_size'), help='default %(default)s')
    parser.add_argument('--gpus', type=int, nargs='+', default=[1, 8, 64], help='default %(default)s')
    args = parser.parse_args()
    numbers = [args.train_rate, args.forward_rate, args.load_rate, args.bandwidth, args.parameters, *args.gpus]
    if min(numbers) <= 0:
        parser.error('rates, sizes and counts of GPUs are numbers over 0')
    return args


def main():
    """Prints a row a table."""
    args = parse()
    rates = pick(Rates, vars(args))
    heads = [f'hours on {gpus}' for gpus in args.gpus]
    print(f'| table | GPU hours | {" | ".join(heads)} | disk, GB |')
    print('|---' * (3 + len(heads)) + '|')
    for table in TABLES:
        cost = table_cost(table, rates, args.gpus)
        hours = ' | '.join(f'{value:.1f}' for value in cost.hours)
        print(f'| {table} | {cost.gpu_seconds / 3600:.1f} | {hours} | {cost.disk:.0f} |')
    for gpus, cores, reading in zip(args.gpus, cost.cores, cost.reading):
        print(f'{gpus} GPUs in training: {cores} cores load, {reading:.0f} MB/s are read')
    print(
        f'One run stops scaling at about {limit(rates):.0f} GPUs, where adding up the gradients takes half of a step.'
    )


if __name__ == '__main__':
    main()
