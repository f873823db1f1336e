"""Attribution methods side by side: the maps of every chosen method by every chosen score, in one table and one plot.

    python eval_attribution.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM --dataset=CUB \\
        --use_bn=True --large_feature_map=True --load_checkpoint=calm_em --methods=jointll,grad_cam --metrics=deletion,loc_iou

The maps explain each test image's true label, and p is p(y|x) of it; gradient and perturbation methods explain the logit of
CAM, log p(y|x) of CALM. Maps are resized to the image bilinearly; deletion, insertion and remove_and_classify use the order
of their pixels, the other scores the map scaled to [0, 1] by min-max (a constant map gives zeros). loc_iou, max_box_acc,
max_box_acc_v2 and pxap take bicubic maps and 8-bit thresholds, as eval_wsol.py.
"""

import csv
import difflib
import io
import os
from dataclasses import fields

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from munch import Munch

import cluster
import inference
import util
import wsol
from config import get_configs, number
from data_loaders import DATASETS, checked_boxes, checked_masks, dataset_info, make_loader
from wsol import attribution, localization, metrics, scores
from wsol.errors import UserError

# They read p(z|x), which these models do not train (LFI-CAM's saliency is its own attention map).
UNSUITED = {'CAM': ('jointll', 'gtcond', 'saliency'), 'LFI-CAM': ('jointll', 'gtcond')}
NOISY = ('smooth_grad', 'smooth_grad_square', 'var_grad', 'smooth_grad_cam_pp', 'ss_cam')  # they draw random numbers
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
        '--curve_steps', type=number(int, 1), default=32, help='steps of the deletion and insertion curves'
    )
    group.add_argument(
        '--box_threshold',
        type=number(float, 0, 1),
        default=0.2,
        help='loc_iou: the box is drawn around what lies above this share of the maximum',
    )
    group.add_argument(
        '--box_iou', type=number(int, 1, 100), default=50, metavar='PERCENT', help='loc_iou: IoU with a true box'
    )
    group.add_argument(
        '--pointing_tolerance',
        type=number(float, 0),
        default=scores.POINTING_TOLERANCE,
        metavar='PIXELS',
        help='pointing_game: a highest pixel so near to the object is a hit',
    )
    group.add_argument(
        '--max_images',
        type=number(int, 1),
        default=None,
        metavar='N',
        help='only so many images, evenly spread over the split',
    )


def choose(text, valid, default, every, what):
    """The names in a comma list; `default` for None, `every` for 'all'. Unknown ones are a ValueError that lists close ones."""
    if text in (None, 'all'):
        return list(every if text else default)
    names = [name.strip() for name in text.split(',') if name.strip()]
    for name in names:
        if name not in valid:
            close = difflib.get_close_matches(name, valid)
            hint = f'did you mean {" or ".join(close)}? ' if close else ''
            raise UserError(f'{what} cannot be {name!r} here: {hint}choose among {", ".join(valid)}')
    if not names:
        raise UserError(f'{what} is empty: choose among {", ".join(valid)}')
    return list(dict.fromkeys(names))


def choose_methods(args):
    """The names of the maps that --methods means."""
    every = [name for name in attribution.MAPS if args.superclass or name not in attribution.SUPERCLASS_READOUTS]
    unsuited = UNSUITED.get(args.attribution_method, ())
    return choose(
        args.methods,
        attribution.MAPS,
        [name for name in every if not name.startswith(unsuited)],
        every,
        '--methods',
    )


def choose_metrics(args):
    """The names of the scores that --metrics means."""
    valid = [
        name
        for name, metric in scores.METRICS.items()
        if metric.truth in (None, 'any', dataset_info(args.dataset).localization)
    ]
    return choose(args.metrics, valid, valid, valid, '--metrics')


def truth_reader(args, split):
    """A function: image id -> its `scores.Truth`; an image without ground truth is a ValueError now."""
    masks, root = dataset_info(args.dataset).localization == 'mask', os.path.join(args.mask_root, args.dataset)
    table = (
        checked_masks(split.folder, split.image_ids, root) if masks else checked_boxes(split.folder, split.image_ids)
    )

    def read(image_id):
        if masks:
            return scores.Truth(None, *localization.read_ground_truth(root, *table[image_id], args.crop_size))
        boxes = localization.scale_boxes(*table[image_id], args.crop_size)
        return scores.Truth(boxes, scores.box_region(boxes, args.crop_size), None)

    return read


def method_maps(maker, images, output, labels, numbers):
    """The labels' maps by one method, a float32 array [B, h, w]; noise comes from (seed, image number) alone."""
    classes = list(labels.view(-1, 1))
    if maker.process in NOISY:
        return np.concatenate([maker(images[b : b + 1], None, classes[b : b + 1], n)[0] for b, n in enumerate(numbers)])
    return np.concatenate(maker(images, output, classes))


def score_batch(model, makers, settings, truths, images, labels, numbers, seed):
    """What a batch adds to the totals, {name: array}: 'METHOD/name' is a method's own sum, the other names are shared.

    makers: {method: MapMaker}; truths: a `scores.Truth` for each image, or none; numbers: of the images in the test split. The sum
    over all batches does not depend on how the images are dealt to them; `method_figures` reads it.
    """
    with torch.no_grad():
        output = model(images)
        probs = output.probs
    p, size, drops = probs.gather(1, labels[:, None]).squeeze(1), images.shape[-1], []
    contribution = {'images': np.array(len(images)), 'correct': (probs.argmax(dim=1) == labels).sum().cpu().numpy()}
    if 'remove_and_classify' in settings.metrics:
        draws = len(metrics.ERASE_K) * settings.random_repeats  # the masks of eval_pixel_perturb.py
        ranks = torch.stack([metrics.random_ranks(seed, n, draws, size * size, images.device) for n in numbers], dim=1)
        contribution['correct_random'] = scores.correct_random(model, images, labels, ranks).cpu().numpy()
    for method, maker in makers.items():
        native = method_maps(maker, images, output, labels, numbers)  # [B, h, w]
        maps = metrics.resize(native, size)  # [B, S, S]
        scaled = metrics.normalize(maps, 'minmax')
        found, drop = scores.classifier_scores(model, images, labels, p, maps, settings)
        found['constant'] = (scaled.max(axis=(1, 2)) == 0).sum()
        drops.append(drop)
        for row in zip(native, scaled, truths):
            cluster.add(found, scores.region_scores(*row, settings))
        contribution.update({f'{method}/{name}': value for name, value in found.items()})
    if drops[0] is not None:
        wins = scores.wins(torch.stack(drops)).cpu().numpy()
        contribution.update({f'{method}/wins': row for method, row in zip(makers, wins)})
    return contribution


def method_figures(totals, methods, settings):
    """{method: its figures, and the number of constant maps} of the totals."""
    shared = {name: value for name, value in totals.items() if '/' not in name}
    rows = {}
    for method in methods:
        own = {
            name.removeprefix(f'{method}/'): value for name, value in totals.items() if name.startswith(f'{method}/')
        }
        rows[method] = {**scores.figures({**shared, **own}, settings), 'constant_maps': int(own['constant'])}
    return rows


def win_table(totals, methods):
    """{win, tie: percent of the images [M][M] on which the row's drop is smaller than the column's, or equal}."""
    wins = np.stack([totals[f'{method}/wins'] for method in methods]) * 100 / totals['images']
    return {'win': wins.tolist(), 'tie': (100 - wins - wins.T).tolist()}


def text_of(value, name):
    """A metric's figure as the tables show it."""
    return '-' if value is None else f'{value:.2f}' if scores.METRICS[name].title.endswith('(%)') else f'{value:.3f}'


def best_of(rows, name):
    """The best figure of a metric, or None where none is defined."""
    known = [row[name] for row in rows.values() if row[name] is not None]
    choose_best = max if scores.METRICS[name].better == 'higher' else min
    return choose_best(known) if known else None


def title_of(name):
    """A metric's title with the arrow to its better side."""
    return f'{scores.METRICS[name].title} {"↑" if scores.METRICS[name].better == "higher" else "↓"}'


def csv_table(rows, names):
    """The table as CSV: a row a method, full digits, nothing where a figure is not defined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([['method', *names], *([method, *(row[name] for name in names)] for method, row in rows.items())])
    return text.getvalue()


def markdown_table(rows, names, note):
    """The table as Markdown, the best figure of each column in bold, and the note below it."""
    best = {name: best_of(rows, name) for name in names}
    cell = lambda value, name: (
        f'**{text_of(value, name)}**' if value is not None and value == best[name] else text_of(value, name)
    )
    lines = [
        ['method', *(title_of(name) for name in names)],
        ['---', *('---:' for _ in names)],
        *([method, *(cell(row[name], name) for name in names)] for method, row in rows.items()),
    ]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + f'\n\n{note}\n'


def draw_bars(axes, rows, name, colors, labelled):
    """One metric: a bar a method, its figure behind it, the best one in bold."""
    values, best = [row[name] for row in rows.values()], best_of(rows, name)
    top = max([value for value in values if value is not None] + [1e-12])
    axes.barh(range(len(rows)), [value or 0 for value in values], color=colors, height=0.75)
    for y, value in enumerate(values):
        axes.text(
            (value or 0) + 0.02 * top,
            y,
            text_of(value, name),
            va='center',
            fontsize=7,
            fontweight='bold' if value is not None and value == best else 'normal',
        )
    axes.set(xlim=(0, 1.25 * top), ylim=(len(rows) - 0.4, -0.6), xticks=[])
    axes.set_yticks(range(len(rows)), list(rows) if labelled else [''] * len(rows), fontsize=8)
    axes.set_title(f'{scores.METRICS[name].title}\n{scores.METRICS[name].better} is better', fontsize=9)
    axes.spines[['top', 'right', 'bottom']].set_visible(False)


def draw_curve(axes, rows, key, x, labels, colors):
    """The curve rows[method][key] over x of every method, in the colours of the bars."""
    for color, row in zip(colors, rows.values()):
        axes.plot(x, [np.nan if value is None else value for value in row[key]], color=color, linewidth=1.3)
    title, x_label, y_label = labels
    axes.set(xlabel=x_label, ylabel=y_label, ylim=(0, None))
    axes.set_title(title, fontsize=9)
    axes.spines[['top', 'right']].set_visible(False)


def draw(path, rows, names, steps, title):
    """A PNG file: a panel of bars for each metric, below them the curves that were computed and the methods' colours."""
    palette = [*matplotlib.colormaps['tab20'].colors, *matplotlib.colormaps['tab20b'].colors]
    colors = [palette[i % len(palette)] for i in range(len(rows))]
    share, erased = 100 * np.arange(steps + 1) / steps, 100 * np.array(metrics.ERASE_K)
    known = {
        'deletion_curve': (share, ('deletion\nlower is better', 'deleted pixels (%)', 'mean p(y|x)')),
        'insertion_curve': (share, ('insertion\nhigher is better', 'inserted pixels (%)', 'mean p(y|x)')),
        'R_k': (erased, ('remove-and-classify\nlower is better', 'erased pixels k (%)', '$R_k$')),
    }
    curves = [key for key in known if key in next(iter(rows.values()))]
    lines, height = -(-len(names) // 4), 0.7 + 0.19 * len(rows)
    heights = [height] * lines + [max(3.2, height)] * bool(curves)
    figure = Figure(figsize=(13, sum(heights) + 0.5), layout='constrained')
    grid = figure.add_gridspec(len(heights), 4, height_ratios=heights)
    for i, name in enumerate(names):
        draw_bars(figure.add_subplot(grid[i // 4, i % 4]), rows, name, colors, labelled=i % 4 == 0)
    for i, key in enumerate(curves):
        draw_curve(figure.add_subplot(grid[lines, i]), rows, key, *known[key], colors)
    if curves:
        corner = figure.add_subplot(grid[lines, len(curves)])
        corner.axis('off')
        corner.legend(
            handles=[Patch(color=color, label=method) for color, method in zip(colors, rows)],
            loc='upper left',
            fontsize=8,
            frameon=False,
        )
    figure.suptitle(title, fontsize=11)
    util.atomically(path, lambda file: figure.savefig(file, format='png', dpi=130))


def subset(split, count):
    """(the split with `count` images, evenly spread over it, their numbers in it); all of them for None."""
    total = len(split.image_ids)
    numbers = np.linspace(0, total - 1, min(count or total, total)).round().astype(int).tolist()
    return split._replace(
        image_ids=[split.image_ids[n] for n in numbers], labels=[split.labels[n] for n in numbers]
    ), numbers


def report(args, settings, totals, log):
    """Write the table and the plot and print the table."""
    rows, names = method_figures(totals, args.methods, settings), settings.metrics
    scalar = 'log p(y|x)' if args.attribution_method.startswith('CALM') else 'the logit'
    note = (
        f'{int(totals["images"])} test images of {args.dataset}, {int(totals["correct"])} classified right by '
        f'{args.attribution_method} ({args.architecture}). Explained class y: the true label; gradient and perturbation methods '
        f'explain {scalar}; p is p(y|x).'
    )
    tables = {f'{NAME}.csv': csv_table(rows, names), f'{NAME}.md': markdown_table(rows, names, note)}
    for file_name, text in tables.items():
        util.atomically(os.path.join(args.log_folder, file_name), lambda file: file.write(text.encode()))
    draw(
        os.path.join(args.log_folder, f'{NAME}.png'),
        rows,
        names,
        args.curve_steps,
        f'{args.dataset}, {args.architecture}, {args.attribution_method}: {int(totals["images"])} test images, true label explained',
    )
    util.write_json(
        os.path.join(args.log_folder, f'{NAME}.json'),
        {
            'images': int(totals['images']),
            'correct': int(totals['correct']),
            'note': note,
            'metrics': {
                name: {'title': scores.METRICS[name].title, 'better': scores.METRICS[name].better} for name in names
            },
            'methods': rows,
            'wins': win_table(totals, args.methods) if 'win' in names else None,
            'arguments': dict(args),
        },
    )
    for method, row in rows.items():
        log.write(method=method, **{name: row[name] for name in names})
        print(
            f'{method}: {", ".join(f"{scores.METRICS[name].title} {text_of(row[name], name)}" for name in names)}'
            + (f'; {row["constant_maps"]} constant maps' if row['constant_maps'] else ''),
            flush=True,
        )
    log.report(note, images=int(totals['images']), correct=int(totals['correct']))


def main():
    args = get_configs(__doc__, {**wsol.CHOICES, 'dataset': tuple(DATASETS)}, add=add_flags)
    args.methods, args.metrics = choose_methods(args), choose_metrics(args)
    device = cluster.start()
    if not inference.claim_evaluation(args, NAME, FILES):
        return
    model, split = inference.model_and_split(args, 'test', device)
    split, numbers = subset(split, args.max_images)
    settings = scores.Settings(**{field.name: args[field.name] for field in fields(scores.Settings)})
    truth = truth_reader(args, split) if any(scores.METRICS[name].truth for name in args.metrics) else None
    makers = {method: inference.MapMaker(model, Munch(args, score_map_process=method)) for method in args.methods}
    shards = cluster.Shards(args, NAME, len(numbers))
    loader = make_loader(
        split, False, args.batch_size, args.workers, crop_size=args.crop_size, batches=shards.batches()
    )

    def work(first, batch):
        images, labels, image_ids = batch
        truths = [truth(image_id) for image_id in image_ids] if truth else []
        return score_batch(
            model,
            makers,
            settings,
            truths,
            images.to(device),
            labels.to(device),
            numbers[first : first + len(images)],
            args.seed,
        )

    shards.run(inference.progress(args, loader, 'attribution scores'), work)
    totals = shards.total()
    if totals is not None:
        report(args, settings, totals, util.Log(os.path.join(args.log_folder, f'log_{NAME}.jsonl'), args))
        shards.remove()
    cluster.finish()


if __name__ == '__main__':
    util.command(main)
