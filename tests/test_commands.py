"""The commands as a user runs them: training, both evaluators, golden figures, refusals."""

import functools
import json
import os
import shutil
import sys

import cv2
import numpy as np
import pytest
import torch
from commands import run
from conftest import GOLDEN, MINICUB
from weights import fill

import wsol
from wsol import attribution, cub_parts
from wsol.scoring import erasing, pixels
from wsol.scoring import maps as maps_of

DATA = [
    '--dataset=CUB',
    f'--data_root={MINICUB}/dataset',
    f'--metadata_root={MINICUB}/metadata',
    '--workers=0',
    '--seed=1',
]
SMALL = [
    *DATA,
    '--architecture=vgg_tiny',
    '--large_feature_map=True',
    '--pretrained=False',
    '--resize_size=40',
    '--crop_size=32',
    '--batch_size=8',
    '--lr=.001',
]


def refuse(command, *arguments, **options):
    """The one line that a refused command says; exit code 2 and nothing on standard output."""
    code, out, err = run(command, *arguments, **options)
    assert code == 2 and out == '', (code, out, err)
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    return lines[0]


def read(*path):
    with open(os.path.join(*map(str, path))) as file:
        return json.load(file)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with a CAM run, and a CALM-EM run that started from it."""
    root = tmp_path_factory.mktemp('save')
    for name, more in (
        ('cam', ['--attribution_method=CAM']),
        ('calm', ['--attribution_method=CALM-EM', '--load_checkpoint=cam', '--is_different_checkpoint=True']),
    ):
        code, out, err = run(
            'main.py',
            *SMALL,
            f'--save_root={root}',
            f'--experiment_name={name}',
            '--epochs=2',
            '--lr_decay_frequency=2',
            *more,
        )
        assert code == 0, err
    return root


def test_training_writes_log_result_and_checkpoints(trained):
    with open(trained / 'cam' / 'log.jsonl') as file:
        head, *epochs, test = [json.loads(line) for line in file]
    assert head['arguments']['attribution_method'] == 'CAM' and head['versions']['torch'] == torch.__version__
    assert head['versions']['opencv'] == cv2.__version__ and 'thread' in head['device']
    assert [record['epoch'] for record in epochs] == [1, 2]
    assert epochs[0]['lr'] == pytest.approx([0.001, 0.01]) and epochs[1]['lr'] == pytest.approx([0.0001, 0.001])
    result = read(trained, 'cam', 'accuracy.json')
    assert all(result[key] == head[key] for key in ('arguments', 'commit', 'versions', 'device'))
    assert result['images'] == 24 and result['test_accuracy'] == test['test_accuracy']
    record = torch.load(trained / 'cam' / 'last_checkpoint.pth.tar', weights_only=True)
    assert set(record) == {'architecture', 'epoch', 'state_dict', 'optimizer', 'args'} and record['epoch'] == 2
    assert sorted(os.listdir(trained / 'cam')) == [
        'accuracy.json',
        'accuracy.npz',
        'best_checkpoint.pth.tar',
        'last_checkpoint.pth.tar',
        'log.jsonl',
    ]
    model = wsol.build_model('vgg_tiny', 'CAM', 200, large_feature_map=True).eval()
    wsol.load_weights(model, record['state_dict'])
    images, labels = load_test_images(32)
    predicted = [y for output in in_batches(model, images) for y in output.f.mean(dim=(2, 3)).argmax(dim=1).tolist()]
    assert result['test_accuracy'] == pytest.approx(100 * np.mean([a == b for a, b in zip(predicted, labels)]))


def test_the_two_step_option_takes_all_but_the_class_scores(trained):
    log = open(trained / 'calm' / 'log.jsonl').readlines()
    assert json.loads(log[0])['arguments']['is_different_checkpoint'] is True
    groups = torch.load(trained / 'calm' / 'last_checkpoint.pth.tar', weights_only=True)['optimizer']['param_groups']
    assert len(groups[1]['params']) == 4  # conv_last and attention alone learn at the large rate


def test_same_seed_same_weights(trained, tmp_path):
    code, _, err = run(
        'main.py',
        *SMALL,
        f'--save_root={tmp_path}',
        '--experiment_name=cam',
        '--epochs=2',
        '--lr_decay_frequency=2',
        '--attribution_method=CAM',
    )
    assert code == 0, err
    one, two = (
        torch.load(root / 'cam' / 'last_checkpoint.pth.tar', weights_only=True)['state_dict']
        for root in (trained, tmp_path)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


def evaluate(trained, command, *more):
    code, out, err = run(
        command,
        *SMALL,
        f'--save_root={trained}',
        '--experiment_name=calm',
        '--attribution_method=CALM-EM',
        '--load_checkpoint=calm',
        '--score_map_process=jointll',
        '--norm_type=clipping',
        *more,
    )
    assert code == 0, err
    return out


def test_cue_localization_equals_a_pair_by_pair_version(trained):
    """Every image's maps from the equation and scored with NumPy's histogram, pair by pair, as the released loop does.

    A map of another batch, or of an equation in another order, may differ in its last digit and a pixel fall into the
    next bin: the batches are the command's.
    """
    evaluate(trained, 'eval_cue_location.py', '--threshold_type=log', '--cam_curve_interval=.01')
    result = read(trained, 'calm', 'cue_location_jointll.json')
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True)
    wsol.load_weights(model, torch.load(trained / 'calm' / 'last_checkpoint.pth.tar', weights_only=True)['state_dict'])
    images, labels = load_test_images(32)
    outputs = [output.image(b) for output in in_batches(model.eval(), images) for b in range(len(output.f))]
    maps = np.concatenate([one.f.softmax(1) * (one.h / one.h.sum(dim=(2, 3), keepdim=True)) for one in outputs])
    edges = [10**-t for t in np.arange(0, 7, 0.07)[::-1]]
    pairs = pair_by_pair(lambda number, y: maps[number, y], lambda one: np.clip(one, 0, 1), edges, images, labels)
    running = 0
    alone = []
    for (pair, counts, count), row in zip(pairs, result['pairs'], strict=True):
        running = running + counts
        alone.append(pixels.pixel_average_precision(counts))
        assert row['classes'] == [pair.a, pair.b] and row['images'] == count
        assert row['pxap']['per_pair'] == pytest.approx(alone[-1], abs=1e-6)
        assert row['pxap']['released'] == pytest.approx(pixels.pixel_average_precision(running[:, 1:]), abs=1e-6)
    assert [len(pair.parts) for pair, *_ in pairs] == [1] * 6 + [2] * 8 + [3] * 5
    released = [row['pxap']['released'] for row in result['pairs']]
    for mode, values in (('released', released), ('per_pair', alone)):
        means = [np.mean(values[:6]), np.mean(values[6:14]), np.mean(values[14:]), np.mean(values)]
        assert [*result[mode].values()] == pytest.approx(means) and len({*means}) == 4
    assert sum(counts[:, 0].sum() for _, counts, _ in pairs) > 0  # `per_pair` counts what the first threshold drops


def pair_by_pair(map_of, scale, taus, images, labels):
    """[(pair, counts [2, bins] with the bin below the first threshold, images)] of the small set, a pixel at a time.

    map_of: (image number, class) -> its map; scale: a map of differences at image size to [0, 1]; images, labels: of
    `load_test_images(32)`.
    """
    folder = os.path.join(MINICUB, 'dataset', 'CUB')
    edges = np.concatenate([[-np.inf], taus, [1, 2, 3]])
    locations = cub_parts.read_part_locations(folder)
    rows = []
    for pair in cub_parts.pairs_by_count(cub_parts.class_pairs(folder)):
        counts = np.zeros((2, len(edges) - 1))
        count = 0
        for number, (image_id, _, size) in enumerate(images):
            points, ids = cub_parts.part_points(locations[image_id], size, 32)
            if labels[number] not in (pair.a, pair.b) or not pair.parts & set(ids):
                continue
            nearest = cub_parts.nearest_part(points, ids, 32)
            mask = np.isin(nearest, list(pair.parts)) & cub_parts.segmentation(folder, image_id, 32)
            difference = cv2.resize(map_of(number, pair.a) - map_of(number, pair.b), (32, 32))
            values = scale(np.abs(difference)).astype(np.float64)
            counts += [np.histogram(values[~mask], edges)[0], np.histogram(values[mask], edges)[0]]
            count += 1
        rows.append((pair, counts, count))
    return rows


def load_test_images(size):
    """([(image id, tensor, (width, height))], labels) of the small set's test split."""
    from PIL import Image

    from wsol.preprocessing import make_transform

    labels = dict(
        line.split(',') for line in open(os.path.join(MINICUB, 'metadata/CUB/test/class_labels.txt')).read().split()
    )
    rows = []
    for image_id in labels:
        picture = Image.open(os.path.join(MINICUB, 'dataset/CUB/images', image_id)).convert('RGB')
        rows.append((image_id, make_transform(False, crop_size=size)(picture), picture.size))
    return rows, [int(label) for label in labels.values()]


def in_batches(model, images):
    """The outputs of the images of `load_test_images` in the batches of SMALL: the commands' own, to the last digit."""
    with torch.no_grad():
        return [model(batch) for batch in torch.stack([tensor for _, tensor, _ in images]).split(8)]


@pytest.mark.slow
def test_remove_and_classify_writes_counts_ratios_and_curve(trained):
    out = evaluate(trained, 'eval_pixel_perturb.py', '--random_repeats=2')
    result = read(trained, 'calm', 'pixel_perturb_jointll.json')
    own = {'k', 'images', 'correct', 'correct_topk', 'correct_random', 'ratio', 'seed'}
    assert {*own, 'arguments', 'commit', 'versions', 'device'} == set(result)
    assert result['k'] == [0.1, 0.3, 0.5, 0.7, 0.9] and result['images'] == 24 and result['seed'] == 1
    top, random = result['correct_topk'], result['correct_random']  # against a loop: tests/test_evaluation.py
    assert result['ratio'] == [a / b if b else None for a, b in zip(top, random)]
    assert open(trained / 'calm' / 'pixel_perturb_jointll.png', 'rb').read(8) == b'\x89PNG\r\n\x1a\n'
    assert '24 images' in out
    line = refuse(
        'eval_pixel_perturb.py',
        *SMALL,
        f'--save_root={trained}',
        '--experiment_name=calm',
        '--load_checkpoint=calm',
        '--attribution_method=CALM-EM',
        '--score_map_process=jointll',
    )
    assert '--override_cache=True' in line
    before = (trained / 'calm' / 'pixel_perturb_jointll.npz').read_bytes()
    evaluate(trained, 'eval_pixel_perturb.py', '--random_repeats=2', '--override_cache')
    assert (trained / 'calm' / 'pixel_perturb_jointll.npz').read_bytes() == before


@pytest.mark.parametrize('process', ['smooth_grad', 'grad_cam'])
@pytest.mark.slow
def test_evaluators_take_any_attribution_method(trained, process):
    """The same maps by attribution.explain, an image at a time, pair by pair."""
    more = [f'--score_map_process={process}', '--norm_type=minmax', '--smooth_grad_nr_iter=2']
    evaluate(trained, 'eval_cue_location.py', *more, '--cam_curve_interval=.01')
    found = [row['pxap']['per_pair'] for row in read(trained, 'calm', f'cue_location_{process}.json')['pairs']]
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True).eval()
    wsol.load_weights(model, torch.load(trained / 'calm' / 'last_checkpoint.pth.tar', weights_only=True)['state_dict'])
    images, labels = load_test_images(32)

    @functools.cache
    def map_of(number, y):
        noise = {'noise_seeds': [attribution.noise_seed(1, number)], 'smooth_grad_nr_iter': 2}
        return attribution.explain(process, model, images[number][1][None], y, **noise)[0].numpy()

    def scale(one):
        return (one - one.min()) / (one.max() - one.min())

    pairs = pair_by_pair(map_of, scale, np.arange(0, 1, 0.01), images, labels)
    expected = [pixels.pixel_average_precision(counts) for _, counts, _ in pairs]
    assert found == pytest.approx(expected, abs=0.05) and max(found) > min(found) > 0


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    """Golden checkpoints in the released form, and metadata whose test labels are the models' own predictions."""
    root = tmp_path_factory.mktemp('golden')
    for method in ('CAM', 'CALM-EM'):
        model = wsol.build_model('resnet50', method, 200)
        state = fill(model.state_dict(), seed=1)
        os.makedirs(root / method)
        torch.save(
            {
                'architecture': 'resnet50',
                'epoch': 40,
                'state_dict': {f'module.{k}': v for k, v in state.items()},
                'optimizer': {},
            },
            root / method / 'last_checkpoint.pth.tar',
        )
        shutil.copytree(os.path.join(MINICUB, 'metadata'), root / f'metadata_{method}')
        shutil.copy(
            os.path.join(GOLDEN, f'predicted_labels_{method}.txt'),
            root / f'metadata_{method}/CUB/test/class_labels.txt',
        )
    return root


FLAGS = {
    'CAM': ['--score_map_process=vanilla', '--norm_type=minmax', '--threshold_type=even'],
    'CALM-EM': ['--score_map_process=jointll', '--norm_type=clipping', '--threshold_type=log'],
}


@pytest.mark.parametrize('method', FLAGS)
@pytest.mark.slow
def test_cue_localization_equals_the_released_code(released, method):
    code, _, err = run(
        'eval_cue_location.py',
        *DATA,
        '--architecture=resnet50',
        f'--attribution_method={method}',
        f'--save_root={released}',
        f'--experiment_name={method}',
        '--use_load_checkpoint=True',
        f'--load_checkpoint={released}/{method}/',
        *FLAGS[method],
    )
    assert code == 0, err
    golden = read(GOLDEN, 'eval.json')[method]
    result = read(released, method, f'cue_location_{FLAGS[method][0].split("=")[1]}.json')
    want = sum(golden['cue_location_released_pxap_per_pair'].values(), [])
    assert [row['pxap']['released'] for row in result['pairs']] == pytest.approx(want, abs=1e-3)
    assert [round(result['released'][f'cue_{n}'], 2) for n in (1, 2, 3)] == pytest.approx(
        golden['cue_location_released'], abs=0.011
    )


@pytest.mark.slow
def test_remove_and_classify_equals_the_released_code(released, monkeypatch):
    """Its random masks were others: they are left out here, and checked in test_scoring_erasing."""
    import eval_pixel_perturb

    method = 'CALM-EM'  # CAM takes the same way; its maps are in test_models and in the cue localization above
    monkeypatch.setattr(erasing, 'random_counts', lambda model, images, *_: torch.zeros(len(images), 5))
    argv = [
        'eval_pixel_perturb.py',
        *DATA,
        f'--metadata_root={released}/metadata_{method}',
        '--architecture=resnet50',
        f'--attribution_method={method}',
        f'--save_root={released}',
        f'--experiment_name={method}',
        f'--load_checkpoint={released}/{method}/last_checkpoint.pth.tar',
        *FLAGS[method],
    ]
    monkeypatch.setattr(sys, 'argv', argv)
    eval_pixel_perturb.main()
    golden = read(GOLDEN, 'eval.json')[method]
    result = read(released, method, f'pixel_perturb_{FLAGS[method][0].split("=")[1]}.json')
    assert (result['correct'], result['images']) == (golden['correct'], golden['images'])
    differences = np.abs(np.subtract(result['correct_topk'], list(golden['correct_topk'].values())))
    assert differences.sum() <= 1  # a single image may fall to the other side by rounding


def test_unknown_choices_are_refused():
    assert 'resnet50' in refuse('main.py', '--architecture=resnet51')
    assert 'True or False' in refuse('main.py', '--use_bn=maybe')
    assert 'at least 1' in refuse('main.py', '--epochs=0')
    assert 'vanilla' in refuse('eval_cue_location.py', '--score_map_process=vanila')


def test_missing_data_is_refused_and_leaves_nothing(tmp_path):
    common = ['--pretrained=False', f'--save_root={tmp_path}/save']
    assert 'metadata file' in refuse('main.py', *common, f'--metadata_root={tmp_path}')
    assert 'no images of CUB' in refuse(
        'main.py', *common, f'--metadata_root={MINICUB}/metadata', f'--data_root={tmp_path}'
    )
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_truncated_image_is_refused_by_name(tmp_path, trained):
    shutil.copytree(os.path.join(MINICUB, 'dataset'), tmp_path / 'data')
    image = (
        tmp_path
        / 'data'
        / 'CUB'
        / 'images'
        / open(os.path.join(MINICUB, 'metadata/CUB/test/image_ids.txt')).read().split()[20]
    )
    image.write_bytes(image.read_bytes()[:900])
    for workers in (0, 1):
        line = refuse_after_progress(
            'eval_pixel_perturb.py',
            *SMALL,
            f'--data_root={tmp_path}/data',
            f'--workers={workers}',
            f'--save_root={trained}',
            f'--experiment_name=other{workers}',
            f'--load_checkpoint={trained}/calm',
            '--attribution_method=CALM-EM',
            '--score_map_process=gtcond',
        )
        assert image.name in line and 'unreadable' in line


def refuse_after_progress(command, *arguments):
    """The last line of a command that fails at work, with exit code 2."""
    code, _, err = run(command, *arguments)
    assert code == 2 and 'Traceback' not in err, err
    return err.strip().splitlines()[-1]


@pytest.mark.slow
def test_checkpoints_of_another_kind_are_refused(trained, tmp_path):
    common = [*SMALL, f'--save_root={trained}', '--experiment_name=other']
    assert 'no checkpoint nowhere' in refuse('eval_pixel_perturb.py', *common, '--load_checkpoint=nowhere')
    assert '--load_checkpoint=FOLDER' in refuse('eval_pixel_perturb.py', *common)
    assert 'architecture vgg_tiny, not resnet18' in refuse(
        'eval_pixel_perturb.py', *common, '--architecture=resnet18', '--load_checkpoint=cam'
    )
    assert '--large_feature_map=True' in refuse(
        'eval_pixel_perturb.py', *common, '--large_feature_map=False', '--load_checkpoint=cam'
    )
    assert 'trained as CAM, not CALM-EM' in refuse(
        'eval_pixel_perturb.py', *common, '--attribution_method=CALM-EM', '--load_checkpoint=cam'
    )
    record = torch.load(trained / 'cam' / 'last_checkpoint.pth.tar', weights_only=True)
    record['state_dict']['conv_last.weight'] = record['state_dict']['conv_last.weight'][:7]
    torch.save(record, tmp_path / 'seven.pth.tar')
    assert 'class count' in refuse('eval_pixel_perturb.py', *common, f'--load_checkpoint={tmp_path}/seven.pth.tar')
    torch.save({'state_dict': torch.nn.Linear(1, 1)}, tmp_path / 'object.pth.tar')
    assert 'not read, as that may run code' in refuse(
        'eval_pixel_perturb.py', *common, f'--load_checkpoint={tmp_path}/object.pth.tar'
    )
    (tmp_path / 'cut.pth.tar').write_bytes((trained / 'cam' / 'last_checkpoint.pth.tar').read_bytes()[:5000])
    assert 'damaged' in refuse('eval_pixel_perturb.py', *common, f'--load_checkpoint={tmp_path}/cut.pth.tar')


@pytest.mark.parametrize('command', ['eval_cue_location.py', 'main.py'])
def test_weights_that_are_not_finite_are_refused(trained, tmp_path, command):
    record = torch.load(trained / 'cam' / 'last_checkpoint.pth.tar', weights_only=True)
    record['state_dict']['conv_last.bias'][3] = float('nan')
    torch.save(record, tmp_path / 'nan.pth.tar')
    flags = [*SMALL, f'--save_root={tmp_path}/save', f'--load_checkpoint={tmp_path}/nan.pth.tar']
    assert 'nan.pth.tar has NaN or infinite weights in conv_last.bias (1 tensors' in refuse(command, *flags)
    assert not os.path.exists(tmp_path / 'save')


def test_a_second_run_is_refused_and_the_first_kept(trained):
    before = (trained / 'cam' / 'last_checkpoint.pth.tar').read_bytes()
    line = refuse('main.py', *SMALL, f'--save_root={trained}', '--experiment_name=cam')
    assert 'already holds' in line and '--override_cache=True' in line
    assert (trained / 'cam' / 'last_checkpoint.pth.tar').read_bytes() == before


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    line = refuse_after_progress(
        'main.py',
        *SMALL,
        f'--save_root={tmp_path}',
        '--experiment_name=nan',
        '--attribution_method=CALM-ML',
        '--lr=1e30',
        '--epochs=2',
    )
    assert 'the loss is not finite' in line and '--lr' in line
    assert not os.path.exists(tmp_path / 'nan' / 'last_checkpoint.pth.tar')


def test_a_data_set_without_parts_has_no_cue_localization():
    assert 'CUB, ToyBirds' in refuse('eval_cue_location.py', '--dataset=ILSVRC', '--load_checkpoint=x')


def test_yaml_is_overlaid_by_the_command_line(tmp_path):
    from config import get_configs

    (tmp_path / 'run.yaml').write_text('dataset_name: ToyBirds\nlr: 0.5\nuse_bn: true\nepochs: 3\n')
    args = get_configs('', [f'--config={tmp_path}/run.yaml', '--epochs=7'])
    assert (args.dataset, args.lr, args.use_bn, args.epochs, args.batch_size) == ('ToyBirds', 0.5, True, 7, 64)
    (tmp_path / 'bad.yaml').write_text('learning_rate: 1\n')
    assert 'unknown flags learning_rate' in refuse('main.py', f'--config={tmp_path}/bad.yaml')
    (tmp_path / 'wrong.yaml').write_text('epochs: many\n')
    assert 'not a number' in refuse('main.py', f'--config={tmp_path}/wrong.yaml')


def test_released_flags_keep_their_names_and_defaults():
    from config import get_configs

    args = get_configs('', [])
    released = {
        'seed': None,
        'experiment_name': 'result',
        'override_cache': False,
        'workers': 4,
        'use_load_checkpoint': False,
        'load_checkpoint': None,
        'is_different_checkpoint': False,
        'save_root': 'save',
        'dataset': 'CUB',
        'data_root': 'dataset/',
        'metadata_root': 'metadata/',
        'proxy_training_set': False,
        'architecture': 'resnet18',
        'attribution_method': 'CAM',
        'is_train': True,
        'epochs': 40,
        'pretrained': True,
        'cam_curve_interval': 0.001,
        'resize_size': 256,
        'crop_size': 224,
        'batch_size': 64,
        'lr': 0.01,
        'lr_decay_frequency': 30,
        'lr_classifier_ratio': 10,
        'momentum': 0.9,
        'weight_decay': 1e-4,
        'use_bn': False,
        'large_feature_map': False,
        'smoothing_ksize': 1,
        'score_map_method': 'activation_map',
        'score_map_process': 'vanilla',
        'norm_type': 'minmax',
        'threshold_type': 'even',
        'smooth_grad_nr_iter': 50,
        'smooth_grad_sigma': 4.0,
        'integrated_grad_nr_iter': 50,
    }
    assert {key: args[key] for key in released} == released
    backprop = get_configs('', ['--score_map_method=backprop', '--dataset_name=CUB'])
    assert backprop.score_map_process == 'input_grad' and backprop.dataset == 'CUB'


@pytest.mark.slow
def test_cue_localization_on_toybirds_scores_the_true_part_pixels(tmp_path):
    """`exact`: the positives are the pixels that part_masks/ names, here recomputed pair by pair."""
    from PIL import Image

    from wsol.preprocessing import make_transform

    data = [f'--data_root={tmp_path}/dataset', f'--metadata_root={tmp_path}/metadata']
    code, _, err = run(
        'scripts/make_toybirds.py', *data, '--classes=20', '--train=1', '--val=1', '--test=1', '--size=224'
    )
    assert code == 0, err
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 20).eval()
    os.makedirs(tmp_path / 'save')
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'save' / 'untrained.pth.tar')
    code, _, err = run(
        'eval_cue_location.py',
        *data,
        '--dataset=ToyBirds',
        '--architecture=vgg_tiny',
        '--attribution_method=CALM-ML',
        f'--save_root={tmp_path}/save',
        '--load_checkpoint=untrained.pth.tar',
        '--score_map_process=jointll',
        '--norm_type=clipping',
        '--threshold_type=log',
        '--crop_size=48',
        '--workers=1',
        '--cam_curve_interval=.01',
    )
    assert code == 0, err
    result = read(tmp_path, 'save', 'result', 'cue_location_jointll.json')
    folder = tmp_path / 'dataset' / 'ToyBirds'
    names = [line.split()[1] for line in open(folder / 'part_masks' / 'labels.txt')]
    attributes = [line.split()[1] for line in open(folder / 'attributes' / 'attributes.txt')]
    table = np.loadtxt(folder / 'attributes' / 'class_attribute_labels_continuous.txt') >= 50
    image_ids = open(tmp_path / 'metadata/ToyBirds/test/image_ids.txt').read().split()  # one image a class, in order
    pictures = [
        make_transform(False, crop_size=48)(Image.open(folder / 'images' / name).convert('RGB')) for name in image_ids
    ]
    with torch.no_grad():  # one batch, as the evaluator forwards them: the same rounding
        output = model(torch.stack(pictures))
    maps = (output.f.softmax(1) * (output.h / output.h.sum(dim=(2, 3), keepdim=True))).numpy()
    edges = np.append([10**-t for t in np.arange(0, 7, 0.07)[::-1]], [1, 2, 3])
    for row in result['pairs'][:12]:
        differing = [attributes[i] for i in np.flatnonzero(table[row['classes'][0]] != table[row['classes'][1]])]
        labels = [label for label, name in enumerate(names, 1) if any(name in attribute for attribute in differing)]
        counts = np.zeros((2, len(edges)))
        for label in row['classes']:
            difference = maps[label, row['classes'][0]] - maps[label, row['classes'][1]]
            score = np.clip(np.abs(maps_of.resize(difference[None], 48)[0]), 0, 1)
            mask = Image.open(folder / 'part_masks' / f'{image_ids[label][:-4]}.png').resize((48, 48), Image.NEAREST)
            truth = np.isin(np.asarray(mask), labels)
            for side, values in enumerate((score[~truth], score[truth])):
                counts[side, 0] += (values < edges[0]).sum()
                counts[side, 1:] += np.histogram(values.astype(np.float64), edges)[0]
        assert labels and row['pxap']['exact'] == pytest.approx(pixels.pixel_average_precision(counts), abs=1e-6)
    assert set(result) >= {'released', 'per_pair', 'exact', 'pairs', 'dropped_pixels', 'evaluations'}


@pytest.fixture
def own_cub(tmp_path):
    """A copy of the small data set, and the flags that name it."""
    shutil.copytree(MINICUB, tmp_path / 'own')
    roots = [f'--data_root={tmp_path}/own/dataset', f'--metadata_root={tmp_path}/own/metadata']
    return tmp_path / 'own', [*SMALL, *roots, f'--save_root={tmp_path}/save']


def test_a_missing_segmentation_is_said_before_the_first_image(own_cub, trained):
    place, flags = own_cub
    lines = (place / 'metadata/CUB/test/image_ids.txt').read_text().split()
    os.unlink(place / f'dataset/CUB/segmentations/{lines[-1][:-4]}.png')
    said = refuse('eval_cue_location.py', *flags, f'--load_checkpoint={trained}/cam')
    assert f'segmentations/{lines[-1][:-4]}.png is missing (1 of the' in said
    assert not os.path.exists(place.parent / 'save/result/shards_cue_location_vanilla/000000.npz')


@pytest.mark.parametrize(
    'table, said',
    [
        ('attributes/class_attribute_labels_continuous.txt', 'has 4 classes, the split 8'),
        ('parts/part_locs.txt', 'no part locations of 005.Bird_E/Bird_E_0000_200.jpg (12 images'),
        ('images.txt', 'must be image number (of images.txt)'),
    ],
)
def test_a_table_of_parts_that_is_cut_off_is_refused(own_cub, trained, table, said):
    place, flags = own_cub
    path = place / 'dataset/CUB' / table
    lines = path.read_text().splitlines()
    path.write_text('\n'.join(lines[: len(lines) // 2]) + '\n')
    assert said in refuse('eval_cue_location.py', *flags, f'--load_checkpoint={trained}/cam')
    assert not os.path.exists(place.parent / 'save')


@pytest.mark.parametrize('command', ['eval_cue_location.py', 'eval_wsol.py', 'eval_attribution.py'])
def test_an_image_of_another_size_is_refused_where_places_count(own_cub, trained, command):
    place, flags = own_cub
    sizes = place / 'metadata/CUB/test/image_sizes.txt'
    name, width, height = sizes.read_text().splitlines()[0].split(',')
    sizes.write_text(sizes.read_text().replace(f'{name},{width},{height}', f'{name},{width},{int(height) + 1}'))
    said = refuse(command, *flags, f'--load_checkpoint={trained}/cam')
    assert f'{name} is {width} x {height} pixels' in said and f'says {width} x {int(height) + 1}' in said
