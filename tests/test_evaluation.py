"""The one way that all evaluators go: noise from (seed, image number) alone, bugs that show themselves."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import MINICUB

import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
import util
import wsol
from engine import evaluation
from wsol import attribution

DATA = [
    '--dataset=CUB',
    f'--data_root={MINICUB}/dataset',
    f'--metadata_root={MINICUB}/metadata',
    '--workers=0',
    '--seed=3',
    '--architecture=vgg_tiny',
    '--large_feature_map=True',
    '--attribution_method=CALM-ML',
    '--load_checkpoint=net.pth.tar',
    '--crop_size=32',
    '--cam_curve_interval=.01',
    '--smooth_grad_nr_iter=2',
]


@pytest.fixture(scope='module')
def save_root(tmp_path_factory):
    """A save root with the checkpoint net.pth.tar of a network that has something to say."""
    root = tmp_path_factory.mktemp('save')
    torch.manual_seed(3)
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True)
    with torch.no_grad():
        model.conv_last.weight.mul_(12)
        model.attention[0].bias.add_(1)
    torch.save({'architecture': 'vgg_tiny', 'state_dict': model.state_dict()}, root / 'net.pth.tar')
    return root


def scores(command, name, save_root, monkeypatch, *flags):
    """The result of an evaluator without what it says of its own arguments."""
    folder = name.replace('.json', '_') + '_'.join(flag.partition('=')[2] for flag in flags)
    arguments = [*DATA, f'--save_root={save_root}', f'--experiment_name={folder}', *flags]
    monkeypatch.setattr(sys, 'argv', [command.__name__, *arguments])
    command.main()
    with open(save_root / folder / name) as file:
        result = json.load(file)
    del result['arguments']
    return result


def numbers(value):
    """All numbers of nested dicts and lists, in their order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize(
    'command, name, flags',
    [
        (eval_cue_location, 'cue_location_smooth_grad.json', ['--score_map_process=smooth_grad']),
        (eval_pixel_perturb, 'pixel_perturb_var_grad.json', ['--score_map_process=var_grad']),
        (eval_wsol, 'wsol_smooth_grad_cam_pp.json', ['--score_map_process=smooth_grad_cam_pp']),
        (
            eval_attribution,
            'attribution_scores.json',
            [
                '--methods=smooth_grad,jointll',
                '--curve_steps=2',
                '--metrics=average_drop,deletion,insertion,proportion',
            ],
        ),
    ],
)
def test_scores_do_not_depend_on_the_batch_size(command, name, flags, save_root, monkeypatch):
    """Noise comes from (seed, image number) alone; what is left is the rounding of convolutions over other batches."""
    found = [scores(command, name, save_root, monkeypatch, *flags, f'--batch_size={size}') for size in (1, 3, 8)]
    first = numbers(found[0])
    assert len(first) > 5
    for other in found[1:]:
        np.testing.assert_allclose(numbers(other), first, rtol=2e-3, atol=1e-6)


def test_an_images_noise_is_that_of_its_number():
    model = wsol.build_model('vgg_tiny', 'CAM', 5, large_feature_map=True).eval()
    images = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    classes = [torch.tensor([2])] * 3
    options = attribution.Options(smooth_grad_nr_iter=2)
    maker = evaluation.MapMaker(model, 'smooth_grad', options, seed=5)
    first, same, other = maker(images, None, classes, [7, 7, 8])
    np.testing.assert_allclose(first, same, rtol=1e-4)
    assert np.abs(first - other).max() > 0.05 * np.abs(first).max()
    again = evaluation.MapMaker(model, 'smooth_grad', options, seed=6)(images, None, classes, [7, 7, 8])[0]
    assert np.abs(first - again).max() > 0.05 * np.abs(first).max()


def test_the_classes_of_an_image_share_its_noise():
    model = wsol.build_model('vgg_tiny', 'CAM', 5, large_feature_map=True).eval()
    maker = evaluation.MapMaker(model, 'smooth_grad', attribution.Options(smooth_grad_nr_iter=2), seed=5)
    images = torch.randn(1, 3, 32, 32)
    [pair] = maker(images, None, [torch.tensor([2, 4])], [7])
    [[alone]] = maker(images, None, [torch.tensor([4])], [7])
    np.testing.assert_allclose(pair[1], alone, rtol=1e-3, atol=1e-4 * alone.max())


def test_a_bug_of_ours_shows_its_traceback(capsys):
    """A ValueError that is nobody's mistake but the code's is not dressed up as the user's."""

    def broken():
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match='reshape'):
        util.command(broken)
    with pytest.raises(FileNotFoundError):
        util.command(lambda: open('/nowhere/at/all'))

    def refused():
        raise wsol.errors.UserError('--x 3 is odd: give an even number')

    with pytest.raises(SystemExit) as stop:
        util.command(refused)
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith('error: --x 3 is odd: give an even number\n')
