"""How cost grows: time and peak memory of each piece of work while one size of the problem grows, the others stay."""

import math
import time
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

import eval_cue_location
import eval_pixel_perturb
import wsol
from benchmarks.evaluators import Ready
from benchmarks.timing import peak_bytes, seconds
from config import make_parser, pick
from engine import training
from engine.evaluation import MapMaker
from wsol.cub_parts import Pair
from wsol.network import Output
from wsol.scoring import add_up, boxes, cues, pixels

SIDE = 56  # of images, a batch of which is 8: small, so that the work beside the network shows
BATCH = 8


class Problem(NamedTuple):
    """The sizes of a problem."""

    images: int = 16
    classes: int = 200
    maps: int = 14  # locations on a side
    pairs: int = 4  # an image, in cue localization


AXES = {'images': (16, 64, 256), 'classes': (24, 200, 1000), 'maps': (14, 28, 56), 'pairs': (1, 4, 16)}


class Heads(torch.nn.Module):
    """A network that costs next to nothing: f and h [B, C, H, W] and [B, 1, H, W] by two linear maps of the image."""

    def __init__(self, problem):
        super().__init__()
        self.head = wsol.network.HEADS['CALM-EM']
        self.attribution_method = 'CALM-EM'
        self.size = problem.maps
        self.conv_last = torch.nn.Conv2d(3, problem.classes, 1)

    def forward(self, images):
        F = torch.nn.functional.interpolate(images, (self.size, self.size))
        return Output(self.conv_last(F), F[:, :1].abs(), self.head)


def batches_of(problem, device):
    """The numbers of the images of each batch; the images are the same."""
    images = torch.randn(BATCH, 3, SIDE, SIDE, device=device)
    return images, [list(range(first, first + BATCH)) for first in range(0, problem.images, BATCH)]


def erase(problem, device):
    """Remove-and-classify of a map at hand."""
    model = Heads(problem).to(device).eval()
    images, batches = batches_of(problem, device)
    labels = torch.zeros(BATCH, dtype=torch.long, device=device)
    ready = Ready(torch.rand(BATCH, problem.maps, problem.maps, device=device))

    def work():
        total = {}
        for numbers in batches:
            part = eval_pixel_perturb.count_batch(model, ready, images, labels, numbers, 0, 1)
            add_up(total, part.totals)

    return work


def cue(problem, device):
    """Cue localization of the readout jointll."""
    maker = MapMaker(Heads(problem).to(device).eval(), 'jointll')
    images, batches = batches_of(problem, device)
    pairs = [Pair(0, y, {1 + y % 3}, ['has_bill_shape::cone']) for y in range(1, problem.pairs + 1)]
    table = cues.class_rows(pairs)
    scored = cues.make_cues(pairs, pixels.histogram_edges(pixels.thresholds('log', 0.001)), None, 'clipping')
    parts = torch.randint(0, 8, (BATCH, SIDE, SIDE), dtype=torch.uint8)
    visible = torch.ones(BATCH, 8, dtype=torch.bool)

    def work():
        total = {}
        for numbers in batches:
            batch = images, parts, parts, visible, torch.tensor(numbers)
            labels = dict.fromkeys(numbers, 0)
            add_up(total, eval_cue_location.count_batch(batch, maker, labels, table, scored, device).totals)

    return work


def localization(problem, device):
    """MaxBoxAccV2 of maps at hand, on the host."""
    rng = np.random.default_rng(0)
    side = problem.maps
    maps = [np.kron(rng.random((side // 2, side // 2)), np.ones((2, 2))) for _ in range(BATCH)]
    taus = pixels.thresholds('even', 0.01)
    box = np.array([[2, 2, side - 4, side - 3]])

    def work():
        total = {}
        for number in range(problem.images):
            ious = boxes.best_ious(maps[number % BATCH], box, taus)
            add_up(total, boxes.box_counts(ious, [30, 50, 70]))

    return work


def step(problem, device):
    """Training steps of CALM-EM on as many images."""
    model = wsol.build_model('vgg_tiny', 'CALM-EM', problem.classes).to(device).train()
    recipe = pick(training.Recipe, vars(make_parser('').parse_args([])))._replace(architecture='vgg_tiny')
    trainer = training.Trainer(None, recipe, model, device)  # no run: nothing is saved
    images = torch.randn(BATCH, 3, 8 * problem.maps, 8 * problem.maps)
    labels = torch.zeros(BATCH, dtype=torch.long)

    def work():
        for _ in range(problem.images // BATCH):
            trainer.train_step(images, labels, BATCH)

    return work


WORK = {
    'remove-and-classify': (erase, ('images', 'classes', 'maps')),
    'cue localization': (cue, ('images', 'classes', 'maps', 'pairs')),
    'box localization': (localization, ('images', 'maps')),
    'training step': (step, ('images', 'classes', 'maps')),
}


def slope(sizes, values):
    """The exponent of growth between the last two sizes; maps grow by their locations."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(sizes[-1] / sizes[-2])


def growth(args, device):
    """[(work, axis, sizes, seconds, megabytes)] of all work on all axes."""
    rows = []
    for name, (make, axes) in WORK.items():
        for axis in axes:
            works = [make(Problem()._replace(**{axis: size}), device) for size in AXES[axis]]
            memory = [peak_bytes(work, device) / 2**20 for work in works]
            clock = time.process_time if device.type == 'cpu' else time.perf_counter
            rows.append((name, axis, AXES[axis], seconds(works, device, args.repeats, clock), memory))
    return rows


def print_growth(rows):
    """Print the table."""
    print('| work | grows | sizes | milliseconds | exponent | peak memory of tensors, MiB |\n|---|---|---|---|---|---|')
    for name, axis, sizes, times, memory in rows:
        counted = [size**2 for size in sizes] if axis == 'maps' else sizes
        text = ' / '.join(f'{1000 * one:.0f}' for one in times)
        held = ' / '.join(f'{one:.1f}' for one in memory)
        shown = ' / '.join(f'{size} x {size}' if axis == 'maps' else str(size) for size in sizes)
        print(f'| {name} | {axis} | {shown} | {text} | {slope(counted, times):.2f} | {held} |')


def plot_growth(rows, path):
    """Draw time over size, a panel an axis, each over its first value; a straight line is linear growth."""
    figure = Figure(figsize=(11, 3), layout='constrained')
    panels = dict(zip(AXES, figure.subplots(1, len(AXES))))
    colours = dict(zip(WORK, matplotlib.colormaps['tab10'].colors))
    for name, axis, sizes, times, _ in rows:
        counted = np.array([size**2 for size in sizes] if axis == 'maps' else sizes)
        ratios = np.array(times) / times[0]
        panels[axis].loglog(counted / counted[0], ratios, marker='o', color=colours[name], label=name)
    for axis, panel in panels.items():
        most = (AXES[axis][-1] / AXES[axis][0]) ** (2 if axis == 'maps' else 1)
        panel.loglog([1, most], [1, most], color='black', linestyle='dotted', linewidth=1)
        panel.set_title('locations of a map' if axis == 'maps' else axis)
        panel.set_xlabel('times as many')
    next(iter(panels.values())).set_ylabel('times the time')
    figure.legend(*panels['images'].get_legend_handles_labels(), loc='outside lower center', ncols=len(WORK))
    figure.savefig(path, dpi=100)
