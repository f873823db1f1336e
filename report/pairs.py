"""A picture of pairs: of test images, the maps of two classes and their difference, beside the parts that differ."""

import os

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import util
from data_loaders import dataset_info, read_image
from engine.experiments import explain_batch, load_experiment, load_experiment_split, map_makers
from wsol import cub_parts
from wsol.errors import UserError
from wsol.preprocessing import make_transform

from .panels import hide_ticks, show_maps


def choose_pairs(split, pairs, count):
    """`count` (image number, pair) with one differing part, a new part each time as long as there is one."""
    chosen = []
    seen = set()
    for pair in sorted(cub_parts.pairs_by_count(pairs, (1,)), key=lambda pair: sorted(pair.attributes)):
        part = part_of(pair)
        if part not in seen and len(chosen) < count:
            seen.add(part)
            chosen.append((split.labels.index(pair.a), pair))
    return chosen


def part_of(pair):
    """The part in which the classes of a pair differ, as the attributes name it."""
    return pair.attributes[0].split('::')[0]


def parts_folder(arguments):
    """The folder in CUB layout that describes the parts; a data set without one is a UserError."""
    parts = dataset_info(arguments.dataset).parts
    if parts is None:
        raise UserError(f'{arguments.dataset} describes no parts: the picture needs ToyBirds')
    return os.path.join(arguments.data_root, parts)


def true_parts(folder, image_id, pair, size):
    """Bool [S, S]: the pixels of the differing parts."""
    labels = cub_parts.read_exact_labels(folder)
    if labels is None:
        raise UserError(f'{folder} has no part_masks: the picture needs ToyBirds')
    return np.isin(cub_parts.exact_part_map(folder, image_id, size), list(cub_parts.exact_labels_of(pair, labels)))


def explain_pair(experiment, image, pair):
    """Maps of the pair's classes [2, h, w] and their probabilities, of an image [3, S, S]."""
    batch = image[None].to(next(experiment.model.parameters()).device)
    makers = map_makers(experiment)
    [explanation] = explain_batch(experiment.model, makers, batch, [pair.a, pair.b], [0])
    [maps] = explanation.maps.values()
    return maps, [explanation.probs[pair.a], explanation.probs[pair.b]]


def draw_pair(axes, experiments, split, number, pair):
    """Fill one row of axes: image, true parts, then map A, map B and A - B of each experiment."""
    arguments = experiments[0].arguments
    image_id = split.image_ids[number]
    size = arguments.crop_size
    photograph = read_image(os.path.join(split.root, image_id))
    picture = np.asarray(photograph.resize((size, size), Image.Resampling.BILINEAR)) / 255  # [S, S, 3]
    truth = true_parts(parts_folder(arguments), image_id, pair, size)
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
    """Write the picture of experiment folders, one row a pair, for so many images of the test split; a PNG file.

    All experiments are on the data of the first one. What is there of that name is replaced.
    """
    experiments = [load_experiment(folder, {'seed': 0}) for folder in folders]
    split = load_experiment_split(experiments[0], 'test')
    chosen = choose_pairs(split, cub_parts.class_pairs(parts_folder(experiments[0].arguments)), images)
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
