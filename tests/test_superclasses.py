"""scripts/make_superclasses.py: sets of a small graph against sets written out by hand, refusals, and maps of sets."""

import hashlib
import json
import os
import sys

import pytest
import torch
from commands import run
from conftest import ROOT

import wsol
from data.metadata import read_superclasses
from engine.command import command
from engine.map_maker import MapMaker
from wsol.attribution import Options, explain
from wsol.errors import UserError

sys.path.insert(0, os.path.join(ROOT, 'scripts'))
import make_superclasses  # noqa: E402
import shared  # noqa: E402

OFFLINE = 'http://127.0.0.1:9'  # an address that refuses connections
# dog, cat and parrot have two parents (diamonds below animal); poodle also hangs directly below pet, a shorter way up.
IS_A = """\
entity animal
entity thing
animal mammal
animal bird
animal pet
mammal dog
pet dog
mammal cat
pet cat
mammal bat
bird duck
bird parrot
pet parrot
dog poodle
pet poodle
dog terrier
thing tool
tool pan
thing mug
"""
CLASSES = ['poodle', 'cat', 'bat', 'duck', 'pan', 'mug', 'parrot', 'terrier']
DEPTHS = {
    'entity': 0,
    'animal': 1,
    'thing': 1,
    'mammal': 2,
    'bird': 2,
    'pet': 2,
    'tool': 2,
    'mug': 2,
    'dog': 3,
    'cat': 3,
    'bat': 3,
    'duck': 3,
    'pan': 3,
    'parrot': 3,
    'poodle': 4,
    'terrier': 4,
}
ALONE = {number: [number] for number in range(8)}
ANIMALS = [0, 1, 2, 3, 6, 7]
BY_HAND = {
    0: {number: list(range(8)) for number in range(8)},
    1: {**dict.fromkeys(ANIMALS, ANIMALS), 4: [4, 5], 5: [4, 5]},
    2: {
        0: [0, 1, 2, 6, 7],
        1: [0, 1, 2, 6, 7],
        7: [0, 1, 2, 6, 7],  # mammals and pets
        2: [0, 1, 2, 7],
        3: [3, 6],
        6: [0, 1, 3, 6, 7],
        4: [4],
        5: [5],
    },  # mammals; birds; birds and pets; tools; mug itself
    3: {**ALONE, 0: [0, 7], 7: [0, 7]},  # dogs; mug is shallower
    4: ALONE,
}


def test_the_id_of_a_file_is_the_one_that_git_gives():
    assert shared.git_blob(b'hello\n') == 'ce013625030ba8dba906f756967f9e9ca394464a'


@pytest.fixture
def helper(tmp_path):
    """A folder with helper files of the small graph."""
    folder = tmp_path / 'helper'
    folder.mkdir()
    (folder / 'wordnet.is_a.txt').write_text(IS_A)
    (folder / 'imagenet_class_index.json').write_text(
        json.dumps({str(i): [name, name] for i, name in enumerate(CLASSES)})
    )
    (folder / 'words.txt').write_text('pet\ttame animal, pet\nmammal\tmammal\n')
    return folder


@pytest.fixture
def refused(capfd, monkeypatch):
    """A check that the script with these flags ends with exit code 2 and one line on standard error with all words."""
    monkeypatch.setenv('CALM_MIRROR', OFFLINE)

    def check(flags, *words):
        with pytest.raises(SystemExit) as stop:
            command(lambda: make_superclasses.main(flags))
        error = capfd.readouterr().err
        assert stop.value.code == 2 and len(error.strip().splitlines()) == 1, error
        assert all(word in error for word in words), error

    return check


@pytest.mark.parametrize('depth', BY_HAND)
def test_sets_of_the_small_graph_are_those_written_out(depth):
    groups = make_superclasses.groups_at(CLASSES, make_superclasses.read_parents(IS_A), depth)
    assert make_superclasses.sets_of(8, groups) == BY_HAND[depth]


def test_depth_is_the_longest_way_from_the_root():
    assert make_superclasses.depths(CLASSES, make_superclasses.read_parents(IS_A)) == DEPTHS


@pytest.mark.parametrize(
    'is_a, depth, words',
    [
        (IS_A, 5, 'the deepest is at 4'),
        (IS_A + 'poodle mammal\n', 1, 'cycle'),
        ('entity animal\nentity mug cup\n', 1, 'line 2'),
        (IS_A.replace('thing mug\n', ''), 1, 'mug'),
    ],
)
def test_a_graph_without_an_answer_is_refused(is_a, depth, words):
    with pytest.raises(ValueError, match=words):
        make_superclasses.groups_at(CLASSES, make_superclasses.read_parents(is_a), depth)


@pytest.mark.parametrize('index', ['[]', '{}', '{"1": ["n1", "a"]}', '{"a": ["n1"]}', '{"0": []}', 'x'])
def test_a_class_index_of_another_form_is_refused(index):
    with pytest.raises(ValueError, match='imagenet_class_index.json'):
        make_superclasses.read_classes(index)


def test_ilsvrc_checks_its_helpers_writes_and_never_overwrites(helper, tmp_path, refused):
    out = tmp_path / 'sets.json'
    flags = ['--dataset=ILSVRC', '--depth=2', f'--helper_dir={helper}', f'--output={out}']
    refused(
        flags,
        'imagenet_class_index.json',
        'git blob id',
        make_superclasses.BLOBS['imagenet_class_index.json'],
        '--no_checksum',
    )
    assert not out.exists()
    code, said, err = run('scripts/make_superclasses.py', *flags, '--no_checksum')
    assert code == 0, err
    assert list(read_superclasses(out).items()) == sorted(BY_HAND[2].items())  # sorted in the file too
    lines = said.splitlines()
    assert lines[0] == '8 classes, 5 sets; 0 classes are in none and stand alone, 4 are in several and get their union'
    assert [line.split() for line in lines[1:3]] == [
        ['4', 'mammal', '(mammal)'],
        ['4', 'tame', 'animal,', 'pet', '(pet)'],
    ]
    refused([*flags, '--no_checksum'], str(out), '--overwrite')
    make_superclasses.main([*flags, '--depth=3', '--no_checksum', '--overwrite'])
    assert read_superclasses(out) == BY_HAND[3] and sorted(os.listdir(tmp_path)) == ['helper', 'sets.json']


def test_helpers_are_fetched_checked_and_kept(helper, tmp_path, monkeypatch):
    mirror = tmp_path / 'mirror' / 'metadata' / 'ILSVRC'
    mirror.mkdir(parents=True)
    helper.rename(mirror / 'helper')
    monkeypatch.setenv('CALM_MIRROR', (tmp_path / 'mirror').as_uri())
    flags = ['--dataset=ILSVRC', '--depth=1', f'--metadata_root={tmp_path}/meta', f'--output={tmp_path}/sets.json']
    with pytest.raises(ValueError, match='has the git blob id'):
        make_superclasses.main(flags)
    assert not any(files for _, _, files in os.walk(tmp_path / 'meta'))
    data = {name: (mirror / 'helper' / name).read_bytes() for name in make_superclasses.BLOBS}
    monkeypatch.setattr(
        make_superclasses,
        'BLOBS',
        {name: hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest() for name, content in data.items()},
    )
    make_superclasses.main(flags)
    assert read_superclasses(tmp_path / 'sets.json') == BY_HAND[1]
    assert {
        name: (tmp_path / 'meta/ILSVRC/helper' / name).read_bytes()
        for name in os.listdir(tmp_path / 'meta/ILSVRC/helper')
    } == data
    monkeypatch.setenv('CALM_MIRROR', OFFLINE)
    make_superclasses.main([*flags, '--overwrite'])  # offline, nothing left to fetch


def test_offline_and_wrong_flags_are_one_line(tmp_path, refused):
    refused(
        ['--dataset=ILSVRC', '--depth=1', f'--helper_dir={tmp_path}/none', f'--output={tmp_path}/x'],
        'class_index.json',
        'online',
    )
    assert os.listdir(tmp_path) == []
    refused(['--dataset=CUB', '--depth=1', f'--output={tmp_path}/x'], '--depth')
    refused(['--dataset=ILSVRC', f'--output={tmp_path}/x'], '--depth')
    refused(['--dataset=ILSVRC', '--depth=-1', f'--output={tmp_path}/x'], '--depth=-1')


def test_cub_is_all_birds_so_its_joint_map_is_the_saliency(tmp_path):
    """The limit case: the sum of p(y,z|x) over every class is p(z|x)."""
    make_superclasses.main(['--dataset=CUB', f'--output={tmp_path}/birds.json'])
    sets = read_superclasses(tmp_path / 'birds.json')
    assert sets == {number: list(range(200)) for number in range(200)}
    model = wsol.build_model('vgg_tiny', 'CALM-EM', 200).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    got = explain('jointll-superclass', model, images, target=[7, 199], superclass=sets)
    torch.testing.assert_close(got, explain('saliency', model, images, target=[0, 0]))


def test_a_readout_sums_over_the_sets_of_the_file(helper, tmp_path):
    make_superclasses.main(
        ['--dataset=ILSVRC', '--depth=2', f'--helper_dir={helper}', f'--output={tmp_path}/s.json', '--no_checksum']
    )
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 8).double().eval()
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    maps = {c: explain('jointll', model, images, target=c) for c in range(8)}
    sets = read_superclasses(tmp_path / 's.json')
    torch.testing.assert_close(
        explain('jointll-superclass', model, images, target=6, superclass=sets),
        maps[0] + maps[1] + maps[3] + maps[6] + maps[7],
    )
    torch.testing.assert_close(
        explain('jointll-superclass-mean', model, images, target=3, superclass=sets), (maps[3] + maps[6]) / 2
    )


@pytest.mark.parametrize(
    'text, said',
    [
        ('{"0": [0, 1', 'is damaged'),
        ('[[0, 1]]', 'not a JSON object'),
        ('\ufeff{"0": "a"}', 'does not contain class numbers'),
        ('{"bird": [0]}', 'does not contain class numbers'),
        ('{"0": 3}', 'does not contain class numbers'),
        ('{"0": []}', r'class 0 has the set \[\]'),
        ('{"0": [-1]}', r'class 0 has the set \[-1\]'),
    ],
)
def test_a_file_that_is_no_table_of_sets_is_one_line(text, said, tmp_path):
    (tmp_path / 'sets.json').write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_superclasses(tmp_path / 'sets.json')
    assert '\n' not in str(error.value) and 'sets.json' in str(error.value)


@pytest.mark.parametrize(
    'sets, said',
    [
        ({0: [0, 1]}, 'has no set for class 2'),
        ({2: []}, 'has no set for class 2'),
        ({2: [2, 8]}, 'has class 8 in the set of class 2: the network has classes 0 to 7'),
        ({2: [2, -1]}, 'has class -1 in the set of class 2'),
    ],
)
def test_sets_that_do_not_fit_the_network_are_one_line(sets, said):
    model = wsol.build_model('vgg_tiny', 'CALM-ML', 8).eval()
    for name in ('jointll-superclass', 'jointll-superclass-mean', 'vanilla-superclass'):
        with pytest.raises(UserError, match=said):
            explain(name, model, torch.zeros(1, 3, 32, 32), target=2, superclass=sets)
        if '8' in said or '-1' in said:  # before the first image
            with pytest.raises(UserError, match=said):
                MapMaker(model, name, Options(superclass=sets))
