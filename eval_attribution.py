"""Attribution methods side by side: the maps of every chosen method by every chosen score, in one table and one plot.

    python eval_attribution.py --experiment_name=calm_em --architecture=resnet50 --attribution_method=CALM-EM \\
        --dataset=CUB --use_bn=True --large_feature_map=True --load_checkpoint=calm_em \\
        --methods=jointll,grad_cam --metrics=deletion,loc_iou

The maps explain each test image's true label, and p is p(y|x) of it; gradient and perturbation methods explain the
logit of CAM, log p(y|x) of CALM. Maps are resized to the image bilinearly; deletion, insertion and remove_and_classify
use the order of their pixels, the other scores the map scaled to [0, 1] by min-max (a constant map gives zeros).
loc_iou, max_box_acc, max_box_acc_v2 and pxap take bicubic maps and 8-bit thresholds, as eval_wsol.py. The figure of
loc_mask_iou is that of its best threshold; the result also has its curve over the thresholds (--cam_curve_interval).
The last columns say what a map costs: seconds here, and the network's forward and backward passes, as counted. Each
method is a part of its own: --resume goes on where a call was stopped, also with more --methods or fewer, and adds
more --methods to a table that is finished.
"""

import engine.idle  # noqa: F401 (before PyTorch is loaded)

import os
import sys

import numpy as np
from munch import Munch

import util
from config import get_configs, in_range, pick
from data_truth import localization
from engine import comparing, evaluation, processes, sharding
from engine.random_erasing import RandomErasing
from report import own_photographs, sources
from report.experiments import network_arguments, network_class_names
from report.score_tables import score_text, scores_csv, scores_markdown, winners
from wsol import attribution
from wsol.errors import UserError
from wsol.network import HEADS
from wsol.registry import did_you_mean
from wsol.scoring import Part, erasing, regions, scores

NAME = 'attribution_scores'
SHARED = 'images'  # the part of the evaluation that all maps share; each map is another
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
        help=f'scores, of {", ".join(scores.METRICS)} (default: those up to pxap that the data set has ground truth '
        'for; all: the others too, most of which make many more maps)',
    )
    for name, default, what in (
        ('randomization_steps', 4, 'randomization: networks, of which the last has all weights random'),
        ('sensitivity_draws', 10, 'max_sensitivity: noisy images'),
        ('infidelity_draws', 50, 'infidelity: squares that are removed in turn'),
    ):
        group.add_argument(f'--{name}', type=in_range(int, 1), default=default, help=what)
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
        help='only so many images, evenly spread over the split or the photographs',
    )
    add_photograph_flags(parser.add_argument_group("photographs of one's own (eval_attribution.py)"))


def add_photograph_flags(own):
    """The flags of photographs in place of a data set."""
    own.add_argument(
        '--images',
        nargs='+',
        metavar='PATTERN',
        help="score on photographs instead of a split: files, folders, or patterns such as 'photos/*.jpg'; "
        "the network's predictions are explained",
    )
    own.add_argument('--labels', metavar='FILE', help='lines file,class: explain these classes, not the predictions')
    own.add_argument(
        '--boxes', metavar='FILE', help='lines file,x0,y0,x1,y1 of the objects, in pixels of the photographs'
    )
    own.add_argument('--masks', metavar='DIR', help='<name>.png of each photograph, of its size: above 0 is the object')


def choose(text, valid, default, every, flag):
    """The names in a comma list; `default` for None, `every` for 'all'. Unknown ones are a UserError that lists close
    ones."""
    if text in (None, 'all'):
        return list(every if text else default)
    names = [name.strip() for name in text.split(',') if name.strip()]
    for name in names:
        if name not in valid:
            hint = did_you_mean(name, valid)
            raise UserError(f'{flag} cannot be {name!r} here: {hint}choose among {", ".join(valid)}')
    if not names:
        raise UserError(f'{flag} is empty: choose among {", ".join(valid)}')
    return list(dict.fromkeys(names))


def choose_maps(args):
    """The names of the maps that --methods means."""
    every = [name for name in attribution.MAPS if args.superclass or name not in attribution.SUPERCLASS_READOUTS]
    suited = attribution.suited(args.attribution_method, sets=bool(args.superclass))
    return choose(args.methods, attribution.MAPS, suited, every, '--methods')


def choose_metrics(args, own=None):
    """The names of the scores that --metrics means; own: photographs in place of the data set."""
    kind = localization(args.dataset, args.data_root) if own is None else own.truth
    truths = (None, kind and 'any', kind)
    valid = [name for name, metric in scores.METRICS.items() if metric.truth in truths]
    usual = [name for name in valid if not scores.METRICS[name].extra]
    return choose(args.metrics, valid, usual, valid, '--metrics')


def map_chooser(args):
    """What --methods means, as `evaluation.Request.maps` takes it.

    A classifier's own kind is known once it is loaded: without names its maps are those of that kind that it can give.
    """
    if not args.classifier or args.methods not in (None, 'all'):
        args.methods = choose_maps(args)
        return args.methods

    def names_for(model, size, options):
        described = Munch(args, attribution_method=model.attribution_method)
        names, wrong = comparing.runnable(choose_maps(described), model, size, options)
        if wrong and processes.rank() == 0:
            why = '; '.join(dict.fromkeys(wrong.values()))
            print(f'eval_attribution.py: left out: {", ".join(wrong)}: {why}', file=sys.stderr, flush=True)
        return names

    return names_for


def arguments():
    """(the arguments, the `own_photographs.Collection` of --images or None); what was collected goes into the first, so
    that --resume goes on with the same photographs alone."""
    args = get_configs(__doc__, add=add_flags)
    tables = [args.labels, args.boxes, args.masks]
    if not args.images:
        if any(tables):
            raise UserError('--labels, --boxes and --masks belong to photographs: give --images=PATTERN too')
        return args, None
    args = network_arguments(__doc__, add_flags)
    own = own_photographs.collect(args.images, args.boxes, args.masks)
    args.photographs = own_photographs.digest(own, {'--labels': args.labels, '--boxes': args.boxes})
    return args, own


def described_by(setting, own, totals):
    """(what was scored, how it was explained) in words; own: of the photographs, None for a split."""
    flags = setting.run.arguments
    images = int(totals['images'])
    network = f'{setting.model.attribution_method} ({flags["classifier"] or flags["architecture"]})'
    if own is None:
        right = f', {int(totals["correct"])} classified right by {network}'
        return f'{images} test images of {flags["dataset"]}{right}', 'the true label'
    left_out = f' ({int(totals["left_out"])} more left out)' if totals.get('left_out') else ''
    if flags['labels']:
        right = f', {int(totals["correct"])} classified right by {network}'
        return f'{images} photographs{left_out}{right}', 'the class given with --labels'
    return f'{images} photographs{left_out}, classified by {network}', 'the prediction'


def report(setting, own, settings, finished, totals, log):
    """Write the table and the plot and print the table; own: as for `described_by`; finished: the result to which the
    maps are added, or {}."""
    from report.plots import plot_scores  # matplotlib: nothing before the end needs it

    run = setting.run
    images = int(totals['images'])
    if not images:
        raise UserError(f'none of the {int(totals["left_out"])} photographs could be scored')
    predicted = own is not None and not run.arguments['labels']
    counts = {'images': images, 'correct': None if predicted else int(totals['correct'])}
    if own is not None:
        counts['left_out'] = int(totals['left_out'])
    made = [name for name in setting.makers if name not in finished.get('methods', {})]
    rows = comparing.with_finished(finished, comparing.map_figures(totals, made, settings), totals, settings)
    if isinstance(run.arguments['methods'], list):  # else it stands for those that the network can give
        run.arguments['methods'] = list(rows)
    metrics = {name: scores.METRICS[name] for name in settings.metrics}
    scored, explained = described_by(setting, own, totals)
    head = HEADS[setting.model.attribution_method]
    note = (
        f'{scored}. Explained class y: {explained}; gradient and perturbation methods explain {head.scalar}; '
        'p is p(y|x).'
    )
    tables = {f'{NAME}.csv': scores_csv(rows, metrics), f'{NAME}.md': scores_markdown(rows, metrics, note)}
    for file_name, text in tables.items():
        util.write_text(os.path.join(run.folder, file_name), text)
    title = f'{scored}; explained: {explained}'
    path = os.path.join(run.folder, f'{NAME}.png')
    plot_scores(path, rows, metrics, settings.curve_steps, erasing.ERASE_K, title)
    result = {
        **counts,
        'note': note,
        'metrics': {name: {'title': metric.title, 'better': metric.better} for name, metric in metrics.items()},
        'methods': rows,
        'best': winners(rows, metrics),
        'wins': comparing.win_table(totals, list(rows)) if 'win' in metrics else None,
        **run.provenance(),
    }
    util.write_json(os.path.join(run.folder, f'{NAME}.json'), result)
    print_scores(result, metrics, log)
    log.report(note, **counts)


def print_scores(result, metrics, log):
    """Print the figures of each map and the best map of each score; the former go into the log too."""
    for name, row in result['methods'].items():
        log.write(method=name, **{key: row[key] for key in metrics})
        figures = ', '.join(f'{metric.title} {score_text(row[key], metric)}' for key, metric in metrics.items())
        constant = f'; {row["constant_maps"]} constant maps' if row['constant_maps'] else ''
        cost = f'{row["seconds"]:.3f} s, {row["forward_passes"]:g} + {row["backward_passes"]:g} passes a map'
        print(f'{name}: {figures}; {cost}{constant}', flush=True)
    best = '; '.join(f'{metrics[key].title} {", ".join(names)}' for key, names in result['best'].items() if names)
    print(f'best: {best}', flush=True)


def score_part(setting, predictions, settings, own, batch, part, known):
    """The `wsol.scoring.Part` of a `sources.Batch` that all maps share, or that the map `part` gives; own: as for
    `described_by`; predictions, known: as for `comparing.score_images`."""
    if not batch.numbers:
        return Part({'images': np.array(0), 'left_out': np.array(batch.left_out)} if part == SHARED else {}, {})
    labels = None if batch.labels is None else batch.labels.to(setting.device)
    images = batch.images
    if part != SHARED:
        maker = setting.makers[part]
        return comparing.score_map(predictions, part, maker, settings, batch.truths, images, labels, batch.numbers)
    found = comparing.score_images(predictions, settings, images, labels, batch.numbers, setting.seed, known)
    if own is not None:
        found.totals['left_out'] = np.array(batch.left_out)
    return found._replace(rows={'ids': [np.array(batch.ids)], **found.rows})


def main():
    args, own = arguments()
    maps = map_chooser(args)
    args.metrics = choose_metrics(args, own)

    def prepare(setting):
        settings = pick(scores.Settings, args)
        predictions = comparing.Predictions(setting.model)
        needs_truth = any(scores.METRICS[name].truth for name in args.metrics)
        random = None
        if own is None:
            source = sources.split_source(setting, args, needs_truth)
            if 'remove_and_classify' in args.metrics:
                random = RandomErasing(setting, *sources.subset(setting.split, args.max_images))
        else:
            classes = network_class_names(args, setting.model.num_classes)
            source = sources.photograph_source(setting, args, own, classes, needs_truth)

        def batches(items):
            for batch in (source.read(*pair) for pair in zip(items, source.batches(items))):
                yield batch._replace(images=batch.images.to(setting.device))

        def score(items, batch, part):
            known = random.rows(items, lambda: None) if random and part == SHARED else None
            return score_part(setting, predictions, settings, own, batch, part, known)

        def finish(totals, log):
            if random:
                random.keep(os.path.join(setting.run.folder, f'{NAME}.npz'), 'correct_random')
            report(setting, own, settings, finished, totals, log)

        finished = sharding.extended(setting.run, NAME)
        known = list(finished.get('methods', {}))
        names = [name for name in setting.makers if name not in known]
        parts = {
            'parts': (SHARED, *names),
            'together': lambda rows: comparing.win_part([*known, *names], rows),
            'earlier': comparing.earlier_rows(setting.run, NAME, finished),
        }
        return evaluation.Evaluation(source.count, batches, score, finish, 'attribution scores', **parts)

    asked = evaluation.request(args, maps, split='test' if own is None else None)

    def lacks(result):
        if callable(maps):  # which these are is known once the network is loaded
            return result['arguments']['methods'] != args.methods
        return not {*maps} <= result['methods'].keys()

    evaluation.evaluate(asked, NAME, prepare, FILES, lacks)


if __name__ == '__main__':
    util.command(main)
