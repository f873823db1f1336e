# ruff: noqa: F401, F811
"""Several maps of one checkpoint: what they share is computed once, and every result is that of the map alone."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import MINICUB
from test_evaluation import DATA, save_root  # save_root is a fixture

import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
import wsol
from data_loaders import load_split, make_loader

CUE = ['--threshold_type=log', '--norm_type=clipping', '--batch_size=8']
ERASE = ['--batch_size=8', '--random_repeats=2', '--crop_size=16']


@pytest.fixture(autouse=True, scope='module')
def predicted_labels(tmp_path_factory, save_root):
    """The small set's metadata, where every test image is what the network takes it for: erasing then counts."""
    root = tmp_path_factory.mktemp('metadata')
    shutil.copytree(f'{MINICUB}/metadata/CUB', root / 'CUB')
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(torch.load(save_root / 'net.pth.tar', weights_only=True)['state_dict'])
    split = load_split('CUB', 'test', f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    with torch.no_grad():
        labels = [model(images).probs.argmax(1) for images, *_ in make_loader(split, False, 8, 0, crop_size=16)]
    rows = zip(split.image_ids, torch.cat(labels).tolist())
    (root / 'CUB' / 'test' / 'class_labels.txt').write_text(''.join(f'{name},{y}\n' for name, y in rows))
    return root


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Nothing is drawn: that is not what is tested here."""
    monkeypatch.setattr('report.figures.plot_erasing', lambda *_: None)


@pytest.fixture
def passes(monkeypatch):
    """How many images pass the backbone."""
    counted = []
    original = wsol.network.Network.forward_features

    def forward_features(self, x):
        counted.append(len(x))
        return original(self, x)

    monkeypatch.setattr(wsol.network.Network, 'forward_features', forward_features)
    return counted


def call(monkeypatch, command, root, folder, *flags):
    words = [command.__name__, *DATA, f'--save_root={root}', f'--experiment_name={folder}', *flags]
    monkeypatch.setattr(sys, 'argv', words)
    command.main()


def read(root, folder, name):
    """(the result without what changes none, the bytes of its arrays)."""
    with open(root / folder / f'{name}.json') as file:
        result = json.load(file)
    for flag in ('experiment_name', 'log_folder', 'resume', 'override_cache', 'workers'):
        del result['arguments'][flag]
    for row in result.get('methods', {}).values():
        assert row.pop('seconds') > 0
    return result, (root / folder / f'{name}.npz').read_bytes()


@pytest.mark.parametrize(
    'command, kind, flags', [(eval_cue_location, 'cue_location', CUE), (eval_pixel_perturb, 'pixel_perturb', ERASE)]
)
@pytest.mark.slow
def test_a_list_of_maps_gives_the_results_of_each_alone(
    command, kind, flags, save_root, monkeypatch, passes, predicted_labels
):
    maps = ['jointll', 'vanilla', 'input_grad']
    alone = 0
    flags = [*flags, f'--metadata_root={predicted_labels}'] if command is eval_pixel_perturb else flags
    for one in maps:
        passes.clear()
        call(monkeypatch, command, save_root, f'{kind}_{one}', *flags, f'--score_map_process={one}')
        alone += sum(passes)
    passes.clear()
    call(monkeypatch, command, save_root, f'{kind}_together', *flags, f'--score_map_process={",".join(maps)}')
    assert alone - sum(passes) == 24 * (
        1 if kind == 'cue_location' else 2 + 2 * 2 * 5
    )  # of readouts; random erasing too
    for one in maps:
        assert read(save_root, f'{kind}_{one}', f'{kind}_{one}') == read(save_root, f'{kind}_together', f'{kind}_{one}')
    left = [name for name in os.listdir(save_root / f'{kind}_together') if name.startswith('shards')]
    assert left == []


def test_blurs_of_one_command_share_the_maps(save_root, monkeypatch, passes):
    """Each blur's result is that of a command of its own; 0 is the map as it is."""
    for blur in ('0', '2', '.5'):
        call(monkeypatch, eval_cue_location, save_root, 'alone', *CUE, '--score_map_process=input_grad', '--blur', blur)
    assert sum(passes) > 3 * 24  # one for each class of a pair
    alone = sum(passes)
    passes.clear()
    blurs = ['--blur', '0', '2', '0.50', '2']
    call(monkeypatch, eval_cue_location, save_root, 'together', *CUE, '--score_map_process=input_grad', *blurs)
    assert sum(passes) == alone // 3
    names = [f'cue_location_input_grad{blur}' for blur in ('', '_blur2', '_blur0.5')]
    results = [read(save_root, 'together', name) for name in names]
    assert results == [read(save_root, 'alone', name) for name in names]
    assert [result['arguments']['blur'] for result, _ in results] == [0, 2, 0.5]
    assert len({str(result['per_pair']) for result, _ in results}) == 3


@pytest.mark.parametrize(
    'command, kind, flags, own',  # own: images that pass the network for one map alone
    [
        pytest.param(eval_cue_location, 'cue_location', CUE, 0, marks=pytest.mark.slow),
        pytest.param(eval_cue_location, 'cue_location', [*CUE, '--contrast=score'], 0, id='contrast'),
        pytest.param(eval_pixel_perturb, 'pixel_perturb', ERASE, 5 * 24, marks=pytest.mark.slow),
    ],
)
def test_maps_from_the_same_noisy_copies_share_their_passes(
    command, kind, flags, own, save_root, monkeypatch, passes, predicted_labels
):
    maps = ['smooth_grad', 'var_grad']
    flags = [*flags, '--smooth_grad_nr_iter=3', '--seed=4']
    flags = [*flags, f'--metadata_root={predicted_labels}'] if own else flags
    counts = []
    for folder, one in (('first', maps[0]), ('second', maps[1]), ('both', ','.join(maps))):
        passes.clear()
        call(monkeypatch, command, save_root, f'{kind}_{folder}', *flags, f'--score_map_process={one}')
        counts.append(sum(passes))
    assert counts[0] == counts[1] == counts[2] - own >= 3 * 24
    end = '_contrast' if '--contrast=score' in flags else ''
    for folder, one in (('first', maps[0]), ('second', maps[1])):
        name = f'{kind}_{one}{end}'
        assert read(save_root, f'{kind}_{folder}', name) == read(save_root, f'{kind}_both', name)


def test_a_list_goes_on_where_one_map_is_complete(save_root, monkeypatch, passes, capsys):
    call(monkeypatch, eval_cue_location, save_root, 'half', *CUE, '--score_map_process=vanilla')
    before = read(save_root, 'half', 'cue_location_vanilla')
    passes.clear()
    with pytest.raises(FileExistsError, match='already holds cue_location_vanilla.json'):
        call(monkeypatch, eval_cue_location, save_root, 'half', *CUE, '--score_map_process=jointll,vanilla')
    assert passes == [] and not (save_root / 'half' / 'cue_location_jointll.json').exists()
    words = [*CUE, '--score_map_process=jointll,vanilla', '--resume=True']
    call(monkeypatch, eval_cue_location, save_root, 'half', *words)
    assert 'cue_location_vanilla.json is complete: nothing to do' in capsys.readouterr().out
    assert sum(passes) > 0 and read(save_root, 'half', 'cue_location_vanilla') == before
    call(monkeypatch, eval_cue_location, save_root, 'alone', *CUE, '--score_map_process=jointll', '--resume=True')
    assert read(save_root, 'half', 'cue_location_jointll') == read(save_root, 'alone', 'cue_location_jointll')


def test_a_stopped_list_goes_on_map_by_map(save_root, monkeypatch, passes):
    """What a stop leaves behind is what each map's own command would have left."""
    words = [*CUE, '--score_map_process=jointll,vanilla']
    original = eval_cue_location.count_batch
    left = [3]  # batches, of two maps each

    def until_then(*given, **named):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return original(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(eval_cue_location, 'count_batch', until_then)
        with pytest.raises(KeyboardInterrupt):
            call(monkeypatch, eval_cue_location, save_root, 'stopped', *words)
    passes.clear()
    call(monkeypatch, eval_cue_location, save_root, 'stopped', *words[:-1], '--score_map_process=vanilla', '--resume')
    assert sum(passes) < 24  # a shard was done
    call(monkeypatch, eval_cue_location, save_root, 'stopped', *words, '--resume')
    call(monkeypatch, eval_cue_location, save_root, 'whole', *words)
    for one in ('jointll', 'vanilla'):
        assert read(save_root, 'stopped', f'cue_location_{one}') == read(save_root, 'whole', f'cue_location_{one}')


def random_passes(counted):
    """Those of random erasing among the passes of remove-and-classify by a readout."""
    return sum(counted) - 24 * (1 + 5)


@pytest.mark.slow
def test_random_erasing_is_done_once_a_checkpoint(save_root, monkeypatch, passes, tmp_path, predicted_labels):
    shutil.copy(save_root / 'net.pth.tar', tmp_path / 'net.pth.tar')
    os.utime(tmp_path / 'net.pth.tar', (1e9, 1e9))
    words = [*ERASE, f'--load_checkpoint={tmp_path}/net.pth.tar', f'--metadata_root={predicted_labels}']

    def erased(folder, process, *flags):
        passes.clear()
        call(monkeypatch, eval_pixel_perturb, save_root, folder, *words, f'--score_map_process={process}', *flags)
        return random_passes(passes)

    assert erased('once', 'jointll') == 24 * 2 * 5
    assert erased('once', 'vanilla') == 0 and erased('fresh', 'vanilla') == 24 * 2 * 5
    assert read(save_root, 'once', 'pixel_perturb_vanilla') == read(save_root, 'fresh', 'pixel_perturb_vanilla')
    again = ['--override_cache=True']
    assert erased('once', 'vanilla', *again, '--workers=1', '--norm_type=max', '--cam_curve_interval=.1') == 0
    assert erased('once', 'vanilla', *again, '--seed=4') == 24 * 2 * 5
    assert erased('once', 'vanilla', *again, '--random_repeats=1') == 24 * 5
    assert erased('once', 'vanilla', *again, '--batch_size=7') == 24 * 2 * 5
    assert erased('once', 'vanilla', *again, '--crop_size=20') == 24 * 2 * 5
    labels = tmp_path / 'metadata' / 'CUB'
    shutil.copytree(predicted_labels / 'CUB', labels)
    assert erased('once', 'vanilla', *again, f'--metadata_root={tmp_path}/metadata') == 0  # the same labels
    path = labels / 'test' / 'class_labels.txt'
    name, _, rest = path.read_text().partition(',')
    path.write_text(f'{name},199\n' + rest.partition('\n')[2])
    assert erased('once', 'vanilla', *again, f'--metadata_root={tmp_path}/metadata') == 24 * 2 * 5
    os.utime(tmp_path / 'net.pth.tar', (2e9, 2e9))
    assert erased('once', 'vanilla', *again) == 24 * 2 * 5
    for file in (save_root / 'once').glob('random_erasing_*.npz'):
        file.write_bytes(file.read_bytes()[:50])
    assert erased('once', 'vanilla', *again) == 24 * 2 * 5  # what cannot be read is made anew


@pytest.mark.slow
def test_many_scores_take_random_erasing_from_an_earlier_command(save_root, monkeypatch, passes, predicted_labels):
    erase = [*ERASE, f'--metadata_root={predicted_labels}']
    flags = [*erase, '--methods=jointll,vanilla', '--metrics=remove_and_classify']
    call(monkeypatch, eval_pixel_perturb, save_root, 'scores', *erase, '--score_map_process=jointll')
    for folder, expected in (('scores', 24 * (1 + 2 * 5)), ('scores_alone', 24 * (1 + 2 * 5 + 2 * 5))):
        passes.clear()
        call(monkeypatch, eval_attribution, save_root, folder, *flags)
        assert sum(passes) == expected
    assert read(save_root, 'scores', 'attribution_scores') == read(save_root, 'scores_alone', 'attribution_scores')
    found = read(save_root, 'scores', 'attribution_scores')[0]['methods']
    erased = read(save_root, 'scores', 'pixel_perturb_jointll')[0]
    assert found['jointll']['R_k'] == erased['ratio'] and len({*map(str, erased['ratio'])}) > 1
    passes.clear()
    call(monkeypatch, eval_attribution, save_root, 'scores', *flags, '--max_images=5', '--override_cache=True')
    assert sum(passes) == 5 * (1 + 2 * 5 + 2 * 5)  # other images


def test_a_map_that_does_not_exist_is_named(save_root, monkeypatch, capsys):
    for command, words in (
        (eval_cue_location, '--score_map_process=jointll,jointly'),
        (eval_wsol, '--score_map_process=jointll,vanilla'),
    ):
        with pytest.raises(SystemExit):
            call(monkeypatch, command, save_root, 'wrong', words)
        assert 'invalid choice' in capsys.readouterr().err


def test_the_kept_counts_are_those_of_the_result(save_root, monkeypatch, predicted_labels):
    words = [*ERASE, '--score_map_process=jointll', f'--metadata_root={predicted_labels}']
    call(monkeypatch, eval_pixel_perturb, save_root, 'kept', *words)
    [path] = (save_root / 'kept').glob('random_erasing_*.npz')
    with np.load(path) as kept, np.load(save_root / 'kept' / 'pixel_perturb_jointll.npz') as result:
        assert kept['ids'].tolist() == result['ids'].tolist() and np.array_equal(kept['random'], result['random'])
        assert kept['random'].shape == (24, 5) and {*kept['random'].flatten().tolist()} == {0, 1, 2}
