"""The evaluators over the forward passes that they cannot do without."""

import os

import numpy as np
import torch
from torch.utils.data import DataLoader

import eval_cue_location
import eval_pixel_perturb
from benchmarks.timing import Row, seconds
from benchmarks.training import CLASSES, build
from data_loaders import load_split
from engine import evaluation
from wsol import cub_parts
from wsol.preprocessing import ImageLoader
from wsol.scoring import cues, erasing, pixels


class Ready:
    """A map maker whose maps are at hand: the evaluator's own cost, not the map's."""

    ksize = 1

    def __init__(self, maps):
        self.maps = maps

    def tensors(self, images, output, classes, numbers):
        """As `evaluation.MapMaker.tensors`."""
        return list(self.maps[:, None])

    def __call__(self, *arguments):
        """As `evaluation.MapMaker`."""
        return [one.cpu().numpy() for one in self.tensors(*arguments)]


def erase_rows(args, device):
    """Time of remove-and-classify over its 11 forward passes."""
    model = build(args.architecture, CLASSES, device).eval()
    images = torch.randn(args.batch, 3, args.size, args.size, device=device)
    labels = torch.zeros(args.batch, dtype=torch.long, device=device)
    ready = Ready(torch.rand(args.batch, 28, 28, device=device))

    @torch.no_grad()
    def passes():
        for _ in range(1 + 2 * len(erasing.ERASE_K)):
            _ = model(images).probs

    def erase():
        eval_pixel_perturb.count_batch(model, ready, images, labels, list(range(args.batch)), 0, 1)

    ours, other = seconds([erase, passes], device, args.repeats)
    return [Row('remove-and-classify of a map at hand', 'its 11 forward passes', ours / other, '<= 1.05')]


def cue_rows(args, device):
    """Time of cue localization over a forward pass of its images; reading files is in neither."""
    split = load_split('ToyBirds', 'test', args.data_root, args.metadata_root)
    folder = os.path.join(args.data_root, 'ToyBirds')
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(folder), cues.COUNTS)
    table = cues.class_rows(pairs)
    chosen = [i for i, y in enumerate(split.labels) if y in table][: args.images]
    dataset = eval_cue_location.CueDataset(split, chosen, folder, args.size)
    dataset.exact = None  # as on CUB: no true pixels of the parts
    model = build(args.architecture, split.num_classes, device).eval()
    batches = list(ImageLoader(DataLoader(dataset, batch_size=args.batch), model.preprocessing, device))
    maker = evaluation.MapMaker(model, 'jointll')
    cue = cues.make_cues(pairs, pixels.histogram_edges(pixels.thresholds('log', 0.001)), None, 'clipping')

    def evaluate():
        for batch in batches:
            eval_cue_location.count_batch(batch, maker, split.labels, table, cue, device)

    @torch.no_grad()
    def forward():
        for batch in batches:
            _ = model(batch[0]).probs

    ours, other = seconds([evaluate, forward], device, args.repeats)
    each = np.mean([len(table[split.labels[i]][0]) for i in chosen])
    what = f'one forward pass of {len(chosen)} images'
    return [Row(f'cue localization, {each:.1f} pairs an image', what, ours / other, '<= 1.10', 'CUB has 4.3 pairs')]
