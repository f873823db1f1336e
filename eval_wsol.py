"""Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 against boxes, PxAP against masks (OpenImages).

    python eval_wsol.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --score_map_process=jointll
    python eval_wsol.py --experiment_name=mine --dataset=CUB --scoremap_root=save/mine/scoremaps

Maps of a checkpoint are resized by OpenCV's bicubic filter and brought to [0, 1] by min-max; saved maps, one
<image id>.npy each, are scored as they are. The thresholds are even, --cam_curve_interval apart.
"""

import engine.idle  # noqa: F401 (before PyTorch is loaded)

import os
from typing import NamedTuple

import numpy as np

import util
from config import get_configs
from data_loaders import split_ids, with_sizes
from data_truth import ground_truth
from engine import evaluation, map_maker
from wsol.errors import MissingFile, UserError
from wsol.scoring import Part, boxes, join, pixels


class Job(NamedTuple):
    """One image's work."""

    score_map: np.ndarray | str  # [S, S] in [0, 1], or the file of it
    truth: tuple  # (boxes, image size), or ([mask path, ...], ignore path)
    mask_root: str | None  # the folder of the masks; None: the truth is boxes
    size: int  # S, the map's side
    interval: float  # distance of the thresholds
    iou_thresholds: list  # of MaxBoxAccV2, in percent


def read_score_map(path, size):
    """A saved score map: floats in [0, 1], [size, size]. Anything else is a UserError that names the file."""
    try:
        score_map = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f'score map {path} is no .npy array of numbers: {error}') from None
    if getattr(score_map, 'shape', None) != (size, size) or score_map.dtype.kind != 'f':
        array = isinstance(score_map, np.ndarray)
        found = f'{score_map.dtype} {list(score_map.shape)}' if array else 'a folder of arrays'
        raise UserError(f'score map {path} is {found}: it must be floats [{size}, {size}] (--crop_size={size})')
    if not (score_map.min() >= 0 and score_map.max() <= 1):  # NaN fails both
        raise UserError(f'score map {path} has values outside [0, 1], or NaN: bring it to [0, 1] by min-max')
    return score_map


def count_image(job):
    """The `Part` of the image: what it adds are `boxes.box_counts` or `pixels.mask_counts`, its row the best IoUs in
    whole percent or the histogram."""
    score_map = read_score_map(job.score_map, job.size) if isinstance(job.score_map, str) else job.score_map
    taus = pixels.thresholds('even', job.interval)
    if job.mask_root is None:
        true_boxes = boxes.scale_boxes(*job.truth, job.size)
        ious = boxes.best_ious(score_map, true_boxes, taus)
        return Part(boxes.box_counts(ious, job.iou_thresholds), {'iou': [boxes.whole_percent(ious)[None]]})
    foreground, ignore = pixels.read_ground_truth(job.mask_root, *job.truth, job.size)
    histogram = pixels.mask_histogram(score_map, foreground, ignore, taus)
    return Part(pixels.mask_counts(histogram), {'histogram': [histogram[None].astype(np.uint32)]})


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


def made_maps(args, setting, batches):
    """Stream of (image id, score map [S, S]) of the images of `batches`, made by the checkpoint."""
    split = setting.split if setting.split.photographs else with_sizes(setting.split)
    loader = evaluation.split_loader(setting, split, args.crop_size, args.workers, batches)
    maker = setting.makers[args.score_map_process]
    return map_maker.split_score_maps(maker, loader, batches, setting.device, args.crop_size)


def report(run, name, result, images, log):
    """Write and print the result."""
    flags = run.arguments
    util.write_json(
        os.path.join(run.folder, f'{name}.json'),
        {**result, 'split': flags['split'], 'images': images, **run.provenance()},
    )
    for key, value in result.items():
        if isinstance(value, dict):
            text = ', '.join(
                f'IoU {iou}: {row["accuracy"]:.2f} (threshold {row["threshold"]:.3f})' for iou, row in value.items()
            )
        else:
            text = '-' if value is None else f'{value:.2f}'
        log.report(f'{key.replace("_", " ")}: {text}', **{key: value})
    log.report(f'{images} images of {flags["dataset"]} {flags["split"]}', images=images)


def main():
    args = get_configs(__doc__)
    asked = evaluation.request(args, split=args.split, saved_maps=bool(args.scoremap_root))
    name = 'wsol_scoremaps' if args.scoremap_root else f'wsol_{args.score_map_process}'

    def prepare(setting):
        image_ids = split_ids(args.dataset, args.split, args.data_root, asked.metadata_root)
        folder = os.path.join(asked.metadata_root, args.dataset, args.split)
        truth, mask_root = ground_truth(args.dataset, folder, image_ids, args.data_root, args.mask_root)
        found = find_score_maps(args.scoremap_root, image_ids) if args.scoremap_root else None
        how = (mask_root, args.crop_size, args.cam_curve_interval, args.iou_thresholds)

        def counts(batches):
            """The `Part`s of each batch's images, a list; they are made by --workers processes."""
            with util.in_processes(args.workers, evaluation.one_thread) as run_in_order:
                maps = saved_maps(found, batches) if found else made_maps(args, setting, batches)
                jobs = (Job(score_map, truth[image_id], *how) for image_id, score_map in maps)
                results = iter(run_in_order(count_image, jobs))
                for numbers in batches:
                    yield [next(results) for _ in numbers]

        def total(numbers, parts):
            ids = np.array([image_ids[number] for number in numbers])
            whole = join(parts)
            return whole._replace(rows={'ids': [ids], **whole.rows})

        def finish(totals, log):
            if mask_root:
                result = pixels.mask_figures(totals)
            else:
                taus = pixels.thresholds('even', args.cam_curve_interval)
                result = boxes.box_figures(totals, taus, args.iou_thresholds)
            report(setting.run, name, result, int(totals['images']), log)

        return evaluation.Evaluation(len(image_ids), counts, total, finish, 'localization')

    evaluation.evaluate(asked, name, prepare)


if __name__ == '__main__':
    util.command(main)
