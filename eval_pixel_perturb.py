"""Remove-and-classify: does erasing the pixels with the highest attribution make the classifier fail?

    python eval_pixel_perturb.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll
"""

import engine.idle  # noqa: F401 (before PyTorch is loaded)

import os

import numpy as np
import torch

import util
from config import get_configs
from engine import evaluation, map_maker
from engine.random_erasing import RandomErasing
from wsol.scoring import Part, erasing


def count_batch(model, maker, images, labels, numbers, seed, repeats, known=None, output=None):
    """The `Part` of images [B, 3, S, S] with their numbers in the split, on their device: right as they are
    (`correct`), with the highest pixels erased (`topk`, a column a k), and with random ones (`random`, the sum over
    the repeats). known: the last of these, and output: the model's on the images, where they are known."""
    with torch.no_grad():
        output = output or model(images)
    native = map_maker.target_maps(maker, images, output, labels, numbers)
    maps = map_maker.at_image_size(native, images.shape[-1])  # [B, S, S]
    rows = {'correct': output.probs.argmax(dim=1) == labels}
    rows.update(erasing.erased_rows(model, images, labels, maps, numbers, seed, repeats, known))
    totals = {name: values.sum(dim=0) for name, values in rows.items()}
    return Part(totals, {name: [values] for name, values in rows.items()})


def report(run, name, totals, images, log):
    """Write, draw and print the result."""
    from report.plots import plot_erasing  # matplotlib: nothing before the end needs it

    flags = run.arguments
    topk = totals['topk'].tolist()
    random = (totals['random'] / flags['random_repeats']).tolist()
    ratio = erasing.erasing_ratios(topk, random)
    result = {
        'k': erasing.ERASE_K,
        'images': images,
        'correct': int(totals['correct']),
        'correct_topk': topk,
        'correct_random': random,
        'ratio': ratio,
        'seed': flags['seed'],
        **run.provenance(),
    }
    util.write_json(os.path.join(run.folder, f'{name}.json'), result)
    title = f'{flags["attribution_method"]}, {flags["score_map_process"]}'
    plot_erasing(os.path.join(run.folder, f'{name}.png'), erasing.ERASE_K, ratio, title)
    log.report(
        f'{totals["correct"]} of {images} images are classified right', images=images, correct=int(totals['correct'])
    )
    for k, top, chance, value in zip(erasing.ERASE_K, topk, random, ratio):
        text = 'undefined (none right with random pixels erased)' if value is None else f'{value:.4f}'
        log.report(f'k {k:.0%}: right {top} (highest erased), {chance:g} (random erased), R_k {text}', k=k, ratio=value)


def main():
    args = get_configs(__doc__, several_maps=True)
    repeats = args.random_repeats

    def prepare(setting):
        split = setting.split
        device = setting.device
        seed = setting.seed
        count = len(split.image_ids)
        random = RandomErasing(setting, split, range(count))
        shared = map_maker.SharedPass(setting.model)

        def batches(numbers):
            return evaluation.split_loader(setting, split, args.crop_size, args.workers, numbers)

        def of_map(process, run):
            name = f'pixel_perturb_{process}'

            def score(numbers, batch):
                images, labels, image_ids = batch
                y = labels.to(device)
                known = random.rows(
                    numbers, lambda: erasing.random_counts(setting.model, images, y, numbers, seed, repeats)
                )
                part = count_batch(
                    setting.model, setting.makers[process], images, y, numbers, seed, repeats, known, shared(images)
                )
                return part._replace(rows={'ids': [np.array(image_ids)], **part.rows})

            def finish(totals, log):
                random.keep(os.path.join(run.folder, f'{name}.npz'), 'random')
                report(run, name, totals, count, log)

            return evaluation.Evaluation(count, batches, score, finish, 'remove-and-classify')

        return of_map

    evaluation.evaluate_maps(evaluation.request(args), 'pixel_perturb_{}'.format, prepare, lambda name: [f'{name}.png'])


if __name__ == '__main__':
    util.command(main)
