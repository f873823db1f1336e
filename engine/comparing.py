"""Many maps by many scores: which maps a network can give, what a batch of images adds, what the sums say."""

import os

import numpy as np
import torch

from engine import costs, map_maker, sharding
from wsol import attribution
from wsol.attribution.registry import HEAD, LAYER
from wsol.errors import UserError
from wsol.scoring import Part, add_up, erasing, regions, sanity, scores

# A map that stands for all that need the same: where it cannot run, none of them can.
TRIED = {HEAD: 'vanilla', LAYER: 'grad_cam'}


def runnable(names, model, size, options):
    """(those of the maps `names` that the network can give, {name of another: why not}), tried on one grey image."""
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    reasons = {}
    for need, tried in TRIED.items():
        try:
            attribution.explain(tried, model, image, 0, options=options)
        except UserError as error:
            reasons[need] = str(error)
    wrong = {name: reasons[need] for name in names for need in attribution.lookup(name).needs if need in reasons}
    return [name for name in names if name not in wrong], wrong


class Predictions:
    """The network's outputs on the batches of a shard, each made once for all maps, and what that cost."""

    def __init__(self, model):
        self.model = model
        self.shared = map_maker.SharedPass(self._metered, sharding.SHARD_IMAGES)
        self.random = None

    def __call__(self, images):
        """(output on the images [B, 3, S, S], {column of costs.COSTS: spent})."""
        return self.shared(images)

    def _metered(self, images):
        meter = costs.Meter(self.model)
        with meter.running():
            output = self.model(images)
        return output, meter.spent

    def randomized(self, image, steps, seed):
        """The networks of `sanity.randomized`, made once."""
        if self.random is None:
            self.random = sanity.randomized(self.model, image, steps, seed)
        return self.random


def score_images(predictions, settings, images, labels, numbers, seed, known=None):
    """The `Part` of a batch that all maps share: which images are classified right, also without random pixels.

    predictions: `Predictions`; labels [B]: the classes that are explained, None for the predictions; numbers: of the
    images, which random masks depend on; known: their `erasing.random_counts` where these are known. The sum over all
    batches does not depend on how the images are dealt to them.
    """
    predicted = predictions(images)[0].probs.argmax(dim=1)
    labels = predicted if labels is None else labels
    right = (predicted == labels).cpu()
    part = Part({'images': np.array(len(images)), 'correct': right.sum()}, {'correct': [right]})
    if 'remove_and_classify' in settings.metrics:
        random = known
        if known is None:
            repeats = settings.random_repeats
            random = erasing.random_counts(predictions.model, images, labels, numbers, seed, repeats).cpu()
        part.totals['correct_random'] = random.sum(dim=0)
        part.rows['correct_random'] = [random]
    return part


def score_map(predictions, name, maker, settings, truths, images, labels, numbers):
    """The `Part` of a batch that the map `name` gives, all of it named 'MAP/...'; `map_figures` reads the sums.

    maker: its MapMaker; truths: a `regions.Truth` for each image, or none; the rest as for `score_images`. The cost of
    a readout has the forward pass that it reads. Maps are resized and scaled where the images are.
    """
    output, spent = predictions(images)
    labels = output.probs.argmax(dim=1) if labels is None else labels
    meter = costs.Meter(predictions.model)
    with meter.running():
        native = map_maker.target_maps(maker, images, output, labels, numbers)  # [B, h, w]
    p = output.probs.gather(1, labels[:, None]).squeeze(1)
    raw = map_maker.at_image_size(native, images.shape[-1])  # [B, S, S]
    scaled = attribution.normalize(raw, 'minmax')
    own = scores.classifier_scores(predictions.model, images, labels, p, raw, settings)
    own['constant'] = (scaled.amax(dim=(1, 2)) == 0).cpu()
    extra = any(scores.METRICS[one].extra for one in settings.metrics)
    if extra or truths:  # these are computed on the host
        native, raw, scaled = (some.cpu().numpy() for some in (native, raw, scaled))
    if extra:
        making = _making(predictions, maker, settings, images, labels, numbers, (native, raw, scaled))
        own.update(scores.check_scores(predictions.model, images, labels, making, own.get('drop'), settings))
    more = spent if maker.from_output else dict.fromkeys(spent, 0)
    part = Part({f'{name}/{key}': value + more[key] for key, value in meter.spent.items()}, {})
    _add_scores(part, name, own)
    _add_regions(part, name, [regions.region_scores(*row, settings) for row in zip(native, scaled, truths)])
    return part


def _making(predictions, maker, settings, images, labels, numbers, made):
    """The `scores.Making` of a batch's maps; made: the maps, at their own size, at image size, and in [0, 1]."""
    classes = list(labels.view(-1, 1))

    def again(changed, model=None):
        return np.concatenate(maker.of(model or predictions.model)(changed, None, classes, numbers))

    def random():
        return predictions.randomized(images[:1], settings.randomization_steps, maker.seed)

    return scores.Making(*made, again, random, [attribution.noise_seed(maker.seed, number) for number in numbers])


def win_part(names, rows):
    """The `Part` that the maps `names` give together: on how many images which drop is smaller than which other's.

    rows: {'MAP/drop': [B] of each map, ...}; without drops the part is empty.
    """
    part = Part({}, {})
    if f'{names[0]}/drop' in rows:
        drops = torch.stack([torch.from_numpy(rows[f'{name}/drop']) for name in names])
        for name, won in zip(names, erasing.wins(drops)):  # [M, B]
            part.totals[f'{name}/wins'] = won.sum(dim=1)
            part.rows[f'{name}/wins'] = [scores.rows('wins', won.sum(dim=0))]
    return part


def _add_scores(part, name, own):
    """Put a map's scores {name: tensor [B, ...]} into a `Part`."""
    for key, values in own.items():
        part.totals[f'{name}/{key}'] = values.sum(dim=0)
        part.rows[f'{name}/{key}'] = [scores.rows(key, values)]


def _add_regions(part, name, images):
    """Put a map's scores by true regions, {name: array} of each image, into a `Part`."""
    sums = {}
    for one in images:
        add_up(sums, one)
    for key, value in sums.items():
        part.totals[f'{name}/{key}'] = value
        part.rows[f'{name}/{key}'] = [scores.rows(key, [one[key] for one in images])]


def map_figures(totals, names, settings):
    """{map: its figures, what one map costs (costs.COSTS), and the number of constant maps} of the totals."""
    shared = {key: value for key, value in totals.items() if '/' not in key}
    rows = {}
    for name in names:
        own = {key.removeprefix(f'{name}/'): value for key, value in totals.items() if key.startswith(f'{name}/')}
        spent = {key: float(own[key] / shared['images']) for key in costs.COSTS}
        found = scores.figures({**shared, **own}, settings)
        rows[name] = {**found, **spent, 'constant_maps': int(own['constant'])}
    return rows


def earlier_rows(run, name, finished):
    """What `win_part` needs of the finished result `name`.json, as `evaluation.Evaluation.earlier` takes it; None where
    nothing is finished. A result without its arrays is a UserError."""
    if not finished:
        return None
    path = os.path.join(run.folder, f'{name}.npz')
    if not os.path.isfile(path):
        raise UserError(f'{path} is gone, so nothing can be added to its table: give another --experiment_name')
    with np.load(path) as file:
        return {key: file[key] for key in file.files if key == 'ids' or key.endswith('/drop')}


def with_finished(finished, rows, totals, settings):
    """The figures of a finished result and the new `rows`; who wins how often is counted among all of them."""
    known = {
        name: {**row, 'win': scores.mean_win({**totals, 'wins': totals[f'{name}/wins']}, settings)}
        if 'win' in row
        else row
        for name, row in finished.get('methods', {}).items()
    }
    return {**known, **rows}


def win_table(totals, names):
    """{win, tie: percent of the images [M][M] on which the row's drop is smaller than the column's, or equal}."""
    wins = np.stack([totals[f'{name}/wins'] for name in names]) * 100 / totals['images']
    return {'win': wins.tolist(), 'tie': (100 - wins - wins.T).tolist()}
