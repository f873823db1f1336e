"""Remove-and-classify: does erasing the pixels with the highest attribution make the classifier fail?

    python eval_pixel_perturb.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll
"""
import os

import numpy as np
import torch
from matplotlib.figure import Figure

import inference
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, make_loader
from wsol import metrics


def random_ranks(seed, index, repeats, pixels):
    """Ranks of `repeats` random orders [repeats, pixels] for the test image number `index`: the same whatever the batch."""
    words = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(words[0]) >> 1)
    return metrics.descending_rank(torch.rand(repeats, pixels, generator=generator))


@torch.no_grad()
def count_correct(model, images, labels):
    """How many of the images are classified right."""
    return int((model(images).probs.argmax(dim=1) == labels).sum())


def perturb_batch(model, maker, images, labels, first, seed, repeats):
    """(correct, correct_topk [K], correct_random [K]) of a batch whose first image has the number `first`."""
    with torch.no_grad():
        output = model(images)
    maps = inference.target_maps(maker, images, output, labels, images.shape[-1])
    top = metrics.descending_rank(torch.from_numpy(maps).to(images.device).flatten(1))            # [B, HW]
    correct_topk = [count_correct(model, metrics.erase(images, top, k), labels) for k in metrics.ERASE_K]
    draws = len(metrics.ERASE_K) * repeats                                    # a draw of its own for each k and repeat
    ranks = torch.stack([random_ranks(seed, first + b, draws, top.shape[1]) for b in range(len(images))], dim=1).to(images.device)
    ranks = ranks.view(len(metrics.ERASE_K), repeats, *top.shape)                                 # [K, R, B, HW]
    correct_random = [sum(count_correct(model, metrics.erase(images, rank, k), labels) for rank in ranks[i]) / repeats
                      for i, k in enumerate(metrics.ERASE_K)]
    return int((output.probs.argmax(dim=1) == labels).sum()), correct_topk, correct_random


def draw_curve(path, ratios, title):
    """R_k over k as a PNG file."""
    figure = Figure(figsize=(4.5, 3.2), layout='constrained')
    axes = figure.add_subplot(xlabel='erased pixels k (%)', ylabel='$R_k$ (lower is better)', title=title)
    points = [(100 * k, ratio) for k, ratio in zip(metrics.ERASE_K, ratios) if ratio is not None]
    axes.plot(*zip(*points) if points else ([], []), 'o-')
    axes.axhline(1, color='grey', linewidth=.8, linestyle=':')
    axes.set_ylim(bottom=0)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=150))


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    name = f'pixel_perturb_{args.score_map_process}'
    model, split, device = inference.prepare_evaluation(args, [f'{name}.json', f'{name}.png'])
    loader = make_loader(split, False, args.batch_size, args.workers, crop_size=args.crop_size)
    log = util.Log(os.path.join(args.log_folder, f'log_{name}.jsonl'), args)
    maker = inference.MapMaker(model, args)
    counts, seen = [], 0
    for images, labels, _ in util.progress(loader, len(loader), 'remove-and-classify'):
        images, labels = images.to(device), labels.to(device)
        counts.append(perturb_batch(model, maker, images, labels, seen, args.seed, args.random_repeats))
        seen += len(images)
    correct = sum(row[0] for row in counts)
    topk, random = (np.sum([row[column] for row in counts], axis=0).tolist() for column in (1, 2))
    ratio = metrics.erasing_ratios(topk, random)
    util.write_json(os.path.join(args.log_folder, f'{name}.json'), {
        'k': metrics.ERASE_K, 'images': seen, 'correct': correct, 'correct_topk': topk, 'correct_random': random,
        'ratio': ratio, 'seed': args.seed, 'arguments': dict(args)})
    draw_curve(os.path.join(args.log_folder, f'{name}.png'), ratio, f'{args.attribution_method}, {args.score_map_process}')
    log.report(f'{correct} of {seen} images are classified right', images=seen, correct=correct)
    for k, top, chance, value in zip(metrics.ERASE_K, topk, random, ratio):
        text = 'undefined (none right with random pixels erased)' if value is None else f'{value:.4f}'
        log.report(f'k {k:.0%}: right {top} (highest erased), {chance:g} (random erased), R_k {text}', k=k, ratio=value)


if __name__ == '__main__':
    util.command(main)
