"""eval_attribution.py on photographs of one's own: figures, boxes and masks as the network sees them, refusals."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models

import eval_attribution
import wsol
from config import get_configs
from data import own_photographs
from data.photographs import read_photograph
from engine import comparing
from report.attribution_scores import scores_markdown, winners
from wsol import attribution, classifiers
from wsol.errors import UserError
from wsol.preprocessing import PAPER, Preprocessing, photograph_transform
from wsol.scoring import maps

OWN = Preprocessing((0.5,) * 3, (0.5,) * 3, 'bicubic', 0.875)
NAMES = ('a.png', 'b.png', 'c.png')


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """(file of weights, network, folder of three photographs and a broken one)."""
    folder = tmp_path_factory.mktemp('own')
    torch.manual_seed(0)
    net = models.resnet18(weights=None).eval()
    with torch.no_grad():
        net.fc.weight.mul_(30)
    torch.save(net.state_dict(), folder / 'net.pth')
    (folder / 'photos').mkdir()
    random = np.random.default_rng(0)
    for name, shape in zip(NAMES, ((90, 70), (64, 100), (80, 80))):
        small = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC).save(folder / 'photos' / name)
    (folder / 'photos' / 'd.jpg').write_bytes(b'no picture')
    return str(folder / 'net.pth'), classifiers.load_classifier(str(folder / 'net.pth'), 'resnet18')


def score(network, tmp_path, monkeypatch, *flags, name='one'):
    """The result of the command on the photographs."""
    photos = os.path.join(os.path.dirname(network[0]), 'photos')
    arguments = [
        f'--save_root={tmp_path}',
        f'--experiment_name={name}',
        '--crop_size=64',
        '--workers=0',
        '--seed=1',
        '--curve_steps=2',
    ]
    if not any(flag.startswith('--load_checkpoint') for flag in flags):
        arguments += [f'--classifier={network[0]}', '--architecture=resnet18']
    if not any(flag.startswith('--images') for flag in flags):
        arguments.append(f'--images={photos}')
    monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', *arguments, *flags])
    eval_attribution.main()
    with open(tmp_path / name / 'attribution_scores.json') as file:
        return json.load(file)


def seen(network):
    """The photographs as the network sees them, and its predictions."""
    photos = os.path.join(os.path.dirname(network[0]), 'photos')
    transform = photograph_transform(64, network[1].preprocessing)
    images = torch.stack([transform(read_photograph(os.path.join(photos, name))) for name in NAMES])
    with torch.no_grad():
        return images, network[1](images).probs


@pytest.mark.slow
def test_the_prediction_is_explained_whatever_the_batches(network, tmp_path, monkeypatch, capsys):
    flags = ['--methods=vanilla,smooth_grad,eigen_cam', '--smooth_grad_nr_iter=2']
    result = score(network, tmp_path, monkeypatch, *flags)
    printed = capsys.readouterr()
    assert result['images'] == 3 and result['left_out'] == 1 and result['correct'] is None
    assert printed.err.count('left out: image') == 1 and 'd.jpg' in printed.err
    assert '3 photographs (1 more left out)' in printed.out and 'y: the prediction' in printed.out
    images, probs = seen(network)
    p, y = probs.max(dim=1)
    with torch.no_grad():
        native = attribution.explain('vanilla', network[1], images, y).numpy()
        scaled = torch.from_numpy(maps.normalize(maps.resize(native, 64), 'minmax'))
        masked = network[1](images * scaled[:, None]).probs.gather(1, y[:, None])[:, 0]
    expected = 100 * ((p - masked).clamp(min=0) / p).mean().item()
    assert expected > 0 and result['methods']['vanilla']['average_drop'] == pytest.approx(expected, rel=1e-3)
    drops = {name: row['average_drop'] for name, row in result['methods'].items()}
    assert result['best']['average_drop'] == [min(drops, key=drops.get)]
    assert set(result['metrics']) == {
        name for name, metric in eval_attribution.scores.METRICS.items() if metric.truth is None and not metric.extra
    }
    again = score(network, tmp_path, monkeypatch, *flags, '--batch_size=1', name='two')
    for name, row in result['methods'].items():
        for key in result['metrics']:
            assert again['methods'][name][key] == pytest.approx(row[key], rel=1e-3, abs=1e-6), (name, key)


def test_a_name_that_is_no_utf_8_is_scored_like_the_others(network, tmp_path, monkeypatch):
    photos = os.path.join(os.path.dirname(network[0]), 'photos')
    (tmp_path / 'photos').mkdir()
    for name, own in zip(NAMES, (b'a.png', b'caf\xe9.png', b'x.png')):
        shutil.copy(os.path.join(photos, name), os.fsencode(tmp_path / 'photos') + b'/' + own)
    flags = ['--methods=vanilla', '--metrics=average_drop']
    found = score(network, tmp_path, monkeypatch, *flags, f'--images={tmp_path}/photos')
    expected = score(network, tmp_path, monkeypatch, *flags, name='two')  # and a file that is no picture
    assert found['images'] == 3 and found['methods']['vanilla']['average_drop'] == pytest.approx(
        expected['methods']['vanilla']['average_drop'], rel=1e-6
    )
    arrays = np.load(tmp_path / 'one' / 'attribution_scores.npz')
    assert [os.fsencode(name) for name in arrays['ids']] == [b'a.png', b'caf\xe9.png', b'x.png']


def test_labels_by_number_and_name(network, tmp_path, monkeypatch):
    predicted = seen(network)[1].argmax(dim=1).tolist()
    labels = tmp_path / 'labels.csv'
    wrong = 'tiger cat' if predicted[2] != 282 else 'goldfish'
    labels.write_text(f'file,class\na.png,{predicted[0]}\nb.png,{predicted[1]}\nc.png,{wrong}\nd.jpg,0\n')
    result = score(network, tmp_path, monkeypatch, '--methods=vanilla', '--metrics=deletion', f'--labels={labels}')
    assert (result['images'], result['correct']) == (3, 2) and 'given with --labels' in result['note']
    whole = score(network, tmp_path, monkeypatch, '--methods=vanilla', '--metrics=deletion', name='two')
    start = result['methods']['vanilla']['deletion_curve'][0]
    assert start < whole['methods']['vanilla']['deletion_curve'][0]  # the prediction is the most probable class


@pytest.mark.parametrize(
    'preprocessing', [OWN, PAPER, *(OWN._replace(crop_mode=mode) for mode in ('squash', 'border'))]
)
@pytest.mark.parametrize('shape', [(90, 131), (150, 67), (80, 80)])
def test_boxes_and_masks_go_where_the_photograph_goes(preprocessing, shape, tmp_path):
    """A white box on black through the photograph's own transform, against the box and the mask."""
    x0, y0, x1, y1 = box = (shape[1] // 3, shape[0] // 4, 2 * shape[1] // 3, 3 * shape[0] // 4)
    picture = np.zeros((*shape, 3), np.uint8)
    picture[y0 : y1 + 1, x0 : x1 + 1] = 255
    image = Image.fromarray(picture)
    image.convert('L').save(tmp_path / 'mask.png')
    nearest = preprocessing._replace(interpolation='nearest')
    expected = photograph_transform(32, nearest)(image)[0].numpy() > 0.5  # what lies beside it is black, or grey
    mask = own_photographs.placed_mask(str(tmp_path / 'mask.png'), 32, preprocessing)
    np.testing.assert_array_equal(mask, expected)
    [placed] = own_photographs.placed_boxes([box], shape[::-1], 32, preprocessing)
    rows, columns = expected.nonzero()
    np.testing.assert_allclose(placed, [columns.min(), rows.min(), columns.max(), rows.max()], atol=1)


def test_a_box_outside_the_crop_is_not_seen():
    boxes = [(0, 0, 10, 80), (5, 5, 60, 60)]  # the square is the middle of a wide photograph
    found = own_photographs.placed_boxes(boxes, (200, 100), 32, OWN)
    assert found.tolist() == own_photographs.placed_boxes(boxes[1:], (200, 100), 32, OWN).tolist()
    assert found[0][0] == 0 and len(found) == 1


@pytest.mark.slow
def test_boxes_and_masks_give_the_other_scores(network, tmp_path, monkeypatch, capsys):
    photos = os.path.join(os.path.dirname(network[0]), 'photos')
    images = [f'--images={photos}/[abc].png', '--methods=vanilla,grad_cam']
    boxes = tmp_path / 'boxes.csv'
    boxes.write_text('a.png,10,10,40,40\na.png,30,50,60,80\nb.png,0,0,8,63\nc.png,1,1,78,78\n')
    result = score(network, tmp_path, monkeypatch, *images, f'--boxes={boxes}', '--metrics=loc_iou,proportion')
    assert result['images'] == 2 and result['left_out'] == 1  # b.png's box lies left of what is seen
    assert 'b.png has no object in the part that the network sees' in capsys.readouterr().err
    assert all(0 < row['proportion'] <= 100 for row in result['methods'].values())
    (tmp_path / 'masks').mkdir()
    for name in NAMES:
        with Image.open(os.path.join(photos, name)) as photograph:
            Image.new('L', photograph.size, 255).save(tmp_path / 'masks' / name)
    result = score(network, tmp_path, monkeypatch, *images, f'--masks={tmp_path}/masks', name='two')
    assert {'pxap', 'pointing_game', 'proportion'} < set(result['metrics']) and 'loc_iou' not in result['metrics']
    for row in result['methods'].values():
        assert row['pxap'] == row['proportion'] == row['pointing_game'] == 100  # everything is the object


def test_resume_goes_on_with_the_same_photographs_alone(network, tmp_path, monkeypatch, capsys):
    flags = ['--methods=vanilla', '--metrics=average_drop', '--resume']
    score(network, tmp_path, monkeypatch, *flags)
    score(network, tmp_path, monkeypatch, *flags)
    assert 'is complete: nothing to do' in capsys.readouterr().out
    with pytest.raises(UserError, match='was made by another command.*photographs'):
        score(network, tmp_path, monkeypatch, *flags, f'--images={os.path.dirname(network[0])}/photos/[ab].png')


def test_maps_that_a_network_cannot_give_are_left_out():
    net = nn.Sequential(nn.Conv2d(3, 4, 32), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5)).eval()  # no map to look into
    names = ['vanilla', 'input_grad', 'guided_backprop', 'grad_cam', 'eigen_cam', 'score_cam']
    plain = classifiers.PlainClassifier(net, 5, PAPER).eval()
    kept, wrong = comparing.runnable(names, plain, 32, attribution.Options())
    assert kept == ['input_grad', 'guided_backprop'] and 'target_layer' in wrong['eigen_cam']
    net = models.VisionTransformer(32, 8, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=5).eval()
    plain = classifiers.PlainClassifier(net, 5, PAPER).eval()
    assert comparing.runnable(names, plain, 32, attribution.Options())[0] == names[1:]


def test_equal_figures_share_the_win():
    """Equal as the tables show them; a figure that is not defined wins nothing."""
    rows = {name: {'deletion': value} for name, value in zip('abcd', (0.2371, 0.23709, None, 0.3))}
    metrics = {'deletion': eval_attribution.scores.METRICS['deletion']}
    assert winners(rows, metrics) == {'deletion': ['a', 'b']}
    assert scores_markdown(rows, metrics, '').count('**0.237**') == 2
    assert winners({'c': rows['c']}, metrics) == {'deletion': []}


def test_the_maps_of_a_classifier_are_chosen_once_it_is_loaded(network, capsys):
    def chosen(model, *flags):
        args = get_configs('', ['--classifier=some', *flags], 'eval_attribution')
        evaluator = eval_attribution.AttributionScores(args, None)
        evaluator.model, evaluator.size, evaluator.options = model, 64, attribution.Options()
        return evaluator.choose_maps()

    assert chosen(network[1]) == attribution.suited('CAM') and 'jointll' in chosen(network[1], '--methods=all')
    plain = classifiers.PlainClassifier(network[1].features.net, 1000, PAPER).eval()
    assert chosen(plain) == attribution.suited('classifier') and not capsys.readouterr().err
    assert chosen(plain, '--methods=all') == chosen(plain)
    assert 'left out: vanilla, ' in capsys.readouterr().err


def test_a_checkpoint_on_photographs(network, tmp_path, monkeypatch):
    """What describes the network comes from the checkpoint."""
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 7, large_feature_map=True)
    described = {'architecture': 'vgg_tiny', 'attribution_method': 'CALM-EM', 'large_feature_map': True}
    record = {'architecture': 'vgg_tiny', 'state_dict': model.state_dict(), 'args': described}
    torch.save(record, tmp_path / 'net.pth.tar')
    flags = ['--load_checkpoint=net.pth.tar', '--metrics=average_drop,win', '--methods=jointll,grad_cam']
    result = score(network, tmp_path, monkeypatch, *flags)
    assert list(result['methods']) == ['jointll', 'grad_cam'] and 'CALM-EM (vgg_tiny)' in result['note']


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_tables_as_spreadsheets_save_them(tmp_path, coding):
    own = own_photographs.Collection(['/p/blé.png', '/p/1, 2.png'], ['blé.png', '1, 2.png'], [(40, 36)] * 2, None, None)
    (tmp_path / 'boxes.csv').write_bytes('file,x0,y0,x1,y1\r\nblé.png,1,2,3,4\r\n1, 2.png,0,0,40,36\r\n'.encode(coding))
    assert own_photographs.read_boxes(str(tmp_path / 'boxes.csv'), own) == [[(1, 2, 3, 4)], [(0, 0, 40, 36)]]
    (tmp_path / 'labels.csv').write_bytes('file,class\r\nblé.png,2\r\n"1, 2.png","red, robin"\r\n'.encode(coding))
    assert own_photographs.read_labels(str(tmp_path / 'labels.csv'), own, 3, ['0', 'red, robin', '2']) == [2, 1]


def test_labels_that_could_mean_two_classes_are_refused(tmp_path):
    own = own_photographs.Collection(['/p/a.png'], ['a.png'], [(40, 36)], None, None)
    for word in ('1', '@1', 'rank:1'):
        (tmp_path / 'labels.csv').write_text(f'a.png,{word}\n')
        with pytest.raises(UserError, match='labels.csv, line 1: .*(give name:|is not a class)'):
            own_photographs.read_labels(str(tmp_path / 'labels.csv'), own, 4, ['1', '10', '2', '@1'])


MISTAKES = [
    (['--images=nothing*.jpg'], None, 'no image matches'),
    (['--labels=table'], 'e.png,3\n', "line 1: 'e.png' is not a photograph of --images"),
    (['--labels=table'], 'a.png,cat of tigers\n', 'line 1: unknown class'),
    (['--labels=table'], 'a.png,1000\n', 'out of range'),
    (['--labels=table'], 'a.png,@2\n', 'give a number or a name'),
    (['--labels=table'], 'a.png,1\na.png,2\n', 'a second class'),
    (['--labels=table'], 'a.png,1\n', 'no line for b.png and 2 more'),
    (['--labels=none'], None, 'no such file'),
    (['--boxes=table'], 'a.png,0,0,80,20\n', 'is not a box of a.png, which is 70 x 90'),
    (['--boxes=table'], 'a.png,9,9,3,20\n', 'x0 <= x1'),
    (['--boxes=table'], 'a.png,1,2,x,4\n', 'not a number'),
    (['--boxes=table'], 'a.png,1,2,3\n', '4 columns'),
    (['--boxes=.'], None, 'cannot be read'),
    (['--boxes=table'], 'a.png;1;2;3;4\n', 'line 1: 1 columns: it must be file,x0,y0,x1,y1, with commas between them'),
    (['--labels=table'], 'a.png,red,robin\n', 'line 1: 3 columns: it must be file,class'),
    (['--labels=table'], b'a.png,bl\xe9\n', 'line 1: not UTF-8: save it as UTF-8'),
    (['--boxes=table'], 'z.png,1,2,3,4\n', 'is not a photograph'),
    (['--masks=.'], None, 'mask ./a.png is missing .and 3 more'),
    (['--boxes=table', '--masks=.'], '', 'give one of them'),
    (['--metrics=loc_iou'], None, "'loc_iou' here: it needs true boxes, and the data has neither: choose"),
    (['--methods=grad_can'], None, 'did you mean grad_cam'),
    (['--load_checkpoint=none'], None, 'none'),
]


@pytest.mark.parametrize('flags, table, said', MISTAKES)
def test_mistakes_are_one_line(flags, table, said, network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if table is not None:
        (tmp_path / 'table').write_bytes(table.encode() if isinstance(table, str) else table)
    with pytest.raises(UserError, match=said) as error:
        score(network, tmp_path, monkeypatch, *flags)
    assert '\n' not in str(error.value)


def test_tables_need_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['eval_attribution.py', '--boxes=some.csv', f'--save_root={tmp_path}'])
    with pytest.raises(UserError, match='give --images'):
        eval_attribution.main()
