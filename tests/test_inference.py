"""inference.py as a command: panels of photographs, saved maps, score maps that eval_wsol.py scores as it scores a
checkpoint."""

import io
import os
import shutil
import sys

import numpy as np
import pytest
import torch
from commands import run
from conftest import MINICUB
from PIL import Image
from test_commands import read

import eval_wsol
import inference
import wsol
from data import photographs
from engine import experiments
from engine.command import command
from wsol import attribution
from wsol.preprocessing import make_transform

ROOTS = [f'--data_root={MINICUB}/dataset', f'--metadata_root={MINICUB}/metadata', '--seed=1', '--batch_size=3']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A checkpoint as main.py writes it, whose arguments are no command's defaults; 200 classes as CUB."""
    torch.manual_seed(3)
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True)
    with torch.no_grad():
        model.conv_last.weight.mul_(12)  # confident, and no map is constant
        model.attention[0].bias.add_(1)
    trained = {
        'architecture': 'vgg_tiny',
        'attribution_method': 'CALM-EM',
        'large_feature_map': True,
        'crop_size': 32,
        'dataset': 'CUB',
    }
    path = tmp_path_factory.mktemp('save') / 'last_checkpoint.pth.tar'
    torch.save(
        {'architecture': 'vgg_tiny', 'epoch': 1, 'state_dict': model.state_dict(), 'optimizer': {}, 'args': trained},
        path,
    )
    return str(path.parent), model.eval()


@pytest.fixture
def photos(tmp_path):
    """Four photographs in two folders, two of them of one name, and two files that are none."""
    rng = np.random.default_rng(0)
    for name, size in (('a/x.jpg', (40, 30)), ('b/x.jpg', (30, 60)), ('b/y.png', (900, 20)), ('a/z.png', (50, 50))):
        (tmp_path / 'photos' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / 'photos' / name)
    (tmp_path / 'photos/b/broken.jpg').write_bytes(b'\xff\xd8\xff')
    frame = Image.new('RGB', (9, 9))
    frame.save(tmp_path / 'photos/a/moving.gif', save_all=True, append_images=[Image.new('RGB', (9, 9), 'red')])
    return tmp_path / 'photos'


def call(monkeypatch, checkpoint, *arguments):
    monkeypatch.setattr(sys, 'argv', ['inference.py', *ROOTS, f'--load_checkpoint={checkpoint[0]}', *arguments])
    inference.main()


def files_below(folder):
    return {os.path.relpath(os.path.join(root, name), folder) for root, _, names in os.walk(folder) for name in names}


def test_a_name_that_is_no_utf_8_is_explained_like_the_others(checkpoint, tmp_path, monkeypatch):
    names = [b'a.png', b'caf\xe9.png', b'x.png']
    (tmp_path / 'photos').mkdir()
    for name in names:
        Image.new('RGB', (40, 30), 'red').save(os.fsencode(tmp_path / 'photos') + b'/' + name, 'PNG')
    out = io.TextIOWrapper(io.BytesIO(), encoding='utf-8')  # strict, as in most languages' settings
    monkeypatch.setattr(sys, 'stdout', out)
    flags = [f'--images={tmp_path}/photos', f'--output={tmp_path}/out', f'--save_scoremaps={tmp_path}/maps']
    network = f'--load_checkpoint={checkpoint[0]}'
    monkeypatch.setattr(sys, 'argv', ['inference.py', *ROOTS, *flags, network, '--workers=0'])
    command(inference.main)
    out.flush()
    folder = os.fsencode(tmp_path / 'out')
    assert out.buffer.getvalue().splitlines() == [folder + b'/' + name + b'.png' for name in names]
    assert sorted(os.listdir(folder)) == [name + b'.png' for name in names]
    assert len(os.listdir(tmp_path / 'maps')) == 3


@pytest.mark.slow
def test_a_panel_for_every_photograph_that_can_be_read(checkpoint, photos, tmp_path, monkeypatch):
    before = {name: (photos / name).read_bytes() for name in files_below(photos)}
    command = [
        'inference.py',
        *ROOTS,
        f'--load_checkpoint={checkpoint[0]}',
        '--images',
        f'{photos}/**/*.*',
        '--classes=@1,7',
        '--method=jointll,grad_cam',
        f'--output={tmp_path}/out',
        '--workers=1',
        f'--save_scoremaps={tmp_path}/maps',
    ]
    code, out, err = run(*command)
    assert code == 2 and len(err.strip().splitlines()) == 3, err  # two reasons and the sum
    assert (
        'broken.jpg is unreadable' in err and 'moving.gif is animated' in err and '2 of 6 images were left out' in err
    )
    assert files_below(tmp_path / 'out') == {'a/x.jpg.png', 'b/x.jpg.png', 'b/y.png.png', 'a/z.png.png'}
    assert sorted(out.split()) == sorted(str(tmp_path / 'out' / name) for name in files_below(tmp_path / 'out'))
    assert {name: (photos / name).read_bytes() for name in files_below(photos)} == before
    assert len(files_below(tmp_path / 'maps')) == 4 * 2 * 2
    monkeypatch.setattr(sys, 'argv', command)
    with pytest.raises(
        FileExistsError, match='exists already .and 3 more.: give another --output, or --override_cache=True'
    ):
        inference.main()


@pytest.mark.slow
def test_saved_maps_are_the_method_s_own(checkpoint, photos, tmp_path, monkeypatch):
    call(
        monkeypatch,
        checkpoint,
        '--images',
        f'{photos}/a/*.[jp]*',
        f'{photos}/b/*.png',
        '--classes=@1,7',
        '--method=jointll,grad_cam',
        '--workers=0',
        f'--output={tmp_path}/out',
        f'--save_scoremaps={tmp_path}/maps',
    )
    names = files_below(tmp_path / 'maps')
    assert len(names) == 3 * 2 * 2
    for name in ('a/x.jpg', 'a/z.png', 'b/y.png'):
        images = make_transform(False, crop_size=32)(photographs.read_photograph(str(photos / name)))[None]
        probs = checkpoint[1](images).probs[0]
        for method in ('jointll', 'grad_cam'):
            for y in (int(probs.argmax()), 7):
                array = np.load(tmp_path / 'maps' / f'{name}.{method}.{y}.npy')
                want = attribution.explain(method, checkpoint[1], images, y)[0].detach()
                rounding = 1e-5 * float(want.abs().max())  # of another batch: a share of the map's size
                np.testing.assert_allclose(array, want, rtol=1e-4, atol=rounding)
                if method == 'jointll':
                    assert array.sum() == pytest.approx(probs[y].item(), rel=1e-4)
    with pytest.raises(FileExistsError, match='another --save_scoremaps'):
        call(
            monkeypatch,
            checkpoint,
            '--images',
            f'{photos}/a/x.jpg',
            f'{photos}/b/y.png',
            '--classes=7',
            '--workers=0',
            f'--output={tmp_path}/other',
            f'--save_scoremaps={tmp_path}/maps',
        )
    call(
        monkeypatch,
        checkpoint,
        '--images',
        f'{photos}/a/x.jpg',
        '--workers=0',
        f'--output={tmp_path}/out',
        '--override_cache',
    )


def test_at_chooses_the_location_of_an_interaction(checkpoint, photos, tmp_path, monkeypatch):
    pixels = make_transform(False, crop_size=32)(photographs.read_photograph(str(photos / 'a/x.jpg')))[None]

    def explained(at):
        return attribution.explain('taylor_interaction', checkpoint[1], pixels, 7, at=at)[0].numpy()

    maps = {(row, column): explained((row, column)) for row in range(4) for column in range(4) if row != column}
    row, column = at = max(maps, key=lambda at: np.abs(maps[at] - explained(None)).max())
    more = ['--method=taylor_interaction,jointll', '--classes=7', '--workers=0', f'--output={tmp_path}/out']
    more += [f'--save_scoremaps={tmp_path}/maps', f'--at={row},{column}']
    call(monkeypatch, checkpoint, f'--images={photos}/a/x.jpg', *more)
    saved = np.load(tmp_path / 'maps/x.jpg.taylor_interaction.7.npy')
    for other, close in ((at, True), (at[::-1], False), (None, False)):
        gap = np.abs(explained(other) - saved).max()
        assert (gap < 1e-4 * np.abs(explained(None)).max()) == close, other


def test_locations_that_cannot_be_are_refused_in_one_line(checkpoint, photos, tmp_path, monkeypatch, capsys):
    image = [f'--images={photos}/a/x.jpg', '--workers=0', f'--output={tmp_path}/out']
    for text in ('3', '1,2,3', 'a,b', '-1,2', '1.5,2', ','):
        with pytest.raises(SystemExit) as stop:
            call(monkeypatch, checkpoint, *image, '--method=taylor_interaction', f'--at={text}')
        message = capsys.readouterr().err
        assert stop.value.code == 2 and len(message.strip().splitlines()) == 1
        assert f"'{text}' is not a location: give row,column" in message
    with pytest.raises(ValueError, match='--at chooses a location for maps .*: give --method=taylor_interaction'):
        call(monkeypatch, checkpoint, *image, '--method=jointll', '--at=1,2')
    with pytest.raises(ValueError, match='--at chooses a location'):
        call(monkeypatch, checkpoint, *image, '--at=1,2')
    with pytest.raises(ValueError, match='at=4,0 is outside the map: give a row from 0 to 3, a column from 0 to 3'):
        call(monkeypatch, checkpoint, *image, '--method=taylor_interaction', '--at=4,0')


def test_the_map_of_a_location_is_that_of_the_library(checkpoint):
    experiment = experiments.load_experiment(checkpoint[0])
    makers = experiments.map_makers(experiment, ['taylor_interaction'], at=(2, 3))
    x = torch.randn(1, 3, 32, 32)
    [[found]] = makers['taylor_interaction'](x, None, [torch.tensor([5])], [0])
    expected = attribution.explain('taylor_interaction', checkpoint[1], x, 5, at=(2, 3))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(found).max())


@pytest.mark.parametrize('process', ['jointll', 'smooth_grad'])
def test_saved_score_maps_score_as_the_checkpoint_does(checkpoint, tmp_path, monkeypatch, process):
    """Against boxes of a ninth of the image, so that the best thresholds lie above 0."""
    metadata = tmp_path / 'metadata' / 'CUB' / 'test'
    shutil.copytree(f'{MINICUB}/metadata/CUB/test', metadata)
    sizes = [line.split(',') for line in (metadata / 'image_sizes.txt').read_text().splitlines()]
    boxes = [f'{name},{int(w) // 3},{int(h) // 3},{2 * int(w) // 3},{2 * int(h) // 3}\n' for name, w, h in sizes]
    (metadata / 'localization.txt').write_text(''.join(boxes))
    common = [
        *ROOTS,
        f'--metadata_root={tmp_path}/metadata',
        '--iou_thresholds',
        '10',
        '20',
        '30',
        f'--save_root={tmp_path}',
        '--crop_size=32',
        '--workers=0',
        '--cam_curve_interval=.05',
        '--smooth_grad_nr_iter=2',
        '--architecture=vgg_tiny',
        '--large_feature_map=True',
        '--attribution_method=CALM-EM',
    ]
    call(
        monkeypatch,
        checkpoint,
        f'--save_scoremaps={tmp_path}/maps',
        f'--method={process}',
        '--workers=0',
        '--smooth_grad_nr_iter=2',
    )
    one = np.load(tmp_path / 'maps' / sorted(files_below(tmp_path / 'maps'))[0])
    assert one.shape == (32, 32) and one.dtype == np.float64 and (one.min(), one.max()) == (0, 1)
    for name, more in (
        ('a', [f'--load_checkpoint={checkpoint[0]}', f'--score_map_process={process}']),
        ('b', [f'--scoremap_root={tmp_path}/maps']),
    ):
        monkeypatch.setattr(sys, 'argv', ['eval_wsol.py', *common, f'--experiment_name={name}', *more])
        eval_wsol.main()
    direct = read(tmp_path, 'a', f'wsol_{process}.json')
    saved = read(tmp_path, 'b', 'wsol_scoremaps.json')
    for key in ('MaxBoxAcc', 'MaxBoxAccV2', 'largest_contour', 'all_contours', 'images'):
        assert direct[key] == saved[key]
    assert direct['images'] == 24 and direct['MaxBoxAccV2'] > 0
    best = [row['threshold'] for table in ('largest_contour', 'all_contours') for row in direct[table].values()]
    assert max(best) > 0 and len({*best}) > 1
    with pytest.raises(FileExistsError, match='--override_cache=True'):
        call(
            monkeypatch,
            checkpoint,
            f'--save_scoremaps={tmp_path}/maps',
            f'--method={process}',
            '--workers=0',
            '--smooth_grad_nr_iter=2',
        )


def test_the_command_line_wins_over_the_checkpoint(checkpoint, photos, monkeypatch):
    args = inference.arguments([*ROOTS, f'--load_checkpoint={checkpoint[0]}'])
    assert (args.architecture, args.crop_size, args.large_feature_map, args.num_classes) == ('vgg_tiny', 32, True, 200)
    args = inference.arguments([*ROOTS, f'--load_checkpoint={checkpoint[0]}', '--crop_size=64'])
    assert args.crop_size == 64 and args.architecture == 'vgg_tiny'
    with pytest.raises(ValueError, match='trained as CALM-EM, not CAM'):
        call(monkeypatch, checkpoint, '--attribution_method=CAM', f'--images={photos}/a/x.jpg', '--workers=0')


def test_a_seed_that_nobody_gave_is_told_beside_the_list_of_files(checkpoint, photos, tmp_path, monkeypatch, capsys):
    command = ['', *ROOTS, f'--load_checkpoint={checkpoint[0]}', f'--images={photos}/a/x.jpg', '--workers=0']
    for seed in ([], ['--seed=5']):
        arguments = [*command, '--method=smooth_grad', '--smooth_grad_nr_iter=1', *seed]
        arguments.remove('--seed=1')
        monkeypatch.setattr(sys, 'argv', [*arguments, f'--output={tmp_path}/out{len(seed)}'])
        inference.main()
        out, err = capsys.readouterr()
        assert len(out.splitlines()) == 1 and ('repeats this run' in err) == (not seed)


def test_mistakes_are_one_line(checkpoint, photos, monkeypatch, tmp_path):
    image = f'--images={photos}/a/x.jpg'
    for what, arguments in (
        ('give --images', []),
        ('no image matches', ['--images=none.png']),
        ("unknown attribution map 'gradcam'", [image, '--method=gradcam']),
        ('200 classes', [image, '--classes=200']),
        ('one --method', ['--save_scoremaps=x', '--method=jointll,vanilla']),
        (
            "class 'Crow': no class names are known",
            [image, '--classes=Crow', f'--data_root={tmp_path}', f'--metadata_root={tmp_path}'],
        ),
        ('no --classes', ['--save_scoremaps=x', '--classes=3']),
    ):
        with pytest.raises(ValueError, match=what):
            call(monkeypatch, checkpoint, '--workers=0', f'--save_root={tmp_path}', *arguments)
    monkeypatch.setattr(sys, 'argv', ['inference.py', image])
    with pytest.raises(ValueError, match='give --load_checkpoint'):
        inference.main()
    assert not os.path.exists('x') and os.listdir(tmp_path) == ['photos']
