"""Parts and pairs: the paper's figures on the true annotations, and slow versions of every step."""

import contextlib
import os
from collections import Counter

import numpy as np
import pytest
from conftest import MINICUB
from PIL import Image

from wsol import cub_parts

FOLDER = os.path.join(MINICUB, 'dataset', 'CUB')


def test_true_cub_has_the_papers_pairs(real_cub):
    pairs = cub_parts.class_pairs(real_cub)
    assert Counter(len(pair.parts) for pair in pairs) == {1: 31, 2: 64, 3: 96, 4: 445, 5: 1564, 6: 5988, 7: 11711, 0: 1}
    used = cub_parts.pairs_by_count(pairs)
    classes = {pair.a for pair in used} | {pair.b for pair in used}
    assert len(used) == 191 and len(classes) == 89


@pytest.mark.slow
def test_true_cub_has_the_papers_images(real_cub):
    """2,579 distinct test images, 11,039 image x pair evaluations; 20 of them see no differing part and are skipped."""
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(real_cub))

    def read(name):
        with open(os.path.join(real_cub, name)) as file:
            return dict(line.split() for line in file)

    images = read('images.txt')
    labels = read('image_class_labels.txt')
    training = read('train_test_split.txt')
    test = [(images[key], int(labels[key]) - 1) for key in images if training[key] == '0']
    classes = {pair.a for pair in pairs} | {pair.b for pair in pairs}
    assert sum(label in classes for _, label in test) == 2579
    locations = cub_parts.read_part_locations(real_cub)
    evaluations = Counter()
    for path, label in test:
        _, ids = cub_parts.part_points(locations[path], (500, 500), 224)
        evaluations.update(bool(pair.parts & set(ids)) for pair in pairs if label in (pair.a, pair.b))
    assert evaluations == {True: 11019, False: 20}


def test_a_class_has_an_attribute_from_half_of_its_annotators_on(tmp_path):
    (tmp_path / 'attributes').mkdir()
    (tmp_path / 'attributes' / 'attributes.txt').write_text('1 has_bill_shape::cone\n2 has_size::large\n')
    values = tmp_path / 'attributes' / 'class_attribute_labels_continuous.txt'
    values.write_text('49.9 0\n50 100\n50.1 50.0\n49.999 50.001\n')
    names, table = cub_parts.read_class_attributes(str(tmp_path))
    assert names == ['has_bill_shape::cone', 'has_size::large']
    assert table.tolist() == [[False, False], [True, True], [True, True], [False, True]]
    values.write_text('49.9 0 1\n')
    with pytest.raises(ValueError, match='line 1: 3 values per class for 2 attributes'):
        cub_parts.read_class_attributes(str(tmp_path))
    for wrong in ('100 nan', '100 x', '100,0'):
        values.write_text(f'49.9 0\n\n{wrong}\n')
        with pytest.raises(ValueError, match='continuous.txt, line 3: '):
            cub_parts.read_class_attributes(str(tmp_path))
    values.write_text('49.9 0\n100 0\n\n')
    assert len(cub_parts.class_pairs(str(tmp_path), 2)) == 1
    with pytest.raises(ValueError, match='continuous.txt has 2 classes, the split 3: '):
        cub_parts.class_pairs(str(tmp_path), 3)
    values.write_text('')
    assert cub_parts.class_pairs(str(tmp_path)) == []
    (tmp_path / 'attributes' / 'attributes.txt').write_text('has_bill_shape::cone\n')
    with pytest.raises(ValueError, match='attributes.txt, line 1: '):
        cub_parts.read_class_attributes(str(tmp_path))


WORDS = {
    'bill': 1,
    'crown': 1,
    'eye': 1,
    'forehead': 1,
    'head': 1,
    'nape': 1,
    'throat': 1,
    'back': 2,
    'belly': 3,
    'breast': 4,
    'tail': 5,
    'leg': 6,
    'wing': 7,
}


@pytest.mark.parametrize('word', WORDS)
def test_every_word_names_its_part(word):
    assert cub_parts.named_parts(f'has_{word}_color::red') == {WORDS[word]}


def test_the_words_of_the_parts_are_these():
    assert {word: part for part, words in cub_parts.PART_WORDS.items() for word in words} == WORDS
    assert sum(len(words) for words in cub_parts.PART_WORDS.values()) == len(WORDS) == 13


def test_fifteen_parts_become_seven():
    """Of CUB's 15 parts the seven of the head are one point, their mean; legs and wings are a point each."""
    pairs = {1: (2, 5, 6, 7, 10, 11, 15), 2: (1,), 3: (3,), 4: (4,), 5: (14,), 6: (8, 12), 7: (9, 13)}
    for part, members in pairs.items():
        locations = {member: (member, 2 * member) for member in members}
        points, ids = cub_parts.part_points(locations, (100, 100), 100)
        if part == 1:
            assert ids == [1] and points.tolist() == [[8, 16]]
        else:
            assert ids == [part] * len(members) and points.tolist() == [[member, 2 * member] for member in members]
    assert sorted(member for members in pairs.values() for member in members) == list(range(1, 16))


def test_attributes_name_parts_by_substring():
    assert cub_parts.named_parts('has_bill_shape::cone') == {1}
    assert cub_parts.named_parts('has_shape::long-legged-like') == {6}
    assert cub_parts.named_parts('has_under_tail_color::blue') == {5}
    assert cub_parts.named_parts('has_size::small_(5_-_9_in)') == set()


def test_pairs_come_by_count_then_ascending():
    pairs = cub_parts.pairs_by_count(cub_parts.class_pairs(FOLDER))
    assert [(len(pair.parts), pair.a, pair.b) for pair in pairs] == sorted((len(p.parts), p.a, p.b) for p in pairs)
    assert Counter(len(pair.parts) for pair in pairs) == {1: 6, 2: 8, 3: 5}


def test_points_are_united_scaled_and_truncated():
    locations = {2: (10, 10), 5: (20, 13), 8: (30, 5), 12: (31, 6), 14: (99, 49), 1: (50, 25)}
    points, ids = cub_parts.part_points(locations, (100, 50), 224)
    assert ids == [1, 2, 5, 6, 6]
    assert points.tolist() == [[33, 51], [112, 112], [221, 219], [67, 22], [69, 26]]


def test_nearest_part_equals_a_loop_with_ties_to_the_first():
    points = np.array([[1, 1], [5, 1], [3, 6]])
    ids = [4, 2, 7]
    got = cub_parts.nearest_part(points, ids, 8)
    for y in range(8):
        for x in range(8):
            distances = [(x - px) ** 2 + (y - py) ** 2 for px, py in points]
            assert got[y, x] == ids[distances.index(min(distances))]
    assert got[1, 3] == 4  # as far from the first point as from the second
    assert not cub_parts.nearest_part(np.zeros((0, 2), int), [], 4).any()


def test_segmentation_is_pillows_bicubic_filter_cut_at_zero():
    with open(os.path.join(MINICUB, 'metadata', 'CUB', 'test', 'image_ids.txt')) as file:
        image_id = file.readline().strip()
    mask = Image.open(os.path.join(FOLDER, 'segmentations', image_id[:-4] + '.png')).convert('L')
    np.testing.assert_array_equal(cub_parts.segmentation(FOLDER, image_id, 224), np.array(mask.resize((224, 224))) > 0)
    with pytest.raises(ValueError, match='no_such'):
        cub_parts.segmentation(FOLDER, 'no_such.jpg', 224)


def test_beside_the_bird_the_bicubic_filter_drops_what_is_faint(tmp_path):
    """Its negative lobes, cut at 0: another filter has other pixels there."""
    grey = np.zeros((7, 7), np.uint8)
    grey[:, 1] = 255
    grey[:, 3] = 6
    (tmp_path / 'segmentations').mkdir()
    Image.fromarray(grey).save(tmp_path / 'segmentations' / 'a.png')
    inside = cub_parts.segmentation(str(tmp_path), 'a.jpg', 63)
    wide, narrow = (
        np.asarray(Image.fromarray(grey).resize((63, 63), kind)) for kind in (Image.BICUBIC, Image.BILINEAR)
    )
    np.testing.assert_array_equal(inside, wide > 0)
    assert 0 < inside.sum() < (narrow > 0).sum() - 63


def test_exact_part_maps_mix_no_labels(tmp_path):
    labels = np.array([[1, 1, 3], [1, 1, 3], [7, 7, 3]], np.uint8)
    (tmp_path / 'part_masks' / 'x').mkdir(parents=True)
    Image.fromarray(labels).save(tmp_path / 'part_masks' / 'x' / 'a.png')
    large = cub_parts.exact_part_map(str(tmp_path), 'x/a.jpg', 6)
    np.testing.assert_array_equal(large, labels.repeat(2, axis=0).repeat(2, axis=1))
    with pytest.raises(ValueError, match='part mask .*b.png is missing'):
        cub_parts.exact_part_map(str(tmp_path), 'x/b.jpg', 6)
    (tmp_path / 'part_masks' / 'labels.txt').write_text('1 bill\n3 wing\n7 back\n')
    assert cub_parts.read_exact_labels(str(tmp_path)) == {1: 'bill', 3: 'wing', 7: 'back'}
    assert cub_parts.read_exact_labels(str(tmp_path / 'part_masks')) is None


def test_parts_that_cannot_be_seen_have_no_place(tmp_path):
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'images.txt').write_text('1 a.jpg\n2 b c.jpg\n3 d.jpg\n')
    table = tmp_path / 'parts' / 'part_locs.txt'
    seen = '1 2 10.5 20.0 1\n1 3 5.0 6.0 0\n2 15 1.0 2.0 1.0\n\n3 1 0.0 0.0 0\n'
    table.write_text(seen)
    assert cub_parts.read_part_locations(str(tmp_path)) == {
        'a.jpg': {2: (10.5, 20.0)},
        'b c.jpg': {15: (1.0, 2.0)},
        'd.jpg': {},
    }
    for wrong in ('1 2 10.5 20.0', '1 2 nan 20.0 1', '1 2 10.5 20.0 2', '4 2 10.5 20.0 1', '1 2 10,5 20.0 1'):
        table.write_text(f'{seen}{wrong}\n')
        with pytest.raises(ValueError, match='part_locs.txt, line 6: '):
            cub_parts.read_part_locations(str(tmp_path))
    (tmp_path / 'images.txt').write_text('\ufeff1 a.jpg\r\n2 b.jpg\r\n\r\n', encoding='utf-8')
    table.write_text('2 1 3 4 1\r\n')
    assert cub_parts.read_part_locations(str(tmp_path)) == {'b.jpg': {1: (3.0, 4.0)}}  # no row of a.jpg
    (tmp_path / 'images.txt').write_text('1 a.jpg\n1 b.jpg\n')
    with pytest.raises(ValueError, match='images.txt, line 2: '):
        cub_parts.read_part_locations(str(tmp_path))


@pytest.mark.parametrize(
    'size, fits', [((256, 172), True), ((500, 335), True), ((172, 256), False), ((256, 160), False)]
)
def test_a_segmentation_has_its_photographs_shape(tmp_path, size, fits):
    """The second: the true size of CUB's image; the first: a smaller copy of it."""
    (tmp_path / 'segmentations').mkdir()
    Image.new('L', size, 255).save(tmp_path / 'segmentations' / 'a.png')
    refusal = pytest.raises(ValueError, match=f'a.png is {size[0]} x {size[1]} pixels, its image 500 x 335')
    with contextlib.nullcontext() if fits else refusal:
        parts, _ = cub_parts.part_map(str(tmp_path), 'a.jpg', {1: (3.0, 4.0)}, (500, 335), 8)
        assert (parts == 2).all()


def test_the_part_map_is_of_the_bird_alone():
    with open(os.path.join(MINICUB, 'metadata', 'CUB', 'test', 'image_ids.txt')) as file:
        image_id = file.readline().strip()
    locations = cub_parts.read_part_locations(FOLDER)[image_id]
    size = Image.open(os.path.join(FOLDER, 'images', image_id)).size
    parts, seen = cub_parts.part_map(FOLDER, image_id, locations, size, 40)
    points, ids = cub_parts.part_points(locations, size, 40)
    inside = cub_parts.segmentation(FOLDER, image_id, 40)
    np.testing.assert_array_equal(parts[inside], cub_parts.nearest_part(points, ids, 40)[inside])
    assert not parts[~inside].any() and parts.dtype == np.uint8 and seen == set(ids) and 0 < inside.mean() < 1


def test_exact_labels_of_a_pair_are_the_named_parts():
    pair = cub_parts.Pair(0, 1, {1, 7}, ['has_bill_shape::cone', 'has_wing_pattern::solid'])
    assert cub_parts.exact_labels_of(pair, {1: 'bill', 2: 'crown', 3: 'wing', 4: 'back'}) == {1, 3}
