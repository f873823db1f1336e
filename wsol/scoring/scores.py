"""The scores that maps are compared by: METRICS, one row a score, and the two sides of each.

What images add: `classifier_scores` here, of the scores by changed images, and `regions.region_scores`, of those by
ground truth. What figure the sums give: `figures`. B images of size S x S, K erased shares, M maps of each image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from .. import attribution
from . import erasing, imputing, maps, measures, pixels, sanity
from .measures import Measure, box_accuracy, mean_area, mean_curve, mean_of, percent

DROP_METRICS = {'average_drop', 'average_increase', 'win', 'adcc'}  # computed together
COHERENCY_METRICS = {'coherency', 'adcc'}  # the same
RANDOM_METRICS = {'randomization', 'randomization_abs', 'randomization_ssim'}  # the same


GRAD_CAM_PP = 'Chattopadhay et al., WACV 2018'
RISE = 'Petsiuk et al., BMVC 2018'
WSOL = 'Choe et al., CVPR 2020'
SCORE_CAM = 'Wang et al., CVPR workshop 2020'
SANITY = 'Adebayo et al., NeurIPS 2018'
YEH = 'Yeh et al., NeurIPS 2019'
ADCC = 'Poppi et al., CVPR workshop 2021'


class Settings(NamedTuple):
    """What is scored and how."""

    metrics: list  # names of METRICS
    curve_steps: int  # points of the deletion and insertion curves, less one
    box_threshold: float  # loc_iou: the share of the maximum above which the box is drawn
    box_iou: int  # loc_iou: the IoU with a true box, in percent
    pointing_tolerance: float  # pixels around the object that still count as pointed at
    random_repeats: int  # random masks an image and k
    iou_thresholds: list  # of MaxBoxAccV2, in percent
    cam_curve_interval: float  # distance of the thresholds
    batch_size: int  # images in one pass of the network
    randomization_steps: int = 4  # networks with ever more random weights
    sensitivity_draws: int = 10  # noisy images of max_sensitivity
    infidelity_draws: int = 50  # removed squares of infidelity


class Metric(NamedTuple):
    """A row of METRICS."""

    title: str  # its name in tables
    better: str  # 'higher' or 'lower'
    truth: str | None  # the ground truth it needs: None, 'box', 'mask', or 'any' of both
    measure: Measure  # its figure, its interval, and what is kept of each image
    source: str = ''  # where it comes from
    extra: bool = False  # is it computed only where it is named, or with `all`?


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
OTHER_ROWS = {'constant': measures.kept_as(bool)}  # what is kept of each image beside what scores are made of
CURVES = ('rank_correlation', *(name for name, measure in MEASURES.items() if measure.curve))


def rows(name, values):
    """What is kept of each image of the values [B, ...] of that name."""
    kept = MEASURES[name].kept if name in MEASURES else OTHER_ROWS.get(name, measures.kept_as(float))
    return kept(values)


def classifier_scores(model, images, labels, p, raw, settings):
    """{name: tensor [B, ...] on the host} of the scores by changed images, a row an image.

    p: of the images [B]; raw: their maps at image size, a tensor [B, S, S] on their device.
    """

    def score(changed, classes):
        return erasing.target_probability(model, changed, classes)

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
    """How the maps of a batch are made again, for the scores that need more of them than one."""

    native: np.ndarray  # the maps at their own size [B, h, w]
    raw: np.ndarray  # at image size [B, S, S]
    scaled: np.ndarray  # the same in [0, 1]
    again: Callable  # (images, model=None) -> maps [B, h, w] of the same classes, also by another model
    randomized: list  # models with ever more random weights (`sanity.randomized`), for the scores that take them
    seeds: list  # whole numbers, one an image


def _streams(making, number):
    """A torch.Generator an image for the draws of the check of this number, whatever other checks there are; on the
    host, so that every device scores with the same draws."""
    return [torch.Generator().manual_seed(attribution.noise_seed(seed, number)) for seed in making.seeds]


def check_scores(model, images, labels, making, drop, settings):
    """{name: tensor [B, ...] on the host} of the scores that ask whether a map means something, a row an image.

    making: `Making`; drop: the confidence drops [B] where ADCC asks for them.
    """
    wanted = {*settings.metrics}
    size = images.shape[-1]
    found = {}
    if 'road' in wanted:
        rank = erasing.descending_rank(torch.from_numpy(making.raw).to(images.device).flatten(1))
        streams = _streams(making, 1)

        def score(changed, classes):
            return erasing.target_probability(model, changed, classes)

        found['road'] = imputing.road(score, images, labels, rank, streams, settings.batch_size)
    if RANDOM_METRICS & wanted:
        others = [making.again(images, other) for other in making.randomized]
        scaled = [maps.normalize(maps.resize(other, size), 'minmax') for other in others]
        size_of = np.abs(making.native)
        found['rank_correlation'] = np.stack([sanity.rank_correlation(making.native, one) for one in others], axis=1)
        found['agreement'] = np.abs(found['rank_correlation'])  # a map with its sign turned has not been forgotten
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
    """{metric: figure} of a map's sums {name: array}, and where they are R_k and the mean curves, as lists.

    Beside the curve of loc_mask_iou stands the threshold of its highest point, the first of several.
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
