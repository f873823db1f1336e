"""What each image gave: the arrays beside a result give its figures, whatever cut the work; their file."""

import json
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
from conftest import MINICUB
from test_evaluation import DATA, save_root, scores  # noqa: F401 (a fixture)

import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
import wsol
from data_loaders import load_split, make_loader
from engine import arrays, models
from engine.command import Stopped
from report.results import read_arrays
from report.samples import read_sample
from wsol.errors import UserError
from wsol.scoring import pixels
from wsol.scoring.erasing import ERASE_K

IDS = open(f'{MINICUB}/metadata/CUB/test/image_ids.txt').read().split()


def made(command, name, root, monkeypatch, *flags):
    """(the result of an evaluator, its arrays)."""
    result = scores(command, f'{name}.json', root, monkeypatch, f'--metadata_root={root}/metadata', *flags)
    [path] = root.glob(f'*/{name}.npz')
    return result, read_arrays(path)


@pytest.fixture
def root(save_root, tmp_path, monkeypatch):  # noqa: F811
    """An empty save root with the checkpoint; the test labels are what its network predicts, but for every fourth."""
    os.link(save_root / 'net.pth.tar', tmp_path / 'net.pth.tar')
    shutil.copytree(f'{MINICUB}/metadata', tmp_path / 'metadata')
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(torch.load(save_root / 'net.pth.tar', weights_only=True)['state_dict'])
    split = load_split('CUB', 'test', f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    with torch.no_grad():
        batches = make_loader(split, False, 24, 0, crop_size=32)
        [labels] = [model(images).probs.argmax(dim=1).tolist() for images, *_ in batches]
    (tmp_path / 'metadata/CUB/test/class_labels.txt').write_text(
        ''.join(f'{name},{(y + (n % 4 == 0)) % 200}\n' for n, (name, y) in enumerate(zip(split.image_ids, labels)))
    )
    return tmp_path


def test_remove_and_classify_is_the_sum_of_its_images(root, monkeypatch):
    flags = ['--score_map_process=jointll', '--random_repeats=3', '--batch_size=5']
    result, rows = made(eval_pixel_perturb, 'pixel_perturb_jointll', root, monkeypatch, *flags)
    assert rows['ids'].tolist() == IDS and rows['correct'].dtype == bool and rows['topk'].shape == (24, len(ERASE_K))
    assert rows['correct'].sum() == result['correct'] and rows['topk'].sum(axis=0).tolist() == result['correct_topk']
    assert result['correct'] == 18 and 0 < rows['topk'].mean() < 1
    assert (rows['random'].sum(axis=0) / 3).tolist() == result['correct_random'] and rows['random'].max() <= 3


def test_cue_localization_is_the_mean_of_its_pairs(root, monkeypatch):
    flags = ['--score_map_process=jointll']
    with pytest.raises(UserError, match='has 8 classes, the split 173: restore the file, or give the --metadata_root'):
        made(eval_cue_location, 'cue_location_jointll', root, monkeypatch, *flags)
    flags.append(f'--metadata_root={MINICUB}/metadata')  # the images' own classes
    with monkeypatch.context() as patch, pytest.raises(UserError, match='no class with a pair has test images'):
        patch.setattr(eval_cue_location.cues, 'class_rows', lambda pairs: {})
        made(eval_cue_location, 'cue_location_jointll', root, patch, *flags)
    result, rows = made(eval_cue_location, 'cue_location_jointll', root, monkeypatch, *flags)
    assert rows['ids'].tolist() == ['{} {}'.format(*pair['classes']) for pair in result['pairs']]
    assert rows['images'].tolist() == [pair['images'] for pair in result['pairs']]
    for mode in ('released', 'per_pair'):
        values = [np.nan if (value := pair['pxap'][mode]) is None else value for pair in result['pairs']]
        np.testing.assert_array_equal(rows[mode], values)
        for count in (1, 2, 3):
            chosen = rows[mode][(rows['differing_parts'] == count) & ~np.isnan(rows[mode])]
            assert result[mode][f'cue_{count}'] == (pytest.approx(chosen.mean()) if len(chosen) else None)


def test_box_scores_are_those_of_the_best_ious(root, monkeypatch):
    result, rows = made(eval_wsol, 'wsol_jointll', root, monkeypatch, '--score_map_process=jointll', '--batch_size=7')
    iou = rows['iou']
    assert rows['ids'].tolist() == IDS and iou.shape == (24, 2, 100) and iou.dtype == np.uint8
    for number, which in enumerate(('largest_contour', 'all_contours')):
        for percent, cell in result[which].items():
            accuracy = 100 * (iou[:, number] >= int(percent)).mean(axis=0)
            assert accuracy.max() == pytest.approx(cell['accuracy'], rel=1e-12)
            assert 0.01 * accuracy.argmax() == pytest.approx(cell['threshold'])


def test_pxap_is_that_of_the_summed_histograms(root, monkeypatch):
    flags = ['--dataset=OpenImages', '--score_map_process=vanilla', f'--mask_root={MINICUB}/dataset']
    with open(f'{MINICUB}/metadata/OpenImages/test/image_ids.txt') as file:
        ids = file.read().split()
    built = wsol.build_model('vgg_tiny', 'CALM-ML', 100, large_feature_map=True)
    monkeypatch.setattr(models, 'load_model', lambda *_: built)
    result, rows = made(eval_wsol, 'wsol_vanilla', root, monkeypatch, *flags)
    assert rows['ids'].tolist() == ids and rows['histogram'].shape == (len(ids), 2, 103)
    assert pixels.pixel_average_precision(rows['histogram'].astype(np.int64).sum(axis=0)) == result['PxAP']


@pytest.mark.slow
def test_attribution_scores_are_those_of_their_images(root, monkeypatch):
    """Every score that CUB's boxes allow; its figures from the rows alone."""
    flags = ['--methods=jointll,grad_cam', '--curve_steps=3', '--batch_size=5', '--random_repeats=2']
    result, rows = made(eval_attribution, 'attribution_scores', root, monkeypatch, *flags)
    assert rows['ids'].tolist() == IDS and rows['correct'].sum() == result['correct']
    assert all(len(array) == 24 for array in rows.values())
    for name, figures in result['methods'].items():
        own = {key.removeprefix(f'{name}/'): array for key, array in rows.items() if key.startswith(f'{name}/')}
        largest, any_contour = own['max_box'].mean(axis=0)  # [I, T] each; IoU 30, 50, 70
        ratios = own['correct_topk'].sum(axis=0) / (rows['correct_random'].sum(axis=0) / 2)
        expected = {
            'average_drop': 100 * own['drop'].mean(),
            'average_increase': 100 * own['increase'].mean(),
            'win': 100 * own['wins'].mean(),
            'deletion': own['deletion'].mean(),
            'insertion': own['insertion'].mean(),
            'remove_and_classify': ratios.mean(),
            'loc_iou': 100 * own['located'].mean(),
            'loc_mask_iou': 100 * own['mask_iou'].mean(axis=0).max(),
            'max_box_acc': 100 * largest[1].max(),
            'max_box_acc_v2': 100 * any_contour.max(axis=1).mean(),
            'proportion': 100 * own['proportion'].mean(),
            'pointing_game': 100 * own['pointing'].mean(),
        }
        assert expected.keys() == result['metrics'].keys() and own['constant'].sum() == figures['constant_maps']
        assert expected == pytest.approx({key: figures[key] for key in expected}, rel=1e-6)
        [folder] = {path.parent for path in root.glob('*/attribution_scores.npz')}
        shown = read_sample(str(folder), 'attribution_scores', name).scores  # each figure is that of its columns
        assert {one.name: one.value for one in shown} == {key: figures[key] for key in expected}
    assert any(figures['win'] for figures in result['methods'].values())


def test_a_file_of_arrays_is_numpys_and_its_bytes_are_those_of_the_arrays(tmp_path):
    some = {'ids': np.array(['a', 'bcd']), 'x/y': np.arange(6.0).reshape(2, 3), 'one': np.array(5)}
    arrays.write(str(tmp_path / 'a.npz'), some)
    found = read_arrays(tmp_path / 'a.npz')
    assert list(found) == list(some)
    for name, array in some.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    monkey = [info.date_time for info in zipfile.ZipFile(tmp_path / 'a.npz').infolist()]
    assert {*monkey} == {(1980, 1, 1, 0, 0, 0)}  # no time of writing
    arrays.write(str(tmp_path / 'b.npz'), {'ids': np.array(['efghij']), 'x/y': np.ones((1, 3))})
    files = [str(tmp_path / name) for name in ('a.npz', 'b.npz')]
    joined = {name: arrays.Stored(name, files) for name in ('ids', 'x/y')}
    arrays.write(str(tmp_path / 'c.npz'), joined)
    found = read_arrays(tmp_path / 'c.npz')
    assert found['ids'].tolist() == ['a', 'bcd', 'efghij']
    np.testing.assert_array_equal(found['x/y'], [[0, 1, 2], [3, 4, 5], [1, 1, 1]])
    arrays.write(str(tmp_path / 'd.npz'), found)
    assert (tmp_path / 'c.npz').read_bytes() == (tmp_path / 'd.npz').read_bytes()


def test_what_is_no_file_of_arrays(tmp_path):
    assert read_arrays(tmp_path / 'none.npz') == {}
    np.savez(tmp_path / 'objects.npz', ids=np.array([{}], dtype=object))
    (tmp_path / 'cut.npz').write_bytes(b'PK\x03\x04 and no more')
    (tmp_path / 'text.npz').write_text('words')
    for name in ('objects', 'cut', 'text'):
        with pytest.raises(UserError, match=f'{name}.npz is damaged or not a file of arrays'):
            read_arrays(tmp_path / f'{name}.npz')


def test_the_arrays_are_protected_as_the_result_is(root, monkeypatch):
    """Arrays without their result are in the way too; --override_cache replaces both, --resume leaves both."""
    flags = ['--score_map_process=jointll']
    made(eval_wsol, 'wsol_jointll', root, monkeypatch, *flags)
    [folder] = [path.parent for path in root.glob('*/wsol_jointll.npz')]
    before = (folder / 'wsol_jointll.npz').read_bytes()
    os.unlink(folder / 'wsol_jointll.json')
    with pytest.raises(FileExistsError, match='already holds wsol_jointll.npz: give another --experiment_name'):
        made(eval_wsol, 'wsol_jointll', root, monkeypatch, *flags)
    assert (folder / 'wsol_jointll.npz').read_bytes() == before
    words = [
        *DATA,
        f'--save_root={root}',
        f'--metadata_root={root}/metadata',
        f'--experiment_name={folder.name}',
        *flags,
    ]
    (folder / 'wsol_jointll.npz').write_bytes(b'of before')
    monkeypatch.setattr('sys.argv', ['eval_wsol', *words, '--override_cache=True'])
    eval_wsol.main()
    assert (folder / 'wsol_jointll.npz').read_bytes() == before
    assert json.loads((folder / 'wsol_jointll.json').read_text())['images'] == 24
    assert sorted(os.listdir(folder)) == ['log_wsol_jointll.jsonl', 'wsol_jointll.json', 'wsol_jointll.npz']


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    class Broken(arrays.Stored):
        def __init__(self):
            self.dtype, self.shape = np.dtype(float), (2,)

        def chunks(self):
            yield np.zeros(1)
            raise Stopped

    with pytest.raises(Stopped):
        arrays.write(str(tmp_path / 'x.npz'), {'x': Broken()})
    assert os.listdir(tmp_path) == []
