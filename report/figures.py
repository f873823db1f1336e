"""PNG figures: remove-and-classify of a map, attribution scores of several maps, maps of class pairs."""

import os

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

import util
from data.truth import part_folder
from data_loaders import read_image
from engine.experiments import explain_batch, load_experiment, load_experiment_split, map_makers
from wsol import cub_parts
from wsol.errors import UserError
from wsol.preprocessing import make_transform

from .attribution_scores import score_text, winners
from .panels import hide_ticks, show_maps

COLUMNS = 4  # plots per row in `plot_scores`


def plot_erasing(path, ks, ratios, title):
    """Plot R_k over the erased shares k in [0, 1]; ratios of None are skipped."""
    figure = Figure(figsize=(4.5, 3.2), layout='constrained')
    axes = figure.add_subplot(xlabel='erased pixels k (%)', ylabel='$R_k$ (lower is better)', title=title)
    points = [(100 * k, ratio) for k, ratio in zip(ks, ratios) if ratio is not None]
    axes.plot(*zip(*points) if points else ([], []), 'o-')
    axes.axhline(1, color='grey', linewidth=0.8, linestyle=':')
    axes.set_ylim(bottom=0)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=150))


# Attribution scores. rows: {map name: {metric: figure, curve: numbers}}; metrics: {metric: a row of scores.METRICS}.


def _draw_bars(axes, rows, name, metric, colours, labelled):
    """Draw a bar with its figure for each map, the best in bold."""
    values = [row[name] for row in rows.values()]
    best = winners(rows, {name: metric})[name]
    top = max([value for value in values if value is not None] + [1e-12])
    low = min([value for value in values if value is not None] + [0])
    axes.barh(range(len(rows)), [value or 0 for value in values], color=colours, height=0.75)
    for y, (map_name, value) in enumerate(zip(rows, values)):
        weight = 'bold' if map_name in best else 'normal'
        text = score_text(value, metric)
        axes.text(max(value or 0, 0) + 0.02 * top, y, text, va='center', fontsize=7, fontweight=weight)
    axes.set(xlim=(low, 1.25 * top), ylim=(len(rows) - 0.4, -0.6), xticks=[])
    axes.set_yticks(range(len(rows)), list(rows) if labelled else [''] * len(rows), fontsize=8)
    axes.set_title(f'{metric.title}\n{metric.better} is better', fontsize=9)
    axes.spines[['top', 'right', 'bottom']].set_visible(False)


def _draw_curves(axes, rows, key, x, labels, colours):
    """Draw rows[map][key] over x for each map, in the colours of the bars; labels: (title, x label, y label)."""
    for colour, row in zip(colours, rows.values()):
        axes.plot(x, [np.nan if value is None else value for value in row[key]], color=colour, linewidth=1.3)
    title, x_label, y_label = labels
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.set_title(title, fontsize=9)
    axes.spines[['top', 'right']].set_visible(False)


def _known_curves(rows, curve_steps, ks):
    """{key of the rows: (x, labels)} of the computed curves."""
    share = 100 * np.arange(curve_steps + 1) / curve_steps
    curves = {
        'deletion_curve': (share, ('deletion\nlower is better', 'deleted pixels (%)', 'mean p(y|x)')),
        'insertion_curve': (share, ('insertion\nhigher is better', 'inserted pixels (%)', 'mean p(y|x)')),
        'R_k': (100 * np.array(ks), ('remove-and-classify\nlower is better', 'erased pixels k (%)', '$R_k$')),
    }
    computed = next(iter(rows.values()))
    random = 100 * np.arange(1, len(computed.get('ssim_curve', [])) + 1) / max(1, len(computed.get('ssim_curve', [])))
    for key, name in (('agreement_curve', 'abs. rank correlation'), ('ssim_curve', 'SSIM')):
        title = f'random weights, {name}\nlower is better'
        curves[key] = (random, (title, 'random layers from the head down (%)', name))
    return {key: curve for key, curve in curves.items() if key in computed}


def plot_scores(path, rows, metrics, curve_steps, ks, title):
    """Plot attribution scores: bars for each metric; below, the computed curves and the legend.

    curve_steps: steps of the deletion and insertion curves; ks: the shares of the R_k.
    """
    palette = [*matplotlib.colormaps['tab20'].colors, *matplotlib.colormaps['tab20b'].colors]
    colours = [palette[i % len(palette)] for i in range(len(rows))]
    curves = _known_curves(rows, curve_steps, ks)
    lines = -(-len(metrics) // COLUMNS)
    height = 0.7 + 0.19 * len(rows)
    curve_lines = -(-(len(curves) + 1) // COLUMNS) if curves else 0  # including the legend
    heights = [height] * lines + [max(3.2, height)] * curve_lines
    figure = Figure(figsize=(13, sum(heights) + 0.5), layout='constrained')
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for i, (name, metric) in enumerate(metrics.items()):
        axes = figure.add_subplot(grid[i // COLUMNS, i % COLUMNS])
        _draw_bars(axes, rows, name, metric, colours, labelled=i % COLUMNS == 0)
    for i, (key, (x, labels)) in enumerate(curves.items()):
        _draw_curves(figure.add_subplot(grid[lines + i // COLUMNS, i % COLUMNS]), rows, key, x, labels, colours)
    if curves:
        corner = figure.add_subplot(grid[lines + len(curves) // COLUMNS, len(curves) % COLUMNS])
        corner.axis('off')
        patches = [Patch(color=colour, label=name) for colour, name in zip(colours, rows)]
        corner.legend(handles=patches, loc='upper left', fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=130))


# Pairs: for test images, the maps of two classes, their difference, and the parts that differ.


def choose_pairs(split, pairs, count):
    """At most `count` (image number, pair) with one differing part, each a different part."""
    chosen = []
    seen = set()
    for pair in sorted(cub_parts.pairs_by_count(pairs, (1,)), key=lambda pair: sorted(pair.attributes)):
        part = part_of(pair)
        if part not in seen and len(chosen) < count:
            seen.add(part)
            chosen.append((split.labels.index(pair.a), pair))
    return chosen


def part_of(pair):
    """The attribute name of the part in which the classes of a pair differ."""
    return pair.attributes[0].split('::')[0]


def true_parts(folder, image_id, pair, size):
    """The pixels of the differing parts, bool [S, S]."""
    labels = cub_parts.read_exact_labels(folder)
    if labels is None:
        raise UserError(f'{folder} has no part_masks: this picture needs ToyBirds')
    return np.isin(cub_parts.exact_part_map(folder, image_id, size), list(cub_parts.exact_labels_of(pair, labels)))


def explain_pair(experiment, image, pair):
    """(maps [2, h, w], probabilities) of a pair's classes for an image [3, S, S]."""
    batch = image[None].to(next(experiment.model.parameters()).device)
    makers = map_makers(experiment)
    [explanation] = explain_batch(experiment.model, makers, batch, [pair.a, pair.b], [0])
    [maps] = explanation.maps.values()
    return maps, [explanation.probs[pair.a], explanation.probs[pair.b]]


def draw_pair(axes, experiments, split, number, pair):
    """Fill a row of axes: image, true parts, then map A, map B and A - B of each experiment."""
    arguments = experiments[0].arguments
    image_id = split.image_ids[number]
    size = arguments.crop_size
    photograph = read_image(os.path.join(split.root, image_id))
    picture = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR)) / 255  # [S, S, 3]
    truth = true_parts(part_folder(arguments.dataset, arguments.data_root), image_id, pair, size)
    axes[0].imshow(picture)
    axes[0].set_ylabel(f'A {pair.a + 1}, B {pair.b + 1}\n{part_of(pair).removeprefix("has_")}', fontsize=8)
    axes[1].imshow(np.where(truth[:, :, None], [1, 0.1, 0.1], picture * 0.35 + 0.1))
    for column, experiment in enumerate(experiments):
        transform = make_transform(False, crop_size=size, preprocessing=experiment.model.preprocessing)
        maps, probs = explain_pair(experiment, transform(photograph), pair)
        three = axes[2 + 3 * column : 5 + 3 * column]
        show_maps(three, picture, maps)
        for tile, prob in zip(three, probs):
            tile.set_xlabel(f'p = {prob:.2f}', fontsize=7, labelpad=1)
        three[2].contour(truth, levels=[0.5], colors='black', linewidths=0.6)
    for tile in axes:
        hide_ticks(tile)


def write_pairs(path, folders, images):
    """Write a PNG, replacing an existing one, with a row per pair for so many test images.

    folders: of the experiments, all on the data of the first one.
    """
    experiments = [load_experiment(folder, {'seed': 0}) for folder in folders]
    split = load_experiment_split(experiments[0], 'test')
    arguments = experiments[0].arguments
    folder = part_folder(arguments.dataset, arguments.data_root)
    chosen = choose_pairs(split, cub_parts.class_pairs(folder), images)
    columns = 2 + 3 * len(experiments)
    figure = Figure(figsize=(1.25 * columns, 1.35 * len(chosen) + 0.3), layout='constrained')
    grid = figure.subplots(len(chosen), columns, squeeze=False)
    for axes, (number, pair) in zip(grid, chosen):
        draw_pair(axes, experiments, split, number, pair)
    titles = ['image (class A)', 'true difference']
    for experiment in experiments:
        titles += [f'{experiment.arguments.attribution_method}: {what}' for what in ('A', 'B', 'A − B')]
    for tile, title in zip(grid[0], titles):
        tile.set_title(title, fontsize=8)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=120))
