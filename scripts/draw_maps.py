"""One picture: for test images, the maps of two classes and their difference by each experiment, beside the true parts.

python scripts/draw_maps.py --experiments save/quickstart/CAM save/quickstart/CALM-EM --output maps.png
"""

import argparse
import os
import sys

import numpy as np
import torch
from matplotlib.figure import Figure

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import inference
import panels
import util
from data_loaders import dataset_info, denormalize, load_split, make_transform, read_image
from wsol import cub_parts
from wsol.errors import UserError


def load_experiment(folder):
    """(arguments, test split, model, map maker) of an experiment folder's last checkpoint."""
    args = inference.arguments(__doc__, argv=[f'--load_checkpoint={folder}', '--seed=0'])
    split = load_split(args.dataset, 'test', args.data_root, args.metadata_root)
    model = inference.load_model(args, split.num_classes, inference.pick_device()).eval()
    return args, split, model, next(iter(inference.map_makers(model, args).values()))


def choose(split, pairs, count):
    """`count` (image index, pair) with one differing part, a new part each time as long as there is one."""
    chosen, seen = [], set()
    for pair in sorted(cub_parts.pairs_by_count(pairs, (1,)), key=lambda pair: sorted(pair.attributes)):
        name = pair.attributes[0].split('::')[0]
        if name not in seen and len(chosen) < count:
            seen.add(name)
            chosen.append((split.labels.index(pair.a), pair))
    return chosen


def two_maps(experiment, image, pair):
    """Maps of the pair's classes [2, h, w] and their probabilities."""
    _, _, model, maker = experiment
    batch = image[None].to(next(model.parameters()).device)
    with torch.no_grad():
        output = model(batch)
    maps = maker(batch, output, [torch.tensor([pair.a, pair.b], device=batch.device)])[0]
    return maps, output.probs[0, [pair.a, pair.b]].tolist()


def true_parts(folder, image_id, pair, size):
    """Bool [S, S]: the pixels of the differing parts."""
    labels = cub_parts.read_exact_labels(folder)
    if labels is None:
        raise UserError(f'{folder} has no part_masks: the picture needs ToyBirds')
    return np.isin(cub_parts.exact_part_map(folder, image_id, size), list(cub_parts.exact_labels_of(pair, labels)))


def draw_row(axes, experiments, index, pair):
    """Fill one row of axes: image, true parts, then map A, map B and A - B of each experiment."""
    args, split = experiments[0][:2]
    image_id, size = split.image_ids[index], args.crop_size
    folder = os.path.join(args.data_root, dataset_info(args.dataset).parts)
    image = make_transform(False, crop_size=size)(read_image(os.path.join(split.root, image_id)))
    picture = denormalize(image[None])[0].permute(1, 2, 0).numpy()  # [S, S, 3]
    truth = true_parts(folder, image_id, pair, size)
    axes[0].imshow(picture)
    axes[0].set_ylabel(
        f'A {pair.a + 1}, B {pair.b + 1}\n{pair.attributes[0].split("::")[0].removeprefix("has_")}', fontsize=8
    )
    axes[1].imshow(np.where(truth[:, :, None], [1, 0.1, 0.1], picture * 0.35 + 0.1))
    for number, experiment in enumerate(experiments):
        maps, probs = two_maps(experiment, image, pair)
        three = axes[2 + 3 * number : 5 + 3 * number]
        panels.show_maps(three, picture, maps)
        for panel, prob in zip(three, probs):
            panel.set_xlabel(f'p = {prob:.2f}', fontsize=7, labelpad=1)
        three[2].contour(truth, levels=[0.5], colors='black', linewidths=0.6)
    for panel in axes:
        panel.set_xticks([]), panel.set_yticks([])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--experiments', nargs='+', required=True, metavar='FOLDER', help='experiment folders with a checkpoint'
    )
    parser.add_argument('--output', required=True, metavar='FILE.png', help='the picture; one of that name is replaced')
    parser.add_argument('--images', type=int, default=5, help='rows')
    options = parser.parse_args()
    experiments = [load_experiment(folder) for folder in options.experiments]
    args, split = experiments[0][:2]
    folder = os.path.join(args.data_root, dataset_info(args.dataset).parts or '')
    rows = choose(split, cub_parts.class_pairs(folder), options.images)
    figure = Figure(figsize=(1.25 * (2 + 3 * len(experiments)), 1.35 * len(rows) + 0.3), layout='constrained')
    grid = figure.subplots(len(rows), 2 + 3 * len(experiments), squeeze=False)
    for axes, (index, pair) in zip(grid, rows):
        draw_row(axes, experiments, index, pair)
    titles = ['image (class A)', 'true difference'] + [
        f'{e[0].attribution_method}: {what}' for e in experiments for what in ('A', 'B', 'A − B')
    ]
    for panel, title in zip(grid[0], titles):
        panel.set_title(title, fontsize=8)
    util.atomically(options.output, lambda file: figure.savefig(file, format='png', dpi=120))


if __name__ == '__main__':
    util.command(main)
