"""Remove-and-classify: does erasing the pixels with the highest attribution make the classifier fail?

    python eval_pixel_perturb.py --experiment_name=calm_em --architecture=resnet50 \\
        --attribution_method=CALM-EM --dataset=CUB --use_bn=True --large_feature_map=True \\
        --load_checkpoint=calm_em --score_map_process=jointll
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

from typing import NamedTuple

import numpy as np
import torch

from config import get_configs
from engine import evaluation, map_maker
from engine.command import command
from engine.random_erasing import RandomErasing
from wsol.scoring import Tally, erasing


class ErasingBatch(NamedTuple):
    """A batch of images, and what does not depend on the map."""

    images: torch.Tensor  # [B, 3, S, S], on the device
    labels: torch.Tensor  # [B], on the device
    ids: list  # of the images
    numbers: list  # of the images in the split
    output: object  # the network's
    random: torch.Tensor  # draws in which an image with random pixels erased is classified correctly [B, K]
    shared: dict  # of `Options`


def read_batch(model, images, labels, ids, numbers, seed, repeats, known=None):
    """The `ErasingBatch` of images and labels on the device; known: their random counts if cached."""
    with torch.no_grad():
        output = model(images)
    random = erasing.random_counts(model, images, labels, numbers, seed, repeats) if known is None else known
    return ErasingBatch(images, labels, ids, numbers, output, random, {})


def count_batch(model, maker, batch):
    """The `Tally` of an `ErasingBatch`, counts of correct classifications.

    correct: unchanged images; topk [K]: with the highest pixels of the maps erased; random [K]: with random pixels
    erased, summed over the repeats.
    """
    images, labels = batch.images, batch.labels
    native = map_maker.target_maps(maker, images, batch.output, labels, batch.numbers, batch.shared)
    maps = map_maker.at_image_size(native, images.shape[-1])  # [B, S, S]
    rank = erasing.descending_rank(maps.flatten(1))  # [B, SS], one sort for all k
    rows = {
        'correct': batch.output.probs.argmax(dim=1) == labels,
        'topk': erasing.right_highest(model, images, labels, rank),
        'random': batch.random,
    }
    return Tally({name: values.sum(dim=0) for name, values in rows.items()}, {name: [rows[name]] for name in rows})


class PixelPerturbation(evaluation.Evaluator):
    """Counts test images that stay correct with their highest, and with random, pixels erased."""

    title = 'remove-and-classify'
    files = ('png',)

    def name_of(self, task):
        return f'pixel_perturb_{task}'

    def prepare(self):
        self.count = len(self.split.image_ids)
        self.random = RandomErasing(next(iter(self.runs.values())), self.split, range(self.count))

    def batches(self, numbers):
        for some, (images, labels, ids) in zip(numbers, self.loader(self.split, numbers)):
            how = self.seed, self.args.random_repeats, self.random.known_of(some)
            yield read_batch(self.model, images, labels.to(self.device), ids, some, *how)

    def score(self, task, batch):
        made = count_batch(self.model, self.makers[task], batch)
        return made._replace(rows={'ids': [np.array(batch.ids)], **made.rows})

    def report(self, name, totals, rows, log):
        from report.figures import plot_erasing  # loads matplotlib

        self.random.keep(rows['random'])
        topk = totals['topk'].tolist()
        random = (totals['random'] / self.args.random_repeats).tolist()
        ratio = erasing.erasing_ratios(topk, random)
        result = {
            'k': erasing.ERASE_K,
            'images': self.count,
            'correct': int(totals['correct']),
            'correct_topk': topk,
            'correct_random': random,
            'ratio': ratio,
            'seed': self.seed,
        }
        self.write(name, result)
        title = f'{self.model.attribution_method}, {self.runs[name].arguments["score_map_process"]}'
        plot_erasing(self.path(name, 'png'), erasing.ERASE_K, ratio, title)
        print_result(result, log)


def print_result(result, log):
    """Print and log the figures of a result."""
    images, correct = result['images'], result['correct']
    log.report(f'{correct} of {images} images are classified right', images=images, correct=correct)
    for k, top, chance, value in zip(*(result[key] for key in ('k', 'correct_topk', 'correct_random', 'ratio'))):
        text = 'undefined (none right with random pixels erased)' if value is None else f'{value:.4f}'
        log.report(f'k {k:.0%}: right {top} (highest erased), {chance:g} (random erased), R_k {text}', k=k, ratio=value)


def main():
    evaluation.evaluate(PixelPerturbation(get_configs(__doc__, command='eval_pixel_perturb')))


if __name__ == '__main__':
    command(main)
