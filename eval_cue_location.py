"""Cue localization: does the difference of two classes' maps fall on the parts that tell the classes apart?

    python eval_cue_location.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll \\
        --norm_type=clipping --threshold_type=log
"""

import os

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import cluster
import inference
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, dataset_info, leave_group, make_transform, read_image
from wsol import cub_parts, metrics
from wsol.errors import UserError

COUNTS = (1, 2, 3)


class CueDataset(Dataset):
    """Items (image [3, S, S], part map [S, S], exact part map [S, S], visible parts bool [8], index) of the test images.

    Each image is read and decoded once; the part maps are made beside it, in the loader's processes.
    """

    def __init__(self, split, indices, folder, size):
        self.split, self.indices, self.folder, self.size = split, indices, folder, size
        self.transform = make_transform(False, crop_size=size)
        self.locations = cub_parts.read_part_locations(folder)
        self.exact = cub_parts.read_exact_labels(folder)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, item):
        index = self.indices[item]
        image_id = self.split.image_ids[index]
        if image_id not in self.locations:
            raise UserError(f'{self.folder}/images.txt does not list {image_id}')
        image = read_image(os.path.join(self.split.root, image_id))
        parts, seen = cub_parts.part_map(self.folder, image_id, self.locations[image_id], image.size, self.size)
        exact = cub_parts.exact_part_map(self.folder, image_id, self.size) if self.exact else np.zeros_like(parts)
        visible = np.isin(np.arange(8), list(seen))
        return self.transform(image), torch.from_numpy(parts), torch.from_numpy(exact), torch.from_numpy(visible), index


class CueScores:
    """Score histograms of every pair; memory is [pairs, 2, bins] a ground truth, however many images come."""

    def __init__(self, pairs, edges, exact_labels, norm_type):
        self.pairs, self.edges, self.norm_type = pairs, edges, norm_type
        self.parts = self._table([pair.parts for pair in pairs], 8)
        self.labels = (
            self._table([cub_parts.exact_labels_of(pair, exact_labels) for pair in pairs], 1 + max(exact_labels))
            if exact_labels
            else None
        )
        self.clear()

    def clear(self):
        """Forget what was accumulated."""
        shape = len(self.pairs), 2, len(self.edges) - 1
        self.histogram = np.zeros(shape, np.int64)
        self.exact = np.zeros(shape, np.int64) if self.labels is not None else None
        self.images = np.zeros(len(self.pairs), np.int64)

    def take(self):
        """{name: array} of what was accumulated, which is then forgotten."""
        counts = {
            'histogram': self.histogram,
            'images': self.images,
            **({} if self.exact is None else {'exact': self.exact}),
        }
        self.clear()
        return counts

    def put(self, counts):
        """Take over a sum of what `take` gave."""
        self.histogram, self.images, self.exact = counts['histogram'], counts['images'], counts.get('exact')

    @staticmethod
    def _table(sets, width):
        return np.array([np.isin(np.arange(width), list(members)) for members in sets]).reshape(len(sets), width)

    def accumulate(self, rows, differences, parts, exact, visible):
        """Add one image: its pairs' rows [N], their map differences [N, S, S], its part maps [S, S] and visible parts [8]."""
        scored = (self.parts[rows] & visible).any(axis=1)  # a pair counts where one of its parts can be seen
        rows, differences = rows[scored], differences[scored]
        if not len(rows):
            return
        scores = metrics.normalize(np.abs(differences), self.norm_type)
        self.histogram[rows] += metrics.pixel_histogram(scores, self.parts[rows][:, parts], self.edges)
        if self.exact is not None:
            self.exact[rows] += metrics.pixel_histogram(scores, self.labels[rows][:, exact], self.edges)
        self.images[rows] += 1

    def compute(self):
        """{mode: [PxAP of each pair]}: the released running value, each pair alone, and against the exact part pixels.

        The first bin holds the scores under the first threshold: `released` leaves it out, the other modes count it.
        """
        running = self.histogram[:, :, 1:].cumsum(axis=0)
        modes = {'released': running, 'per_pair': self.histogram}
        if self.exact is not None:
            modes['exact'] = self.exact
        return {mode: [metrics.pixel_average_precision(one) for one in table] for mode, table in modes.items()}


def class_rows(pairs):
    """{class: (rows of its pairs [N], LongTensor [1 + N] of itself and its partner in each)}."""
    table = {}
    for y in sorted({pair.a for pair in pairs} | {pair.b for pair in pairs}):
        rows = [row for row, pair in enumerate(pairs) if y in (pair.a, pair.b)]
        partners = [pairs[row].b if pairs[row].a == y else pairs[row].a for row in rows]
        table[y] = np.array(rows), torch.tensor([y, *partners])
    return table


def score_batch(batch, first, maker, labels, table, scores, device):
    """Forward a batch once and add each of its images to the scores of all its pairs; `first`: the number of its first image."""
    images, parts, exact, visible, indices = batch
    images = images.to(device)
    classes = [table[labels[index]][1].to(device) for index in indices]
    for b, maps in enumerate(maker(images, None, classes, first)):
        rows = table[labels[indices[b]]][0]
        differences = metrics.resize(maps[:1] - maps[1:], images.shape[-1])  # the sign is lost in the absolute value
        scores.accumulate(rows, differences, parts[b].numpy(), exact[b].numpy(), visible[b].numpy())


def summarize(pairs, pxap):
    """{cue_1, cue_2, cue_3, mean}: means over the pairs of each count, and over all of them; None where nothing was scored."""
    mean = lambda values: float(np.mean(values)) if values else None
    known = [(len(pair.parts), value) for pair, value in zip(pairs, pxap) if value is not None]
    return {
        **{f'cue_{n}': mean([value for count, value in known if count == n]) for n in COUNTS},
        'mean': mean([value for _, value in known]),
    }


def report(args, pairs, scores, log, name):
    """Write and print the result."""
    pxap = scores.compute()
    total, dropped = int(scores.histogram.sum()), int(scores.histogram[:, :, 0].sum())
    modes = {mode: summarize(pairs, values) for mode, values in pxap.items()}
    rows = [
        {
            'classes': [pair.a, pair.b],
            'differing_parts': len(pair.parts),
            'images': int(scores.images[row]),
            'pxap': {mode: values[row] for mode, values in pxap.items()},
        }
        for row, pair in enumerate(pairs)
    ]
    util.write_json(
        os.path.join(args.log_folder, f'{name}.json'),
        {
            **modes,
            'pairs': rows,
            'evaluations': int(scores.images.sum()),
            'dropped_pixels': dropped / total if total else None,
            'arguments': dict(args),
        },
    )
    for mode, means in modes.items():
        text = ', '.join(f'{key} {value:.2f}' if value is not None else f'{key} -' for key, value in means.items())
        log.report(f'{mode}: {text}', mode=mode, **means)
    log.report(
        f'{len(pairs)} pairs, {scores.images.sum()} image x pair evaluations, '
        f'{100 * dropped / max(total, 1):.2f} % of the pixels under the first threshold',
        dropped=dropped,
        pixels=total,
    )


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    if dataset_info(args.dataset).parts is None:
        named = ', '.join(name for name, info in DATASETS.items() if info.parts)
        raise UserError(f'--dataset={args.dataset} has no part annotations: cue localization needs one of {named}')
    name = f'cue_location_{args.score_map_process}'
    device = cluster.start()
    if not inference.claim_evaluation(args, name):
        return
    model, split = inference.model_and_split(args, 'test', device)
    folder = os.path.join(args.data_root, dataset_info(args.dataset).parts)
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(folder), COUNTS)
    if not pairs:
        raise UserError(f'{folder}: no two classes differ in 1 to 3 parts')
    table = class_rows(pairs)
    dataset = CueDataset(split, [i for i, y in enumerate(split.labels) if y in table], folder, args.crop_size)
    shards = cluster.Shards(args, name, len(dataset))
    loader = DataLoader(
        dataset,
        batch_sampler=shards.batches(),
        num_workers=args.workers,
        pin_memory=device.type != 'cpu',
        worker_init_fn=leave_group,
    )
    edges = metrics.histogram_edges(metrics.thresholds(args.threshold_type, args.cam_curve_interval))
    scores = CueScores(pairs, edges, dataset.exact, args.norm_type)
    maker = inference.MapMaker(model, args)

    def work(first, batch):
        score_batch(batch, first, maker, split.labels, table, scores, device)
        return scores.take()

    shards.run(inference.progress(args, loader, 'cue localization'), work)
    total = shards.total()
    if total is not None:
        scores.put(total)
        report(args, pairs, scores, util.Log(os.path.join(args.log_folder, f'log_{name}.jsonl'), args), name)
        shards.remove()
    cluster.finish()


if __name__ == '__main__':
    util.command(main)
