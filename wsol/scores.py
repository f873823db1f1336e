"""Scores of attribution maps by changed images and by true regions: sums over images, and the figures made of the sums.

B images of size S x S, K changed versions of each, M methods. p is p(y|x) of the explained class y. Maps come in two forms:
raw, of which only the order of the pixels counts (their ranks, metrics.descending_rank), and scaled, in [0, 1] by min-max.
`classifier_scores` and `region_scores` say what images add to the sums of a method, METRICS what figure the sums give.
"""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from torchvision.transforms import functional

from . import localization, metrics

BLUR_SIZE, BLUR_SIGMA = 11, 5.0  # pixels; of the insertion game's first image, as RISE's published evaluation has them
POINTING_TOLERANCE = 15  # pixels; Zhang et al., IJCV 2018


def target_probability(model, images, labels):
    """p(y|x) [B] of the labels [B], without a graph."""
    with torch.no_grad():
        return model(images).probs.gather(1, labels[:, None]).squeeze(1)


def masked_by(images, scaled):
    """Images [B, 3, S, S] times their scaled maps [B, S, S]; normalised images, so 0 is the mean colour."""
    return images * scaled[:, None]


def confidence_drop(p, p_masked):
    """max(0, p - p_masked) / p, [B] in [0, 1]: the drop of Grad-CAM++ (Chattopadhay et al., WACV 2018, sec. 4.1).

    p: of the whole image [B]; p_masked: of the image times its scaled map [B]. p = 0 leaves nothing to drop: 0.
    """
    return torch.where(p > 0, (p - p_masked).clamp(min=0) / torch.where(p > 0, p, 1), 0)


def wins(drops):
    """Counts [M, M] of the images on which method i's drop is smaller than method j's, from drops [M, B]; ties in neither."""
    return (drops[:, None] < drops[None]).sum(dim=2)


def changed_scores(score, start, end, rank, labels, counts, batch_size):
    """score(images, labels) of each image with its counts[k] pixels of lowest rank replaced: [B, K].

    start, end: images [B, 3, S, S], the latter holds the new pixels; rank: [B, SS]; counts: ints [K]. All versions of all
    images are made and scored batch_size at a time, which bounds the memory.
    """
    counts = torch.as_tensor(counts, device=rank.device)
    image = torch.arange(len(start), device=rank.device).repeat_interleave(len(counts))  # [B K]: whose version
    count, results = counts.repeat(len(start)), []  # [B K]
    for rows in torch.arange(len(image), device=rank.device).split(batch_size):
        b = image[rows]
        new = (rank[b] < count[rows, None]).view(-1, 1, *start.shape[2:])  # [n, 1, S, S]
        results.append(score(torch.where(new, end[b], start[b]), labels[b]))
    return torch.cat(results).view(len(start), len(counts))


def curve_counts(pixels, steps):
    """Pixels replaced at each point of a deletion or insertion curve: [steps + 1], from none to all."""
    return [pixels * step // steps for step in range(steps + 1)]


def blurred(images):
    """Images [B, 3, S, S] under a Gaussian of 11 pixels and deviation 5 (smaller images: as many as fit), mirrored edges."""
    size = min(BLUR_SIZE, 2 * min(images.shape[2:]) - 1)
    return functional.gaussian_blur(images, size, BLUR_SIGMA)


def deletion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the highest pixels turn to 0, the mean colour: RISE (Petsiuk et al., BMVC 2018), deletion.

    p: score(images, labels) [B], where the curve begins; the other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[1:]
    changed = changed_scores(score, images, torch.zeros_like(images), rank, labels, counts, batch_size)
    return torch.cat([p[:, None], changed], dim=1)


def insertion_curve(score, images, p, rank, labels, steps, batch_size):
    """p [B, steps + 1] while the highest pixels of the image appear on its blurred version: RISE, insertion.

    p: score(images, labels) [B], where the curve ends; the other arguments as in `changed_scores`.
    """
    counts = curve_counts(rank.shape[1], steps)[:-1]
    changed = changed_scores(score, blurred(images), images, rank, labels, counts, batch_size)
    return torch.cat([changed, p[:, None]], dim=1)


def area_under(curve):
    """Area under a curve [N] of equally spaced points over [0, 1], by trapezoids."""
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def box_region(boxes, size):
    """The pixels in any of the boxes [G, 4], far sides included: bool [size, size]."""
    region = np.zeros((size, size), bool)
    for x0, y0, x1, y1 in boxes:
        region[y0 : y1 + 1, x0 : x1 + 1] = True
    return region


def proportion(scaled, region, keep=None):
    """Share of the map's energy that lies in the region: Score-CAM's energy-based pointing game (Wang et al., CVPRW 2020).

    scaled: [S, S], at least 0; region: bool [S, S]; keep: bool [S, S], the pixels that count (None: all). No energy: 0.
    """
    energy = scaled.astype(np.float64) if keep is None else np.where(keep, scaled, 0).astype(np.float64)
    total = energy.sum()
    return float(energy[region].sum() / total) if total > 0 else 0.0


def pointing_hit(scaled, region, tolerance=POINTING_TOLERANCE):
    """Is the map's highest pixel within `tolerance` pixels of the region: the pointing game (Zhang et al., IJCV 2018).

    scaled, region: [S, S]. Of several highest pixels the first in reading order counts; a constant map points nowhere.
    """
    if not scaled.min() < scaled.max():
        return False
    y, x = np.unravel_index(scaled.argmax(), scaled.shape)
    rows, columns = region.nonzero()
    return bool(((rows - y) ** 2 + (columns - x) ** 2 <= tolerance**2).any())


Truth = namedtuple('Truth', 'boxes region ignore')
Truth.__doc__ = """One image's ground truth: boxes [G, 4] or None, the pixels in them or in the mask (bool [S, S]), the pixels
to ignore (bool [S, S]) or None."""

Metric = namedtuple('Metric', 'title better truth figure')
Metric.__doc__ = """A row of METRICS: its name in tables, 'higher' or 'lower', the ground truth it needs (None, 'box', 'mask', or
'any' of both), and figure(a method's sums, settings), a number, or None where it is not defined."""


@dataclass(frozen=True)
class Settings:
    """What is scored and how: names of METRICS; points of the curves less one; of loc_iou the share of the maximum and the
    IoU in percent; pixels around the object that still count as pointed at; random masks an image and k; of MaxBoxAccV2
    the IoUs in percent; distance of the thresholds; images in one pass of the network."""

    metrics: list
    curve_steps: int
    box_threshold: float
    box_iou: int
    pointing_tolerance: float
    random_repeats: int
    iou_thresholds: list
    cam_curve_interval: float
    batch_size: int


def box_figures(total, settings):
    """`BoxScores.compute` of the summed counts."""
    table = localization.BoxScores(metrics.thresholds('even', settings.cam_curve_interval), settings.iou_thresholds)
    table.correct, table.images = total['max_box'], int(total['images'])
    return table.compute()


def ratios(total, settings):
    """R_k of each k."""
    return metrics.erasing_ratios(
        total['correct_topk'].tolist(), (total['correct_random'] / settings.random_repeats).tolist()
    )


def mean_ratio(total, settings):
    """The mean of R_k over the k where it is defined."""
    known = [value for value in ratios(total, settings) if value is not None]
    return float(np.mean(known)) if known else None


def mean_win(total, settings):
    """Percent of the images won against another method, the mean over the others; None without another."""
    others = len(total['wins']) - 1
    return float(100 * total['wins'].sum() / total['images'] / others) if others else None


def percent(name):
    """A figure: the total of that name in percent of the images."""
    return lambda total, settings: float(100 * total[name] / total['images'])


def mean_area(name):
    """A figure: the area under the mean curve of that name, which is the mean of the areas."""
    return lambda total, settings: area_under(total[name] / total['images'])


METRICS = {
    'average_drop': Metric('average drop (%)', 'lower', None, percent('drop')),
    'average_increase': Metric('average increase (%)', 'higher', None, percent('increase')),
    'win': Metric('mean win (%)', 'higher', None, mean_win),
    'deletion': Metric('deletion AUC', 'lower', None, mean_area('deletion')),
    'insertion': Metric('insertion AUC', 'higher', None, mean_area('insertion')),
    'remove_and_classify': Metric('mean R_k', 'lower', None, mean_ratio),
    'loc_iou': Metric('Loc@IoU (%)', 'higher', 'box', percent('located')),
    'max_box_acc': Metric(
        'MaxBoxAcc (%)', 'higher', 'box', lambda total, settings: box_figures(total, settings)['MaxBoxAcc']
    ),
    'max_box_acc_v2': Metric(
        'MaxBoxAccV2 (%)', 'higher', 'box', lambda total, settings: box_figures(total, settings)['MaxBoxAccV2']
    ),
    'proportion': Metric('proportion in the object (%)', 'higher', 'any', percent('proportion')),
    'pointing_game': Metric('pointing game (%)', 'higher', 'any', percent('pointing')),
    'pxap': Metric(
        'PxAP (%)', 'higher', 'mask', lambda total, settings: metrics.pixel_average_precision(total['histogram'])
    ),
}
DROPS, BOXES = {'average_drop', 'average_increase', 'win'}, {'max_box_acc', 'max_box_acc_v2'}  # computed together


@torch.no_grad()
def count_erased(model, images, labels, ranks):
    """How many of B images are classified right with the pixels of lowest rank erased, for each k: [K], on the device.

    images [B, 3, S, S]; ranks [K, B, SS]. An accelerator takes all k at once, a CPU one after the other.
    """
    erased = (metrics.erase(images, rank, k) for rank, k in zip(ranks, metrics.ERASE_K))  # K times [B, 3, S, S]
    groups = erased if images.device.type == 'cpu' else [torch.cat(list(erased))]
    predicted = torch.cat([model(group).probs.argmax(dim=1) for group in groups])  # [K B]
    return (predicted.view(len(ranks), -1) == labels).sum(dim=1)


def correct_random(model, images, labels, ranks):
    """`count_erased` of random pixels, summed over R draws of each k: [K], on the device; ranks: [K R, B, SS]."""
    draws = ranks.view(len(metrics.ERASE_K), -1, *ranks.shape[1:]).transpose(0, 1)  # [R, K, B, SS]
    return sum(count_erased(model, images, labels, one) for one in draws)


def classifier_scores(model, images, labels, p, maps, settings):
    """({name: sum over the images} of the scores by changed images, drops [B] or None).

    p: of the images [B]; maps: raw, at image size, an array [B, S, S].
    """
    score, found, drop = (lambda x, y: target_probability(model, x, y)), {}, None
    if DROPS & {*settings.metrics}:
        p_masked = score(masked_by(images, torch.from_numpy(metrics.normalize(maps, 'minmax')).to(images)), labels)
        drop = confidence_drop(p, p_masked)
        found.update(drop=drop.double().sum().item(), increase=(p < p_masked).sum().item())
    rank = metrics.descending_rank(torch.from_numpy(maps).to(images.device).flatten(1))  # [B, SS]
    for name, curve in (('deletion', deletion_curve), ('insertion', insertion_curve)):
        if name in settings.metrics:
            points = curve(score, images, p, rank, labels, settings.curve_steps, settings.batch_size)
            found[name] = points.double().sum(dim=0).cpu().numpy()
    if 'remove_and_classify' in settings.metrics:
        found['correct_topk'] = count_erased(model, images, labels, rank.expand(len(metrics.ERASE_K), -1, -1)).cpu()
    return {name: np.asarray(value) for name, value in found.items()}, drop


def region_scores(native, scaled, truth, settings):
    """{name: what one image adds} of the scores by true regions; native: the map at its own size [h, w], scaled: [S, S]."""
    wanted, found = {*settings.metrics}, {}
    if 'proportion' in wanted:
        keep = None if truth.ignore is None else truth.region | ~truth.ignore
        found['proportion'] = proportion(scaled, truth.region, keep)
    if 'pointing_game' in wanted:
        found['pointing'] = pointing_hit(scaled, truth.region, settings.pointing_tolerance)
    taus = metrics.thresholds('even', settings.cam_curve_interval)
    score_map = localization.score_maps(native[None], len(scaled))[0]
    if BOXES & wanted:
        table = localization.BoxScores(taus, settings.iou_thresholds)
        table.accumulate(localization.best_ious(score_map, truth.boxes, taus))
        found['max_box'] = table.correct
    if 'loc_iou' in wanted:
        best = localization.best_ious(score_map, truth.boxes, np.array([settings.box_threshold]))[0, 0]
        found['located'] = best >= settings.box_iou / 100
    if 'pxap' in wanted:
        found['histogram'] = localization.mask_histogram(score_map, truth.region, truth.ignore, taus)
    return {name: np.asarray(value, float) for name, value in found.items()}


def figures(total, settings):
    """{metric: figure} of a method's sums {name: array}, and where they are R_k and the mean curves, as lists."""
    row = {name: METRICS[name].figure(total, settings) for name in settings.metrics}
    if 'correct_topk' in total:
        row['R_k'] = ratios(total, settings)
    row.update(
        {
            f'{name}_curve': (total[name] / total['images']).tolist()
            for name in ('deletion', 'insertion')
            if name in total
        }
    )
    return row
