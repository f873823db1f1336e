"""Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 against boxes, PxAP against masks (OpenImages).

    python eval_wsol.py --experiment_name=calm_em --architecture=resnet50 \\
        --attribution_method=CALM-EM --dataset=CUB --use_bn=True --large_feature_map=True \\
        --load_checkpoint=calm_em --score_map_process=jointll
    python eval_wsol.py --experiment_name=mine --dataset=CUB --scoremap_root=save/mine/scoremaps

Maps of a checkpoint are resized with OpenCV's bicubic filter and min-max scaled to [0, 1]. Saved maps, one
<image id>.npy each, are scored as they are. Thresholds are --cam_curve_interval apart.
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import os
from typing import NamedTuple

import cv2
import numpy as np
import torch

import util
from config import get_configs
from data.truth import ground_truth
from data_loaders import split_ids, with_sizes
from engine import evaluation, map_maker, pool
from engine.command import command
from wsol.errors import MissingFile, UserError
from wsol.scoring import Tally, boxes, join, pixels


class Job(NamedTuple):
    """The work for one image."""

    score_map: np.ndarray | str  # [S, S] in [0, 1], or its file
    truth: tuple  # (boxes, image size), or ([mask path, ...], ignore path)
    mask_root: str | None  # the folder of the masks; None: the truth is boxes
    size: int  # S, the map's side
    interval: float  # between thresholds
    iou_thresholds: list  # of MaxBoxAccV2, in percent


def read_score_map(path, size):
    """A saved score map, floats [size, size] in [0, 1]; UserError for anything else."""
    try:
        score_map = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f'score map {path} is not an .npy array of numbers: {error}') from None
    if getattr(score_map, 'shape', None) != (size, size) or score_map.dtype.kind != 'f':
        array = isinstance(score_map, np.ndarray)
        found = f'{score_map.dtype} {list(score_map.shape)}' if array else 'a folder of arrays'
        raise UserError(f'score map {path} is {found}: it must be floats [{size}, {size}] (--crop_size={size})')
    if not (score_map.min() >= 0 and score_map.max() <= 1):  # NaN fails both
        raise UserError(f'score map {path} has values outside [0, 1], or NaN: min-max scale it to [0, 1]')
    return score_map


def count_image(job):
    """The `Tally` of an image: `boxes.box_counts` and best IoUs in whole percent, or `pixels.mask_counts` and the
    histogram."""
    score_map = read_score_map(job.score_map, job.size) if isinstance(job.score_map, str) else job.score_map
    taus = pixels.thresholds('even', job.interval)
    if job.mask_root is None:
        true_boxes = boxes.scale_boxes(*job.truth, job.size)
        ious = boxes.best_ious(score_map, true_boxes, taus)
        return Tally(boxes.box_counts(ious, job.iou_thresholds), {'iou': [boxes.whole_percent(ious)[None]]})
    foreground, ignore = pixels.read_ground_truth(job.mask_root, *job.truth, job.size)
    histogram = pixels.mask_histogram(score_map, foreground, ignore, taus)
    return Tally(pixels.mask_counts(histogram), {'histogram': [histogram[None].astype(np.uint32)]})


def find_score_maps(root, image_ids):
    """{image id: file}: <image id>.npy as in the protocol, or without the image's extension."""
    found = {}
    for image_id in image_ids:
        names = f'{image_id}.npy', f'{os.path.splitext(image_id)[0]}.npy'
        paths = [path for path in (os.path.join(root, name) for name in names) if util.is_file(path)]
        if not paths:
            raise MissingFile(f'no score map of {image_id} in {root}: neither {" nor ".join(names)} is a file')
        found[image_id] = paths[0]
    return found


def one_thread():
    """Limit a worker process to one thread, as images are spread over processes."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Localization(evaluation.Evaluator):
    """Scores the maps of a checkpoint, or saved maps, of each image's class against its boxes or masks."""

    title = 'localization'

    def __init__(self, args):
        super().__init__(args, args.split, network=not args.scoremap_root)

    def name_of(self, task):
        return 'wsol_scoremaps' if self.args.scoremap_root else f'wsol_{task}'

    def prepare(self):
        args = self.args
        folder = os.path.join(self.metadata_root, args.dataset, args.split)
        self.image_ids = split_ids(args.dataset, args.split, args.data_root, self.metadata_root)
        self.truth, self.mask_root = ground_truth(args.dataset, folder, self.image_ids, args.data_root, args.mask_root)
        self.saved = find_score_maps(args.scoremap_root, self.image_ids) if args.scoremap_root else None
        self.count = len(self.image_ids)

    def compared(self):
        return [*super().compared(), self.image_ids, self.truth]

    def score_maps(self, numbers):
        """Iterator of (image id, score map [S, S] or its file)."""
        args = self.args
        if self.saved:
            ids = (self.image_ids[number] for batch in numbers for number in batch)
            return ((image_id, self.saved[image_id]) for image_id in ids)
        split = with_sizes(self.split)
        maker = self.makers[args.score_map_process]
        return map_maker.split_score_maps(maker, self.loader(split, numbers), self.size)

    def batches(self, numbers):
        """Yield (image ids, their `Tally`s) of each batch; --workers processes compute them."""
        args = self.args
        how = self.mask_root, self.size, args.cam_curve_interval, args.iou_thresholds
        with pool.in_processes(args.workers, one_thread) as run_in_order:
            maps = self.score_maps(numbers)
            jobs = (Job(score_map, self.truth[image_id], *how) for image_id, score_map in maps)
            made = iter(run_in_order(count_image, jobs))
            for batch in numbers:
                yield [self.image_ids[number] for number in batch], [next(made) for _ in batch]

    def score(self, task, batch):
        image_ids, images = batch
        whole = join(images)
        return whole._replace(rows={'ids': [np.array(image_ids)], **whole.rows})

    def report(self, name, totals, rows, log):
        args = self.args
        if self.mask_root:
            result = pixels.mask_figures(totals)
        else:
            taus = pixels.thresholds('even', args.cam_curve_interval)
            result = boxes.box_figures(totals, taus, args.iou_thresholds)
        images = int(totals['images'])
        self.write(name, {**result, 'split': args.split, 'images': images})
        for key, value in result.items():
            log.report(f'{key.replace("_", " ")}: {figure_text(value)}', **{key: value})
        log.report(f'{images} images of {args.dataset} {args.split}', images=images)


def figure_text(value):
    """A figure as text: a number, the accuracies by IoU, or '-' for None."""
    if isinstance(value, dict):
        rows = value.items()
        return ', '.join(f'IoU {iou}: {row["accuracy"]:.2f} (threshold {row["threshold"]:.3f})' for iou, row in rows)
    return '-' if value is None else f'{value:.2f}'


def main():
    evaluation.evaluate(Localization(get_configs(__doc__, command='eval_wsol')))


if __name__ == '__main__':
    command(main)
