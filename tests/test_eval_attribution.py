"""eval_attribution.py as a user runs it: its figures against loops of their own, its files, its refusals."""

import csv
import os
import shutil
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from commands import run
from conftest import MINICUB
from munch import Munch
from scipy.stats import spearmanr
from test_commands import load_test_images, read, refuse
from test_scoring_boxes import slow_best_ious

import eval_attribution
import wsol
from config import get_configs, map_options
from data import scored_images
from data.metadata import read_boxes, read_masks, read_sizes
from data_loaders import read_image
from engine import comparing, map_maker
from engine.map_maker import MapMaker
from wsol import attribution
from wsol.errors import UserError
from wsol.preprocessing import make_transform
from wsol.scoring import Tally, add_up, erasing, join, maps, pixels, regions, sanity, scores
from wsol.scoring import boxes as boxes_of

META = os.path.join(MINICUB, 'metadata')
SMALL = [
    f'--data_root={MINICUB}/dataset',
    f'--mask_root={MINICUB}/dataset',
    '--architecture=vgg_tiny',
    '--large_feature_map=True',
    '--crop_size=32',
    '--workers=0',
    '--seed=1',
    '--cam_curve_interval=.05',
    '--smooth_grad_nr_iter=2',
]


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """(save root with a checkpoint net.pth.tar, its network): the metadata's test labels are its own predictions."""
    root = tmp_path_factory.mktemp('save')
    torch.manual_seed(3)
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True).eval()
    with torch.no_grad():
        model.conv_last.weight.mul_(12)  # confident enough for drops of every size
        model.attention[0].bias.add_(1)  # no map is constant
    torch.save({'architecture': 'vgg_tiny', 'state_dict': model.state_dict()}, root / 'net.pth.tar')
    shutil.copytree(META, root / 'metadata')
    rows = load_test_images(32)[0]
    with torch.no_grad():
        predicted = model(torch.stack([image for _, image, _ in rows])).probs.argmax(dim=1).tolist()
    (root / 'metadata/CUB/test/class_labels.txt').write_text(
        ''.join(f'{row[0]},{y}\n' for row, y in zip(rows, predicted))
    )
    return root, model


def flags(root, name, *more):
    return [
        *SMALL,
        f'--metadata_root={root}/metadata',
        '--attribution_method=CALM-EM',
        f'--save_root={root}',
        f'--experiment_name={name}',
        '--load_checkpoint=net.pth.tar',
        *more,
    ]


@pytest.fixture(scope='module')
def scored(untrained):
    """(save root, network, result, what was printed) of four methods by every score."""
    root, model = untrained
    code, out, err = run(
        'eval_attribution.py',
        *flags(
            root,
            'four',
            '--methods=jointll,grad_cam,smooth_grad,saliency',
            '--curve_steps=3',
            '--batch_size=1',
            '--random_repeats=2',
            '--pointing_tolerance=2',
            '--box_threshold=.4',
            '--box_iou=40',
        ),
    )
    assert code == 0, err
    return root, model, read(root, 'four', 'attribution_scores.json'), out


def slow_blur(image):
    """Channel by channel, OpenCV's filter."""
    return torch.from_numpy(
        np.stack([cv2.GaussianBlur(one, (11, 11), 5, borderType=cv2.BORDER_REFLECT_101) for one in image.numpy()])
    )


def replaced(start, end, pixels):
    """The image `start` [3, 32, 32] with the pixels of these numbers from `end`."""
    return torch.where(torch.from_numpy(np.isin(np.arange(1024), pixels).reshape(32, 32)), end, start)


def slow_figures(model, root):
    """{metric: figure} of jointll, image by image, and the drops [N]."""
    folder = os.path.join(root, 'metadata/CUB/test')
    boxes = read_boxes(folder)
    sizes = read_sizes(folder)
    taus = np.arange(0, 1, 0.05)
    columns = {
        name: []
        for name in ('drop', 'rise', 'deletion', 'insertion', 'top', 'random', 'at', 'ious', 'over', 'inside', 'hit')
    }
    for number, (image_id, image, _) in enumerate(load_test_images(32)[0]):

        def p_of(x, y=None):
            with torch.no_grad():
                probs = model(x[None]).probs[0]
            return (probs.argmax().item(), probs.max().item()) if y is None else probs[y].item()

        y, p = p_of(image)
        with torch.no_grad():
            output = model(image[None])
        native = (output.f.softmax(1) * output.h / output.h.sum())[0, y].numpy()
        one = cv2.resize(native, (32, 32), interpolation=cv2.INTER_LINEAR)
        scaled = (one - one.min()) / (one.max() - one.min())
        masked = p_of(image * torch.from_numpy(scaled), y)
        columns['drop'].append(max(0, p - masked) / p), columns['rise'].append(masked > p)
        order = np.argsort(-one.ravel(), kind='stable')
        black = torch.zeros_like(image)
        for name, start, end in (('deletion', image, black), ('insertion', slow_blur(image), image)):
            values = [p_of(replaced(start, end, order[: 1024 * step // 3]), y) for step in range(4)]
            columns[name].append(sum((a + b) / 2 for a, b in zip(values, values[1:])) / 3)
        ranks = erasing.descending_rank(erasing.random_scores(1, number, 10, 1024)).numpy().reshape(5, 2, 1024)
        columns['top'].append([p_of(replaced(image, black, order[: int(k * 1024)]))[0] == y for k in erasing.ERASE_K])

        def right(rank, k):
            return p_of(replaced(image, black, np.flatnonzero(rank < int(k * 1024))))[0] == y

        columns['random'].append(
            [np.mean([right(rank, k) for rank in pair]) for k, pair in zip(erasing.ERASE_K, ranks)]
        )
        cubic = cv2.resize(native, (32, 32), interpolation=cv2.INTER_CUBIC)
        score_map = (cubic - cubic.min()) / (cubic.max() - cubic.min())
        true = boxes_of.scale_boxes(boxes[image_id], sizes[image_id], 32)
        columns['at'].append(slow_best_ious(score_map, true, [0.4])[0, 0] >= 0.4)
        columns['ious'].append(slow_best_ious(score_map, true, taus))
        inside = np.array(
            [[any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in true) for x in range(32)] for y in range(32)]
        )
        above = [scaled > tau + 1e-5 for tau in taus]
        columns['over'].append([(mask & inside).sum() / (inside | mask).sum() for mask in above])
        columns['inside'].append(scaled[inside].sum() / scaled.sum())
        top_y, top_x = divmod(order[0], 32)
        columns['hit'].append(
            any((top_y - y) ** 2 + (top_x - x) ** 2 <= 4 for y in range(32) for x in range(32) if inside[y, x])
        )
    mean = {name: np.mean(values, axis=0) for name, values in columns.items()}
    ious = np.array(columns['ious'])

    def rate(many, iou):
        return (ious[:, many] >= iou).mean(axis=0).max()

    ratio = [a / b for a, b in zip(mean['top'], mean['random']) if b]
    return {
        'average_drop': 100 * mean['drop'],
        'average_increase': 100 * mean['rise'],
        'deletion': mean['deletion'],
        'insertion': mean['insertion'],
        'remove_and_classify': np.mean(ratio),
        'loc_iou': 100 * mean['at'],
        'loc_mask_iou': 100 * mean['over'].max(),
        'max_box_acc': 100 * rate(0, 0.5),
        'max_box_acc_v2': 100 * np.mean([rate(1, iou) for iou in (0.3, 0.5, 0.7)]),
        'proportion': 100 * mean['inside'],
        'pointing_game': 100 * mean['hit'],
    }, columns['drop']


@pytest.mark.slow
def test_the_figures_equal_an_image_by_image_loop(scored):
    root, model, result, _ = scored
    want, drops = slow_figures(model, root)
    row = result['methods']['jointll']
    assert {name: row[name] for name in want} == {
        name: pytest.approx(value, rel=1e-4, abs=1e-6) for name, value in want.items()
    }
    assert {*want, 'win'} == {*result['metrics']} and 0 < want['average_drop'] < 100 and 0 < want['loc_iou'] < 100
    wins = np.array(result['wins']['win'])
    assert row['win'] == pytest.approx(wins[0].sum() / 3) and wins.shape == (4, 4)
    np.testing.assert_allclose(wins + wins.T + np.array(result['wins']['tie']), 100)
    assert max(drops) > min(drops) and result['images'] == result['correct'] == 24
    curve = row['loc_mask_iou_curve']
    assert len(curve) == 20 and max(curve) == row['loc_mask_iou'] == curve[round(row['loc_mask_iou_threshold'] / 0.05)]
    assert row['deletion_curve'][0] == pytest.approx(row['insertion_curve'][-1]) and len(row['deletion_curve']) == 4


@pytest.mark.slow
def test_remove_and_classify_is_that_of_its_own_command(scored):
    root, _, result, _ = scored
    more = '--score_map_process=saliency', '--batch_size=8', '--random_repeats=2'
    code, _, err = run('eval_pixel_perturb.py', *flags(root, 'own', *more))
    assert code == 0, err
    assert result['methods']['saliency']['R_k'] == pytest.approx(
        read(root, 'own', 'pixel_perturb_saliency.json')['ratio']
    )


@pytest.mark.slow
def test_the_tables_and_the_plot_hold_what_the_result_says(scored):
    root, _, result, out = scored
    folder = root / 'four'
    tables = [f'attribution_scores.{ending}' for ending in ('csv', 'json', 'md', 'npz', 'png')]
    written = sorted(name for name in os.listdir(folder) if not name.startswith('random_erasing_'))
    assert written == [*tables, 'log_attribution_scores.jsonl']
    with open(folder / 'attribution_scores.csv') as file:
        rows = {row.pop('method'): row for row in csv.DictReader(file)}
    columns = [*result['metrics'], 'seconds', 'forward_passes', 'backward_passes']
    assert {method: {name: float(value) for name, value in row.items()} for method, row in rows.items()} == {
        method: {name: row[name] for name in columns} for method, row in result['methods'].items()
    }
    head, _, *lines = (folder / 'attribution_scores.md').read_text().splitlines()
    assert (
        'average drop (%) ↓ | average increase (%) ↑' in head
        and len([line for line in lines if line.startswith('|')]) == 4
    )
    best = min(result['methods'], key=lambda method: result['methods'][method]['deletion'])
    assert f'**{result["methods"][best]["deletion"]:.3f}**' in next(
        line for line in lines if line.startswith(f'| {best} ')
    )
    assert 'true label' in lines[-1] and 'log p(y|x)' in lines[-1] and 'true label' in out
    assert cv2.imread(str(folder / 'attribution_scores.png')).std() > 1


@pytest.mark.slow
def test_mask_data_sets_are_scored_against_masks(scored):
    root, _, _, _ = scored
    torch.manual_seed(5)
    model = wsol.build_model('vgg_tiny', 'CAM', 100, large_feature_map=True).eval()
    torch.save({'architecture': 'vgg_tiny', 'state_dict': model.state_dict()}, root / 'masks.pth.tar')
    code, _, err = run(
        'eval_attribution.py',
        *flags(
            root,
            'masks',
            '--dataset=OpenImages',
            '--attribution_method=CAM',
            '--load_checkpoint=masks.pth.tar',
            '--methods=vanilla',
            '--metrics=pxap,proportion,pointing_game',
            '--max_images=5',
            '--pointing_tolerance=3',
        ),
    )
    assert code == 0, err
    folder = os.path.join(META, 'OpenImages/test')
    taus = pixels.thresholds('even', 0.05)
    labels = dict(line.split(',') for line in open(os.path.join(folder, 'class_labels.txt')).read().split())
    counts = {}
    energy = []
    hits = []
    masks = list(read_masks(folder).items())
    for image_id, paths in (masks[n] for n in np.linspace(0, len(masks) - 1, 5).round().astype(int)):
        image = make_transform(False, crop_size=32)(read_image(os.path.join(MINICUB, 'dataset/OpenImages', image_id)))
        with torch.no_grad():
            native = model(image[None]).f[0, int(labels[image_id])].numpy()
        truth, ignore = pixels.read_ground_truth(os.path.join(MINICUB, 'dataset/OpenImages'), *paths, 32)
        histogram = pixels.mask_histogram(maps.score_maps(native[None], 32)[0], truth, ignore, taus)
        add_up(counts, pixels.mask_counts(histogram))
        one = cv2.resize(native, (32, 32))
        one = (one - one.min()) / (one.max() - one.min())
        energy.append(one[truth].sum() / one[truth | ~ignore].sum())
        y, x = divmod(one.argmax(), 32)
        hits.append(min((y - i) ** 2 + (x - j) ** 2 for i, j in np.argwhere(truth)) <= 9)
    result = read(root, 'masks', 'attribution_scores.json')
    assert result['images'] == 5 and result['wins'] is None
    row = result['methods']['vanilla']
    assert row['pxap'] == pytest.approx(pixels.mask_figures(counts)['PxAP'], abs=0.01)
    assert row['proportion'] == pytest.approx(100 * np.mean(energy), rel=1e-4)
    assert row['pointing_game'] == pytest.approx(100 * np.mean(hits)) and 0 < sum(hits) < len(hits)


def arguments(*argv):
    return get_configs('', list(argv), 'eval_attribution')


def test_methods_that_suit_the_model_are_the_default():
    def chosen(*argv):
        return eval_attribution.choose_maps(arguments(*argv))

    plain = [name for name in attribution.MAPS if name not in attribution.SUPERCLASS_READOUTS]
    assert chosen('--attribution_method=CALM-EM') == chosen('--attribution_method=CAM', '--methods=all') == plain
    assert {*plain} - {*chosen('--attribution_method=CAM')} == {'jointll', 'gtcond', 'saliency', 'taylor_interaction'}
    assert 'taylor_interaction' in chosen('--attribution_method=LFI-CAM')
    assert 'vanilla-superclass' in chosen('--attribution_method=CAM', '--superclass=x.json')
    assert 'jointll-superclass' not in chosen('--attribution_method=CAM', '--superclass=x.json')
    assert chosen('--methods= grad_cam, vanilla,grad_cam') == ['grad_cam', 'vanilla']
    assert eval_attribution.choose_metrics(arguments('--dataset=OpenImages'))[-3:] == [
        'proportion',
        'pointing_game',
        'pxap',
    ]


@pytest.mark.slow
def test_mistakes_are_refused_in_one_line(scored):
    root, *_ = scored
    assert '--override_cache=True' in refuse('eval_attribution.py', *flags(root, 'four'))
    for wrong, text in (
        ('--methods=grad_cam,jointl', "'jointl' here: did you mean jointll"),
        ('--metrics=deletoin', 'did you mean deletion'),
        ('--metrics=loc_iou', 'loc_iou'),
        ('--methods=,', 'empty'),
    ):
        args = arguments('--dataset=OpenImages', wrong)
        with pytest.raises(ValueError, match=text) as error:
            eval_attribution.choose_maps(args), eval_attribution.choose_metrics(args)
        assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match='--superclass=FILE.json'):
        MapMaker(None, 'vanilla-superclass', map_options(arguments('--seed=1')))


@pytest.fixture
def toy(monkeypatch):
    """(network, args) for calls in this process, with few draws."""
    monkeypatch.setattr(attribution.perturbation, 'SS_SAMPLES', 2)
    monkeypatch.setattr(attribution.perturbation, 'IS_STEPS', 2)
    few = [f'--{name}=2' for name in ('smooth_grad_nr_iter', 'integrated_grad_nr_iter', 'rise_nr_masks', 'curve_steps')]
    args = arguments('--batch_size=64', '--occlusion_window=16', '--seed=7', *few)
    return wsol.build_model('vgg_tiny', 'CALM-EM', 5, large_feature_map=True).eval(), args


@pytest.mark.slow
def test_maps_depend_on_the_image_and_its_number_alone(toy):
    """For every method: a batch's maps are those of its images one by one, so that no map that draws noise is left out
    of the registry.

    In float64, and from a baseline that is not flat: else rounding may turn a ReLU, or decide between equal pixels in a
    pooling, and with it a gradient.
    """
    model, args = toy
    model.double()
    images, baseline = torch.randn(3, 3, 32, 32, dtype=torch.float64).split([2, 1])
    options = replace(map_options(args), baseline=baseline)
    labels = torch.tensor([1, 4])
    with torch.no_grad():
        outputs = [model(images), model(images[1:])]
    for process in attribution.MAPS:
        if process in attribution.SUPERCLASS_READOUTS:
            continue
        maker = MapMaker(model, process, options, args.seed)
        both = np.concatenate(maker(images, outputs[0], list(labels.view(-1, 1)), [3, 9]))
        alone = np.concatenate(maker(images[1:], outputs[1], list(labels[1:].view(-1, 1)), [9]))
        assert both.shape == (2, *alone.shape[1:])
        np.testing.assert_allclose(both[1:], alone, rtol=1e-3, atol=1e-4 * np.abs(alone).max(), err_msg=process)


def settings_of(**changes):
    given = {
        'metrics': [name for name in scores.METRICS if name != 'pxap'],
        'curve_steps': 2,
        'box_threshold': 0.2,
        'box_iou': 50,
        'pointing_tolerance': 0,
        'random_repeats': 1,
        'iou_thresholds': [50],
        'cam_curve_interval': 0.1,
        'batch_size': 4,
    }
    few = {'randomization_steps': 2, 'sensitivity_draws': 2, 'infidelity_draws': 3}
    return scores.Settings(**{**given, **few, **changes})


def totals_of(model, args, methods, batches, device='cpu', dtype=torch.float32):
    """The summed contributions of three images, dealt to batches of these rows."""
    makers = {method: MapMaker(model, method, map_options(args), args.seed) for method in methods}
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    images, labels = images.to(device, dtype), torch.tensor([0, 1, 2], device=device)
    box = np.array([[0, 0, 7, 7]])
    truth = regions.Truth(box, regions.box_region(box, 32), None)
    parts = []
    randomized = comparing.random_networks(model, settings_of(), 32, seed=7)
    for rows in batches:
        numbers = [10 * row for row in rows]
        batch = comparing.predict(model, images[rows], labels[rows], numbers, [truth] * len(rows))
        parts.append(comparing.score_images(model, settings_of(), batch, seed=7))
        for name, maker in makers.items():
            parts.append(comparing.score_map(model, name, maker, settings_of(), batch, randomized))
    return {name: np.asarray(value) for name, value in join(parts).totals.items()}, images, labels


@pytest.mark.slow
def test_the_sums_do_not_depend_on_the_batches(toy):
    """In float64, whose rounding decides neither on a ReLU nor on the order of two pixels."""
    methods = ['jointll', 'smooth_grad', 'grad_cam']
    toy[0].double()
    one, two = (totals_of(*toy, methods, batches, dtype=torch.float64)[0] for batches in ([[0, 1, 2]], [[2], [0, 1]]))
    assert (
        one.keys()
        == two.keys()
        >= {'images', 'correct_random', 'jointll/drop', 'smooth_grad/deletion', 'grad_cam/max_box'}
    )
    for name in one:
        if not name.endswith('/seconds'):
            np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-6, err_msg=name)


def test_a_subset_is_spread_evenly():
    split = Munch(image_ids=list('abcdefgh'), labels=list(range(8)), _replace=lambda **changes: changes)
    changes, numbers = scored_images.subset(split, 3)
    assert changes == {'image_ids': ['a', 'e', 'h'], 'labels': [0, 4, 7]} and numbers == [0, 4, 7]
    assert scored_images.subset(split, None)[1] == scored_images.subset(split, 99)[1] == list(range(8))


def test_constant_maps_are_counted_and_harm_nothing(toy):
    """A dead attention: p(z|x) is uniform, its map points nowhere and leaves nothing of the image."""
    model, args = toy
    torch.nn.init.constant_(model.attention[0].weight, 0)
    torch.nn.init.constant_(model.attention[0].bias, -1)
    total, images, labels = totals_of(model, args, ['saliency', 'vanilla'], [[0, 1], [2]])
    rows = comparing.map_figures(total, ['saliency', 'vanilla'], settings_of(), NO_WINS)
    assert rows['saliency']['constant_maps'] == 3 and rows['vanilla']['constant_maps'] == 0
    assert rows['saliency']['proportion'] == rows['saliency']['pointing_game'] == rows['saliency']['max_box_acc'] == 0
    with torch.no_grad():
        p, grey = (model(x).probs[range(3), labels] for x in (images, torch.zeros_like(images)))
    assert rows['saliency']['average_drop'] == pytest.approx(
        100 * ((p - grey).clamp(min=0) / p).mean().item(), rel=1e-4
    )
    assert rows['saliency']['deletion_curve'][-1] == pytest.approx(grey.mean().item(), rel=1e-4)


def test_wins_and_ties_in_percent():
    drops = {'a': [0.1, 0.2, 0, 0.5], 'b': [0.1, 0.3, 0.5, 0.2], 'c': [0, 0.1, 0, 0.5]}  # of four images
    counts, of_images = comparing.win_counts({name: np.array(some) for name, some in drops.items()})
    assert {name: some.tolist() for name, some in counts.items()} == {'a': [0, 2, 0], 'b': [1, 0, 1], 'c': [2, 3, 0]}
    assert {name: some.tolist() for name, some in of_images.items()} == {
        'a': [0, 1, 1, 0],
        'b': [0, 0, 0, 2],
        'c': [2, 2, 1, 0],
    }
    table = comparing.win_table(counts, 4)
    assert table['win'] == [[0, 50, 0], [25, 0, 25], [50, 75, 0]]
    assert table['tie'] == [[100, 25, 50], [25, 100, 0], [50, 0, 100]]
    rows = {name: {'win': None, 'deletion': 1} for name in drops}
    settings = settings_of(metrics=['win', 'deletion'])
    assert [row['win'] for row in comparing.with_wins(rows, counts, 4, settings).values()] == [25, 25, 62.5]
    assert comparing.with_wins(rows, {}, 4, settings_of(metrics=['deletion'])) == rows
    assert comparing.win_counts({}) == ({}, {})


NO_WINS = dict.fromkeys(['jointll', 'smooth_grad', 'saliency', 'vanilla'], np.zeros(2))


class Enough(Exception):
    """The call that was looked for has come."""


def test_a_subset_keeps_its_numbers_its_truth_and_its_labels(untrained, monkeypatch):
    """Of 24 images three: the noise and the random masks are those of the images in the whole split."""
    root, _ = untrained
    seen = []

    def score_images(model, settings, batch, seed, known):
        seen.append((batch.numbers, batch.labels.tolist(), seed, batch.images.shape))
        return Tally({'images': np.array(3)}, {})

    def score_map(model, name, maker, settings, batch, randomized):
        boxes = [len(truth.boxes) for truth in batch.truths]
        seen.append((batch.numbers, batch.labels.tolist(), boxes, batch.images.shape, name, maker.name))
        if name == 'grad_cam':
            raise Enough
        return Tally({}, {})

    monkeypatch.setattr(comparing, 'score_images', score_images)
    monkeypatch.setattr(comparing, 'score_map', score_map)
    more = '--max_images=3', '--methods=jointll,grad_cam', '--metrics=deletion,loc_iou', '--batch_size=8'
    monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', *flags(root, 'enough', *more)])
    with pytest.raises(Enough):
        eval_attribution.main()
    labels = [int(line.split(',')[1]) for line in open(root / 'metadata/CUB/test/class_labels.txt')]
    numbers = [0, 12, 23]
    labels = [labels[n] for n in numbers]
    of_maps = [(numbers, labels, [1] * 3, (3, 3, 32, 32), name, name) for name in ('jointll', 'grad_cam')]
    assert seen == [(numbers, labels, 1, (3, 3, 32, 32)), *of_maps]


def test_scores_without_ground_truth_read_none(untrained, monkeypatch):
    root, _ = untrained

    def score_map(model, name, maker, settings, batch, _):
        assert batch.truths == [] and settings.metrics == ['deletion'] and settings.curve_steps == 7
        raise Enough

    monkeypatch.setattr(comparing, 'score_map', score_map)
    more = '--methods=jointll', '--metrics=deletion', '--curve_steps=7'
    monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', *flags(root, 'none', *more)])
    with pytest.raises(Enough):
        eval_attribution.main()


def test_what_a_batch_adds_by_name(toy):
    model, args = toy
    total, images, labels = totals_of(model, args, ['jointll', 'vanilla'], [[0, 1], [2]])
    with torch.no_grad():
        probs = model(images).probs
    right = probs.argmax(dim=1) == labels
    assert total['images'] == 3 and total['correct'] == right.sum()
    counts = erasing.random_counts(model, images, labels, [0, 10, 20], seed=7, repeats=1)
    assert total['correct_random'].tolist() == counts.sum(dim=0).tolist()
    p = probs[range(3), labels]
    for name in ('jointll', 'vanilla'):
        raw = attribution.upsample(attribution.explain(name, model, images, labels), 32)
        masked = images * attribution.normalize(raw, 'minmax')[:, None]
        with torch.no_grad():
            after = model(masked).probs[range(3), labels]
        assert total[f'{name}/increase'] == (after > p).sum()
        assert total[f'{name}/drop'] == pytest.approx(((p - after).clamp(min=0) / p).sum().item(), rel=1e-3, abs=1e-6)


def test_maps_that_stay_on_a_device_score_as_those_of_the_host(toy, device, monkeypatch):
    """PyTorch resizes there, and here where the device is a CPU; a map of the image's size is not resized."""
    model, args = toy
    names = ['jointll', 'input_grad']
    expected = totals_of(model, args, names, [[0, 1, 2]])[0]
    resized = []

    def at_image_size(maps, size):
        resized.append(attribution.upsample(maps, size))
        assert resized[-1].device.type == device.type
        return resized[-1]

    monkeypatch.setattr(map_maker, 'at_image_size', at_image_size)
    found = totals_of(model.to(device), args, names, [[0, 1, 2]], device)[0]
    assert len(resized) == 2 and found.keys() == expected.keys()
    for name in expected:
        if device.type == 'cpu' and not name.startswith('jointll/') and not name.endswith('/seconds'):
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
        elif not name.endswith('/seconds'):  # two pixels may take each other's rank
            np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=1e-3, err_msg=name)


def counted(monkeypatch):
    """(names of the maps that were made, until(limit): stop before one more than so many)."""
    made = []
    score_map = comparing.score_map

    def until(limit):
        def score(model, name, *rest):
            if len(made) == limit:
                raise Enough
            made.append(name)
            return score_map(model, name, *rest)

        monkeypatch.setattr(comparing, 'score_map', score)

    return made, until


@pytest.mark.slow
def test_a_stopped_table_goes_on_method_by_method(untrained, monkeypatch):
    """Stopped within the second method; gone on with one more, which is the table of all three at once."""
    root, _ = untrained
    made, until = counted(monkeypatch)

    def call(name, methods, *more):
        few = f'--methods={methods}', '--metrics=average_drop,win,deletion', '--curve_steps=2', '--batch_size=8'
        argv = ['eval_attribution.py', *flags(root, name, '--max_images=12', *few, *more)]
        monkeypatch.setattr(sys, 'argv', argv)
        eval_attribution.main()

    until(3)  # two shards of 8 and 4 images: of the second shard, grad_cam and smooth_grad are still to do
    with pytest.raises(Enough):
        call('pieces', 'grad_cam,smooth_grad')
    until(None)
    call('pieces', 'grad_cam,smooth_grad,vanilla', '--resume')
    assert made == ['grad_cam', 'smooth_grad', 'grad_cam', 'vanilla', 'smooth_grad', 'vanilla']
    call('whole', 'grad_cam,smooth_grad,vanilla')
    pieces, whole = (read(root, name, 'attribution_scores.json') for name in ('pieces', 'whole'))
    for result in (pieces, whole):
        for row in result['methods'].values():
            assert row.pop('seconds') > 0
    assert pieces['methods'] == whole['methods'] and pieces['wins'] == whole['wins']
    assert (root / 'pieces/attribution_scores.npz').read_bytes() == (root / 'whole/attribution_scores.npz').read_bytes()
    assert not (root / 'pieces/shards_attribution_scores').exists()
    rows = [whole['methods'][name] for name in ('grad_cam', 'smooth_grad', 'vanilla')]
    assert [(row['forward_passes'], row['backward_passes']) for row in rows] == [(1, 1), (2, 2), (1, 0)]


@pytest.mark.slow
def test_a_finished_table_takes_more_methods(untrained, monkeypatch, capsys):
    """Added to a finished table, stopped on the way: the table of all at once, and no finished method is made again."""
    root, _ = untrained
    made, until = counted(monkeypatch)

    def call(name, methods, *more):
        few = '--metrics=average_drop,win,deletion,max_box_acc', '--curve_steps=2', '--batch_size=8', '--max_images=12'
        argv = ['eval_attribution.py', *flags(root, name, *few, f'--methods={methods}', *more)]
        monkeypatch.setattr(sys, 'argv', argv)
        eval_attribution.main()

    def files(name):
        result = read(root, name, 'attribution_scores.json')
        for row in result['methods'].values():
            assert row.pop('seconds') > 0
        with np.load(root / name / 'attribution_scores.npz') as rows:
            return result, dict(rows)

    until(None)
    call('grown', 'grad_cam,smooth_grad')
    finished = files('grown')
    until(len(made) + 1)
    with pytest.raises(Enough):
        call('grown', 'vanilla,jointll', '--resume')
    assert files('grown')[0] == finished[0]  # as it was, until the longer one is whole
    until(None)
    call('grown', 'vanilla,jointll', '--resume')
    call('grown', 'jointll,smooth_grad', '--resume')
    assert 'is complete: nothing to do' in capsys.readouterr().out
    assert sorted(made) == [name for name in ('grad_cam', 'jointll', 'smooth_grad', 'vanilla') for _ in range(2)]
    call('at_once', 'grad_cam,smooth_grad,vanilla,jointll')
    (grown, grown_rows), (whole, whole_rows) = files('grown'), files('at_once')
    assert grown['methods'] == whole['methods'] and grown['wins'] == whole['wins'] and grown['best'] == whole['best']
    assert grown['arguments']['methods'] == whole['arguments']['methods']
    assert grown_rows.keys() == whole_rows.keys() and 'jointll/max_box' in grown_rows
    assert all(np.array_equal(grown_rows[name], whole_rows[name]) for name in whole_rows)
    for ending in ('csv', 'md'):
        lines = (root / f'grown/attribution_scores.{ending}').read_text().splitlines()
        assert sum(name in line for line in lines for name in whole['methods']) == 4
    assert not (root / 'grown/shards_attribution_scores').exists()


def test_a_table_to_be_replaced_is_not_added_to(untrained, monkeypatch):
    """What --override_cache begins anew, --resume goes on with: no figure of the old table comes into the new one."""
    root, _ = untrained

    def call(methods, *more):
        few = f'--methods={methods}', '--metrics=deletion', '--curve_steps=1', '--batch_size=8', '--max_images=3'
        monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', *flags(root, 'anew', *few, *more)])
        eval_attribution.main()

    def stop(*_):
        raise Enough

    call('vanilla')
    with monkeypatch.context() as patch:
        patch.setattr(comparing, 'score_map', stop)
        with pytest.raises(Enough):
            call('jointll', '--override_cache=True')
    call('jointll', '--resume')
    assert read(root, 'anew', 'attribution_scores.json')['methods'].keys() == {'jointll'}
    with np.load(root / 'anew/attribution_scores.npz') as rows:
        kept = dict(rows)
    with pytest.raises(UserError, match='--curve_steps=1'):
        call('vanilla', '--resume', '--curve_steps=2')
    (root / 'anew/attribution_scores.npz').unlink()
    with pytest.raises(UserError, match='nothing can be added'):
        call('vanilla', '--resume')
    np.savez(root / 'anew/attribution_scores.npz', **{**kept, 'ids': kept['ids'][::-1]})
    with pytest.raises(UserError, match='the images are not those'):
        call('vanilla', '--resume')


def test_a_batch_is_predicted_once_for_all_maps_of_its_shard(untrained, monkeypatch):
    """Batches of 3 images, four of them a shard: 12 images take 12 passes, whatever the readouts."""
    root, _ = untrained
    seen = []
    forward_features = wsol.network.Network.forward_features

    def counted(self, x):
        seen.append(len(x))
        return forward_features(self, x)

    monkeypatch.setattr(wsol.network.Network, 'forward_features', counted)
    few = '--methods=jointll,vanilla,saliency', '--metrics=sparseness', '--batch_size=3', '--max_images=12'
    monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', *flags(root, 'once', *few)])
    eval_attribution.main()
    assert seen == [3, 3, 3, 3]
    rows = read(root, 'once', 'attribution_scores.json')['methods'].values()
    assert [(row['forward_passes'], row['backward_passes']) for row in rows] == [(1, 0)] * 3


def test_the_checks_of_a_map_by_their_definitions(toy):
    """Each figure from maps that are made here, image by image."""
    model, args = toy
    total, images, labels = totals_of(model, args, ['jointll', 'smooth_grad'], [[0, 1], [2]])
    figures = comparing.map_figures(total, ['jointll', 'smooth_grad'], settings_of(), NO_WINS)
    randoms = sanity.randomized(model, images[:1], 2, seed=7)
    for name in ('jointll', 'smooth_grad'):
        columns = {key: [] for key in ('complexity', 'coherency', 'adcc', 'ranks', 'sizes', 'similar', 'sparse')}
        for row in range(3):
            x, y = images[row : row + 1], labels[row : row + 1]

            def make(changed, of=model):
                maker = MapMaker(of, name, map_options(args), args.seed)
                return np.concatenate(maker(changed, None, [y], [10 * row]))

            native = make(x)
            scaled = maps.normalize(maps.resize(native, 32), 'minmax')
            masked = x * torch.from_numpy(scaled)[:, None]
            with torch.no_grad():
                p, after = (model(one).probs[0, y].item() for one in (x, masked))
            drop = max(0, p - after) / p
            columns['complexity'].append(scaled.mean())
            columns['coherency'].append((1 + np.corrcoef(native.ravel(), make(masked).ravel())[0, 1]) / 2)
            goods = columns['coherency'][-1], 1 - scaled.mean(), 1 - drop
            columns['adcc'].append(3 / sum(1 / max(good, 1e-30) for good in goods))
            others = [make(x, other) for other in randoms]
            columns['ranks'].append([abs(spearmanr(native.ravel(), other.ravel())[0]) for other in others])
            columns['sizes'].append([abs(spearmanr(abs(native.ravel()), abs(other.ravel()))[0]) for other in others])
            large = [maps.normalize(maps.resize(other, 32), 'minmax') for other in others]
            columns['similar'].append(np.mean([sanity.ssim(scaled, other)[0] for other in large]))
            columns['sparse'].append(sanity.gini(maps.resize(native, 32))[0])
        want = {key: np.mean(values) for key, values in columns.items()}
        found = figures[name]
        assert found['complexity'] == pytest.approx(100 * want['complexity'], rel=1e-4)
        assert found['coherency'] == pytest.approx(100 * want['coherency'], rel=1e-3)
        assert found['adcc'] == pytest.approx(100 * want['adcc'], rel=1e-3, abs=1e-4)
        assert found['randomization'] == pytest.approx(want['ranks'], abs=1e-3)
        assert found['randomization_abs'] == pytest.approx(want['sizes'], abs=1e-3)
        assert found['randomization_ssim'] == pytest.approx(want['similar'], abs=1e-3)
        assert found['sparseness'] == pytest.approx(want['sparse'], rel=1e-4)
        assert found['randomization'] == pytest.approx(np.mean(found['agreement_curve']))
        assert found['max_sensitivity'] > 0 and found['infidelity'] > 0 and abs(found['road']) <= 0.5
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_scores_that_make_more_maps_are_asked_for():
    usual = eval_attribution.choose_metrics(arguments('--dataset=OpenImages'))
    every = eval_attribution.choose_metrics(arguments('--dataset=OpenImages', '--metrics=all'))
    assert not any(scores.METRICS[name].extra for name in usual) and 'road' in every and 'adcc' in every
    assert eval_attribution.choose_metrics(arguments('--metrics=adcc,road')) == ['adcc', 'road']


def test_a_map_that_turns_its_sign_has_not_forgotten(toy):
    """Random weights turn one map's sign and scramble another's: the first keeps all of its order, |map| of both."""
    _, args = toy
    native = np.random.default_rng(0).normal(size=(2, 8, 8))
    scaled = maps.normalize(native, 'minmax')
    toss = np.random.default_rng(1).choice([-1, 1], size=(2, 8, 8))
    found = {}
    for name, other in (('turned', -native), ('tossed', toss * native)):
        making = scores.Making(native, native, scaled, lambda images, model, other=other: other, [None] * 2, [1, 2])
        settings = settings_of(metrics=['randomization', 'randomization_abs'])
        own = scores.check_scores(None, torch.zeros(2, 3, 8, 8), None, making, None, settings)
        found[name] = scores.figures(
            {'images': 2, **{key: value.sum(dim=0).numpy() for key, value in own.items()}}, settings
        )
    assert found['turned']['randomization'] == pytest.approx(1)
    assert found['turned']['rank_correlation_curve'] == pytest.approx([-1, -1])
    assert found['tossed']['randomization'] < 0.3 and found['tossed']['randomization_abs'] == pytest.approx(1)
