"""check_data.py on photographs in folders: each fault is found, split by split, and named."""

import os
import shutil

import pytest
from conftest import ROOT
from PIL import Image
from test_data_folders import CLASSES, add_boxes, make_set

from data import folders


@pytest.fixture
def check(monkeypatch, capsys):
    """(exit code, standard output) of check_data.py --dataset=folder, called in this process."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, 'scripts'))
    import check_data

    def call(root, *flags):
        with pytest.raises(SystemExit) as stop:
            check_data.main(['--dataset=folder', f'--data_root={root}', f'--metadata_root={root}', *flags])
        return stop.value.code, capsys.readouterr().out

    return call


def add_masks(root, image_ids, size=(40, 36)):
    for one in image_ids:
        path = os.path.join(root, 'masks', f'{one}.png')
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Image.new('L', size, 255).save(path)


def test_a_sound_set_is_all_right(tmp_path, check):
    root = make_set(tmp_path / 'a', ('train', 'test'))
    code, out = check(root)
    assert code == 0 and out.splitlines() == [
        'folder train: 12 photographs of 2 classes',
        'folder val: no such folder; training splits it off train',
        'folder test: 12 photographs of 2 classes',
        'neither boxes.csv nor masks/: localization cannot be scored',
        'folder train: all right',
        'folder test: all right',
    ]
    test = folders.make(root, 0).images['test']
    add_masks(root, test)
    code, out = check(root, '--splits', 'test')
    assert code == 0 and out.splitlines()[1:] == ['true masks: masks/', 'folder test: all right']
    add_boxes(root, test)
    code, out = check(root, '--splits', 'test')
    assert code == 0 and 'true boxes: boxes.csv\n' in out


def test_what_would_be_ignored_is_said(tmp_path, check):
    root = make_set(tmp_path / 'a', ('train', 'test', 'validation'))
    (tmp_path / 'a' / '.cache').mkdir()
    assert check(root, '--splits', 'test')[1].startswith(
        f'{root}: not read: validation/; read are SPLIT/CLASS/ with SPLIT of train, val, test; boxes.csv; masks/\n'
    )
    test = folders.make(root, 0).images['test']
    for name in ('x.jpg', 'train/x.jpg'):
        Image.new('RGB', (40, 36)).save(os.path.join(root, name))
    assert f'{root}: not read: train/x.jpg, validation/, x.jpg; read' in check(root)[1]
    shutil.rmtree(os.path.join(root, 'test', CLASSES[1]))
    assert f'folder test: 6 photographs of 1 of 2 classes, none of {CLASSES[1]}\n' in check(root)[1]
    add_masks(root, [*test[:5], 'test/none/1.jpg'])
    add_masks(root, [os.path.splitext(test[5])[0]])
    code, out = check(root)
    assert code == 1 and 'boxes and masks: 7 found' not in out and 'boxes and masks: 1 found wrong' in out
    assert 'no photograph: 1\n    masks/test/none/1.jpg.png: a mask is masks/PATH.png' in out
    add_boxes(root, test[:6])
    with open(os.path.join(root, 'boxes.csv'), 'a') as file:
        file.write(f'{test[0]}x,0,0,4,4\n')
    assert f'  no photograph: 2\n    boxes.csv, line 8: {test[0]}x\n' in check(root)[1]


def test_each_fault_is_named(tmp_path, check):
    root = make_set(tmp_path / 'a', ('train', 'test'))
    test = folders.make(root, 0).images['test']
    add_masks(root, test[2:])
    add_masks(root, test[3:4], (20, 18))
    two = Image.new('LA', (40, 36), (0, 255))
    two.putpixel((3, 3), (9, 0))
    two.save(os.path.join(root, 'masks', f'{test[5]}.png'))
    with open(os.path.join(root, test[6]), 'r+b') as file:
        file.truncate(os.path.getsize(file.name) - 150)
    code, out = check(root, '--splits', 'test')
    assert code == 1 and 'folder test: 5 found wrong' in out
    assert 'no mask: 2\n' in out and 'bad mask: 2\n' in out and 'unreadable image: 1\n' in out
    assert f'{test[5]}.png is partly transparent' in out and f'{test[3]}.png is (20, 18)' in out
    assert test[6] in out and 'bad box' not in out
    code, out = check(root, '--splits', 'test', '--fast')  # headers alone
    assert code == 1 and 'bad mask: 1\n' in out and 'unreadable' not in out
    with open(os.path.join(root, 'boxes.csv'), 'w') as file:
        file.writelines(f'{one},0,0,{40 + n},36\n' for n, one in enumerate(test[:2]))
    code, out = check(root, '--splits', 'test', '--fast')
    assert (
        'no box: 10\n' in out
        and 'bad box: 1\n' in out
        and 'line 2: 0,0,41,36 is not a box of' in out
        and 'no mask' not in out
    )


def test_the_split_of_an_experiment_is_checked(tmp_path, check):
    root = make_set(tmp_path / 'a', count=10)
    split = folders.make(root, 1)
    folders.write(str(tmp_path / 'cam'), split)
    os.unlink(os.path.join(root, split.images['val'][1]))
    code, out = check(root, f'--metadata_root={tmp_path}/cam')
    assert code == 1 and 'folder train: all right\nfolder val: 1 found wrong\n  missing image: 1\n' in out
    assert f'    {os.path.join(root, split.images["val"][1])}\nfolder test: all right\n' in out


def test_what_a_training_would_refuse_is_said(tmp_path, check):
    code, out = check(make_set(tmp_path / 'a', classes=CLASSES[:1]))
    assert code == 1 and 'cannot be trained on: 1\n' in out and 'has one class, blue tit' in out
    root = make_set(tmp_path / 'b')
    (tmp_path / 'b' / 'boxes.csv').write_text('train/a.jpg,1,2\n')
    code, out = check(root)
    assert code == 1 and 'boxes.csv, line 1: 3 columns' in out
