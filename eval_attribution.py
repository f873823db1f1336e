"""Attribution methods side by side: the maps of every chosen method by every chosen score, in one table and one plot.

    python eval_attribution.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM
    --dataset=CUB \\
        --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --methods=jointll,grad_cam
        --metrics=deletion,loc_iou

The maps explain each test image's true label, and p is p(y|x) of it; gradient and perturbation methods explain the
logit of CAM, log p(y|x) of CALM. Maps are resized to the image bilinearly; deletion, insertion and remove_and_classify
use the order of their pixels, the other scores the map scaled to [0, 1] by min-max (a constant map gives zeros).
loc_iou, max_box_acc, max_box_acc_v2 and pxap take bicubic maps and 8-bit thresholds, as eval_wsol.py. The figure of
loc_mask_iou is that of its best threshold; the result also has its curve over the thresholds (--cam_curve_interval).
"""

import difflib
import os

import numpy as np
import torch

import util
from config import get_configs, in_range, pick
from data_loaders import checked_boxes, checked_masks, dataset_info, make_loader
from engine import evaluation
from report.plots import plot_scores
from report.tables import score_text, scores_csv, scores_markdown
from wsol import attribution
from wsol.errors import UserError
from wsol.network import HEADS
from wsol.scoring import add_up, boxes, erasing, maps, pixels, regions, scores

NAME = 'attribution_scores'
FILES = [f'{NAME}.{ending}' for ending in ('csv', 'md', 'png')]  # beside NAME.json


def add_flags(parser):
    """The flags that this command alone has."""
    group = parser.add_argument_group('attribution scores (eval_attribution.py)')
    group.add_argument(
        '--methods',
        metavar='NAME,…',
        help='attribution maps to compare, names of --score_map_process '
        '(default: every one that suits the model; all: the others too)',
    )
    group.add_argument(
        '--metrics',
        metavar='NAME,…',
        help=f'scores, of {", ".join(scores.METRICS)} (default and all: every one '
        'that the data set has ground truth for)',
    )
    group.add_argument(
        '--curve_steps', type=in_range(int, 1), default=32, help='steps of the deletion and insertion curves'
    )
    group.add_argument(
        '--box_threshold',
        type=in_range(float, 0, 1),
        default=0.2,
        help='loc_iou: the box is drawn around what lies above this share of the maximum',
    )
    group.add_argument(
        '--box_iou', type=in_range(int, 1, 100), default=50, metavar='PERCENT', help='loc_iou: IoU with a true box'
    )
    group.add_argument(
        '--pointing_tolerance',
        type=in_range(float, 0),
        default=regions.POINTING_TOLERANCE,
        metavar='PIXELS',
        help='pointing_game: a highest pixel so near to the object is a hit',
    )
    group.add_argument(
        '--max_images',
        type=in_range(int, 1),
        default=None,
        metavar='N',
        help='only so many images, evenly spread over the split',
    )


def choose(text, valid, default, every, flag):
    """The names in a comma list; `default` for None, `every` for 'all'. Unknown ones are a UserError that lists close
    ones."""
    if text in (None, 'all'):
        return list(every if text else default)
    names = [name.strip() for name in text.split(',') if name.strip()]
    for name in names:
        if name not in valid:
            close = difflib.get_close_matches(name, valid)
            hint = f'did you mean {" or ".join(close)}? ' if close else ''
            raise UserError(f'{flag} cannot be {name!r} here: {hint}choose among {", ".join(valid)}')
    if not names:
        raise UserError(f'{flag} is empty: choose among {", ".join(valid)}')
    return list(dict.fromkeys(names))


def choose_maps(args):
    """The names of the maps that --methods means."""
    every = [name for name in attribution.MAPS if args.superclass or name not in attribution.SUPERCLASS_READOUTS]
    suited = attribution.suited(args.attribution_method, sets=bool(args.superclass))
    return choose(args.methods, attribution.MAPS, suited, every, '--methods')


def choose_metrics(args):
    """The names of the scores that --metrics means."""
    truths = (None, 'any', dataset_info(args.dataset).localization)
    valid = [name for name, metric in scores.METRICS.items() if metric.truth in truths]
    return choose(args.metrics, valid, valid, valid, '--metrics')


def truth_reader(args, split):
    """A function: image id -> its `regions.Truth`; an image without ground truth is a UserError now."""
    root = os.path.join(args.mask_root, args.dataset)
    size = args.crop_size
    if dataset_info(args.dataset).localization == 'mask':
        masks = checked_masks(split.folder, split.image_ids, root)
        return lambda image_id: regions.Truth(None, *pixels.read_ground_truth(root, *masks[image_id], size))
    table = checked_boxes(split.folder, split.image_ids)

    def read_boxes(image_id):
        true_boxes = boxes.scale_boxes(*table[image_id], size)
        return regions.Truth(true_boxes, regions.box_region(true_boxes, size), None)

    return read_boxes


def score_batch(model, makers, settings, truths, images, labels, numbers, seed):
    """What a batch adds to the totals, {name: array}: 'MAP/name' is a map's own sum, the other names are shared.

    makers: {map: MapMaker}; truths: a `regions.Truth` for each image, or none; numbers: of the images in the split. The
    sum over all batches does not depend on how the images are dealt to them; `map_figures` reads it.
    """
    with torch.no_grad():
        output = model(images)
        probs = output.probs
    p = probs.gather(1, labels[:, None]).squeeze(1)
    size = images.shape[-1]
    drops = []
    found = {'images': np.array(len(images)), 'correct': (probs.argmax(dim=1) == labels).sum().cpu().numpy()}
    if 'remove_and_classify' in settings.metrics:
        random = erasing.random_counts(model, images, labels, numbers, seed, settings.random_repeats)
        found['correct_random'] = random.cpu().numpy()
    for name, maker in makers.items():
        native = np.concatenate(maker(images, output, list(labels.view(-1, 1)), numbers))  # [B, h, w]
        raw = maps.resize(native, size)  # [B, S, S]
        scaled = maps.normalize(raw, 'minmax')
        own, drop = scores.classifier_scores(model, images, labels, p, raw, settings)
        own['constant'] = (scaled.max(axis=(1, 2)) == 0).sum()
        drops.append(drop)
        for row in zip(native, scaled, truths):
            add_up(own, regions.region_scores(*row, settings))
        found.update({f'{name}/{key}': value for key, value in own.items()})
    if drops[0] is not None:
        wins = erasing.wins(torch.stack(drops)).cpu().numpy()
        found.update({f'{name}/wins': row for name, row in zip(makers, wins)})
    return found


def map_figures(totals, names, settings):
    """{map: its figures, and the number of constant maps} of the totals."""
    shared = {key: value for key, value in totals.items() if '/' not in key}
    rows = {}
    for name in names:
        own = {key.removeprefix(f'{name}/'): value for key, value in totals.items() if key.startswith(f'{name}/')}
        rows[name] = {**scores.figures({**shared, **own}, settings), 'constant_maps': int(own['constant'])}
    return rows


def win_table(totals, names):
    """{win, tie: percent of the images [M][M] on which the row's drop is smaller than the column's, or equal}."""
    wins = np.stack([totals[f'{name}/wins'] for name in names]) * 100 / totals['images']
    return {'win': wins.tolist(), 'tie': (100 - wins - wins.T).tolist()}


def subset(split, count):
    """(the split with `count` images, evenly spread over it, their numbers in it); all of them for None."""
    total = len(split.image_ids)
    numbers = np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()
    image_ids = [split.image_ids[n] for n in numbers]
    labels = [split.labels[n] for n in numbers]
    return split._replace(image_ids=image_ids, labels=labels), numbers


def note_of(flags, images, correct):
    """The note below the tables: what was scored; flags: the command's arguments."""
    head = flags['attribution_method']
    return (
        f'{images} test images of {flags["dataset"]}, {correct} classified right by {head} ({flags["architecture"]}). '
        f'Explained class y: the true label; gradient and perturbation methods explain {HEADS[head].scalar}; '
        'p is p(y|x).'
    )


def report(run, settings, names, totals, log):
    """Write the table and the plot and print the table."""
    flags = run.arguments
    images = int(totals['images'])
    correct = int(totals['correct'])
    rows = map_figures(totals, names, settings)
    metrics = {name: scores.METRICS[name] for name in settings.metrics}
    note = note_of(flags, images, correct)
    tables = {f'{NAME}.csv': scores_csv(rows, metrics), f'{NAME}.md': scores_markdown(rows, metrics, note)}
    for file_name, text in tables.items():
        util.write_text(os.path.join(run.folder, file_name), text)
    described = f'{flags["dataset"]}, {flags["architecture"]}, {flags["attribution_method"]}'
    plot_scores(
        os.path.join(run.folder, f'{NAME}.png'),
        rows,
        metrics,
        settings.curve_steps,
        erasing.ERASE_K,
        f'{described}: {images} test images, true label explained',
    )
    result = {
        'images': images,
        'correct': correct,
        'note': note,
        'metrics': {name: {'title': metric.title, 'better': metric.better} for name, metric in metrics.items()},
        'methods': rows,
        'wins': win_table(totals, names) if 'win' in metrics else None,
        'arguments': flags,
    }
    util.write_json(os.path.join(run.folder, f'{NAME}.json'), result)
    for name, row in rows.items():
        log.write(method=name, **{key: row[key] for key in metrics})
        figures = ', '.join(f'{metric.title} {score_text(row[key], metric)}' for key, metric in metrics.items())
        constant = f'; {row["constant_maps"]} constant maps' if row['constant_maps'] else ''
        print(f'{name}: {figures}{constant}', flush=True)
    log.report(note, images=images, correct=correct)


def main():
    args = get_configs(__doc__, add=add_flags)
    args.methods = choose_maps(args)
    args.metrics = choose_metrics(args)

    def prepare(setting):
        split, numbers = subset(setting.split, args.max_images)
        settings = pick(scores.Settings, args)
        needs_truth = any(scores.METRICS[name].truth for name in args.metrics)
        truth = truth_reader(args, split) if needs_truth else None

        def batches(items):
            return make_loader(split, False, args.batch_size, args.workers, crop_size=args.crop_size, batches=items)

        def score(items, batch):
            images, labels, image_ids = batch
            truths = [truth(image_id) for image_id in image_ids] if truth else []
            images = images.to(setting.device)
            labels = labels.to(setting.device)
            chosen = [numbers[item] for item in items]
            return score_batch(setting.model, setting.makers, settings, truths, images, labels, chosen, setting.seed)

        def finish(totals, log):
            report(setting.run, settings, args.methods, totals, log)

        return evaluation.Evaluation(len(numbers), batches, score, finish, 'attribution scores')

    evaluation.evaluate(evaluation.request(args, args.methods), NAME, prepare, FILES)


if __name__ == '__main__':
    util.command(main)
