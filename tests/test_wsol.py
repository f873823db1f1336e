"""Weakly supervised localization as a user runs it: golden figures, a slow version, refusals."""

import os

import cv2
import numpy as np
import pytest
import torch
from commands import run
from conftest import MINICUB
from test_commands import read, refuse, refuse_after_progress
from test_scoring_boxes import slow_best_ious

import eval_wsol
import wsol
from data import truth
from data.metadata import read_boxes, read_labels, read_sizes
from data_loaders import read_image
from wsol.preprocessing import make_transform
from wsol.scoring.boxes import scale_boxes

META = os.path.join(MINICUB, 'metadata')
ROOTS = [f'--data_root={MINICUB}/dataset', f'--metadata_root={META}', f'--mask_root={MINICUB}/dataset', '--seed=1']


def save(root, maps, extension=True):
    for image_id, one in maps.items():
        path = root / f'{image_id if extension else os.path.splitext(image_id)[0]}.npy'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, one)
    return root


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
        ious.append(slow_best_ious(score_map, scale_boxes(boxes[image_id], sizes[image_id], 32), taus))

    def rate(many, iou):
        return 100 * (np.array(ious)[:, many] >= iou).mean(axis=0).max()

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
        ('not an .npy', np.array([{}])),
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
            truth.checked_boxes(str(tmp_path), [image_id])
        assert image_id in str(error.value)
    (tmp_path / 'localization.txt').write_text('a.jpg,m.png,\n')
    for image_id, text in (('a.jpg', 'm.png is missing'), ('c.jpg', 'no row for c.jpg')):
        with pytest.raises(ValueError, match=text):
            truth.checked_masks(str(tmp_path), [image_id], str(tmp_path))


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


def test_a_map_has_the_images_name_with_or_without_its_ending(tmp_path):
    for name in ('a/x.jpg.npy', 'a/x.npy', 'a/y.npy'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = eval_wsol.find_score_maps(str(tmp_path), ['a/x.jpg', 'a/y.jpg'])
    assert found == {'a/x.jpg': f'{tmp_path}/a/x.jpg.npy', 'a/y.jpg': f'{tmp_path}/a/y.npy'}
    with pytest.raises(FileNotFoundError, match='neither z.jpg.npy nor z.npy is a file'):
        eval_wsol.find_score_maps(str(tmp_path), ['z.jpg'])


def test_what_an_image_adds(tmp_path):
    """A map of its file scores as the map itself; the truth is boxes in pixels of the image, or masks."""
    score_map = np.zeros((8, 8))
    score_map[2:6, 2:6] = 1
    np.save(tmp_path / 'map.npy', score_map)
    truth = ([(20, 20, 60, 60)], (80, 80))  # 2, 2, 6, 6 of 8 pixels: the box that the blob gives
    for source in (score_map, str(tmp_path / 'map.npy')):
        counts, rows = eval_wsol.count_image(eval_wsol.Job(source, truth, None, 8, 0.25, [50, 100]))
        assert rows['iou'][0].tolist() == [[[100] * 4] * 2]
        assert counts['images'] == 1 and counts['correct'].tolist() == [[[1] * 4] * 2] * 2
    cv2.imwrite(str(tmp_path / 'mask.png'), (score_map * 255).astype(np.uint8))
    job = eval_wsol.Job(score_map, (['mask.png'], ''), str(tmp_path), 8, 0.25, [50])
    counts, rows = eval_wsol.count_image(job)
    assert counts['images'] == 1 and counts['histogram'].shape == (2, 7)
    assert counts['histogram'].sum(axis=1).tolist() == [48, 16]
    assert (rows['histogram'][0] == counts['histogram']).all()
