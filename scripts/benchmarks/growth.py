"""How cost grows: time and peak memory of each piece of work while one size of the problem grows, the others stay.

Each of several processes has the problem's images: the time and the memory are the sums of what they take.
"""

import math
import time
import uuid
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import eval_cue_location
import eval_pixel_perturb
import wsol
from benchmarks.evaluators import Ready
from benchmarks.timing import peak_bytes, seconds
from config import make_parser, pick
from engine import comparing, processes, training
from engine.map_maker import MapMaker
from wsol.cub_parts import Pair
from wsol.network import Output
from wsol.scoring import add_up, boxes, cues, erasing, pixels, regions, scores

SIDE = 56  # of images, a batch of which is 8: small, so that the work beside the network shows
BATCH = 8


class Problem(NamedTuple):
    """The sizes of a problem."""

    images: int = 16  # of each process
    classes: int = 200
    maps: int = 14  # locations on a side
    pairs: int = 4  # an image, in cue localization
    processes: int = 1


AXES = {
    'images': (8, 32, 128),
    'classes': (24, 200, 1000),
    'maps': (14, 28, 56),
    'pairs': (1, 4, 16),
    'processes': (1, 2),
}
GOAL = 1.05  # of the exponents: time grows linearly at most


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


def passes(problem, device):
    """Forward passes of the network, nothing around them: as many as those of remove-and-classify."""
    model = Heads(problem).to(device).eval()
    images, batches = batches_of(problem, device)

    @torch.no_grad()
    def work():
        for _ in range(len(batches) * (1 + 2 * len(erasing.ERASE_K))):
            _ = model(images).probs

    return work


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


def comparison(problem, device):
    """Attribution scores of a map at hand."""
    model = Heads(problem).to(device).eval()
    images, batches = batches_of(problem, device)
    labels = torch.zeros(BATCH, dtype=torch.long, device=device)
    ready = Ready(torch.rand(BATCH, problem.maps, problem.maps, device=device))
    metrics = ['average_drop', 'deletion', 'remove_and_classify', 'loc_mask_iou', 'max_box_acc_v2']
    settings = scores.Settings(metrics, 8, 0.2, 50, 15, 1, [30, 50, 70], 0.01, BATCH)
    box = np.array([[2, 2, SIDE - 4, SIDE - 3]])
    truths = [regions.Truth(box, regions.box_region(box, SIDE), None)] * BATCH

    def work():
        total = {}
        for numbers in batches:
            predictions = comparing.Predictions(model)  # the images are the same, their outputs are made again
            add_up(total, comparing.score_images(predictions, settings, images, labels, numbers, 0).totals)
            part = comparing.score_map(predictions, 'map', ready, settings, truths, images, labels, numbers)
            add_up(total, part.totals)

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


WORK = {  # (what makes it, the sizes that it depends on beside the processes)
    'plain passes': (passes, ('images', 'classes', 'maps')),
    'remove-and-classify': (erase, ('images', 'classes', 'maps')),
    'cue localization': (cue, ('images', 'classes', 'maps', 'pairs')),
    'box localization': (localization, ('images', 'maps')),
    'attribution scores': (comparison, ('images', 'classes', 'maps')),
    'training step': (step, ('images', 'classes', 'maps')),
}


def slope(sizes, values):
    """The exponent of growth between the last two sizes; maps grow by their locations."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(sizes[-1] / sizes[-2])


def measure(name, problems, device, repeats):
    """(seconds, peak bytes) of the work `name` on each of several problems, which take turns."""
    works = [WORK[name][0](problem, device) for problem in problems]
    memory = [peak_bytes(work, device) for work in works]
    clock = time.process_time if device.type == 'cpu' else time.perf_counter
    return seconds(works, device, repeats, clock), memory


def one_process(problem, repeats):
    """[`measure` of each work on the problem] in a process among others."""
    torch.set_num_threads(1)
    device = processes.start()
    found = [measure(name, [problem], device, repeats) for name in WORK]
    processes.finish()
    return found


def in_processes(problem, repeats):
    """(seconds, peak bytes) of each work on the problem, the sums over its processes, [works, 2]."""
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=problem.processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend='c10d',
        rdzv_endpoint='localhost:0',
        start_method='spawn',
    )
    found = elastic_launch(launch, one_process)(problem, repeats)
    return np.sum(list(found.values()), axis=0)[..., 0]


def growth(args, device):
    """[(work, axis, sizes, seconds, megabytes)] of all work on all axes."""
    rows = []
    for name, (_, axes) in WORK.items():
        for axis in axes:
            problems = [Problem()._replace(**{axis: size}) for size in AXES[axis]]
            rows.append((name, axis, *measure(name, problems, device, args.repeats)))
    apart = np.stack([in_processes(Problem(processes=count), args.repeats) for count in AXES['processes']], axis=2)
    rows += [(name, 'processes', *found) for name, found in zip(WORK, apart)]
    return [(name, axis, AXES[axis], times, np.array(memory) / 2**20) for name, axis, times, memory in rows]


def print_growth(rows):
    """Print the table."""
    head = f'exponent (<= {GOAL})'
    print(f'| work | grows | sizes | milliseconds | {head} | peak memory of tensors, MiB |\n|---|---|---|---|---|---|')
    for name, axis, sizes, times, memory in rows:
        counted = [size**2 for size in sizes] if axis == 'maps' else sizes
        text = ' / '.join(f'{1000 * one:.0f}' for one in times)
        held = ' / '.join(f'{one:.1f}' for one in memory)
        shown = ' / '.join(f'{size} x {size}' if axis == 'maps' else str(size) for size in sizes)
        print(f'| {name} | {axis} | {shown} | {text} | {slope(counted, times):.2f} | {held} |')


def plot_growth(rows, path):
    """Draw time over size, a panel an axis, each over its first value; a straight line is linear growth."""
    figure = Figure(figsize=(12, 3), layout='constrained')
    panels = dict(zip(AXES, figure.subplots(1, len(AXES))))
    colours = dict(zip(WORK, matplotlib.colormaps['tab10'].colors))
    for name, axis, sizes, times, _ in rows:
        counted = np.array([size**2 for size in sizes] if axis == 'maps' else sizes)
        ratios = np.array(times) / times[0]
        panels[axis].loglog(counted / counted[0], ratios, base=2, marker='o', color=colours[name], label=name)
    for axis, panel in panels.items():
        most = (AXES[axis][-1] / AXES[axis][0]) ** (2 if axis == 'maps' else 1)
        panel.loglog([1, most], [1, most], base=2, color='black', linestyle='dotted', linewidth=1)
        for scale in (panel.xaxis, panel.yaxis):
            scale.set_major_formatter('{x:g}')
        panel.set_title('locations of a map' if axis == 'maps' else axis)
        panel.set_xlabel('times as many')
    next(iter(panels.values())).set_ylabel('times the time')
    figure.legend(*panels['images'].get_legend_handles_labels(), loc='outside lower center', ncols=len(WORK))
    figure.savefig(path, dpi=100)
