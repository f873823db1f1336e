"""Remove-and-classify: does erasing the pixels with the highest attribution make the classifier fail?

    python eval_pixel_perturb.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll
"""

import os

import torch
from matplotlib.figure import Figure

import cluster
import inference
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, make_loader
from wsol import metrics, scores


def perturb_batch(model, maker, images, labels, first, seed, repeats):
    """{name: count} on the device, of a batch whose first image has the number `first`: right as they are, with the highest pixels erased [K],
    and with random ones [K], the sum over the repeats."""
    with torch.no_grad():
        output = model(images)
    count, ks = len(images), len(metrics.ERASE_K)
    maps = inference.target_maps(maker, images, output, labels, images.shape[-1], first)  # [B, H, W]
    top = metrics.descending_rank(maps.flatten(1))  # [B, HW], one sort for all k
    correct_topk = scores.count_erased(model, images, labels, top.expand(ks, -1, -1))
    ranks = torch.stack(
        [metrics.random_ranks(seed, first + b, ks * repeats, top.shape[1], images.device) for b in range(count)], dim=1
    )
    correct = (output.probs.argmax(dim=1) == labels).sum()
    return {'correct': correct, 'topk': correct_topk, 'random': scores.correct_random(model, images, labels, ranks)}


def draw_curve(path, ratios, title):
    """R_k over k as a PNG file."""
    figure = Figure(figsize=(4.5, 3.2), layout='constrained')
    axes = figure.add_subplot(xlabel='erased pixels k (%)', ylabel='$R_k$ (lower is better)', title=title)
    points = [(100 * k, ratio) for k, ratio in zip(metrics.ERASE_K, ratios) if ratio is not None]
    axes.plot(*zip(*points) if points else ([], []), 'o-')
    axes.axhline(1, color='grey', linewidth=0.8, linestyle=':')
    axes.set_ylim(bottom=0)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=150))


def report(args, total, images, log, name):
    """Write, draw and print the result."""
    topk, random = total['topk'].tolist(), (total['random'] / args.random_repeats).tolist()
    ratio = metrics.erasing_ratios(topk, random)
    util.write_json(
        os.path.join(args.log_folder, f'{name}.json'),
        {
            'k': metrics.ERASE_K,
            'images': images,
            'correct': int(total['correct']),
            'correct_topk': topk,
            'correct_random': random,
            'ratio': ratio,
            'seed': args.seed,
            'arguments': dict(args),
        },
    )
    draw_curve(
        os.path.join(args.log_folder, f'{name}.png'), ratio, f'{args.attribution_method}, {args.score_map_process}'
    )
    log.report(
        f'{total["correct"]} of {images} images are classified right', images=images, correct=int(total['correct'])
    )
    for k, top, chance, value in zip(metrics.ERASE_K, topk, random, ratio):
        text = 'undefined (none right with random pixels erased)' if value is None else f'{value:.4f}'
        log.report(f'k {k:.0%}: right {top} (highest erased), {chance:g} (random erased), R_k {text}', k=k, ratio=value)


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    name = f'pixel_perturb_{args.score_map_process}'
    device = cluster.start()
    if not inference.claim_evaluation(args, name, [f'{name}.png']):
        return
    model, split = inference.model_and_split(args, 'test', device)
    shards = cluster.Shards(args, name, len(split.image_ids))
    loader = make_loader(
        split, False, args.batch_size, args.workers, crop_size=args.crop_size, batches=shards.batches()
    )
    maker = inference.MapMaker(model, args)

    def work(first, batch):
        images, labels = batch[0].to(device), batch[1].to(device)
        return perturb_batch(model, maker, images, labels, first, args.seed, args.random_repeats)

    shards.run(inference.progress(args, loader, 'remove-and-classify'), work)
    total = shards.total()
    if total is not None:
        log = util.Log(os.path.join(args.log_folder, f'log_{name}.jsonl'), args)
        report(args, total, len(split.image_ids), log, name)
        shards.remove()
    cluster.finish()


if __name__ == '__main__':
    util.command(main)
