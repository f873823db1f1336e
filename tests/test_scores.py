"""Scores by changed images and by true regions: slow independent versions and hand cases."""

import cv2
import numpy as np
import pytest
import torch

from wsol import localization, metrics, scores


def picture(seed, count=3, size=6):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def scalar(images, labels):
    """A stand-in for p(y|x) that depends on every pixel and on the label."""
    weight = torch.linspace(-1, 1, images[0].numel(), dtype=images.dtype)
    return (images.flatten(1) @ weight + labels).sigmoid()


def test_the_drop_is_a_share_of_p_and_a_rise_is_no_drop():
    p, masked = torch.tensor([0.8, 0.5, 0.2, 0, 0]), torch.tensor([0.2, 0.5, 0.6, 0, 0.3])
    assert scores.confidence_drop(p, masked).tolist() == pytest.approx([0.75, 0, 0, 0, 0])


def test_images_are_multiplied_by_their_scaled_map():
    images, maps = picture(0), np.random.default_rng(0).normal(size=(3, 6, 6)).astype(np.float32)
    maps[2] = 4
    masked = scores.masked_by(images, torch.from_numpy(metrics.normalize(maps, 'minmax')))
    for b in range(2):
        scale = (maps[b] - maps[b].min()) / (maps[b].max() - maps[b].min())
        for c in range(3):
            np.testing.assert_allclose(masked[b, c].numpy(), images[b, c].numpy() * scale, rtol=1e-5, atol=1e-6)
    assert not masked[2].any()  # a constant map leaves the mean colour


def test_wins_equal_the_slow_count_and_ties_are_nobodys():
    drops = torch.randint(0, 4, (4, 30), generator=torch.Generator().manual_seed(0)) / 4
    table = scores.wins(drops)
    for i in range(4):
        for j in range(4):
            assert table[i, j] == sum(a < b for a, b in zip(drops[i].tolist(), drops[j].tolist()))
            assert table[i, j] + table[j, i] + sum(a == b for a, b in zip(drops[i].tolist(), drops[j].tolist())) == 30


def slow_changed(images, new, maps, labels, count):
    """One image at a time, one pixel at a time."""
    values = []
    for image, other, one, label in zip(images, new, maps, labels):
        image, width = image.clone(), one.shape[1]
        for pixel in sorted(range(one.size), key=lambda i: (-one.flat[i], i))[:count]:
            image[:, pixel // width, pixel % width] = other[:, pixel // width, pixel % width]
        values.append(scalar(image[None], label[None]).item())
    return values


@pytest.mark.parametrize('batch_size', [1, 5, 64])
def test_curves_equal_the_slow_version_in_bounded_batches(batch_size):
    images, labels, maps = (
        picture(1),
        torch.tensor([0, 2, 1]),
        np.random.default_rng(1).integers(0, 9, (3, 6, 6)),
    )  # with ties
    rank, sizes = metrics.descending_rank(torch.from_numpy(maps).flatten(1)), []
    score = lambda x, y: sizes.append(len(x)) or scalar(x, y)
    p = scalar(images, labels)
    deletion = scores.deletion_curve(score, images, p, rank, labels, 7, batch_size)
    insertion = scores.insertion_curve(score, images, p, rank, labels, 7, batch_size)
    assert max(sizes) <= batch_size and sum(sizes) == 2 * 7 * 3
    soft = torch.stack(
        [
            torch.from_numpy(
                np.stack(
                    [
                        cv2.GaussianBlur(channel, (11, 11), 5, borderType=cv2.BORDER_REFLECT_101)
                        for channel in image.numpy()
                    ]
                )
            )
            for image in images
        ]
    )
    for step in range(8):
        count = int(36 * step / 7)
        np.testing.assert_allclose(
            deletion[:, step], slow_changed(images, torch.zeros_like(images), maps, labels, count), rtol=1e-5
        )
        np.testing.assert_allclose(insertion[:, step], slow_changed(soft, images, maps, labels, count), rtol=1e-5)


def test_curves_by_hand():
    """With the mean of the image as its score, deletion of a white image falls in a line, insertion of it stays white."""
    white, labels = torch.ones(2, 3, 10, 10), torch.zeros(2, dtype=torch.long)
    mean = lambda images, labels: images.mean(dim=(1, 2, 3))
    rank = metrics.descending_rank(torch.rand(2, 100))
    assert scores.curve_counts(100, 4) == [0, 25, 50, 75, 100] and scores.curve_counts(10, 4) == [0, 2, 5, 7, 10]
    deletion = scores.deletion_curve(mean, white, mean(white, labels), rank, labels, 4, 3)
    np.testing.assert_allclose(deletion.numpy(), [[1, 0.75, 0.5, 0.25, 0]] * 2, atol=1e-6)
    np.testing.assert_allclose(
        scores.insertion_curve(mean, white, mean(white, labels), rank, labels, 4, 3).numpy(), 1, atol=1e-6
    )
    assert scores.area_under(deletion[0].numpy()) == pytest.approx(0.5)
    assert scores.area_under(np.array([0, 1, 1])) == 0.75 and scores.area_under(np.array([1, 0])) == 0.5


def test_tiny_images_are_blurred_by_what_fits():
    assert scores.blurred(picture(2, size=2)).shape == (3, 3, 2, 2)
    assert torch.equal(scores.blurred(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))
    dot = torch.zeros(1, 1, 31, 31)
    dot[..., 15, 15] = 1
    assert (scores.blurred(dot) > 0).sum() == 121


def test_the_region_is_the_union_of_boxes_with_their_far_sides():
    region = scores.box_region(np.array([[1, 2, 3, 2], [3, 0, 4, 9]]), 5)
    inside = lambda x, y: any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in ((1, 2, 3, 2), (3, 0, 4, 9)))
    assert region.tolist() == [[inside(x, y) for x in range(5)] for y in range(5)]


def test_proportion_equals_the_slow_version():
    rng = np.random.default_rng(3)
    scaled, region, keep = rng.random((7, 7), np.float32), rng.random((7, 7)) < 0.4, rng.random((7, 7)) < 0.7
    for mask in (None, keep):
        inside = total = 0
        for y in range(7):
            for x in range(7):
                if mask is None or mask[y, x]:
                    total += float(scaled[y, x])
                    inside += float(scaled[y, x]) * region[y, x]
        assert scores.proportion(scaled, region, mask) == pytest.approx(inside / total)
    assert scores.proportion(np.zeros((2, 2)), np.ones((2, 2), bool)) == 0
    assert scores.proportion(np.ones((2, 2)), np.array([[True, False], [False, False]])) == 0.25


def test_the_pointing_game_by_hand():
    region, scaled = np.zeros((20, 20), bool), np.zeros((20, 20))
    region[10:13, 10:13] = True
    scaled[7, 6] = 1  # 3 above and 4 left of the corner: 5 pixels away
    assert scores.pointing_hit(scaled, region, 5) and not scores.pointing_hit(scaled, region, 4.9)
    assert scores.pointing_hit(scaled, region) and not scores.pointing_hit(scaled, region, 0)
    scaled[11, 11] = 1
    assert not scores.pointing_hit(scaled, region, 0)  # of two maxima the first
    scaled[7, 6] = 0.5
    assert scores.pointing_hit(scaled, region, 0)
    assert not scores.pointing_hit(np.zeros((20, 20)), region) and not scores.pointing_hit(
        scaled, np.zeros_like(region)
    )


def settings(*names, **changes):
    given = dict(
        curve_steps=4,
        box_threshold=0.2,
        box_iou=50,
        pointing_tolerance=0,
        random_repeats=1,
        iou_thresholds=[30, 50, 70],
        cam_curve_interval=0.1,
        batch_size=8,
    )
    return scores.Settings(metrics=list(names), **{**given, **changes})


def test_a_box_is_drawn_above_the_chosen_threshold():
    """A strong 4 x 4 blob in a weak 8 x 8 one: which of the two is the box is the threshold's choice."""
    native = np.zeros((16, 16), np.float32)
    native[2:10, 2:10], native[3:7, 3:7] = 0.4, 1
    weak, strong = np.array([[2, 2, 10, 10]]), np.array([[3, 3, 7, 7]])
    cases = (0.2, 95, weak, 1), (0.5, 95, strong, 1), (0.5, 30, weak, 1), (0.5, 31, weak, 0), (0.2, 50, strong, 0)
    for threshold, iou, boxes, hit in cases:
        truth = scores.Truth(boxes, scores.box_region(boxes, 16), None)
        found = scores.region_scores(native, native, truth, settings('loc_iou', box_threshold=threshold, box_iou=iou))
        assert found['located'] == hit, (threshold, iou)  # IoU of the two: 25 of 81 pixels


def test_box_and_mask_figures_are_those_of_the_protocol_classes():
    rng, chosen = np.random.default_rng(4), settings('max_box_acc', 'max_box_acc_v2')
    taus, total = metrics.thresholds('even', 0.1), {'images': np.array(0)}
    boxes, masks = localization.BoxScores(taus, [30, 50, 70]), localization.MaskScores(taus)
    for _ in range(5):
        native = cv2.GaussianBlur(rng.random((12, 12), np.float32), (0, 0), 2)
        native[4:9, 3:9] += 0.1
        score_map, box = localization.score_maps(native[None], 12)[0], np.array([[2, 3, 8, 9]])
        boxes.accumulate(localization.best_ious(score_map, box, taus))
        region, ignore = scores.box_region(box, 12), rng.random((12, 12)) < 0.2
        masks.accumulate(localization.mask_histogram(score_map, region, ignore, taus))
        for part in (
            scores.region_scores(native, score_map, scores.Truth(box, region, None), chosen),
            scores.region_scores(native, score_map, scores.Truth(None, region, ignore), settings('pxap')),
        ):
            for name, value in part.items():
                total[name] = total.get(name, 0) + value
        total['images'] += 1
    figures = {**scores.figures(total, chosen), **scores.figures(total, settings('pxap'))}
    assert (
        0 < figures['max_box_acc'] == boxes.compute()['MaxBoxAcc']
        and figures['max_box_acc_v2'] == boxes.compute()['MaxBoxAccV2']
    )
    assert 0 < figures['pxap'] == masks.compute()['PxAP']


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
