"""Many maps by many scores: which maps a network can give, what a batch of images adds, what the sums say."""

import numpy as np
import torch

from wsol import attribution
from wsol.attribution.registry import HEAD, LAYER
from wsol.errors import UserError
from wsol.scoring import Part, add_up, erasing, maps, regions, scores

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


def score_batch(model, makers, settings, truths, images, labels, numbers, seed, known=None):
    """The `Part` of a batch: 'MAP/name' is a map's own sum, or rows, the other names are shared.

    makers: {map: MapMaker}; truths: a `regions.Truth` for each image, or none; labels [B]: the classes that are
    explained, None for the predictions; numbers: of the images, which noise and random masks depend on; known: their
    `erasing.random_counts` where these are known. The sum over all batches does not depend on how the images are dealt
    to them; `map_figures` reads it.
    """
    with torch.no_grad():
        output = model(images)
        probs = output.probs
    predicted = probs.argmax(dim=1)
    labels = predicted if labels is None else labels
    p = probs.gather(1, labels[:, None]).squeeze(1)
    size = images.shape[-1]
    right = (predicted == labels).cpu()
    part = Part({'images': np.array(len(images)), 'correct': right.sum()}, {'correct': [right]})
    drops = []
    if 'remove_and_classify' in settings.metrics:
        random = known
        if known is None:
            random = erasing.random_counts(model, images, labels, numbers, seed, settings.random_repeats).cpu()
        part.totals['correct_random'] = random.sum(dim=0)
        part.rows['correct_random'] = [random]
    for name, maker in makers.items():
        native = np.concatenate(maker(images, output, list(labels.view(-1, 1)), numbers))  # [B, h, w]
        raw = maps.resize(native, size)  # [B, S, S]
        scaled = maps.normalize(raw, 'minmax')
        own = scores.classifier_scores(model, images, labels, p, raw, settings)
        own['constant'] = torch.from_numpy(scaled.max(axis=(1, 2)) == 0)
        _add_scores(part, name, own)
        _add_regions(part, name, [regions.region_scores(*row, settings) for row in zip(native, scaled, truths)])
        if 'drop' in own:
            drops.append(own['drop'])
    if drops:
        wins = erasing.wins(torch.stack(drops))  # [M, M, B]
        for name, won in zip(makers, wins):
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
