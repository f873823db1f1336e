"""Weakly supervised localization: golden figures, slow independent versions, hand cases, the command as a user runs it."""

import json
import os

import cv2
import numpy as np
import pytest
import torch
from conftest import GOLDEN, MINICUB
from test_commands import read, refuse, refuse_after_progress, run

import data_loaders
import eval_wsol
import wsol
from data_loaders import make_transform, read_boxes, read_image, read_image_ids, read_labels, read_masks, read_sizes
from wsol import localization, metrics

META = os.path.join(MINICUB, 'metadata')
ROOTS = [f'--data_root={MINICUB}/dataset', f'--metadata_root={META}', f'--mask_root={MINICUB}/dataset', '--seed=1']


@pytest.fixture(scope='module')
def golden_maps():
    """{'CUB' or 'OpenImages': {image id: map in [0, 1] [224, 224]}}."""
    with np.load(os.path.join(GOLDEN, 'wsol_maps.npz')) as stored:
        maps = {key: stored[key] / 255 for key in stored.files}
    return {
        name: {key[len(name) + 1 :]: one for key, one in maps.items() if key.startswith(name)}
        for name in ('CUB', 'OpenImages')
    }


@pytest.fixture(scope='module')
def golden():
    with open(os.path.join(GOLDEN, 'wsol.json')) as file:
        return json.load(file)


def save(root, maps, extension=True):
    for image_id, one in maps.items():
        path = root / f'{image_id if extension else os.path.splitext(image_id)[0]}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, one)
    return root


def mean(table, chosen=('30', '50', '70')):
    return np.mean([table[iou]['accuracy'] for iou in chosen])


@pytest.mark.parametrize('interval', [0.001, 0.01])
def test_box_scores_are_the_golden_ones(golden, golden_maps, interval):
    folder, taus = os.path.join(META, 'CUB/test'), metrics.thresholds('even', interval)
    boxes, sizes, scores = read_boxes(folder), read_sizes(folder), localization.BoxScores(taus, [30, 50, 70])
    for image_id in read_image_ids(folder):
        true = localization.scale_boxes(boxes[image_id], sizes[image_id], 224)
        scores.accumulate(localization.best_ious(golden_maps['CUB'][image_id], true, taus))
    result = scores.compute()
    for many, table in enumerate((result['largest_contour'], result['all_contours'])):
        want = [golden[f'CUB/multi_contour={many}/multi_iou={several}/interval={interval}'] for several in (0, 1)]
        assert [table['50']['accuracy'], mean(table)] == pytest.approx(want, abs=1e-9)
    assert (result['MaxBoxAcc'], result['MaxBoxAccV2']) == (
        result['largest_contour']['50']['accuracy'],
        pytest.approx(mean(table)),
    )


@pytest.mark.parametrize('interval', [0.001, 0.01])
def test_mask_scores_are_the_golden_ones(golden, golden_maps, interval):
    taus = metrics.thresholds('even', interval)
    scores = localization.MaskScores(taus)
    for image_id, masks in read_masks(os.path.join(META, 'OpenImages/test')).items():
        truth = localization.read_ground_truth(os.path.join(MINICUB, 'dataset/OpenImages'), *masks, 224)
        scores.accumulate(localization.mask_histogram(golden_maps['OpenImages'][image_id], *truth, taus))
    assert scores.compute()['PxAP'] == pytest.approx(golden[f'OpenImages/interval={interval}'], abs=1e-9)


def slow_iou(a, b):
    """Pixels in both boxes over pixels in either, counted one by one."""
    inside = [{(x, y) for x in range(box[0], box[2] + 1) for y in range(box[1], box[3] + 1)} for box in (a, b)]
    return len(inside[0] & inside[1]) / len(inside[0] | inside[1])


def slow_best_ious(score_map, boxes, taus):
    """Each threshold on its own, each contour on its own."""
    size, rows = len(score_map), []
    image = (score_map * 255).astype(np.uint8)
    for tau in taus:
        binary = np.where(image > int(tau * image.max()), 255, 0).astype(np.uint8)
        contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        best = []
        for chosen in ([max(contours, key=cv2.contourArea)] if contours else [], contours):
            corners = [cv2.boundingRect(contour) for contour in chosen]
            proposals = [(x, y, min(x + w, size - 1), min(y + h, size - 1)) for x, y, w, h in corners] or [(0, 0, 0, 0)]
            best.append(max(slow_iou(one, true) for one in proposals for true in boxes))
        rows.append(best)
    return np.array(rows).T


@pytest.mark.parametrize('blur', [0, 1, 4])
def test_box_scores_equal_the_slow_version(blur):
    rng, taus = np.random.default_rng(blur), metrics.thresholds('even', 0.02)
    for _ in range(3):
        noise = rng.random((24, 24), np.float32)
        score_map = metrics.normalize((cv2.GaussianBlur(noise, (0, 0), blur) if blur else noise)[None], 'minmax')[0]
        score_map[rng.random((24, 24)) < 0.2] = 0
        boxes = np.array([[3, 2, 12, 17], [10, 11, 20, 23]])
        np.testing.assert_allclose(
            localization.best_ious(score_map, boxes, taus), slow_best_ious(score_map, boxes, taus), rtol=1e-12
        )


def test_contours_are_searched_once_for_each_foreground(monkeypatch):
    calls, search = [], localization.contour_boxes
    monkeypatch.setattr(localization, 'contour_boxes', lambda binary: calls.append(int(binary.sum())) or search(binary))
    score_map = np.zeros((9, 9))
    score_map[2:7, 2:7], score_map[4, 4] = 0.5, 1
    localization.best_ious(score_map, np.array([[2, 2, 7, 7]]), metrics.thresholds('even', 0.001))
    assert sorted(calls) == [1, 25]


def test_box_cases_by_hand():
    taus = np.array([0, 0.5])
    ious = lambda score_map, *boxes: localization.best_ious(score_map, np.array(boxes), taus).tolist()
    empty, full, two = np.zeros((8, 8)), np.ones((8, 8)), np.zeros((8, 8))
    assert ious(empty, (0, 0, 0, 0)) == [[1, 1], [1, 1]]  # no foreground: the box 0, 0, 0, 0
    assert ious(empty, (0, 0, 1, 1)) == [[0.25] * 2] * 2
    assert ious(full, (0, 0, 7, 7)) == [[1, 1], [1, 1]]  # the far sides end at the last pixel
    two[0:4, 0:4], two[6, 5:7] = 0.4, 1  # a large weak blob, a small strong one
    assert ious(two, (0, 0, 4, 4)) == [[1, 0], [1, 0]]  # x + width lies one pixel beyond the blob
    assert ious(two, (5, 6, 7, 7)) == [[0, 1], [1, 1]]  # above .5 the small one is the largest left
    assert ious(two, (5, 6, 7, 7), (0, 0, 4, 4)) == [[1, 1], [1, 1]]  # any true box will do
    assert ious(two, (0, 0, 3, 3)) == [[16 / 25, 0], [16 / 25, 0]]


def test_iou_counts_the_far_sides():
    a, b = np.array([[0, 0, 1, 1], [4, 4, 4, 4]]), np.array([[1, 1, 2, 2], [0, 0, 3, 1], [5, 4, 6, 4]])
    assert localization.inclusive_iou(a, b).tolist() == [[1 / 7, 0.5, 0], [0, 0, 0]]
    assert localization.scale_boxes([(10, 20, 99, 50)], (100, 200), 224).tolist() == [[22, 22, 221, 56]]


def test_an_image_counts_when_the_iou_is_reached_and_the_best_threshold_is_the_first():
    scores = localization.BoxScores(np.array([0, 0.25, 0.5]), [30, 70])
    scores.accumulate(np.array([[0.5, 0.49, 0.2], [0.7, 0.5, 0.3]]))
    scores.accumulate(np.array([[0, 0.5, 0.1], [0, 0.5, 0.3]]))
    result = scores.compute()
    assert result['MaxBoxAcc'] == 50 and result['largest_contour']['50'] == {'accuracy': 50, 'threshold': 0}
    assert result['all_contours']['30'] == {'accuracy': 100, 'threshold': 0.25}
    assert result['MaxBoxAccV2'] == 75  # IoU .5 is not among the chosen


def test_ignored_background_is_in_neither_histogram():
    score_map = np.array([[0.9, 0.8], [0.7, 0.1]])
    foreground, ignore = np.array([[False, True], [False, False]]), np.array([[True, True], [False, False]])
    taus, scores = metrics.thresholds('even', 0.05), localization.MaskScores(metrics.thresholds('even', 0.05))
    scores.accumulate(localization.mask_histogram(score_map, foreground, ignore, taus))
    assert scores.histogram.sum(axis=1).tolist() == [2, 1] and scores.compute()['PxAP'] == 100
    scores.accumulate(localization.mask_histogram(score_map, foreground, np.zeros_like(ignore), taus))
    assert scores.histogram.sum(axis=1).tolist() == [5, 2] and scores.compute()['PxAP'] == pytest.approx(100 * 2 / 3)


def test_masks_are_united_and_read_by_the_nearest_pixel(tmp_path):
    grey = np.zeros((4, 4), np.uint8)
    grey[0, 0], grey[3, 3] = 1, 255
    cv2.imwrite(str(tmp_path / 'a.png'), grey)
    cv2.imwrite(str(tmp_path / 'b.png'), grey[::-1])
    foreground, ignore = localization.read_ground_truth(tmp_path, ['a.png', 'b.png'], '', 8)
    want = np.zeros((8, 8), bool)
    want[:2, :2] = want[6:, 6:] = want[:2, 6:] = want[6:, :2] = True
    np.testing.assert_array_equal(foreground, want)
    assert not ignore.any()
    (tmp_path / 'b.png').write_bytes(b'no picture')
    for name, text in (('b.png', 'unreadable'), ('c.png', 'missing')):
        with pytest.raises(ValueError, match=f'{name} is {text}'):
            localization.read_mask(str(tmp_path / name), 8)


def test_the_command_scores_saved_maps_as_the_protocol(golden, golden_maps, tmp_path):
    for dataset, extension, workers in (('CUB', True, 2), ('OpenImages', False, 0)):
        root = save(tmp_path / dataset, golden_maps[dataset], extension)
        code, _, err = run(
            'eval_wsol.py',
            *ROOTS,
            f'--dataset={dataset}',
            f'--scoremap_root={root}',
            f'--save_root={tmp_path}',
            f'--experiment_name=of_{dataset}',
            f'--workers={workers}',
        )
        assert code == 0, err
    boxes, masks = (read(tmp_path, f'of_{name}', 'wsol_scoremaps.json') for name in ('CUB', 'OpenImages'))
    assert boxes['MaxBoxAcc'] == pytest.approx(golden['CUB/multi_contour=0/multi_iou=0/interval=0.001'], abs=1e-9)
    assert boxes['MaxBoxAccV2'] == pytest.approx(golden['CUB/multi_contour=1/multi_iou=1/interval=0.001'], abs=1e-9)
    assert masks['PxAP'] == pytest.approx(golden['OpenImages/interval=0.001'], abs=1e-9)
    assert (boxes['images'], masks['images'], boxes['split']) == (24, 24, 'test')
    assert boxes['arguments']['iou_thresholds'] == [30, 50, 70]
    assert '--override_cache=True' in refuse(
        'eval_wsol.py',
        '--dataset=CUB',
        f'--scoremap_root={tmp_path}/CUB',
        f'--save_root={tmp_path}',
        '--experiment_name=of_CUB',
    )


def test_the_command_scores_a_checkpoint_on_the_validation_split(tmp_path):
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True).eval()
    torch.save({'architecture': 'vgg_tiny', 'state_dict': model.state_dict()}, tmp_path / 'net.pth.tar')
    code, out, err = run(
        'eval_wsol.py',
        *ROOTS,
        '--dataset=CUB',
        '--split=val',
        '--architecture=vgg_tiny',
        '--large_feature_map=True',
        '--attribution_method=CALM-EM',
        f'--load_checkpoint={tmp_path}/net.pth.tar',
        '--score_map_process=jointll',
        f'--save_root={tmp_path}',
        '--crop_size=32',
        '--workers=1',
        '--cam_curve_interval=.05',
        '--iou_thresholds',
        '20',
        '40',
    )
    assert code == 0, err
    result, folder = read(tmp_path, 'result', 'wsol_jointll.json'), os.path.join(META, 'CUB/val')
    boxes, sizes, taus = read_boxes(folder), read_sizes(folder), np.arange(0, 1, 0.05)
    ious, transform = [], make_transform(False, crop_size=32)
    for image_id, label in read_labels(folder).items():
        with torch.no_grad():
            output = model(transform(read_image(os.path.join(MINICUB, 'dataset/CUBV2', image_id)))[None])
        joint = (output.f.softmax(1) * output.h / output.h.sum()).numpy()[0, label]
        resized = cv2.resize(joint, (32, 32), interpolation=cv2.INTER_CUBIC)
        score_map = (resized - resized.min()) / (resized.max() - resized.min())
        ious.append(slow_best_ious(score_map, localization.scale_boxes(boxes[image_id], sizes[image_id], 32), taus))
    rate = lambda many, iou: 100 * (np.array(ious)[:, many] >= iou).mean(axis=0).max()
    assert result['MaxBoxAcc'] == pytest.approx(rate(0, 0.5), abs=1e-9)
    assert result['MaxBoxAccV2'] == pytest.approx((rate(1, 0.2) + rate(1, 0.4)) / 2, abs=1e-9)
    assert result['images'] == len(ious) == 24 and 'MaxBoxAccV2' in out


def test_bad_score_maps_are_refused_by_name(tmp_path):
    good = np.linspace(0, 1, 16).reshape(4, 4)
    for text, bad in (
        ('NaN', np.where(good > 0.5, np.nan, good)),
        ('outside', good * 2),
        ('outside', good - 0.1),
        ('uint8', (good * 255).astype(np.uint8)),
        ('4, 3', good[:, :3]),
        ('no .npy', np.array([{}])),
    ):
        np.save(tmp_path / 'bad.npy', bad, allow_pickle=True)
        with pytest.raises(ValueError, match='bad.npy') as error:
            eval_wsol.read_score_map(str(tmp_path / 'bad.npy'), 4)
        assert text in str(error.value) and '\n' not in str(error.value)
    (tmp_path / 'bad.npy').write_bytes(b'')
    with pytest.raises(ValueError, match='bad.npy'):
        eval_wsol.read_score_map(str(tmp_path / 'bad.npy'), 4)


def test_missing_ground_truth_is_refused_by_name(tmp_path):
    (tmp_path / 'localization.txt').write_text('a.jpg,1,2,3,4\nb.jpg,5,2,3,4\n')
    (tmp_path / 'image_sizes.txt').write_text('b.jpg,9,9\n')
    for image_id, text in (
        ('a.jpg', 'image_sizes.txt'),
        ('b.jpg', 'x0 <= x1'),
        ('c.jpg', 'localization.txt has no row'),
    ):
        with pytest.raises(ValueError, match=text) as error:
            data_loaders.checked_boxes(str(tmp_path), [image_id])
        assert image_id in str(error.value)
    (tmp_path / 'localization.txt').write_text('a.jpg,m.png,\n')
    for image_id, text in (('a.jpg', 'm.png is missing'), ('c.jpg', 'no row for c.jpg')):
        with pytest.raises(ValueError, match=text):
            data_loaders.checked_masks(str(tmp_path), [image_id], str(tmp_path))


def test_the_command_refuses_in_one_line_and_leaves_nothing(golden_maps, tmp_path):
    common = [*ROOTS, '--dataset=CUB', f'--save_root={tmp_path}/save']
    assert '--scoremap_root=DIR' in refuse('eval_wsol.py', *common)
    maps = dict(list(golden_maps['CUB'].items())[:-1])
    root = save(tmp_path / 'maps', maps)
    missing = list(golden_maps['CUB'])[-1]
    line = refuse('eval_wsol.py', *common, f'--scoremap_root={root}')
    assert missing in line and os.listdir(tmp_path) == ['maps']
    save(root, {missing: np.full((224, 224), np.nan)})
    line = refuse_after_progress(
        'eval_wsol.py', *common, f'--scoremap_root={root}', '--workers=2', '--cam_curve_interval=.1'
    )
    assert missing in line and 'NaN' in line
    assert not os.path.exists(tmp_path / 'save/result/wsol_scoremaps.json')


def test_a_list_of_iou_thresholds_in_yaml(tmp_path):
    from config import get_configs

    (tmp_path / 'run.yaml').write_text('iou_thresholds: [40, 60]\nsplit: val\n')
    args = get_configs('', [f'--config={tmp_path}/run.yaml'])
    assert (args.iou_thresholds, args.split) == ([40, 60], 'val')
    args = get_configs('', [f'--config={tmp_path}/run.yaml', '--iou_thresholds', '55', '--split=test'])
    assert (args.iou_thresholds, args.split) == ([55], 'test')
    (tmp_path / 'one.yaml').write_text('iou_thresholds: 30\nlr: 0.5\n')
    assert get_configs('', [f'--config={tmp_path}/one.yaml']).iou_thresholds == [30]
