"""The one way that all evaluators go: noise from (seed, image number) alone, bugs that show themselves."""

import functools
import inspect
import json
import os
import shutil
import sys
from collections import OrderedDict

import cv2
import numpy as np
import pytest
import torch
from conftest import MINICUB
from test_commands import load_test_images, pair_by_pair
from torch.utils.data import DataLoader

import config
import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
import util
import wsol
from config import get_configs
from data_loaders import load_split, make_loader
from engine import evaluation, map_maker, models, processes
from engine.command import command
from wsol import attribution
from wsol.cub_parts import Pair
from wsol.scoring import Tally, erasing, pixels
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
SLOW = pytest.mark.slow


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


def scores(command, name, save_root, monkeypatch, *flags, to=None):
    """The result of an evaluator without what it says of its own arguments; to: its folder in save_root."""
    folder = to or name.replace('.json', '_') + '_'.join(flag.partition('=')[2].replace('/', '-') for flag in flags)
    arguments = [*DATA, f'--save_root={save_root}', f'--experiment_name={folder}', *flags]
    monkeypatch.setattr(sys, 'argv', [command.__name__, *arguments])
    command.main()
    with open(save_root / folder / name) as file:
        result = json.load(file)
    del result['arguments']
    return result


def predicted_metadata(save_root, folder):
    """CUB's metadata below `folder`, the test images' labels those that the network of `save_root` predicts."""
    shutil.copytree(f'{MINICUB}/metadata/CUB', folder / 'CUB')
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(torch.load(save_root / 'net.pth.tar', weights_only=True)['state_dict'])
    split = load_split('CUB', 'test', f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    with torch.no_grad():
        [labels] = [
            model(batch).probs.argmax(dim=1).tolist() for batch, *_ in make_loader(split, False, 24, 0, crop_size=32)
        ]
    rows = ''.join(f'{image_id},{y}\n' for image_id, y in zip(split.image_ids, labels))
    (folder / 'CUB' / 'test' / 'class_labels.txt').write_text(rows)


def numbers(value):
    """All numbers of nested dicts and lists, in their order, but for what the clock says."""
    if isinstance(value, dict):
        value = [one for name, one in value.items() if name != 'seconds']
    if isinstance(value, list):
        return [number for one in value for number in numbers(one)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.parametrize('command, name, flags', [
    pytest.param(eval_cue_location, 'cue_location_smooth_grad', ['--score_map_process=smooth_grad'], marks=SLOW),
    pytest.param(eval_pixel_perturb, 'pixel_perturb_var_grad', ['--score_map_process=var_grad'], marks=SLOW),
    pytest.param(eval_wsol, 'wsol_smooth_grad_cam_pp', ['--score_map_process=smooth_grad_cam_pp'], marks=SLOW),
    pytest.param(eval_attribution, 'attribution_scores',
     ['--methods=smooth_grad,jointll', '--curve_steps=2', '--metrics=average_drop,proportion'], marks=SLOW),
])  # fmt: skip
def test_scores_do_not_depend_on_the_batch_size(command, name, flags, save_root, monkeypatch, tmp_path):
    """Noise comes from (seed, image number) alone. Convolutions over other batches round otherwise, which may turn a
    unit's ReLU and with it one image's map, at most its verdict: a small share of what another seed changes."""
    predicted_metadata(save_root, tmp_path)
    labels = f'{MINICUB}/metadata' if command is eval_cue_location else tmp_path  # pairs need the images' own

    def rows(*more):
        folder = save_root / f'{name}{"_".join(more)}'
        scores(command, f'{name}.json', save_root, monkeypatch, *flags, f'--metadata_root={labels}', *more, to=folder)
        arrays = [array for array in np.load(folder / f'{name}.npz').values() if array.dtype.kind != 'U']
        return np.concatenate([array.ravel().astype(float) for array in arrays])

    one, five, other = rows('--batch_size=1'), rows('--batch_size=5'), rows('--batch_size=5', '--seed=4')
    share = 0.1 if command is eval_pixel_perturb else 0.02  # its rows are verdicts, of which the seed changes 23
    assert np.abs(five - one).sum() <= share * np.abs(other - one).sum() > 0


def test_an_images_noise_is_that_of_its_number():
    model = wsol.build_model('vgg_tiny', 'CAM', 5, large_feature_map=True).eval()
    images = torch.randn(1, 3, 32, 32).expand(3, -1, -1, -1)
    classes = [torch.tensor([2])] * 3
    options = attribution.Options(smooth_grad_nr_iter=2)
    maker = map_maker.MapMaker(model, 'smooth_grad', options, seed=5)
    first, same, other = maker(images, None, classes, [7, 7, 8])
    np.testing.assert_allclose(first, same, rtol=1e-4)
    assert np.abs(first - other).max() > 0.05 * np.abs(first).max()
    again = map_maker.MapMaker(model, 'smooth_grad', options, seed=6)(images, None, classes, [7, 7, 8])[0]
    assert np.abs(first - again).max() > 0.05 * np.abs(first).max()


def test_the_classes_of_an_image_share_its_noise():
    model = wsol.build_model('vgg_tiny', 'CAM', 5, large_feature_map=True).eval()
    maker = map_maker.MapMaker(model, 'smooth_grad', attribution.Options(smooth_grad_nr_iter=2), seed=5)
    images = torch.randn(1, 3, 32, 32)
    [pair] = maker(images, None, [torch.tensor([2, 4])], [7])
    [[alone]] = maker(images, None, [torch.tensor([4])], [7])
    np.testing.assert_allclose(pair[1], alone, rtol=1e-3, atol=1e-4 * alone.max())


def test_a_bug_of_ours_shows_its_traceback(capsys):
    """A ValueError that is nobody's mistake but the code's is not dressed up as the user's."""

    def broken():
        np.zeros(3).reshape(2, 2)

    with pytest.raises(ValueError, match='reshape'):
        command(broken)
    with pytest.raises(FileNotFoundError):
        command(lambda: open('/nowhere/at/all'))

    def refused():
        raise wsol.errors.UserError('--x 3 is odd: give an even number')

    with pytest.raises(SystemExit) as stop:
        command(refused)
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
    return map_maker.MapMaker(model, name, attribution.Options(smooth_grad_nr_iter=2), **how)


@pytest.mark.parametrize('name', ['jointll', 'smooth_grad', 'grad_cam'])
def test_score_maps_are_of_each_images_own_class_bicubic_and_scaled(small, name):
    model, images, labels = small
    numbered = dict(zip([7, 3, 5], zip(images, labels, 'abc')))
    loader = DataLoader(numbered, batch_sampler=[[7, 3], [5]])
    made = list(map_maker.split_score_maps(maker_of(model, name, seed=5), loader, 29))
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
            made = map_maker.target_maps(maker_of(model, name, ksize=ksize), images, output, labels, [0, 1, 2])
            found = map_maker.at_image_size(made, size)
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
        map_maker.MapMaker(model, 'jointll-superclass')
    sets = {y: [y, (y + 1) % 5] for y in range(5)}
    maker = map_maker.MapMaker(model, 'jointll-superclass', attribution.Options(superclass=sets))
    [found] = maker(images[:1], None, [labels[:1]], [0])
    joint = maker_of(model, 'jointll')(images[:1], None, [torch.tensor([4, 0])], [0])[0]
    np.testing.assert_allclose(found[0], joint.sum(axis=0), rtol=1e-5)
    [several] = maker(images[:1], None, [torch.tensor([0, 4])], [0])
    np.testing.assert_allclose(several[1], found[0], rtol=1e-5)
    assert np.abs(several[0] - several[1]).max() > 1e-3 * several.max()


def test_a_readout_takes_the_output_that_is_there(small):
    model, images, labels = small
    with torch.no_grad():
        output = model(images)
    maker = maker_of(lambda images: 1 / 0, 'jointll')
    found = np.concatenate(maker(images, output, list(labels.view(-1, 1)), [0, 1, 2]))
    np.testing.assert_allclose(found, attribution.explain('jointll', model, images, labels), rtol=1e-5)


def test_remove_and_classify_counts_what_a_loop_counts(save_root, monkeypatch, tmp_path):
    """Labels are the network's own predictions, so that erasing changes something. Every image is erased by itself and
    classified in the evaluator's batches, whose rounding may decide on an image or the order of two pixels."""
    metadata = tmp_path / 'metadata' / 'CUB'
    shutil.copytree(f'{MINICUB}/metadata/CUB', metadata)
    record = torch.load(save_root / 'net.pth.tar', weights_only=True)
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(record['state_dict'])
    split = load_split('CUB', 'test', f'{MINICUB}/dataset', f'{MINICUB}/metadata')
    batches = [batch for batch, _, _ in make_loader(split, False, 5, 0, crop_size=32)]
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 4]

    def predicted(images):
        with torch.no_grad():
            return model(images).probs.argmax(dim=1)

    labels = torch.cat([predicted(batch) for batch in batches])
    labels[3] = (labels[3] + 1) % 200  # one is wrong
    (metadata / 'test' / 'class_labels.txt').write_text(
        ''.join(f'{image_id},{y}\n' for image_id, y in zip(split.image_ids, labels.tolist()))
    )
    found = scores(
        eval_pixel_perturb,
        'pixel_perturb_jointll.json',
        save_root,
        monkeypatch,
        '--score_map_process=jointll',
        f'--metadata_root={tmp_path}/metadata',
        '--random_repeats=2',
        '--batch_size=5',
    )
    topk = np.zeros(5)
    random = np.zeros(5)
    for start, batch in zip(range(0, 24, 5), batches):
        y = labels[start : start + len(batch)]
        orders = []  # of each image: of the map, then two of each k
        for number, native in enumerate(attribution.explain('jointll', model, batch, y).numpy(), start):
            order = np.argsort(-cv2.resize(native, (32, 32)).ravel(), kind='stable')
            draws = erasing.descending_rank(erasing.random_scores(3, number, 10, 1024)).argsort(dim=1).numpy()
            orders.append([order, *draws])
        for i, k in enumerate([0.1, 0.3, 0.5, 0.7, 0.9]):
            for counts, column in ((topk, 0), (random, 2 * i + 1), (random, 2 * i + 2)):
                erased = batch.flatten(2).clone()
                for image, own in zip(erased, orders):
                    image[:, own[column][: int(k * 1024)]] = 0
                counts[i] += (predicted(erased.view_as(batch)) == y).sum().item()
    assert (found['correct'], found['images'], found['k']) == (23, 24, [0.1, 0.3, 0.5, 0.7, 0.9])
    assert found['correct_topk'] == topk.tolist() and found['correct_random'] == (random / 2).tolist()
    assert len({*found['correct_topk'], *found['correct_random']}) > 3
    assert found['ratio'] == [a / b if b else None for a, b in zip(found['correct_topk'], found['correct_random'])]


def test_remove_and_classify_erases_what_speaks_for_the_label_and_not_for_the_prediction():
    """The map of a class is a colour of the image, and its score that colour's mean: an image of another class stays
    wrong without the pixels of its label, but would be right without those of the prediction."""
    model = wsol.network.Network(torch.nn.Sequential(OrderedDict(same=torch.nn.Identity())), 3, 3, 'CAM').eval()
    with torch.no_grad():
        model.conv_last.weight.copy_(torch.eye(3)[:, :, None, None])
        model.conv_last.bias.zero_()
    image = torch.zeros(3, 10, 10)
    for colour, (row, value) in enumerate([(9, 2.0), (4, 1.5), (2, 1.0)]):
        image[colour, row] = value
    images = image.expand(2, -1, -1, -1)
    batch = eval_pixel_perturb.read_batch(model, images, torch.tensor([1, 2]), ['a', 'b'], [0, 1], seed=0, repeats=1)
    tally = eval_pixel_perturb.count_batch(model, maker_of(model, 'vanilla'), batch)
    assert tally.totals['correct'] == 0 and tally.totals['topk'].tolist() == [0] * 5
    without_the_prediction = erasing.without(images[:1], image[0].flatten()[None] > 0)
    assert model(without_the_prediction).probs.argmax().item() == 1


class Squares(evaluation.Evaluator):
    """An evaluation of five numbers that need no image."""

    title = 'squares'
    files = ('txt',)

    def name_of(self, task):
        return 'five'

    def prepare(self):
        self.count = 5

    def batches(self, numbers):
        for some in numbers:
            yield some, [number**2 for number in some]

    def score(self, task, batch):
        numbers, squares = batch
        return Tally({'sum': sum(squares), 'images': len(squares)}, {'ids': [np.array(numbers).astype(str)]})

    def report(self, name, totals, rows, log):
        assert rows['ids'].whole().tolist() == list('01234')
        self.reported = {name: int(value) for name, value in totals.items()}
        log.report('reported')
        self.write(name, {})


class Files:
    """Evaluations of `Squares` in one experiment folder."""

    def __init__(self, save_root, folder):
        self.words = [*DATA, f'--save_root={save_root}', f'--experiment_name={folder}', '--batch_size=2']
        self.folder = save_root / folder
        self.evaluators = []  # those that went through the images
        self.reports = []

    def run(self, *more):
        evaluator = Squares(get_configs('', [*self.words, *more]))
        try:
            evaluation.evaluate(evaluator)
        finally:
            if hasattr(evaluator, 'count'):
                self.evaluators.append(evaluator)
            if hasattr(evaluator, 'reported'):
                self.reports.append(evaluator.reported)


def test_an_evaluation_goes_from_claim_to_report(save_root, capsys):
    five = Files(save_root, 'five')
    five.run('--score_map_process=smooth_grad', '--smoothing_ksize=3')
    [evaluator] = five.evaluators
    assert not evaluator.model.training and evaluator.seed == 3 and evaluator.split.name == 'test'
    [(name, maker)] = evaluator.makers.items()
    assert (name, maker.name, maker.seed, maker.ksize) == ('smooth_grad', 'smooth_grad', 3, 3)
    assert maker.options.smooth_grad_nr_iter == 2 and maker.options.batch_size == 2
    assert five.reports == [{'sum': 30, 'images': 5}]
    assert {path.name for path in five.folder.iterdir()} == {'five.json', 'five.npz', 'log_five.jsonl'}
    capsys.readouterr()
    five.run('--score_map_process=smooth_grad', '--smoothing_ksize=3', '--resume')
    assert 'five.json is complete: nothing to do' in capsys.readouterr().out and len(five.reports) == 1
    with pytest.raises(FileExistsError, match='already holds five.json'):
        five.run('--score_map_process=smooth_grad', '--smoothing_ksize=3')


def test_a_result_belongs_to_its_checkpoint(save_root, tmp_path):
    """It is named by size and time, whatever path leads there; a finished result outlives it."""
    checkpoint = tmp_path / 'one.pth.tar'
    shutil.copy(save_root / 'net.pth.tar', checkpoint)
    os.utime(checkpoint, (1e9, 1e9))
    five = Files(save_root, 'belongs')
    five.run(f'--load_checkpoint={checkpoint}')
    checkpoint.rename(tmp_path / 'two.pth.tar')
    five.run(f'--load_checkpoint={tmp_path}/two.pth.tar', '--resume')
    five.run(f'--load_checkpoint={checkpoint}', '--resume')  # which is gone
    os.utime(tmp_path / 'two.pth.tar', (2e9, 2e9))
    with pytest.raises(ValueError, match='another command, with --checkpoint_time=1000000000'):
        five.run(f'--load_checkpoint={tmp_path}/two.pth.tar', '--resume')
    checkpoint.write_bytes(b'of another size')
    os.utime(checkpoint, (1e9, 1e9))
    with pytest.raises(ValueError, match='another command, with --checkpoint_bytes='):
        five.run(f'--load_checkpoint={checkpoint}', '--resume')
    assert len(five.reports) == 1
    with pytest.raises(FileNotFoundError, match='no checkpoint'):
        Files(save_root, 'other').run('--load_checkpoint=gone', '--resume')
    with pytest.raises(ValueError, match='nothing to evaluate: give --load_checkpoint'):
        Files(save_root, 'other').run('--use_load_checkpoint=False')


def test_a_drawn_seed_is_written_down_and_taken_over(save_root, monkeypatch):
    five = Files(save_root, 'drawn')
    five.words.remove('--seed=3')

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Squares, 'score', stopped)
        with pytest.raises(KeyboardInterrupt):
            five.run()
    five.run('--resume')
    first, second = five.evaluators
    assert first.seed == second.seed is not None
    with open(five.folder / 'five.json') as file:
        assert json.load(file)['arguments']['seed'] == first.seed


def test_a_network_is_built_as_it_is_described(monkeypatch):
    """No bar is drawn where nobody looks."""
    signature = inspect.signature(wsol.build_model)
    seen = []

    def build_model(*words, **named):
        bound = signature.bind(*words, **named)
        bound.apply_defaults()
        seen.append(bound.arguments)
        return torch.nn.Conv2d(1, 1, 1)

    monkeypatch.setattr(wsol, 'build_model', build_model)
    flags = ['--architecture=vgg16', '--attribution_method=CALM-ML', '--use_bn=True', '--channels_last=True']
    for large, pretrained in ((True, False), (False, True)):
        args = get_configs('', [*flags, f'--large_feature_map={large}', f'--pretrained={pretrained}'])
        assert not config.map_options(args).progress
        models.load_model(config.pick(models.Spec, args), 7, torch.device('cpu'))
        assert seen.pop() == {
            'architecture': 'vgg16',
            'attribution_method': 'CALM-ML',
            'num_classes': 7,
            'large_feature_map': large,
            'use_bn': True,
            'pretrained': pretrained,
        }


def test_the_bar_counts_the_images_of_all_processes(save_root, monkeypatch):
    shown = []
    monkeypatch.setattr(processes, 'world', lambda: 2)
    monkeypatch.setattr(processes, 'agreed', lambda value: value)
    monkeypatch.setattr(processes, 'wait', lambda: None)
    monkeypatch.setattr(processes, 'largest', lambda value: value)
    monkeypatch.setattr(util, 'progress', lambda items, *words: shown.append(words) or items)
    Files(save_root, 'bar').run()
    assert shown == [(3, 'squares', 4, True)]


def test_a_checkpoint_needs_no_pretrained_weights(save_root, monkeypatch):
    def asked(*_):
        raise AssertionError('pretrained weights are asked for')

    monkeypatch.setattr(wsol, 'pretrained_weights', asked)
    Files(save_root, 'none').run('--pretrained=True')


@pytest.mark.parametrize('name', ['jointll', pytest.param('smooth_grad', marks=SLOW)])
def test_cue_localization_counts_what_a_loop_counts(name, save_root, monkeypatch):
    """Each map by attribution.explain, each pair and pixel by itself."""
    log = name == 'jointll'
    scale = ['--norm_type=clipping', '--threshold_type=log'] if log else ['--norm_type=max']
    flags = [f'--score_map_process={name}', *scale]
    found = scores(eval_cue_location, f'cue_location_{name}.json', save_root, monkeypatch, *flags, '--batch_size=5')
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 200, large_feature_map=True).eval()
    model.load_state_dict(torch.load(save_root / 'net.pth.tar', weights_only=True)['state_dict'])
    images, labels = load_test_images(32)

    @functools.cache
    def map_of(number, y):
        noise = {'noise_seeds': [attribution.noise_seed(3, number)], 'smooth_grad_nr_iter': 2}
        return attribution.explain(name, model, images[number][1][None], y, **noise)[0].numpy()

    taus = [10**-t for t in np.arange(0, 7, 0.07)[::-1]] if log else np.arange(0, 1, 0.01)
    rows = pair_by_pair(map_of, lambda one: np.clip(one, 0, 1) if log else one / one.max(), taus, images, labels)
    counts = np.array([counts for _, counts, _ in rows])
    alone = [pixels.pixel_average_precision(one) for one in counts]
    running = [pixels.pixel_average_precision(one) for one in counts[:, :, 1:].cumsum(axis=0)]
    near = {'rel': 2e-3, 'abs': 0.02}
    for mode, values in (('per_pair', alone), ('released', running)):
        assert [row['pxap'][mode] for row in found['pairs']] == pytest.approx(values, **near)
        means = [np.mean(values[:6]), np.mean(values[6:14]), np.mean(values[14:]), np.mean(values)]
        assert [found[mode][key] for key in ('cue_1', 'cue_2', 'cue_3', 'mean')] == pytest.approx(means, **near)
    assert [row['classes'] for row in found['pairs']] == [[pair.a, pair.b] for pair, *_ in rows]
    assert [row['images'] for row in found['pairs']] == [count for *_, count in rows]
    assert [row['differing_parts'] for row in found['pairs']] == [1] * 6 + [2] * 8 + [3] * 5
    assert found['evaluations'] == sum(count for *_, count in rows) and 'exact' not in found
    assert found['dropped_pixels'] == pytest.approx(counts[:, :, 0].sum() / counts.sum(), rel=1e-2)
    assert (found['dropped_pixels'] > 0) == log


def test_a_cue_that_is_never_seen_has_no_score():
    found = [Pair(0, 1, {2}, ['has_back_color::red']), Pair(0, 2, {1, 2}, ['has_bill_shape::cone'])]
    totals = {'histogram': np.zeros((2, 2, 5), int), 'images': np.array([0, 0]), 'area': np.array([0, 0])}
    result = eval_cue_location.result_of(found, totals)
    nothing = {'cue_1': None, 'cue_2': None, 'cue_3': None, 'mean': None}
    assert (result['released'], result['per_pair']) == (nothing, nothing)
    assert (result['dropped_pixels'], result['evaluations'], result['area']) == (None, 0, None)
    totals['histogram'][0] = [[1, 2, 0, 0, 0], [3, 0, 2, 0, 0]]
    totals['images'][0], totals['area'][0] = 2, 500_000
    result = eval_cue_location.result_of(found, totals)
    assert result['area'] == 0.25
    assert result['dropped_pixels'] == 0.5 and result['per_pair']['cue_2'] is None
    assert result['released']['cue_2'] == result['released']['cue_1'] == 100  # what ran before, its first bin left out
    assert [row['pxap'] for row in result['pairs']] == [
        {'released': 100, 'per_pair': pytest.approx(100 * (0.4 + 0.6 * 5 / 8))},
        {'released': 100, 'per_pair': None},
    ]
