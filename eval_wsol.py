"""Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 against boxes, PxAP against masks (OpenImages).

    python eval_wsol.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll
    python eval_wsol.py --experiment_name=mine --dataset=CUB --scoremap_root=save/mine/scoremaps

Maps of a checkpoint are resized by OpenCV's bicubic filter and brought to [0, 1] by min-max; saved maps, one
<image id>.npy each, are scored as they are. The thresholds are even, --cam_curve_interval apart.
"""

import os
from collections import namedtuple

import cv2
import numpy as np
import torch

import cluster
import inference
import util
import wsol
from config import get_configs
from data_loaders import DATASETS, checked_boxes, checked_masks, dataset_info, read_image_ids
from wsol import localization, metrics
from wsol.errors import MissingFile, UserError

Job = namedtuple('Job', 'score_map boxes masks mask_root size interval')
Job.__doc__ = """One image's work: its score map [S, S] or the file of it; its true boxes on the map [G, 4] or None;
([mask path, ...], ignore path) below mask_root or None; the map's side S; the distance of the thresholds."""


def read_score_map(path, size):
    """A saved score map: floats in [0, 1], [size, size]. Anything else is a ValueError that names the file."""
    try:
        score_map = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f'score map {path} is no .npy array of numbers: {error}') from None
    if getattr(score_map, 'shape', None) != (size, size) or score_map.dtype.kind != 'f':
        found = (
            f'{score_map.dtype} {list(score_map.shape)}' if isinstance(score_map, np.ndarray) else 'a folder of arrays'
        )
        raise UserError(f'score map {path} is {found}: it must be floats [{size}, {size}] (--crop_size={size})')
    if not (score_map.min() >= 0 and score_map.max() <= 1):  # NaN fails both
        raise UserError(f'score map {path} has values outside [0, 1], or NaN: bring it to [0, 1] by min-max')
    return score_map


def score_image(job):
    """What the image adds to the scores: IoUs [2, T] against boxes, or a histogram [2, bins] against masks."""
    score_map = read_score_map(job.score_map, job.size) if isinstance(job.score_map, str) else job.score_map
    taus = metrics.thresholds('even', job.interval)
    if job.boxes is not None:
        return localization.best_ious(score_map, job.boxes, taus)
    truth = localization.read_ground_truth(job.mask_root, *job.masks, job.size)
    return localization.mask_histogram(score_map, *truth, taus)


def start_worker():
    """One thread a process: the images are spread over the processes."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def find_score_maps(root, image_ids):
    """{image id: file}: the protocol's <image id>.npy, or that with the image's extension left out."""
    found = {}
    for image_id in image_ids:
        names = f'{image_id}.npy', f'{os.path.splitext(image_id)[0]}.npy'
        paths = [path for path in (os.path.join(root, name) for name in names) if os.path.isfile(path)]
        if not paths:
            raise MissingFile(f'no score map of {image_id} in {root}: neither {" nor ".join(names)} is a file')
        found[image_id] = paths[0]
    return found


def saved_maps(found, batches):
    """Stream of (image id, file) of the images of `batches`; found: what `find_score_maps` gave, of all images."""
    files = list(found.items())
    return (files[number] for numbers in batches for number in numbers)


def report(args, scores, log, name):
    """Write and print the result."""
    result = scores.compute()
    util.write_json(
        os.path.join(args.log_folder, f'{name}.json'),
        {**result, 'split': args.split, 'images': int(scores.images), 'arguments': dict(args)},
    )
    for key, value in result.items():
        if isinstance(value, dict):
            text = ', '.join(
                f'IoU {iou}: {row["accuracy"]:.2f} (threshold {row["threshold"]:.3f})' for iou, row in value.items()
            )
        else:
            text = '-' if value is None else f'{value:.2f}'
        log.report(f'{key.replace("_", " ")}: {text}', **{key: value})
    log.report(f'{scores.images} images of {args.dataset} {args.split}', images=int(scores.images))


def evaluate(args, shards, truth, found, device, new_scores):
    """Score this process's images; the maps are made or read here, and scored by --workers processes."""
    boxes, mask_root = dataset_info(args.dataset).localization == 'box', os.path.join(args.mask_root, args.dataset)
    batches = shards.batches()
    with util.in_processes(args.workers, start_worker) as run:
        maps = saved_maps(found, batches) if found else inference.split_score_maps(args, batches, device)
        results = run(
            score_image,
            (
                Job(
                    one,
                    localization.scale_boxes(*truth[image_id], args.crop_size) if boxes else None,
                    None if boxes else truth[image_id],
                    mask_root,
                    args.crop_size,
                    args.cam_curve_interval,
                )
                for image_id, one in maps
            ),
        )

        def work(first, results):
            scores = new_scores()
            for result in results:
                scores.accumulate(result)
            return scores.counts()

        items = ([next(results) for _ in numbers] for numbers in batches)
        shards.run(
            util.progress(items, len(batches), 'localization', args.batch_size * cluster.world(), cluster.rank() == 0),
            work,
        )


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)})
    name = 'wsol_scoremaps' if args.scoremap_root else f'wsol_{args.score_map_process}'
    device = cluster.start()
    if not inference.claim_evaluation(args, name, maps=args.scoremap_root):
        return
    folder, mask_root = (
        os.path.join(args.metadata_root, args.dataset, args.split),
        os.path.join(args.mask_root, args.dataset),
    )
    image_ids, taus = read_image_ids(folder), metrics.thresholds('even', args.cam_curve_interval)
    boxes = dataset_info(args.dataset).localization == 'box'
    truth = checked_boxes(folder, image_ids) if boxes else checked_masks(folder, image_ids, mask_root)
    new_scores = (
        (lambda: localization.BoxScores(taus, args.iou_thresholds))
        if boxes
        else (lambda: localization.MaskScores(taus))
    )
    found = find_score_maps(args.scoremap_root, image_ids) if args.scoremap_root else None
    shards = cluster.Shards(args, name, len(image_ids))
    evaluate(args, shards, truth, found, device, new_scores)
    total = shards.total()
    if total is not None:
        scores = new_scores()
        vars(scores).update(total)
        report(args, scores, util.Log(os.path.join(args.log_folder, f'log_{name}.jsonl'), args), name)
        shards.remove()
    cluster.finish()


if __name__ == '__main__':
    util.command(main)
