"""Scores of many maps: which maps a network supports, the sums over batches, and the figures from the sums."""

from typing import NamedTuple

import numpy as np
import torch

from engine import costs, map_maker
from wsol import attribution
from wsol.attribution.registry import HEAD, LAYER
from wsol.errors import UserError
from wsol.scoring import Tally, add_up, erasing, measures, regions, sanity, scores

# {requirement of a map: a map that is tried}: if it fails, so do all maps with that requirement.
TRIED = {HEAD: 'vanilla', LAYER: 'grad_cam'}


def runnable(names, model, size, options):
    """(the maps of `names` that the network supports, {other map: reason}), tried on one grey image."""
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    reasons = {}
    for need, tried in TRIED.items():
        try:
            attribution.explain(tried, model, image, 0, options=options)
        except UserError as error:
            reasons[need] = str(error)
    wrong = {name: reasons[need] for name in names for need in attribution.lookup(name).needs if need in reasons}
    return [name for name in names if name not in wrong], wrong


class PredictedBatch(NamedTuple):
    """A batch of images and the network's output, which all maps share."""

    images: torch.Tensor  # [B, 3, S, S]
    labels: torch.Tensor  # the explained classes [B]
    numbers: list  # of the images; noise and random masks depend on them
    truths: list  # a `regions.Truth` for each image, or empty
    output: object  # the network's `Output`
    spent: dict  # its cost, {column of costs.COSTS: number}


def predict(model, images, labels, numbers, truths=()):
    """The `PredictedBatch` of images [B, 3, S, S]; labels: None explains the predicted classes."""
    meter = costs.Meter(model)
    with torch.no_grad(), meter.running():
        output = model(images)
    labels = output.probs.argmax(dim=1) if labels is None else labels
    return PredictedBatch(images, labels, numbers, truths, output, meter.spent)


def score_images(model, settings, batch, seed, known=None):
    """The `Tally` that all maps share: which images are classified correctly, also with random pixels erased.

    known: their `erasing.random_counts`, if computed before. The sums do not depend on the batch size.
    """
    right = (batch.output.probs.argmax(dim=1) == batch.labels).cpu()
    tally = Tally({'images': np.array(len(right)), 'correct': right.sum()}, {'correct': [right]})
    if 'remove_and_classify' in settings.metrics:
        random = known
        if known is None:
            how = batch.numbers, seed, settings.random_repeats
            random = erasing.random_counts(model, batch.images, batch.labels, *how).cpu()
        tally.totals['correct_random'] = random.sum(dim=0)
        tally.rows['correct_random'] = [random]
    return tally


def random_networks(model, settings, size, seed):
    """The networks with random weights (`sanity.randomized`) that the chosen scores need; [] if none does."""
    if not scores.RANDOM_METRICS & {*settings.metrics}:
        return []
    image = next(model.parameters()).new_zeros(1, 3, size, size)  # to find the order of the layers
    return sanity.randomized(model, image, settings.randomization_steps, seed)


def score_map(model, name, maker, settings, batch, randomized=()):
    """The `Tally` of the map `name` on a `PredictedBatch`, its keys 'MAP/...'; `map_figures` reads the sums.

    maker: its MapMaker; randomized: `random_networks`. The cost of a readout includes the forward pass. Maps are
    resized and scaled on the images' device.
    """
    images, labels, output = batch.images, batch.labels, batch.output
    meter = costs.Meter(model)
    with meter.running():
        native = map_maker.target_maps(maker, images, output, labels, batch.numbers)  # [B, h, w]
    p = output.probs.gather(1, labels[:, None]).squeeze(1)
    raw = map_maker.at_image_size(native, images.shape[-1])  # [B, S, S]
    scaled = attribution.normalize(raw, 'minmax')
    own = scores.classifier_scores(model, images, labels, p, raw, settings)
    own['constant'] = (scaled.amax(dim=(1, 2)) == 0).cpu()
    extra = any(scores.METRICS[one].extra for one in settings.metrics)
    if extra or batch.truths:  # computed on the host
        native, raw, scaled = (some.cpu().numpy() for some in (native, raw, scaled))
    if extra:
        making = _making(maker, batch, (native, raw, scaled), randomized)
        own.update(scores.check_scores(model, images, labels, making, own.get('drop'), settings))
    shared = batch.spent if maker.from_output else dict.fromkeys(batch.spent, 0)
    tally = Tally({f'{name}/{key}': value + shared[key] for key, value in meter.spent.items()}, {})
    _add_scores(tally, name, own)
    _add_regions(tally, name, [regions.region_scores(*row, settings) for row in zip(native, scaled, batch.truths)])
    return tally


def _making(maker, batch, made, randomized):
    """The `scores.Making` of a batch's maps; made: the maps at native size, at image size, and scaled to [0, 1]."""
    classes = list(batch.labels.view(-1, 1))

    def again(changed, model=None):
        return np.concatenate(maker.of(model or maker.model)(changed, None, classes, batch.numbers))

    seeds = [attribution.noise_seed(maker.seed, number) for number in batch.numbers]
    return scores.Making(*made, again, randomized, seeds)


def _add_scores(tally, name, own):
    """Add a map's scores {name: tensor [B, ...]} to a `Tally`."""
    for key, values in own.items():
        tally.totals[f'{name}/{key}'] = values.sum(dim=0)
        tally.rows[f'{name}/{key}'] = [scores.rows(key, values)]


def _add_regions(tally, name, images):
    """Add a map's scores against true regions, {name: array} of each image, to a `Tally`."""
    sums = {}
    for one in images:
        add_up(sums, one)
    for key, value in sums.items():
        tally.totals[f'{name}/{key}'] = value
        tally.rows[f'{name}/{key}'] = [scores.rows(key, [one[key] for one in images])]


def win_counts(drops):
    """Count wins of M maps, a win being a smaller confidence drop; drops: {map: [N] over the images}.

    Returns ({map: images won against each map [M]}, {map: maps beaten on each image [N]}).
    """
    won = erasing.wins(np.stack([*drops.values()])) if drops else []  # [M, M, N]
    counts = {name: one.sum(axis=1) for name, one in zip(drops, won)}
    return counts, {name: one.sum(axis=0) for name, one in zip(drops, won)}


def map_figures(totals, names, settings, wins):
    """{map: its figures, the cost of one map (costs.COSTS) and the number of constant maps}.

    totals: the sums over all images; wins: the first result of `win_counts`.
    """
    shared = {key: value for key, value in totals.items() if '/' not in key}
    rows = {}
    for name in names:
        own = {key.removeprefix(f'{name}/'): value for key, value in totals.items() if key.startswith(f'{name}/')}
        spent = {key: float(own[key] / shared['images']) for key in costs.COSTS}
        found = scores.figures({**shared, **own, 'wins': wins.get(name)}, settings)
        rows[name] = {**found, **spent, 'constant_maps': int(own['constant'])}
    return rows


def with_wins(rows, wins, images, settings):
    """The figures {map: row} with `win`, which depends on the other maps, recomputed over all maps."""
    if 'win' not in settings.metrics:
        return rows
    return {
        name: {**row, 'win': measures.mean_win({'images': images, 'wins': wins[name]}, settings)}
        for name, row in rows.items()
    }


def win_table(wins, images):
    """{win, tie: percent of images [M][M] where the row's drop is smaller than, or equal to, the column's}.

    wins: the first result of `win_counts`.
    """
    shares = np.stack([*wins.values()]) * 100 / images
    return {'win': shares.tolist(), 'tie': (100 - shares - shares.T).tolist()}
