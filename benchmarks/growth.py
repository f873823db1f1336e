"""Growth of cost: time and peak memory of each piece of work while one problem size grows and the others stay fixed.

The evaluators use a network of negligible cost. With several processes, each has the problem's number of images, and
time and memory are summed over them.
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
from benchmarks.timing import Row, peak_bytes, seconds
from config import defaults, pick
from engine import comparing, processes, training
from engine.map_maker import MapMaker
from wsol.cub_parts import Pair
from wsol.network import Output
from wsol.scoring import add_up, boxes, cues, erasing, pixels, regions, scores

SIDE = 56  # image side, px; small, so that the network does not dominate
BATCH = 8


class Problem(NamedTuple):
    """Problem sizes."""

    images: int = 16  # per process
    classes: int = 200
    maps: int = 14  # locations per side
    pairs: int = 4  # per image, in cue localization
    processes: int = 1


AXES = {
    'images': (8, 32, 128),
    'classes': (24, 200, 1000),
    'maps': (14, 28, 56),
    'pairs': (1, 4, 16),
    'processes': (1, 2),
}
GOAL = 1.05  # exponents: at most linear growth


class Heads(torch.nn.Module):
    """A network of negligible cost: f and h [B, C, H, W] and [B, 1, H, W] by two linear maps of the image."""

    def __init__(self, problem):
        super().__init__()
        self.head = wsol.network.HEADS['CALM-EM']
        self.attribution_method = 'CALM-EM'
        self.size = problem.maps
        self.conv_last = torch.nn.Conv2d(3, problem.classes, 1)

    def forward(self, images):
        F = torch.nn.functional.interpolate(images, (self.size, self.size))
        return Output(self.conv_last(F), F[:, :1].abs(), self.head)


class Given:
    """Inputs of an evaluator: one batch, repeated, and precomputed maps."""

    def __init__(self, problem, device):
        self.model = Heads(problem).to(device).eval()
        self.images = torch.randn(BATCH, 3, SIDE, SIDE, device=device)
        self.labels = torch.zeros(BATCH, dtype=torch.long, device=device)
        self.ready = Ready(torch.rand(BATCH, problem.maps, problem.maps, device=device))
        self.batches = [list(range(first, first + BATCH)) for first in range(0, problem.images, BATCH)]


def summed(one_batch, items):
    """A function that sums the results of `one_batch` over the items."""

    def work():
        total = {}
        for item in items:
            for tally in one_batch(item):
                add_up(total, tally)

    return work


def passes(problem, device):
    """Only forward passes of the network, as many as in remove-and-classify."""
    its = Given(problem, device)

    @torch.no_grad()
    def work():
        for _ in range(len(its.batches) * (1 + 2 * len(erasing.ERASE_K))):
            _ = its.model(its.images).probs

    return work


def erase(problem, device):
    """Remove-and-classify of precomputed maps."""
    its = Given(problem, device)

    def one_batch(numbers):
        batch = eval_pixel_perturb.read_batch(its.model, its.images, its.labels, numbers, numbers, 0, 1)
        yield eval_pixel_perturb.count_batch(its.model, its.ready, batch).totals

    return summed(one_batch, its.batches)


def cue(problem, device):
    """Cue localization of the readout jointll."""
    its = Given(problem, device)
    maker = MapMaker(its.model, 'jointll')
    pairs = [Pair(0, y, {1 + y % 3}, ['has_bill_shape::cone']) for y in range(1, problem.pairs + 1)]
    table = cues.class_rows(pairs)
    scored = cues.make_cues(pairs, pixels.histogram_edges(pixels.thresholds('log', 0.001)), None, 'clipping')
    parts = torch.randint(0, 8, (BATCH, SIDE, SIDE), dtype=torch.uint8)
    visible = torch.ones(BATCH, 8, dtype=torch.bool)

    def one_batch(numbers):
        batch = its.images, parts, parts, visible, torch.tensor(numbers)
        labels = dict.fromkeys(numbers, 0)
        maps = eval_cue_location.batch_differences(batch, maker, labels, table, device)
        yield eval_cue_location.count_batch(batch, maps, labels, table, scored).totals

    return summed(one_batch, its.batches)


def localization(problem, device):
    """MaxBoxAccV2 of precomputed maps, on the host."""
    rng = np.random.default_rng(0)
    side = problem.maps
    maps = [np.kron(rng.random((side // 2, side // 2)), np.ones((2, 2))) for _ in range(BATCH)]
    taus = pixels.thresholds('even', 0.01)
    box = np.array([[2, 2, side - 4, side - 3]])

    def one_image(number):
        yield boxes.box_counts(boxes.best_ious(maps[number % BATCH], box, taus), [30, 50, 70])

    return summed(one_image, range(problem.images))


def comparison(problem, device):
    """Attribution scores of precomputed maps."""
    its = Given(problem, device)
    metrics = ['average_drop', 'deletion', 'remove_and_classify', 'loc_mask_iou', 'max_box_acc_v2']
    settings = scores.Settings(metrics, 8, 0.2, 50, 15, 1, [30, 50, 70], 0.01, BATCH)
    box = np.array([[2, 2, SIDE - 4, SIDE - 3]])
    truths = [regions.Truth(box, regions.box_region(box, SIDE), None)] * BATCH

    def one_batch(numbers):
        batch = comparing.predict(its.model, its.images, its.labels, numbers, truths)
        yield comparing.score_images(its.model, settings, batch, 0).totals
        yield comparing.score_map(its.model, 'map', its.ready, settings, batch).totals

    return summed(one_batch, its.batches)


def step(problem, device):
    """Training steps of CALM-EM on the problem's images."""
    model = wsol.build_model('vgg_tiny', 'CALM-EM', problem.classes).to(device).train()
    recipe = pick(training.Recipe, defaults())._replace(architecture='vgg_tiny')
    trainer = training.Trainer(None, recipe, model, device)  # None: saves nothing
    images = torch.randn(BATCH, 3, 8 * problem.maps, 8 * problem.maps)
    labels = torch.zeros(BATCH, dtype=torch.long)

    def work():
        for _ in range(problem.images // BATCH):
            trainer.train_step(images, labels, BATCH)

    return work


WORK = {  # (function, sizes it depends on besides the processes)
    'plain passes': (passes, ('images', 'classes', 'maps')),
    'remove-and-classify': (erase, ('images', 'classes', 'maps')),
    'cue localization': (cue, ('images', 'classes', 'maps', 'pairs')),
    'box localization': (localization, ('images', 'maps')),
    'attribution scores': (comparison, ('images', 'classes', 'maps')),
    'training step': (step, ('images', 'classes', 'maps')),
}


def slope(sizes, values):
    """Exponent of growth between the last two sizes."""
    return math.log(max(values[-1], 1e-9) / max(values[-2], 1e-9)) / math.log(sizes[-1] / sizes[-2])


def measure(name, problems, device, repeats):
    """(seconds, peak bytes) of the work `name` on several problems that take turns."""
    works = [WORK[name][0](problem, device) for problem in problems]
    memory = [peak_bytes(work, device) for work in works]
    clock = time.process_time if device.type == 'cpu' else time.perf_counter
    return seconds(works, device, repeats, clock), memory


def one_process(problem, repeats):
    """[`measure` of each work on the problem] in one of several processes."""
    torch.set_num_threads(1)
    device = processes.start()
    found = [measure(name, [problem], device, repeats) for name in WORK]
    processes.finish()
    return found


def in_processes(problem, repeats):
    """(seconds, peak bytes) of each work on the problem, summed over its processes, [works, 2]."""
    meeting = {'run_id': uuid.uuid4().hex, 'rdzv_backend': 'c10d', 'rdzv_endpoint': 'localhost:0'}
    launch = LaunchConfig(1, 1, problem.processes, **meeting, start_method='spawn')
    found = elastic_launch(launch, one_process)(problem, repeats)
    return np.sum(list(found.values()), axis=0)[..., 0]


def growth(args, device):
    """[(work, axis, seconds, bytes)] of all work on all axes."""
    rows = []
    for name, (_, axes) in WORK.items():
        for axis in axes:
            problems = [Problem()._replace(**{axis: size}) for size in AXES[axis]]
            rows.append((name, axis, *measure(name, problems, device, args.repeats)))
    apart = np.stack([in_processes(Problem(processes=count), args.repeats) for count in AXES['processes']], axis=2)
    return rows + [(name, 'processes', *found) for name, found in zip(WORK, apart)]


def counted(axis):
    """Sizes along an axis as the work scales: maps count locations, the square of their side."""
    return np.array(AXES[axis]) ** (2 if axis == 'maps' else 1)


def growth_rows(args, device):
    """A row per work and axis: the exponent between the last two sizes."""
    found = growth(args, device)
    if args.plot:
        plot_growth(found, args.plot)
    rows = []
    for name, axis, times, memory in found:
        sizes = ' / '.join(f'{size} x {size}' if axis == 'maps' else str(size) for size in AXES[axis])
        spent = ' / '.join(f'{1000 * one:.0f}' for one in times)
        held = ' / '.join(f'{one / 2**20:.1f}' for one in memory)
        note = f'{spent} ms; peak memory of tensors {held} MiB'
        rows.append(Row(name, f'{axis}: {sizes}', slope(counted(axis), times), f'<= {GOAL}', note))
    return rows


def plot_growth(found, path):
    """Plot time over size, one panel per axis, normalised to the first value; the dotted line is linear growth."""
    figure = Figure(figsize=(12, 3), layout='constrained')
    panels = dict(zip(AXES, figure.subplots(1, len(AXES))))
    colours = dict(zip(WORK, matplotlib.colormaps['tab10'].colors))
    for name, axis, times, _ in found:
        ratios = np.array(times) / times[0]
        many = counted(axis) / counted(axis)[0]
        panels[axis].loglog(many, ratios, base=2, marker='o', color=colours[name], label=name)
    for axis, panel in panels.items():
        most = counted(axis)[-1] / counted(axis)[0]
        panel.loglog([1, most], [1, most], base=2, color='black', linestyle='dotted', linewidth=1)
        for scale in (panel.xaxis, panel.yaxis):
            scale.set_major_formatter('{x:g}')
        panel.set_title('locations of a map' if axis == 'maps' else axis)
        panel.set_xlabel('relative size')
    next(iter(panels.values())).set_ylabel('relative time')
    figure.legend(*panels['images'].get_legend_handles_labels(), loc='outside lower center', ncols=len(WORK))
    figure.savefig(path, dpi=100)
