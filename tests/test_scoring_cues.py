"""Cue localization: counts against a loop over images, pairs and pixels; the three modes; the means."""

import os

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT

from wsol.cub_parts import Pair
from wsol.scoring import add_up, cues
from wsol.scoring.maps import blur, resize
from wsol.scoring.pixels import histogram_edges, pixel_average_precision, thresholds

PAIRS = [
    Pair(0, 1, {1}, ['has_bill_shape::cone']),
    Pair(0, 2, {2, 7}, ['has_back_color::red', 'has_wing_pattern::solid']),
    Pair(1, 2, {1, 6}, ['has_crown_color::red', 'has_leg_color::red']),
    Pair(3, 4, {5}, ['has_tail_shape::fan']),
]
LABELS = {1: 'bill', 2: 'crown', 3: 'wing', 4: 'leg'}
LABELS_OF = [{1}, {3}, {2, 4}, set()]  # of the pairs, by name
EDGES = histogram_edges(thresholds('log', 0.1))


def cue_images(seed, count=6, size=9):
    """Images of the classes 0, 1 and 2 in turn, each with its pairs; part 1 is seen in none of the odd ones."""
    rng = np.random.default_rng(seed)
    table = cues.class_rows(PAIRS)
    images = []
    for number in range(count):
        rows, classes = table[number % 3]
        visible = rng.random(8) < 0.6
        visible[1] = number % 2 == 0
        differences = (rng.normal(size=(len(classes) - 1, size, size)) ** 3 / 4).astype(np.float32)
        parts = rng.integers(0, 8, (size, size)).astype(np.uint8)
        exact = rng.integers(0, 5, (size, size)).astype(np.uint8)
        images.append(cues.CueImage(rows, differences, parts, exact, visible))
    return images


def slow_counts(images, norm_type):
    """One image, pair and pixel at a time."""
    histogram = np.zeros((len(PAIRS), 2, len(EDGES) - 1), int)
    exact = np.zeros_like(histogram)
    counted = [0] * len(PAIRS)
    for image in images:
        for row, difference in zip(image.rows, image.differences):
            if not any(image.visible[part] for part in PAIRS[row].parts):
                continue
            counted[row] += 1
            scores = np.abs(difference)
            if norm_type == 'max':
                scores = scores / scores.max()
            for y, x in np.ndindex(scores.shape):
                score = min(float(scores[y, x]), 1.0)
                place = max(i for i in range(len(EDGES) - 1) if EDGES[i] <= score)
                histogram[row, int(image.parts[y, x] in PAIRS[row].parts), place] += 1
                exact[row, int(image.exact[y, x] in LABELS_OF[row]), place] += 1
    return histogram, exact, counted


@pytest.mark.parametrize('norm_type', ['clipping', 'max'])
def test_counts_equal_a_loop_over_images_pairs_and_pixels(norm_type):
    fixed = cues.make_cues(PAIRS, EDGES, LABELS, norm_type)
    images = cue_images(1)
    histogram, exact, counted = slow_counts(images, norm_type)
    whole = cues.cue_counts(fixed, iter(images))
    assert whole.keys() == {'histogram', 'exact', 'images', 'area'}
    np.testing.assert_array_equal(whole['histogram'], histogram)
    np.testing.assert_array_equal(whole['exact'], exact)
    assert whole['images'].tolist() == counted and 0 < sum(counted) < 12 and counted[3] == 0
    parted = {}
    for batch in (images[:1], images[1:5], images[5:]):
        add_up(parted, cues.cue_counts(fixed, batch))
    for name, value in whole.items():
        np.testing.assert_array_equal(parted[name], value)


def on_device(images, norm_type, device, labels=LABELS, blur=0):
    """`cues.batch_counts` of the images, as arrays."""
    cue = cues.make_cues(PAIRS, EDGES, labels, norm_type)._replace(blur=blur)
    rows = torch.cat([torch.from_numpy(image.rows) for image in images])
    owner = torch.tensor([b for b, image in enumerate(images) for _ in image.rows])
    differences = torch.cat([torch.from_numpy(image.differences) for image in images])
    truth = [torch.from_numpy(np.stack([getattr(image, name) for image in images])) for name in ('parts', 'exact')]
    visible = torch.from_numpy(np.stack([image.visible for image in images]))
    given = [one.to(device) for one in (rows, owner, differences, *truth, visible)]
    found = cues.batch_counts(cue, *given)
    assert all(value.device.type == device.type for value in found.values())
    return {name: value.cpu().numpy() for name, value in found.items()}


def test_a_map_covers_what_it_is_the_same_on_whatever_its_scale():
    """An eighth of an image; all of it; a part, and as much of half the height: (2 + 2 x .5)^2 / (8 (2 + 2 x .25))."""
    rows = [[0, 0, -0.01, 0, 0, 0, 0, 0], [7.0] * 8, [1, 1, 0.5, 0.5, 0, 0, 0, 0], [0.0] * 8]
    found = cues.covered(torch.tensor(rows).view(4, 2, 4))
    assert found.tolist() == [125_000, 1_000_000, 450_000, 0]


def test_blurred_differences_are_scored_as_differences_of_blurred_maps():
    images = cue_images(4)
    blurred = [one._replace(differences=blur(torch.from_numpy(one.differences), 0.8).numpy()) for one in images]
    cue = cues.make_cues(PAIRS, EDGES, LABELS, 'max')._replace(blur=0.8)
    found, expected = cues.cue_counts(cue, images), cues.cue_counts(cue._replace(blur=0), blurred)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert not np.array_equal(found['histogram'], cues.cue_counts(cue._replace(blur=0), images)['histogram'])


@pytest.mark.parametrize('norm_type, wide', [('clipping', 0), ('max', 0), ('minmax', 0), ('max', 0.8)])
def test_a_batch_at_once_counts_what_image_by_image_is_counted(norm_type, wide, device, monkeypatch):
    images = cue_images(5)
    expected = cues.cue_counts(cues.make_cues(PAIRS, EDGES, LABELS, norm_type)._replace(blur=wide), images)
    for at_once in (64, 2):
        monkeypatch.setattr(cues, 'PAIRS_AT_ONCE', at_once)
        found = on_device(images, norm_type, device, blur=wide)
        assert found.keys() == expected.keys() and expected['images'].sum() < sum(len(one.rows) for one in images)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert 'exact' not in on_device(images, norm_type, device, None)


@pytest.mark.parametrize('norm_type, moved', [('clipping', 2e-4), ('max', 2e-4), ('minmax', 2e-4)])
def test_maps_resized_on_a_device_move_few_pixels_into_another_bin(norm_type, moved, device):
    """PyTorch's bilinear filter rounds otherwise than OpenCV's."""
    small = [image._replace(differences=image.differences[:, :9, :9]) for image in cue_images(6, 12, 72)]
    resized = [image._replace(differences=resize(image.differences, 72)) for image in small]
    cue = cues.make_cues(PAIRS, histogram_edges(thresholds('log', 0.001)), LABELS, norm_type)
    expected = cues.cue_counts(cue, resized)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f'{__name__}.EDGES', cue.edges)
        found = on_device(small, norm_type, device)
    assert np.array_equal(found['images'], expected['images'])
    for name in ('histogram', 'exact'):
        assert found[name].sum() == expected[name].sum() > 5e4
        share = np.abs(found[name] - expected[name]).sum() / 2 / expected[name].sum()
        assert share <= moved
        for one, other in zip(found[name], expected[name]):
            values = pixel_average_precision(one), pixel_average_precision(other)
            assert values == (None, None) or abs(values[0] - values[1]) < 0.01  # percent


def test_without_true_part_pixels_there_is_no_exact_mode():
    fixed = cues.make_cues(PAIRS, EDGES, None, 'clipping')
    counts = cues.cue_counts(fixed, cue_images(2))
    assert fixed.labels is None and counts.keys() == {'histogram', 'images', 'area'}
    assert cues.cue_figures(counts).keys() == {'released', 'per_pair'}


def test_the_released_value_runs_over_the_pairs_and_leaves_the_first_bin_out():
    counts = cues.cue_counts(cues.make_cues(PAIRS, EDGES, LABELS, 'clipping'), cue_images(3))
    figures = cues.cue_figures(counts)
    assert counts['histogram'][:, :, 0].any()
    for row in range(len(PAIRS)):
        running = sum(counts['histogram'][i, :, 1:] for i in range(row + 1))
        assert figures['released'][row] == pixel_average_precision(running)
        assert figures['per_pair'][row] == pixel_average_precision(counts['histogram'][row])
        assert figures['exact'][row] == pixel_average_precision(counts['exact'][row])
    assert figures['per_pair'][3] is None and figures['released'][3] == figures['released'][2]


def test_rows_and_partners_of_a_class():
    table = cues.class_rows(PAIRS)
    assert list(table) == [0, 1, 2, 3, 4]
    assert [rows.tolist() for rows, _ in table.values()] == [[0, 1], [0, 2], [1, 2], [3], [3]]
    assert [classes.tolist() for _, classes in table.values()] == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 4], [4, 3]]
    assert all(classes.dtype == torch.int64 for _, classes in table.values())


def test_means_by_number_of_differing_parts():
    means = cues.summarize(PAIRS, [10.0, 40.0, None, 30.0])
    assert means == {'cue_1': 20, 'cue_2': 40, 'cue_3': None, 'mean': pytest.approx(80 / 3)}
    assert cues.summarize(PAIRS, [None] * 4) == {'cue_1': None, 'cue_2': None, 'cue_3': None, 'mean': None}


def test_the_papers_fourth_number_is_the_mean_over_all_pairs():
    """31, 64 and 96 pairs: a mean of the paper's three means without weights would be off by .9 to 1.4."""
    with open(os.path.join(ROOT, 'scripts', 'paper_numbers.yaml')) as file:
        rows = yaml.safe_load(file)['cue_localization']['rows']
    pairs = [Pair(0, 1, set(range(1, n + 1)), []) for n, times in ((1, 31), (2, 64), (3, 96)) for _ in range(times)]
    for row in rows:
        *means, mean = row['paper']['CUB']
        found = cues.summarize(pairs, [means[len(pair.parts) - 1] for pair in pairs])
        assert found['mean'] == pytest.approx(mean, abs=0.0501), row['name']
