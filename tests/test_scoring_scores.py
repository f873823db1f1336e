"""The registry of scores: what images add, what figures the sums give."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from wsol.scoring import add_up, boxes, erasing, maps, measures, pixels, regions, scores


def settings(*names, **changes):
    given = scores.Settings(
        metrics=list(names),
        curve_steps=4,
        box_threshold=0.2,
        box_iou=50,
        pointing_tolerance=0,
        random_repeats=1,
        iou_thresholds=[30, 50, 70],
        cam_curve_interval=0.1,
        batch_size=8,
    )
    return given._replace(**changes)


def test_a_box_is_drawn_above_the_chosen_threshold():
    """A strong 4 x 4 blob in a weak 8 x 8 one: which of the two is the box is the threshold's choice."""
    native = np.zeros((16, 16), np.float32)
    native[2:10, 2:10] = 0.4
    native[3:7, 3:7] = 1
    weak = np.array([[2, 2, 10, 10]])
    strong = np.array([[3, 3, 7, 7]])
    cases = (0.2, 95, weak, 1), (0.5, 95, strong, 1), (0.5, 30, weak, 1), (0.5, 31, weak, 0), (0.2, 50, strong, 0)
    for threshold, iou, true, hit in cases:
        truth = regions.Truth(true, regions.box_region(true, 16), None)
        found = regions.region_scores(native, native, truth, settings('loc_iou', box_threshold=threshold, box_iou=iou))
        assert found['located'] == hit, (threshold, iou)  # IoU of the two: 25 of 81 pixels


def test_the_best_threshold_is_that_of_the_mean_over_the_images():
    """Two images, thresholds 0, .25, .5, .75: each is best at another threshold than their mean."""
    chosen = settings('loc_mask_iou', cam_curve_interval=0.25)
    box = np.array([[0, 0, 1, 0]])
    truth = regions.Truth(box, regions.box_region(box, 3), None)
    first = np.array([[1, 1, 0.7], [0.4, 0.4, 0.4], [0, 0, 0]])
    second = np.array([[1, 0.6, 0.1], [0, 0, 0], [0, 0, 0]])
    total = {'images': np.array(2)}
    for scaled in (first, second):
        add_up(total, regions.region_scores(np.ones((2, 2), np.float32), scaled, truth, chosen))
    curves = [[2 / 6, 2 / 6, 2 / 3, 1], [2 / 3, 1, 1, 1 / 2]]
    figures = scores.figures(total, chosen)
    assert figures['loc_mask_iou_curve'] == pytest.approx([100 * sum(pair) / 2 for pair in zip(*curves)])
    assert figures['loc_mask_iou'] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert figures['loc_mask_iou_threshold'] == 0.5


def test_what_a_map_adds_by_hand():
    """A map of 4 x 4 pixels, half of its energy in the object, its highest pixel one row above it."""
    scaled = np.zeros((4, 4))
    scaled[0, 1], scaled[2, 1], scaled[3, 3] = 1, 0.75, 0.5
    region = np.zeros((4, 4), bool)
    region[1:4, 0:2] = True
    ignore = np.zeros((4, 4), bool)
    ignore[3] = True
    for tolerance, hit in ((0.9, 0), (1, 1)):
        chosen = settings('proportion', 'pointing_game', pointing_tolerance=tolerance)
        plain = regions.region_scores(scaled, scaled, regions.Truth(None, region, None), chosen)
        assert plain == {'proportion': pytest.approx(0.75 / 2.25), 'pointing': hit}
        parted = regions.region_scores(scaled, scaled, regions.Truth(None, region, ignore), chosen)
        assert parted == {'proportion': pytest.approx(0.75 / 1.75), 'pointing': hit}


def test_a_box_counts_where_its_iou_is_reached():
    """A blob of 4 x 4 pixels gives the box 2, 2, 6, 6; the true one shares 15 of its 25 pixels: IoU .6."""
    native = np.zeros((12, 12), np.float32)
    native[2:6, 2:6] = 1
    true = np.array([[2, 2, 4, 6]])
    truth = regions.Truth(true, regions.box_region(true, 12), None)
    for iou, hit in ((59, 1), (60, 1), (61, 0)):
        assert regions.region_scores(native, native, truth, settings('loc_iou', box_iou=iou))['located'] == hit
    chosen = settings('max_box_acc', iou_thresholds=[60, 61], cam_curve_interval=0.25)
    found = regions.region_scores(native, native, truth, chosen)['max_box']  # of IoU 50, 60, 61 at 0, .25, .5, .75
    assert found.tolist() == [[[1] * 4, [1] * 4, [0] * 4]] * 2


def test_the_box_of_loc_iou_is_the_largest_contours():
    native = np.zeros((16, 16), np.float32)
    native[1:9, 1:9] = 1
    native[12:14, 12:14] = 1
    for true, hit in (([1, 1, 9, 9], 1), ([12, 12, 14, 14], 0)):
        truth = regions.Truth(np.array([true]), regions.box_region(np.array([true]), 16), None)
        assert regions.region_scores(native, native, truth, settings('loc_iou', box_iou=90))['located'] == hit
        for names in (['max_box_acc'], ['max_box_acc_v2']):
            found = regions.region_scores(native, native, truth, settings(*names, iou_thresholds=[90]))
            assert found['max_box'][:, 1, 5].tolist() == [hit, 1]  # largest contour, any contour


def test_thresholds_are_those_of_the_settings():
    total = {'images': np.array(2), 'max_box': np.zeros((2, 3, 4), int)}
    total['max_box'][0, 1] = [0, 1, 2, 1]  # IoU 50
    total['max_box'][1] = [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    chosen = settings('max_box_acc', 'max_box_acc_v2', cam_curve_interval=0.25)
    assert scores.figures(total, chosen) == {'max_box_acc': 100, 'max_box_acc_v2': pytest.approx(200 / 3)}


class Brightness:
    """In the place of a network: two classes, p of the first is the mean of the image cut to [0, 1]."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(len(images))
        p = images.mean(dim=(1, 2, 3)).clamp(0, 1)
        return SimpleNamespace(probs=torch.stack([p, 1 - p], dim=1))


def test_what_changed_images_add_by_hand():
    """Maps that leave all, half and nothing of three grey images, and one that is not changed by what it loses."""
    images = torch.full((4, 3, 2, 2), 0.8)
    images[3, :, 1] = 0
    raw = torch.zeros(4, 2, 2)
    raw[0], raw[1, 0], raw[2], raw[3, 0] = torch.tensor([[1.0, 2], [2, 2]]), 5, 3, 1
    labels = torch.tensor([0, 1, 0, 0])
    p = Brightness()(images).probs.gather(1, labels[:, None])[:, 0]
    assert p.tolist() == pytest.approx([0.8, 0.2, 0.8, 0.4])
    chosen = settings('average_drop', 'average_increase', 'deletion', 'remove_and_classify', curve_steps=2)
    found = scores.classifier_scores(Brightness(), images, labels, p, raw, chosen)
    assert found['drop'].tolist() == pytest.approx([0.25, 0, 1, 0], abs=1e-6)  # .8 -> .6, .2 -> .6, .8 -> 0, .4 -> .4
    assert found['increase'].tolist() == [0, 1, 0, 0]
    curves = found['deletion']
    assert curves.sum(dim=0).tolist() == pytest.approx([2.2, 0.4 + 0.6 + 0.4 + 0, 0 + 1 + 0 + 0])
    areas = [float(a / 4 + b / 2 + c / 4) for a, b, c in curves]
    assert scores.rows('deletion', curves) == pytest.approx(areas) and scores.rows('increase', found['increase'])[1]
    assert found.keys() == {'drop', 'increase', 'deletion', 'correct_topk'} and found['correct_topk'].shape == (4, 5)
    assert 'drop' not in scores.classifier_scores(Brightness(), images, labels, p, raw, settings('deletion'))
    model = Brightness()
    chosen = settings('insertion', curve_steps=5, batch_size=6)
    grown = scores.classifier_scores(model, images[3:], labels[3:], p[3:], raw[3:], chosen)['insertion'][0].tolist()
    blurred = erasing.blurred(images[3:])[0, 0].flatten().tolist()
    steps = [[0.8] * min(n, 2) + [0] * max(n - 2, 0) + blurred[n:] for n in (0, 0, 1, 2, 3, 4)]
    assert grown == pytest.approx([np.mean(step) for step in steps]) and model.sizes == [5]
    scores.classifier_scores(model, images, labels, p, raw, chosen)
    assert model.sizes[1:] == [6, 6, 6, 2]


def test_box_and_mask_figures_are_those_of_the_protocol():
    rng = np.random.default_rng(4)
    chosen = settings('max_box_acc', 'max_box_acc_v2')
    taus = pixels.thresholds('even', 0.1)
    total = {'images': np.array(0)}
    box_total = {}
    mask_total = {}
    for _ in range(5):
        native = cv2.GaussianBlur(rng.random((12, 12), np.float32), (0, 0), 2)
        native[4:9, 3:9] += 0.1
        score_map = maps.score_maps(native[None], 12)[0]
        box = np.array([[2, 3, 8, 9]])
        add_up(box_total, boxes.box_counts(boxes.best_ious(score_map, box, taus), [30, 50, 70]))
        region = regions.box_region(box, 12)
        ignore = rng.random((12, 12)) < 0.2
        add_up(mask_total, pixels.mask_counts(pixels.mask_histogram(score_map, region, ignore, taus)))
        for part in (
            regions.region_scores(native, score_map, regions.Truth(box, region, None), chosen),
            regions.region_scores(native, score_map, regions.Truth(None, region, ignore), settings('pxap')),
        ):
            add_up(total, part)
        total['images'] += 1
    figures = {**scores.figures(total, chosen), **scores.figures(total, settings('pxap'))}
    expected = boxes.box_figures(box_total, taus, [30, 50, 70])
    assert 0 < figures['max_box_acc'] == expected['MaxBoxAcc'] and figures['max_box_acc_v2'] == expected['MaxBoxAccV2']
    assert 0 < figures['pxap'] == pixels.mask_figures(mask_total)['PxAP']


def test_figures_by_hand():
    total = {
        'images': np.array(8),
        'drop': np.array(2.0),
        'increase': np.array(4),
        'wins': np.array([0, 6, 2]),
        'deletion': np.array([8.0, 4, 4]),
        'correct_topk': np.array([1, 2, 3, 4, 5]),
        'correct_random': np.array([4, 4, 6, 0, 0]),
    }
    chosen = settings('average_drop', 'average_increase', 'win', 'deletion', 'remove_and_classify', random_repeats=2)
    figures = scores.figures(total, chosen)
    assert figures == {
        'average_drop': 25,
        'average_increase': 50,
        'win': 50,
        'deletion': 0.625,
        'deletion_curve': [1, 0.5, 0.5],
        'R_k': [0.5, 1, 1, None, None],
        'remove_and_classify': pytest.approx(2.5 / 3),
    }
    alone = scores.figures(
        {**total, 'wins': np.array([0]), 'correct_random': np.zeros(5)}, settings('win', 'remove_and_classify')
    )
    assert alone['win'] is None and alone['remove_and_classify'] is None


@pytest.mark.parametrize(
    'name, title, better, truth',
    [
        ('average_drop', 'average drop (%)', 'lower', None),
        ('average_increase', 'average increase (%)', 'higher', None),
        ('win', 'mean win (%)', 'higher', None),
        ('deletion', 'deletion AUC', 'lower', None),
        ('insertion', 'insertion AUC', 'higher', None),
        ('remove_and_classify', 'mean R_k', 'lower', None),
        ('loc_iou', 'Loc@IoU (%)', 'higher', 'box'),
        ('max_box_acc', 'MaxBoxAcc (%)', 'higher', 'box'),
        ('max_box_acc_v2', 'MaxBoxAccV2 (%)', 'higher', 'box'),
        ('proportion', 'proportion in the object (%)', 'higher', 'any'),
        ('pointing_game', 'pointing game (%)', 'higher', 'any'),
        ('pxap', 'PxAP (%)', 'higher', 'mask'),
    ],
)
def test_the_scores_say_which_side_is_better(name, title, better, truth):
    metric = scores.METRICS[name]
    assert (metric.title, metric.better, metric.truth) == (title, better, truth)


def test_intervals_are_of_the_figure_in_the_table():
    """A measure's figure of its sums is its function of the images' means, which the bootstrap resamples."""
    settings = SimpleNamespace(random_repeats=3, cam_curve_interval=0.1, iou_thresholds=[30, 50, 70])
    draw = np.random.default_rng(0)
    rows = {
        'max_box': draw.random((9, 2, 3, len(pixels.thresholds('even', 0.1)))) < 0.5,
        'correct_topk': draw.random((9, 5)) < 0.5,
        'correct_random': draw.integers(0, 4, (9, 5)),
    }
    total = {name: values.sum(axis=0) for name, values in rows.items()} | {'images': 9}
    for measure in (measures.box_accuracy('MaxBoxAcc'), measures.box_accuracy('MaxBoxAccV2'), measures.MEAN_RATIO):
        columns, figure = measure.of_images(rows, settings)
        assert figure(columns.mean(axis=0)) == pytest.approx(measure.figure(total, settings))
