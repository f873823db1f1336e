"""The one way that all evaluators go: noise from (seed, image number) alone, bugs that show themselves."""

import json
import shutil
import sys

import cv2
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
from data_loaders import load_split, make_loader
from engine import evaluation
from wsol import attribution
from wsol.scoring import erasing
from wsol.scoring import maps as scoring_maps

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
    folder = name.replace('.json', '_') + '_'.join(flag.partition('=')[2].replace('/', '-') for flag in flags)
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
                '--metrics=average_drop,proportion',
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


@pytest.fixture(scope='module')
def small():
    """(CALM-EM network, images [3, 3, 32, 32], labels) of 8 x 8 locations."""
    torch.manual_seed(1)
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 5, large_feature_map=True).eval()
    torch.nn.init.constant_(model.attention[0].bias, 0.2)
    return model, torch.randn(3, 3, 32, 32), torch.tensor([4, 0, 2])


def maker_of(model, name, **how):
    return evaluation.MapMaker(model, name, attribution.Options(smooth_grad_nr_iter=2), **how)


@pytest.mark.parametrize('name', ['jointll', 'smooth_grad', 'grad_cam'])
def test_score_maps_are_of_each_images_own_class_bicubic_and_scaled(small, name):
    model, images, labels = small
    batches = [[7, 3], [5]]
    loader = [(images[:2], labels[:2], ['a', 'b']), (images[2:], labels[2:], ['c'])]
    made = list(evaluation.split_score_maps(maker_of(model, name, seed=5), loader, batches, torch.device('cpu'), 29))
    assert [image_id for image_id, _ in made] == ['a', 'b', 'c']
    for (_, one), image, y, number in zip(made, images, labels, [7, 3, 5]):
        seeds = [attribution.noise_seed(5, number)]
        native = attribution.explain(name, model, image[None], y[None], noise_seeds=seeds, smooth_grad_nr_iter=2)
        wide = cv2.resize(native[0].double().numpy(), (29, 29), interpolation=cv2.INTER_CUBIC)
        want = (wide - wide.min()) / (wide.max() - wide.min())
        np.testing.assert_allclose(one, want, atol=2e-3)
        linear = cv2.resize(native[0].double().numpy(), (29, 29))
        assert np.abs((linear - linear.min()) / (linear.max() - linear.min()) - want).max() > 0.02


@pytest.mark.parametrize('name', ['jointll', 'input_grad', 'grad_cam'])
def test_maps_of_the_labels_at_image_size(small, name):
    """Bilinear; gradient maps alone are smoothed first."""
    model, images, labels = small
    native = attribution.explain(name, model, images, labels)
    smoothed = scoring_maps.smooth(native.numpy(), 5) if name == 'input_grad' else native.numpy()
    with torch.no_grad():
        output = model(images)
    for size in (32, 48):
        for ksize, raw in ((1, native.numpy()), (5, smoothed)):
            found = evaluation.target_maps(maker_of(model, name, ksize=ksize), images, output, labels, size, [0, 1, 2])
            want = np.stack([cv2.resize(one, (size, size)) for one in raw])
            np.testing.assert_allclose(found.numpy(), want, rtol=1e-3, atol=1e-4 * np.abs(want).max())
    assert np.abs(smoothed - native.numpy()).max() > 0.01 * native.max() or name != 'input_grad'


def test_several_classes_an_image_come_in_their_order(small):
    model, images, _ = small
    classes = [torch.tensor([1, 3]), torch.tensor([2, 0, 4]), torch.tensor([4])]
    for name in ('jointll', 'saliency', 'grad_cam'):
        found = maker_of(model, name)(images, None, classes, [0, 1, 2])
        assert [len(maps) for maps in found] == [2, 3, 1]
        for maps, image, rows in zip(found, images, classes):
            for one, y in zip(maps, rows.tolist()):
                want = attribution.explain(name, model, image[None], y)[0].detach().numpy()
                np.testing.assert_allclose(one, want, rtol=1e-3, atol=1e-5 * np.abs(want).max())


def test_sums_over_sets_of_classes_need_the_sets(small):
    model, images, labels = small
    with pytest.raises(ValueError, match='--superclass=FILE.json'):
        evaluation.MapMaker(model, 'jointll-superclass')
    sets = {y: [y, (y + 1) % 5] for y in range(5)}
    maker = evaluation.MapMaker(model, 'jointll-superclass', attribution.Options(superclass=sets))
    [found] = maker(images[:1], None, [labels[:1]], [0])
    joint = maker_of(model, 'jointll')(images[:1], None, [torch.tensor([4, 0])], [0])[0]
    np.testing.assert_allclose(found[0], joint.sum(axis=0), rtol=1e-5)


def test_remove_and_classify_counts_what_a_loop_counts(save_root, monkeypatch, tmp_path):
    """Labels are the network's own predictions, so that erasing changes something; every image by itself."""
    metadata = tmp_path / 'metadata' / 'CUB'
    shutil.copytree(f'{MINICUB}/metadata/CUB', metadata)
    record = torch.load(save_root / 'net.pth.tar', weights_only=True)
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(record['state_dict'])
    split = load_split('CUB', 'test', f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    images = [image for batch, _, _ in make_loader(split, False, 8, 0, crop_size=32) for image in batch]

    def predicted(image):
        with torch.no_grad():
            return model(image[None]).probs.argmax().item()

    labels = [predicted(image) for image in images]
    labels[3] = (labels[3] + 1) % 200  # one is wrong
    (metadata / 'test' / 'class_labels.txt').write_text(
        ''.join(f'{image_id},{y}\n' for image_id, y in zip(split.image_ids, labels))
    )
    found = scores(
        eval_pixel_perturb,
        'pixel_perturb_jointll.json',
        save_root,
        monkeypatch,
        '--score_map_process=jointll',
        f'--metadata_root={tmp_path}/metadata',
        '--random_repeats=2',
    )
    topk = np.zeros(5)
    random = np.zeros(5)
    for number, (image, y) in enumerate(zip(images, labels)):
        native = attribution.explain('jointll', model, image[None], y)[0].numpy()
        order = np.argsort(-cv2.resize(native, (32, 32)).ravel(), kind='stable')
        draws = erasing.random_ranks(3, number, 10, 1024, 'cpu').argsort(dim=1).numpy()
        for i, k in enumerate([0.1, 0.3, 0.5, 0.7, 0.9]):
            for counts, orders in ((topk, [order]), (random, draws[2 * i : 2 * i + 2])):
                for pixels in orders:
                    erased = image.flatten(1).clone()
                    erased[:, pixels[: int(k * 1024)]] = 0
                    counts[i] += predicted(erased.view_as(image)) == y
    assert (found['correct'], found['images'], found['k']) == (23, 24, [0.1, 0.3, 0.5, 0.7, 0.9])
    assert np.abs(found['correct_topk'] - topk).sum() <= 1  # a tie may fall either way
    assert np.abs(np.array(found['correct_random']) - random / 2).sum() <= 1
    assert len({*found['correct_topk'], *found['correct_random']}) > 3
    assert found['ratio'] == [a / b if b else None for a, b in zip(found['correct_topk'], found['correct_random'])]
