"""The scores by which maps are compared: METRICS, one row per score.

Contributions of images: `classifier_scores` and `check_scores` here, by modified images, and `regions.region_scores`,
by ground truth. Figures from sums: `figures`. B images of size S x S, K erased shares, M maps per image.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from .. import attribution
from . import erasing, imputing, maps, measures, pixels, sanity
from .measures import Measure, box_accuracy, mean_area, mean_curve, mean_of, percent

DROP_METRICS = {'average_drop', 'average_increase', 'win', 'adcc'}  # computed together
COHERENCY_METRICS = {'coherency', 'adcc'}  # computed together
RANDOM_METRICS = {'randomization', 'randomization_abs', 'randomization_ssim'}  # computed together


GRAD_CAM_PP = 'Chattopadhay et al., WACV 2018'
RISE = 'Petsiuk et al., BMVC 2018'
WSOL = 'Choe et al., CVPR 2020'
SCORE_CAM = 'Wang et al., CVPR workshop 2020'
SANITY = 'Adebayo et al., NeurIPS 2018'
YEH = 'Yeh et al., NeurIPS 2019'
ADCC = 'Poppi et al., CVPR workshop 2021'


class Settings(NamedTuple):
    """Settings of all scores."""

    metrics: list  # names of METRICS
    curve_steps: int  # points of the deletion and insertion curves, minus one
    box_threshold: float  # loc_iou: threshold of the box, relative to the map's maximum
    box_iou: int  # loc_iou: required IoU with a true box, percent
    pointing_tolerance: float  # px around the object that count as a hit
    random_repeats: int  # random masks per image and k
    iou_thresholds: list  # of MaxBoxAccV2, percent
    cam_curve_interval: float  # step between thresholds
    batch_size: int  # images per forward pass
    randomization_steps: int = 4  # networks with increasingly many random weights
    sensitivity_draws: int = 10  # noisy images for max_sensitivity
    infidelity_draws: int = 50  # removed squares for infidelity


class Metric(NamedTuple):
    """A row of METRICS."""

    title: str  # name in tables
    better: str  # 'higher' or 'lower'
    truth: str | None  # required ground truth: None, 'box', 'mask', or 'any' of both
    measure: Measure  # figure, interval, and what is stored per image
    source: str = ''  # publication
    extra: bool = False  # computed only if named, or with `all`?


METRICS = {
    'average_drop': Metric('average drop (%)', 'lower', None, percent('drop'), GRAD_CAM_PP),
    'average_increase': Metric('average increase (%)', 'higher', None, percent('increase', bool), GRAD_CAM_PP),
    'win': Metric('mean win (%)', 'higher', None, measures.MEAN_WIN, GRAD_CAM_PP),
    'deletion': Metric('deletion AUC', 'lower', None, mean_area('deletion'), RISE),
    'insertion': Metric('insertion AUC', 'higher', None, mean_area('insertion'), RISE),
    'remove_and_classify': Metric('mean R_k', 'lower', None, measures.MEAN_RATIO, 'Kim et al., ICCV 2021'),
    'loc_iou': Metric('Loc@IoU (%)', 'higher', 'box', percent('located', bool), 'Selvaraju et al., ICCV 2017'),
    'loc_mask_iou': Metric('Loc mask IoU (%)', 'higher', 'box', measures.BEST_MASK_IOU, GRAD_CAM_PP),
    'max_box_acc': Metric('MaxBoxAcc (%)', 'higher', 'box', box_accuracy('MaxBoxAcc'), WSOL),
    'max_box_acc_v2': Metric('MaxBoxAccV2 (%)', 'higher', 'box', box_accuracy('MaxBoxAccV2'), WSOL),
    'proportion': Metric('proportion in the object (%)', 'higher', 'any', percent('proportion'), SCORE_CAM),
    'pointing_game': Metric('pointing game (%)', 'higher', 'any', percent('pointing', bool), 'Zhang et al., IJCV 2018'),
    'pxap': Metric('PxAP (%)', 'higher', 'mask', measures.AVERAGE_PRECISION, WSOL),
    'road': Metric('ROAD', 'higher', None, mean_of('road'), 'Rong et al., ICML 2022', True),
    'randomization': Metric('abs. rank corr., random weights', 'lower', None, mean_curve('agreement'), SANITY, True),
    'randomization_abs': Metric(
        'abs. rank corr. of abs. maps', 'lower', None, mean_curve('agreement_abs'), SANITY, True
    ),
    'randomization_ssim': Metric('SSIM, random weights', 'lower', None, mean_curve('ssim'), SANITY, True),
    'max_sensitivity': Metric('max sensitivity', 'lower', None, mean_of('sensitivity'), YEH, True),
    'infidelity': Metric('infidelity', 'lower', None, mean_of('infidelity'), YEH, True),
    'sparseness': Metric('sparseness (Gini)', 'higher', None, mean_of('gini'), 'Chalasani et al., ICML 2020', True),
    'coherency': Metric('coherency (%)', 'higher', None, percent('coherency'), ADCC, True),
    'complexity': Metric('complexity (%)', 'lower', None, percent('complexity'), ADCC, True),
    'adcc': Metric('ADCC (%)', 'higher', None, percent('adcc'), ADCC, True),
}
MEASURES = {metric.measure.name: metric.measure for metric in METRICS.values()}
OTHER_ROWS = {'constant': measures.kept_as(bool)}  # additional per-image values
CURVES = ('rank_correlation', *(name for name, measure in MEASURES.items() if measure.curve))


def rows(name, values):
    """What is stored per image of the values [B, ...] of that name."""
    kept = MEASURES[name].kept if name in MEASURES else OTHER_ROWS.get(name, measures.kept_as(float))
    return kept(values)


def classifier_scores(model, images, labels, p, raw, settings):
    """{name: tensor [B, ...] on the host} of the scores by modified images, one row per image.

    p: p(y|x) of the images [B]; raw: their maps at image size, a tensor [B, S, S] on their device.
    """
    score = partial(erasing.target_probability, model)
    found = {}
    if DROP_METRICS & {*settings.metrics}:
        scaled = attribution.normalize(raw, 'minmax').to(images)
        p_masked = score(erasing.masked_by(images, scaled), labels)
        found['drop'] = erasing.confidence_drop(p, p_masked).double()
        found['increase'] = (p < p_masked).long()
    rank = erasing.descending_rank(raw.flatten(1))  # [B, SS]
    for name, curve in (('deletion', erasing.deletion_curve), ('insertion', erasing.insertion_curve)):
        if name in settings.metrics:
            points = curve(score, images, p, rank, labels, settings.curve_steps, settings.batch_size)
            found[name] = points.double()
    if 'remove_and_classify' in settings.metrics:
        found['correct_topk'] = erasing.right_highest(model, images, labels, rank).long()
    return {name: value.cpu() for name, value in found.items()}


class Making(NamedTuple):
    """How to recompute the maps of a batch, for scores that need more than one map per image."""

    native: np.ndarray  # maps at their own size [B, h, w]
    raw: np.ndarray  # at image size [B, S, S]
    scaled: np.ndarray  # the same in [0, 1]
    again: Callable  # (images, model=None) -> maps [B, h, w] of the same classes, optionally of another model
    randomized: list  # models from `sanity.randomized`, for the scores that need them
    seeds: list  # integers, one per image


def _streams(making, number):
    """One torch.Generator per image for check `number`, on the host, so that all devices use the same draws."""
    return [torch.Generator().manual_seed(attribution.noise_seed(seed, number)) for seed in making.seeds]


def check_scores(model, images, labels, making, drop, settings):
    """{name: tensor [B, ...] on the host} of the sanity scores, one row per image.

    drop: confidence drops [B], needed by ADCC.
    """
    wanted = {*settings.metrics}
    size = images.shape[-1]
    found = {}
    if 'road' in wanted:
        rank = erasing.descending_rank(torch.from_numpy(making.raw).to(images.device).flatten(1))
        score = partial(erasing.target_probability, model)
        found['road'] = imputing.road(score, images, labels, rank, _streams(making, 1), settings.batch_size)
    if RANDOM_METRICS & wanted:
        others = [making.again(images, other) for other in making.randomized]
        scaled = [maps.normalize(maps.resize(other, size), 'minmax') for other in others]
        size_of = np.abs(making.native)
        found['rank_correlation'] = np.stack([sanity.rank_correlation(making.native, one) for one in others], axis=1)
        found['agreement'] = np.abs(found['rank_correlation'])  # a map with flipped sign still agrees
        found['agreement_abs'] = np.stack([np.abs(sanity.rank_correlation(size_of, np.abs(one))) for one in others], 1)
        found['ssim'] = np.stack([sanity.ssim(making.scaled, one) for one in scaled], axis=1)
    if 'max_sensitivity' in wanted:
        draws = _streams(making, 2), settings.sensitivity_draws
        found['sensitivity'] = sanity.sensitivity(making.again, images, making.native, *draws)
    if 'infidelity' in wanted:
        whole = attribution.target_scores(model, images, labels)

        def lost(changed, rows):
            return whole[rows] - attribution.target_scores(model, changed, labels[rows])

        draws = _streams(making, 3), settings.infidelity_draws, settings.batch_size
        found['infidelity'] = sanity.infidelity(lost, images, making.raw, *draws)
    if 'sparseness' in wanted:
        found['gini'] = sanity.gini(making.raw)
    if {'complexity', 'adcc'} & wanted:
        found['complexity'] = making.scaled.mean(axis=(1, 2), dtype=float)
    if COHERENCY_METRICS & wanted:
        masked = erasing.masked_by(images, torch.from_numpy(making.scaled).to(images))
        found['coherency'] = sanity.coherency(making.native, making.again(masked))
    if 'adcc' in wanted:
        found['adcc'] = sanity.adcc(found['coherency'], found['complexity'], drop.numpy())
    return {name: torch.as_tensor(value).double().cpu() for name, value in found.items()}


def figures(total, settings):
    """{metric: figure} from a map's sums {name: array}; plus R_k and the mean curves, as lists.

    With the curve of loc_mask_iou comes the threshold of its maximum, the first if tied.
    """
    row = {name: METRICS[name].measure.figure(total, settings) for name in settings.metrics}
    if 'correct_topk' in total:
        row['R_k'] = measures.ratios(total, settings)
    for name in CURVES:
        if name in total:
            row[f'{name}_curve'] = (total[name] / total['images']).tolist()
    if 'mask_iou' in total:
        curve = measures.mask_iou_curve(total)
        row['loc_mask_iou_curve'] = curve.tolist()
        taus = pixels.thresholds('even', settings.cam_curve_interval)
        row['loc_mask_iou_threshold'] = float(taus[curve.argmax()])
    return row
