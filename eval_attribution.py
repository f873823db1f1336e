"""Compare attribution methods by several scores, in one table and one plot.

    python eval_attribution.py --experiment_name=calm_em --architecture=resnet50 \\
        --attribution_method=CALM-EM --dataset=CUB --use_bn=True --large_feature_map=True \\
        --load_checkpoint=calm_em --methods=jointll,grad_cam --metrics=deletion,loc_iou

The maps explain the true label y of each test image, and p is p(y|x). Gradient and perturbation methods explain the
logit of CAM or log p(y|x) of CALM. Most scores use maps that are resized bilinearly and min-max scaled to [0, 1], or
the ranks of their pixels; loc_iou, max_box_acc, max_box_acc_v2 and pxap use bicubic maps, like eval_wsol.py. The last
columns are the cost of a map. --resume continues a stopped run, also with other --methods, and adds more --methods to a
finished table.
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import sys

import numpy as np
from munch import Munch

import util
from config import complete, given_flags, pick
from data import own_photographs, scored_images
from data.truth import localization
from engine import arrays, comparing, evaluation, processes
from engine.command import command
from engine.experiments import network_arguments, network_class_names
from engine.random_erasing import RandomErasing
from engine.resume import sharding
from report.attribution_scores import score_text, scores_csv, scores_markdown, winners
from wsol import attribution
from wsol.errors import UserError
from wsol.network import HEADS
from wsol.registry import did_you_mean
from wsol.scoring import Tally, erasing, scores

COMMAND = 'eval_attribution'
NAME = 'attribution_scores'
TRUTHS = {'box': 'boxes', 'mask': 'masks', 'any': 'boxes or masks'}  # Metric.truth in words
SHARED = 'images'  # the task with what all maps share; each map is a further task


def choose(text, valid, default, every, flag, why):
    """The names in a comma-separated list; None: `default`, 'all': `every`. UserError for names not in `valid`.

    why: {name: why it is not valid}, for names that are known.
    """
    if text in (None, 'all'):
        return list(every if text else default)
    names = [name.strip() for name in text.split(',') if name.strip()]
    for name in names:
        if name not in valid:
            hint = f'{why[name]}: ' if name in why else did_you_mean(name, valid)
            raise UserError(f'{flag} cannot be {name!r} here: {hint}choose among {", ".join(valid)}')
    if not names:
        raise UserError(f'{flag} is empty: choose among {", ".join(valid)}')
    return list(dict.fromkeys(names))


def choose_maps(args):
    """The names of the maps that --methods selects."""
    every = [name for name in attribution.MAPS if args.superclass or name not in attribution.SUPERCLASS_READOUTS]
    suited = attribution.suited(args.attribution_method, sets=bool(args.superclass))
    return choose(args.methods, attribution.MAPS, suited, every, '--methods', {})


def choose_metrics(args, own=None):
    """The names of the scores that --metrics selects; own: the photographs of --images, or None."""
    kind = localization(args.dataset, args.data_root) if own is None else own.truth
    truths = (None, kind and 'any', kind)
    valid = [name for name, metric in scores.METRICS.items() if metric.truth in truths]
    usual = [name for name in valid if not scores.METRICS[name].extra]
    has = f'has true {TRUTHS[kind]}' if kind else 'has neither'
    why = {
        name: f'it needs true {TRUTHS[metric.truth]}, and the data {has}'
        for name, metric in scores.METRICS.items()
        if metric.truth not in truths
    }
    return choose(args.metrics, valid, usual, valid, '--metrics', why)


def arguments():
    """(the arguments, the `own_photographs.Collection` of --images or None).

    The arguments include a digest of the photographs, so that --resume requires the same ones.
    """
    given = given_flags(__doc__, command=COMMAND)
    args = complete(given, COMMAND)
    tables = [args.labels, args.boxes, args.masks]
    if not args.images:
        if any(tables):
            raise UserError('--labels, --boxes and --masks need photographs: give --images=PATTERN too')
        return args, None
    args = network_arguments(given, COMMAND)
    own = own_photographs.collect(args.images, args.boxes, args.masks)
    args.photographs = own_photographs.digest(own, {'--labels': args.labels, '--boxes': args.boxes})
    return args, own


class AttributionScores(evaluation.Evaluator):
    """The table of maps and scores. Its tasks are SHARED and each map; --resume may add maps to a finished table."""

    title = 'attribution scores'
    files = ('csv', 'md', 'png')
    grows = True

    def __init__(self, args, own):
        """own: the `own_photographs.Collection` of --images, None for a split."""
        super().__init__(args, 'test' if own is None else None)
        self.own = own

    def name_of(self, task):
        return NAME

    def all_runs(self):
        return {NAME: self.run}

    def tasks(self):
        return [SHARED, *(name for name in self.makers if name not in self.finished)]

    def choose_maps(self):
        """The maps of --methods; for a classifier without named methods, those that it supports."""
        if isinstance(self.args.methods, list):
            return self.args.methods
        described = Munch(self.args, attribution_method=self.model.attribution_method)
        names, wrong = comparing.runnable(choose_maps(described), self.model, self.size, self.options)
        if wrong and processes.rank() == 0:
            why = '; '.join(dict.fromkeys(wrong.values()))
            print(f'eval_attribution.py: left out: {", ".join(wrong)}: {why}', file=sys.stderr, flush=True)
        return names

    def prepare(self):
        args = self.args
        self.settings = pick(scores.Settings, args)
        self.finished = sharding.added_to(self.run, NAME).get('methods', {})  # {map: its figures}
        self.finished_rows = self._finished_rows() if self.finished else {}
        needs_truth = any(scores.METRICS[name].truth for name in args.metrics)
        self.random = None
        if self.own is None:
            self.images = scored_images.SplitImages(self, needs_truth)
            if 'remove_and_classify' in args.metrics:
                self.random = RandomErasing(self.run, self.images.split, self.images.numbers)
        else:
            classes = network_class_names(args, self.model)
            self.images = scored_images.OwnPhotographs(self, self.own, classes, needs_truth)
        self.count = self.images.count
        self.randomized = comparing.random_networks(self.model, self.settings, self.size, self.seed)

    def _finished_rows(self):
        """The arrays of the finished table; UserError if the file is missing or damaged."""
        path = self.path(NAME, 'npz')
        if not arrays.is_whole(path):
            raise UserError(
                f'{path} is missing or damaged, so nothing can be added to its table: give another --experiment_name'
            )
        return arrays.stored(path)

    def batches(self, numbers):
        """Yield (`ImageBatch`, its `PredictedBatch` or None, its random counts if cached)."""
        for positions, read in zip(numbers, self.images.batches(numbers)):
            known = self.random.known_of(positions) if self.random else None
            labels = None if read.labels is None else read.labels.to(self.device)
            images = read.images.to(self.device)
            found = comparing.predict(self.model, images, labels, read.numbers, read.truths) if read.numbers else None
            yield read, found, known

    def score(self, task, batch):
        read, found, known = batch
        if found is None:
            return Tally({'images': np.array(0), 'left_out': np.array(read.left_out)} if task == SHARED else {}, {})
        if task != SHARED:
            return comparing.score_map(self.model, task, self.makers[task], self.settings, found, self.randomized)
        made = comparing.score_images(self.model, self.settings, found, self.seed, known)
        if self.own is not None:
            made.totals['left_out'] = np.array(read.left_out)
        return made._replace(rows={'ids': [np.array(read.ids)], **made.rows})

    def arrays(self, totals, rows):
        ids, before = (some['ids'].whole() if 'ids' in some else [] for some in (rows, self.finished_rows))
        if self.finished and not np.array_equal(ids, before):
            raise UserError(
                f'the images are not those of the finished result in {self.run.folder}, so nothing can be added to it: '
                'give another --experiment_name'
            )
        every = {**self.finished_rows, **rows}
        won = comparing.win_counts(self.drops(every))[1]
        return {**every, **{f'{name}/wins': scores.rows('wins', counts) for name, counts in won.items()}}

    def drops(self, rows):
        """{map: confidence drops [N]} of all maps, finished ones first; {} if no score needs them."""
        names = [*self.finished, *self.tasks()[1:]]
        return {name: rows[f'{name}/drop'].whole() for name in names if f'{name}/drop' in rows}

    def report(self, name, totals, rows, log):
        """Write the table and the plot and print the table."""
        from report.figures import plot_scores  # loads matplotlib

        images = int(totals['images'])
        if not images:
            raise UserError(f'none of the {int(totals["left_out"])} photographs could be scored')
        if self.random:
            self.random.keep(rows['correct_random'])
        wins = comparing.win_counts(self.drops(rows))[0]
        made = comparing.map_figures(totals, self.tasks()[1:], self.settings, wins)
        table = comparing.with_wins({**self.finished, **made}, wins, images, self.settings)
        if isinstance(self.run.arguments['methods'], list):  # else it depends on the network
            self.run.arguments['methods'] = list(table)
        metrics = {key: scores.METRICS[key] for key in self.settings.metrics}
        scored, explained = self.described(totals)
        head = HEADS[self.model.attribution_method]
        note = (
            f'{scored}. Explained class y: {explained}; gradient and perturbation methods explain {head.scalar}; '
            'p is p(y|x).'
        )
        util.write_text(self.path(name, 'csv'), scores_csv(table, metrics))
        util.write_text(self.path(name, 'md'), scores_markdown(table, metrics, note))
        title = f'{scored}; explained: {explained}'
        plot_scores(self.path(name, 'png'), table, metrics, self.settings.curve_steps, erasing.ERASE_K, title)
        result = {
            **self.counts(totals),
            'note': note,
            'metrics': {key: {'title': metric.title, 'better': metric.better} for key, metric in metrics.items()},
            'methods': table,
            'best': winners(table, metrics),
            'wins': comparing.win_table(wins, images) if 'win' in metrics else None,
        }
        self.write(name, result)
        print_scores(result, metrics, log)
        log.report(note, **self.counts(totals))

    def counts(self, totals):
        """The numbers of images scored, classified correctly and left out."""
        predicted = self.own is not None and not self.args.labels
        counts = {'images': int(totals['images']), 'correct': None if predicted else int(totals['correct'])}
        return counts if self.own is None else {**counts, 'left_out': int(totals['left_out'])}

    def described(self, totals):
        """(what was scored, which class was explained) as text."""
        args = self.args
        counts = self.counts(totals)
        network = f'{self.model.attribution_method} ({args.classifier or args.architecture})'
        right = f', {counts["correct"]} classified right by {network}'
        if self.own is None:
            return f'{counts["images"]} test images of {args.dataset}{right}', 'the true label'
        left_out = f' ({counts["left_out"]} more left out)' if counts['left_out'] else ''
        photographs = f'{counts["images"]} photographs{left_out}'
        if args.labels:
            return f'{photographs}{right}', 'the class given with --labels'
        return f'{photographs}, classified by {network}', 'the prediction'


def print_scores(result, metrics, log):
    """Print the figures of each map, which are also logged, and the best map of each score."""
    for name, row in result['methods'].items():
        log.write(method=name, **{key: row[key] for key in metrics})
        figures = ', '.join(f'{metric.title} {score_text(row[key], metric)}' for key, metric in metrics.items())
        constant = f'; {row["constant_maps"]} constant maps' if row['constant_maps'] else ''
        cost = f'{row["seconds"]:.3f} s, {row["forward_passes"]:g} + {row["backward_passes"]:g} passes a map'
        print(f'{name}: {figures}; {cost}{constant}', flush=True)
    best = '; '.join(f'{metrics[key].title} {", ".join(names)}' for key, names in result['best'].items() if names)
    print(f'best: {best}', flush=True)


def main():
    args, own = arguments()
    if not args.classifier or args.methods not in (None, 'all'):  # else chosen once the network is loaded
        args.methods = choose_maps(args)
    args.metrics = choose_metrics(args, own)
    evaluation.evaluate(AttributionScores(args, own))


if __name__ == '__main__':
    command(main)
