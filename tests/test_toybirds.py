"""ToyBirds: the drawn pictures, the files in CUB's layout, and the command as a user runs it."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import combinations
from pathlib import Path

import commands
import numpy as np
import pytest
from PIL import Image

from data_loaders import load_split
from wsol import cub_parts

SCRIPTS = Path(__file__).resolve().parent.parent / 'scripts'
SMALL = {'classes': 20, 'train': 1, 'val': 1, 'test': 2, 'size': 224, 'seed': 3}
SINGLE = {'design': 'single', 'classes': 24, 'test': 1}
PINNED_PIXELS = [47846, 534, 887, 1838, 1096, 1071, 872, 1108, 972]
PINNED_MEAN = [70.699, 120.409, 79.628]
CUB_PARTS = [
    'back',
    'beak',
    'belly',
    'breast',
    'crown',
    'forehead',
    'left eye',
    'left leg',
    'left wing',
    'nape',
    'right eye',
    'right leg',
    'right wing',
    'tail',
    'throat',
]


def command(root, **changes):
    """The command line that writes the small set under root."""
    options = {**SMALL, 'data_root': root / 'dataset', 'metadata_root': root / 'metadata', 'workers': 2, **changes}
    return [str(SCRIPTS / 'make_toybirds.py'), *(f'--{name}={value}' for name, value in options.items())]


def run(root, **changes):
    return subprocess.CompletedProcess('make_toybirds.py', *commands.run(*command(root, **changes)))


def digest(root):
    """{relative path: hash} of every file below root."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob('*')
        if path.is_file()
    }


def table(path, cut=' ', limit=-1):
    return [line.split(cut, limit) for line in path.read_text().splitlines()]


def mask_of(root, kind, path):
    return np.array(Image.open(root / kind / Path(path).with_suffix('.png')))


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """The root of the small set, written once."""
    root = tmp_path_factory.mktemp('toybirds')
    done = run(root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope='module')
def single(tmp_path_factory):
    """The root of a small set of the design `single`, written once."""
    root = tmp_path_factory.mktemp('single')
    done = run(root, **SINGLE)
    assert done.returncode == 0 and 'ToyBirdsSingle: 24 classes, 72 images' in done.stdout, done.stderr
    return root


@pytest.fixture
def modules(monkeypatch):
    """The modules of the classes and of the drawing, imported."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from toybirds import classes, render

    return classes, render


def parts_named(attribute):
    """Part groups an attribute's full name names: the rule of the cue localization protocol."""
    found = (
        {'head'}
        if any(w in attribute for w in ('bill', 'crown', 'eye', 'forehead', 'head', 'nape', 'throat'))
        else set()
    )
    return found | {word for word in ('back', 'belly', 'breast', 'tail', 'leg', 'wing') if word in attribute}


def pair_counts(names, values):
    """Class pairs by the number of part groups in which they differ; values: [classes, attributes]."""
    return Counter(
        len(set().union(*[parts_named(names[k]) for k in np.flatnonzero((one >= 50) != (other >= 50))]))
        for one, other in combinations(values, 2)
    )


@pytest.mark.slow
def test_attributes_give_many_pairs_of_each_difference_count(toy, modules):
    folder = toy / 'dataset/ToyBirds/attributes'
    names = [name for _, name in table(folder / 'attributes.txt')]
    values = np.loadtxt(folder / 'class_attribute_labels_continuous.txt')
    assert values.shape == (SMALL['classes'], len(names))
    pairs = pair_counts(names, values)
    assert min(pairs[1], pairs[2], pairs[3]) >= 15 and pairs[0] == 0
    assert len({tuple(row) for row in values}) == SMALL['classes']
    assert dict(pairs) == modules[0].count_differences(modules[0].design_classes(SMALL['classes']))


def test_each_attribute_names_the_group_of_its_part_alone(modules):
    for part, (attribute, looks) in modules[0].PART_LOOKS.items():
        for look in looks:
            assert parts_named(f'{attribute}::{look}') == {'head' if part in ('bill', 'crown') else part}


@pytest.mark.parametrize('count', [20, 21, 24, *(pytest.param(n, marks=pytest.mark.slow) for n in (30, 37, 64))])
def test_any_class_count_is_balanced(modules, count):
    codes = modules[0].design_classes(count)
    pairs = modules[0].count_differences(codes)
    assert len(set(codes)) == len(codes) == count and 0 not in pairs
    assert min(pairs[1], pairs[2], pairs[3]) >= 15
    assert np.all(np.abs(np.mean(codes, axis=0) - 0.5) <= 0.12)


@pytest.mark.slow
def test_layout_files_agree(toy):
    root = toy / 'dataset/ToyBirds'
    images = dict(table(root / 'images.txt'))
    labels = dict(table(root / 'image_class_labels.txt'))
    split = dict(table(root / 'train_test_split.txt'))
    classes = dict(table(root / 'classes.txt'))
    boxes = {row[0]: [float(v) for v in row[1:]] for row in table(root / 'bounding_boxes.txt')}
    total = SMALL['classes'] * (SMALL['train'] + SMALL['test'])
    assert list(images) == list(labels) == list(split) == list(boxes) == [str(i) for i in range(1, total + 1)]
    assert [name for _, name in table(root / 'parts/parts.txt', limit=1)] == CUB_PARTS
    assert Counter(split.values()) == {'1': SMALL['classes'] * SMALL['train'], '0': SMALL['classes'] * SMALL['test']}
    for image, path in images.items():
        folder, name = path.split('/')
        assert folder == classes[labels[image]] and folder.startswith(f'{int(labels[image]):03d}.')
        assert name.startswith(folder[4:] + '_') and name.endswith(f'_{image}.jpg')
    files = {str(path.relative_to(root / 'images')) for path in (root / 'images').rglob('*.jpg')}
    assert files == set(images.values())
    for kind in ('segmentations', 'part_masks'):
        assert {str(path.relative_to(root / kind)) for path in (root / kind).rglob('*.png')} == {
            f[:-4] + '.png' for f in files
        }


@pytest.mark.slow
def test_metadata_agrees_with_layout_and_pictures(toy):
    data = toy / 'dataset/ToyBirds'
    meta = toy / 'metadata/ToyBirds'
    boxes = dict(zip((path for _, path in table(data / 'images.txt')), table(data / 'bounding_boxes.txt')))
    numbers = {name: int(number) for number, name in table(data / 'classes.txt')}
    in_train = dict(
        zip(
            (path for _, path in table(data / 'images.txt')), (flag for _, flag in table(data / 'train_test_split.txt'))
        )
    )
    for split in ('train', 'val', 'test'):
        ids = (meta / split / 'image_ids.txt').read_text().split()
        labels, sizes, places = (
            table(meta / split / f'{name}.txt', ',') for name in ('class_labels', 'image_sizes', 'localization')
        )
        assert len(ids) == SMALL['classes'] * SMALL[split]
        assert ids == [row[0] for row in labels] == [row[0] for row in sizes] == [row[0] for row in places]
        for image, (_, label), (_, *size), (_, *place) in zip(ids, labels, sizes, places):
            with Image.open(data / ('val_images' if split == 'val' else 'images') / image) as picture:
                width, height = picture.size
                assert picture.mode == 'RGB' and [str(width), str(height)] == size
            assert numbers[image.split('/')[0]] == int(label) + 1
            assert min(width, height) == SMALL['size'] and max(width, height) <= SMALL['size'] * 1.125
            if split != 'val':
                x, y, w, h = (float(v) for v in boxes[image][1:])
                assert [int(v) for v in place] == [x, y, min(x + w, width - 1), min(y + h, height - 1)]
                assert in_train[image] == str(int(split == 'train'))
    assert len({tuple(row[1:]) for row in sizes}) > 5  # sizes vary


@pytest.mark.slow
def test_boxes_and_masks_fit_each_other(toy):
    root = toy / 'dataset/ToyBirds'
    assert table(root / 'part_masks/labels.txt') == [
        [str(n), part]
        for n, part in enumerate(('bill', 'crown', 'wing', 'back', 'breast', 'belly', 'tail', 'leg'), start=1)
    ]
    for (_, path), (_, *box) in zip(table(root / 'images.txt'), table(root / 'bounding_boxes.txt')):
        bird = mask_of(root, 'segmentations', path)
        labels = mask_of(root, 'part_masks', path)
        rows, columns = np.nonzero(bird)
        assert [float(v) for v in box] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert max(np.ptp(columns) / bird.shape[1], np.ptp(rows) / bird.shape[0]) > 0.6
        assert bird.max() == 255 and np.all(bird[labels > 0] > 0)
        share = np.bincount(labels.ravel(), minlength=9) / labels.size
        assert len(share) == 9 and share[1:].min() >= 0.004


@pytest.mark.slow
def test_part_points_lie_in_their_masks(toy):
    root = toy / 'dataset/ToyBirds'
    label_of = {'beak': 1, 'crown': 2, 'wing': 3, 'back': 4, 'breast': 5, 'belly': 6, 'tail': 7, 'leg': 8}
    images = dict(table(root / 'images.txt'))
    shown = Counter()
    for image, part, x, y, visible in table(root / 'parts/part_locs.txt'):
        name = CUB_PARTS[int(part) - 1]
        if visible == '0':
            assert (x, y) == ('0.0', '0.0') and name.split()[-1] in ('eye', 'wing')
            continue
        shown[image] += 1
        row = int(float(y))
        column = int(float(x))
        assert mask_of(root, 'segmentations', images[image])[row, column] > 0
        label = label_of.get(name.split()[-1])
        if label:
            assert mask_of(root, 'part_masks', images[image])[row, column] == label
    assert set(shown.values()) == {13}  # one eye and one wing are on the far side


def test_the_combined_design_draws_what_it_always_drew(modules):
    """Pinned before there was a second design: the pixels of each part, and the picture's mean but for rounding."""
    classes, render = modules
    looks = classes.looks_of(classes.design_classes(24)[5])
    bird = render.render_bird(looks, np.random.default_rng(7), 224)
    assert np.bincount(bird.labels.ravel()).tolist() == PINNED_PIXELS
    np.testing.assert_allclose(bird.image.mean(axis=(0, 1)), PINNED_MEAN, atol=0.05)


@pytest.mark.parametrize('design, seeds', [('combined', (0, 1)), ('single', (0,))])
def test_a_changed_look_changes_its_part_alone(modules, design, seeds):
    """Equal generators: two looks of a part give the same picture outside it, so nothing else tells classes apart."""
    classes, render = modules
    table = classes.DESIGNS[design].looks
    first = {part: looks[0] for part, (_, looks) in table.items()}
    common = {seed: render.render_bird(first, np.random.default_rng(seed), 224, table) for seed in seeds}
    for part, look in [(part, look) for part, (_, looks) in table.items() for look in looks[1:]]:
        for seed, one in common.items():
            other = render.render_bird({**first, part: look}, np.random.default_rng(seed), 224, table)
            changed = np.any(one.image != other.image, axis=-1)
            label = classes.LABELS[part]
            around = np.pad((one.labels == label) | (other.labels == label), 2)
            height, width = changed.shape  # a part's soft edge reaches a pixel or two beyond its label
            around = np.any([around[dy : dy + height, dx : dx + width] for dy in range(5) for dx in range(5)], axis=0)
            assert changed.sum() > 0.002 * changed.size and not np.any(changed & ~around)


@pytest.mark.slow
def test_a_class_of_the_single_design_differs_from_the_common_bird_by_one_look(single, modules):
    data = single / 'dataset/ToyBirdsSingle'
    names = [name for _, name in table(data / 'attributes/attributes.txt')]
    values = np.loadtxt(data / 'attributes/class_attribute_labels_continuous.txt').reshape(24, 8, 4)
    assert set(np.unique(values)) == {0, 100} and np.all(values.sum(axis=2) == 100)  # one look of each part
    looks = values.argmax(axis=2)
    assert len(names) == 32 and len({tuple(row) for row in looks}) == 24
    assert np.all((looks != 0).sum(axis=1) == 1) and np.all((looks != 0).sum(axis=0) == 3)
    for (_, name), row in zip(table(data / 'classes.txt'), looks):
        assert name.endswith('.Toybird_' + ''.join(map(str, row)))
    for part, (attribute, values_of_part) in modules[0].SINGLE_LOOKS.items():
        for look in values_of_part:
            assert f'{attribute}::{look}' in names
            assert parts_named(f'{attribute}::{look}') == {'head' if part in ('bill', 'crown') else part}


@pytest.mark.slow
def test_pairs_of_the_single_design_differ_in_one_or_two_parts(single):
    """By hand: 8 parts x 3 pairs of looks, 9 of a bill and a crown (both the head), of 276; and the true pixels."""
    data = single / 'dataset/ToyBirdsSingle'
    pairs = cub_parts.class_pairs(data)
    assert Counter(len(pair.parts) for pair in pairs) == {1: 8 * 3 + 9, 2: 276 - 33}
    names = [name for _, name in table(data / 'attributes/attributes.txt')]
    values = np.loadtxt(data / 'attributes/class_attribute_labels_continuous.txt')
    assert pair_counts(names, values) == Counter(len(pair.parts) for pair in pairs)
    labels = cub_parts.read_exact_labels(data)
    for pair in pairs:  # three classes a part, in the order of the labels
        assert cub_parts.exact_labels_of(pair, labels) == {pair.a // 3 + 1, pair.b // 3 + 1}


@pytest.mark.slow
def test_files_of_the_single_design_hold_what_is_drawn(single, modules):
    """Every split loads; masks are the drawing's own labels; the marker names the design."""
    classes, render = modules
    design = classes.DESIGNS['single']
    data = single / 'dataset/ToyBirdsSingle'
    for split in ('train', 'val', 'test'):
        loaded = load_split('ToyBirdsSingle', split, str(single / 'dataset'), str(single / 'metadata'))
        assert loaded.labels == list(range(24)) and loaded.num_classes == 24
    for label in (0, 8, 14, 23):
        looks = classes.looks_of(design.codes(24)[label], design.looks)
        bird = render.render_bird(looks, np.random.default_rng([SMALL['seed'], 2, label, 0]), 224, design.looks)
        assert np.array_equal(mask_of(data, 'part_masks', loaded.image_ids[label]), bird.labels)
        assert np.array_equal(mask_of(data, 'segmentations', loaded.image_ids[label]), bird.segmentation)
        assert np.bincount(bird.labels.ravel(), minlength=9).min() >= 0.004 * bird.labels.size
    assert json.loads((data / 'toybirds.json').read_text()) == {**SMALL, **SINGLE}


@pytest.mark.slow
def test_same_bytes_for_any_number_of_workers(toy, tmp_path):
    assert run(tmp_path, workers=1).returncode == 0
    assert digest(tmp_path) == digest(toy)


@pytest.mark.slow
def test_complete_set_is_left_alone(toy):
    before = digest(toy)
    done = run(toy)
    assert (
        done.returncode == 0 and len(done.stdout.splitlines()) == 1 and 'complete' in done.stdout and done.stderr == ''
    )
    assert digest(toy) == before


@pytest.mark.slow
def test_other_arguments_are_refused(toy):
    before = digest(toy)
    done = run(toy, seed=4)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and '"seed": 3' in done.stderr
    assert digest(toy) == before


@pytest.mark.parametrize('root', ['dataset', 'metadata'])
@pytest.mark.slow
def test_foreign_folder_is_refused(tmp_path, root):
    foreign = tmp_path / root / 'ToyBirds/train'
    foreign.mkdir(parents=True)
    (foreign / 'image_ids.txt').write_text('mine\n')
    done = run(tmp_path)
    assert (
        done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(tmp_path / root / 'ToyBirds') in done.stderr
    )
    assert list(digest(tmp_path)) == [f'{root}/ToyBirds/train/image_ids.txt']


@pytest.mark.slow
def test_incomplete_set_is_refused_and_lost_metadata_is_made_again(toy, tmp_path):
    (tmp_path / 'dataset').symlink_to(toy / 'dataset')
    assert run(tmp_path).returncode == 0
    assert digest(tmp_path / 'metadata') == digest(toy / 'metadata')
    (tmp_path / 'metadata/ToyBirds/val/image_sizes.txt').unlink()
    done = run(tmp_path)
    assert done.returncode == 2 and 'incomplete' in done.stderr and 'val/image_sizes.txt' in done.stderr


@pytest.mark.parametrize(
    'change',
    [
        {'classes': 19},
        {'classes': 65},
        {'classes': 20, 'design': 'single'},
        {'size': 223},
        {'test': -1},
        {'train': 0},
        {'workers': 0},
    ],
)
@pytest.mark.slow
def test_bad_arguments_are_refused(tmp_path, change):
    done = run(tmp_path, **change)
    name, value = next(iter(change.items()))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and f'--{name} {value}' in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_interrupt_leaves_nothing(tmp_path):
    def accept_interrupts():  # ignored in a shell's background job, and blocked after `protect_workers`
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    process = subprocess.Popen(
        [sys.executable, *command(tmp_path, train=500)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=accept_interrupts,
    )
    while not any(tmp_path.rglob('*.jpg')) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130 and 'interrupted' in errors and 'Traceback' not in errors
    assert not any((tmp_path / 'dataset').iterdir()) and not any((tmp_path / 'metadata').iterdir())


@pytest.mark.slow
def test_marker_holds_the_arguments(toy):
    assert json.loads((toy / 'dataset/ToyBirds/toybirds.json').read_text()) == SMALL
