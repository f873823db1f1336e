"""Metadata parsers, image roots, transforms, and the loaders' randomness."""

import os

import numpy as np
import pytest
import torch
from conftest import MINICUB
from PIL import Image
from torchvision import transforms

import data_loaders as data
from data import metadata
from wsol.preprocessing import PAPER, Preprocessing, denormalize, make_transform, network_input

DATA = os.path.join(MINICUB, 'dataset')
META = os.path.join(MINICUB, 'metadata')


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f'{name}.txt').write_text(text)
    return str(folder)


def test_parsers_read_the_protocols_forms(tmp_path):
    folder = write(
        tmp_path / 'a',
        image_ids='x/1.jpg\nx/2.jpg',
        image_ids_proxy='x/2.jpg',
        class_labels='x/1.jpg,0\nx/2.jpg,7',
        image_sizes='x/1.jpg,500,335',
        localization='x/1.jpg,1,2,3,4\nx/1.jpg,5,6,7,8',
    )
    assert metadata.read_image_ids(folder) == ['x/1.jpg', 'x/2.jpg'] and metadata.read_image_ids(
        folder, proxy=True
    ) == ['x/2.jpg']
    assert metadata.read_labels(folder) == {'x/1.jpg': 0, 'x/2.jpg': 7}
    assert metadata.read_sizes(folder) == {'x/1.jpg': (500, 335)}
    assert metadata.read_boxes(folder) == {'x/1.jpg': [(1, 2, 3, 4), (5, 6, 7, 8)]}
    masks = write(tmp_path / 'b', localization='i.jpg,m1.png,g.png\ni.jpg,m2.png,\nj.jpg,m3.png,h.png')
    assert metadata.read_masks(masks) == {'i.jpg': (['m1.png', 'm2.png'], 'g.png'), 'j.jpg': (['m3.png'], 'h.png')}


@pytest.mark.parametrize('coding', ['utf-8-sig', 'utf-16'])
def test_split_files_with_a_mark_before_them(tmp_path, coding):
    (tmp_path / 'image_ids.txt').write_bytes('blé/1.jpg\r\nx/2.jpg\r\n'.encode(coding))
    (tmp_path / 'class_labels.txt').write_bytes('blé/1.jpg,0\r\nx/2.jpg,7'.encode(coding))
    assert metadata.read_image_ids(tmp_path) == ['blé/1.jpg', 'x/2.jpg']
    assert metadata.read_labels(tmp_path) == {'blé/1.jpg': 0, 'x/2.jpg': 7}
    (tmp_path / 'image_ids.txt').write_bytes('x/2.jpg\nblé/1.jpg\n'.encode('latin-1'))
    with pytest.raises(ValueError, match='image_ids.txt, line 2: not UTF-8'):
        metadata.read_image_ids(tmp_path)


def test_an_empty_list_of_training_labels_is_one_line(tmp_path):
    write(tmp_path / 'ToyBirds' / 'train', class_labels='')
    with pytest.raises(ValueError, match='train/class_labels.txt lists no image'):
        data.class_count('ToyBirds', str(tmp_path))


def test_parsers_name_file_and_line(tmp_path):
    folder = write(tmp_path, class_labels='a.jpg,0\nb.jpg', image_sizes='a.jpg,1,two', localization='i,m,g\ni,m,g')
    for read, message in (
        (metadata.read_labels, "class_labels.txt, line 2: 1 columns instead of 2: 'b.jpg'"),
        (metadata.read_sizes, 'image_sizes.txt, line 1'),
        (metadata.read_masks, 'line 2: a second ignore mask'),
        (metadata.read_image_ids, 'no metadata file'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read(folder)


def test_blank_lines_and_repeated_rows_of_split_files(tmp_path):
    folder = write(
        tmp_path,
        image_ids='\r\na.jpg\r\n \r\nb c.jpg \r\n\r\n',
        class_labels='\na.jpg,3\n\na.jpg ,3 \n',
        image_sizes='a.jpg,5,6\nb.jpg,5,6\na.jpg,5,7\n',
        localization='\ni,m,g\n\ni,n,\n',
    )
    assert metadata.read_image_ids(folder) == ['a.jpg', 'b c.jpg']
    assert metadata.read_labels(folder) == {'a.jpg': 3}
    assert metadata.read_masks(folder) == {'i': (['m', 'n'], 'g')}
    with pytest.raises(ValueError, match=r'several rows for a.jpg that differ \(\(5, 6\), \(5, 7\)'):
        metadata.read_sizes(folder)
    write(tmp_path, class_labels='\n\na.jpg;3\n')
    with pytest.raises(ValueError, match='class_labels.txt, line 3: '):
        metadata.read_labels(folder)


@pytest.mark.parametrize(
    'dataset, split, count',
    [
        ('CUB', 'train', 24),
        ('CUB', 'val', 24),
        ('CUB', 'test', 24),
        ('OpenImages', 'train', 24),
        ('OpenImages', 'test', 24),
    ],
)
def test_splits_of_the_small_sets_load(dataset, split, count):
    loaded = data.load_split(dataset, split, DATA, META)
    assert len(loaded.image_ids) == count and loaded.num_classes == data.DATASETS[dataset].num_classes
    images, labels, ids = next(iter(data.make_loader(loaded, False, 4, 0)))
    assert (
        images.shape == (4, 3, 224, 224) and labels.tolist() == loaded.labels[:4] and list(ids) == loaded.image_ids[:4]
    )


def test_the_table_of_data_sets_is_the_published_one():
    known = {name: (row.num_classes, row.localization, row.parts, row.counts) for name, row in data.DATASETS.items()}
    assert known == {
        'CUB': (200, 'box', 'CUB', {'train': 5994, 'val': 1000, 'test': 5794}),
        'ILSVRC': (1000, 'box', None, {'train': 1281167, 'val': 10000, 'test': 50000}),
        'OpenImages': (100, 'mask', None, {'train': 29819, 'val': 2500, 'test': 5000}),
        'ToyBirds': (None, 'box', 'ToyBirds', {}),
        'ToyBirdsSingle': (None, 'box', 'ToyBirdsSingle', {}),
        'folder': (None, None, None, {}),  # whatever lies in the folders
    }
    assert PAPER.mean == (0.485, 0.456, 0.406) and PAPER.std == (0.229, 0.224, 0.225)


def test_where_the_table_has_no_class_count_the_training_labels_have(tmp_path):
    write(tmp_path / 'ToyBirds' / 'train', class_labels='a,3\nb,0\nc,6')
    write(tmp_path / 'ToyBirds' / 'test', class_labels='a,9')
    assert data.class_count('ToyBirds', str(tmp_path)) == 7 and data.class_count('CUB', 'nowhere') == 200


@pytest.mark.parametrize(
    'dataset, split, root, image_id',
    [
        ('ILSVRC', 'val', 'ILSVRC', 'val2/0/0.jpeg'),
        ('ILSVRC', 'val', 'ImageNetV2', 'val2/0/0.jpeg'),
        ('ILSVRC', 'train', 'ILSVRC', 'train/n0/a.jpg'),
        ('CUB', 'val', 'CUB/CUBV2', '0/1.jpg'),
        ('CUB', 'val', 'CUBV2', '0/1.jpg'),
    ],
)
def test_every_known_image_root_is_found(tmp_path, dataset, split, root, image_id):
    path = tmp_path / 'dataset' / root / image_id
    path.parent.mkdir(parents=True)
    Image.new('L', (20, 10)).save(path)
    write(tmp_path / 'meta' / dataset / split, image_ids=image_id, class_labels=f'{image_id},3')
    loaded = data.load_split(dataset, split, str(tmp_path / 'dataset'), str(tmp_path / 'meta'))
    assert os.path.samefile(os.path.join(loaded.root, image_id), path)


def test_the_proxy_list_replaces_the_training_list(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / 'ILSVRC').mkdir(exist_ok=True)
        Image.new('RGB', (9, 9)).save(tmp_path / 'ILSVRC' / f'{name}.jpg')
    write(
        tmp_path / 'ILSVRC' / 'train',
        image_ids='a.jpg\nb.jpg',
        image_ids_proxy='b.jpg',
        class_labels='a.jpg,0\nb.jpg,1',
    )
    assert data.load_split('ILSVRC', 'train', str(tmp_path), str(tmp_path), proxy=True).image_ids == ['b.jpg']


def test_labels_and_images_are_checked_before_work_starts(tmp_path):
    (tmp_path / 'OpenImages').mkdir()
    Image.new('RGB', (9, 9)).save(tmp_path / 'OpenImages' / 'a.jpg')

    def load():
        return data.load_split('OpenImages', 'test', str(tmp_path), str(tmp_path / 'm'))

    meta = tmp_path / 'm' / 'OpenImages' / 'test'
    write(meta, image_ids='a.jpg', class_labels='a.jpg,100')
    with pytest.raises(ValueError, match='label 100 of a.jpg is not in 0..99'):
        load()
    write(meta, image_ids='a.jpg\nb.jpg', class_labels='a.jpg,1\nb.jpg,1')
    with pytest.raises(FileNotFoundError, match='missing image .*b.jpg'):
        load()
    (tmp_path / 'OpenImages' / 'b.jpg').write_bytes((tmp_path / 'OpenImages' / 'a.jpg').read_bytes()[:200])
    with pytest.raises(ValueError, match='b.jpg is unreadable'):
        load()
    write(meta, image_ids='a.jpg\nb.jpg\na.jpg', class_labels='a.jpg,1\nb.jpg,1')
    with pytest.raises(ValueError, match='lists a.jpg twice'):
        load()
    with pytest.raises(ValueError, match='lists a.jpg twice'):  # saved maps are scored without labels and images
        data.split_ids('OpenImages', 'test', '', str(tmp_path / 'm'))
    write(meta, image_ids='\n', class_labels='a.jpg,1')
    with pytest.raises(ValueError, match='lists no image'):
        data.split_ids('OpenImages', 'test', '', str(tmp_path / 'm'))
    write(meta, image_ids='c.jpg', class_labels='c.jpg,1')
    with pytest.raises(FileNotFoundError, match='c.jpg is not in .*OpenImages'):
        load()
    with pytest.raises(ValueError, match='CUB, ILSVRC, OpenImages, ToyBirds'):
        data.load_split('CUB200', 'test', '', '')


def test_every_name_of_a_split_is_looked_for_before_work_starts(tmp_path):
    """A sample of the names would not tell: one of 3,000 in two folders, the 2,345th, is not there."""
    names = [f'{number % 2}/{number}.jpg' for number in range(3000)]
    for folder in '01':
        (tmp_path / 'OpenImages' / folder).mkdir(parents=True)
    Image.new('RGB', (9, 9)).save(tmp_path / 'image.jpg')
    for name in names:
        os.link(tmp_path / 'image.jpg', tmp_path / 'OpenImages' / name)
    write(tmp_path / 'm/OpenImages/test', image_ids='\n'.join(names), class_labels=',1\n'.join([*names, '']))

    def load():
        return data.load_split('OpenImages', 'test', str(tmp_path), str(tmp_path / 'm'))

    assert len(load().image_ids) == 3000
    os.unlink(tmp_path / 'OpenImages' / names[2345])
    with pytest.raises(FileNotFoundError, match='missing image .*OpenImages/1/2345.jpg: '):
        load()
    os.unlink(tmp_path / 'OpenImages' / names[0])  # the first tells the folder of the images
    os.link(tmp_path / 'image.jpg', tmp_path / 'OpenImages' / names[0])
    os.unlink(tmp_path / 'OpenImages' / names[2999])
    with pytest.raises(FileNotFoundError, match='1/2345.jpg and 1 more: '):
        load()
    (tmp_path / 'linked').mkdir()
    (tmp_path / 'linked/a.jpg').symlink_to('../image.jpg')
    (tmp_path / 'linked/b.jpg').symlink_to('../unfetched.jpg')  # as git-annex and DVC leave it
    names = ['none/a.jpg', 'OpenImages/0/2.jpg', 'linked/a.jpg', 'linked/b.jpg']
    assert data.missing_files(str(tmp_path), names) == ['none/a.jpg', 'linked/b.jpg']


def test_an_image_of_another_size_than_listed_is_refused_where_places_count(tmp_path):
    (tmp_path / 'OpenImages').mkdir()
    for name, size in (('a.jpg', (9, 7)), ('b.jpg', (7, 9))):
        Image.new('RGB', size).save(tmp_path / 'OpenImages' / name)
    folder = tmp_path / 'm/OpenImages/test'
    write(folder, image_ids='a.jpg\nb.jpg', class_labels='a.jpg,1\nb.jpg,1', image_sizes='a.jpg,9,7\nb.jpg,9,7')
    split = data.load_split('OpenImages', 'test', str(tmp_path), str(tmp_path / 'm'))
    plain = data.ImageLabelDataset(split, lambda image, _: image.size)
    assert [plain[key][0] for key in (0, 1)] == [(9, 7), (7, 9)]
    strict = data.ImageLabelDataset(data.with_sizes(split), lambda image, _: image.size)
    assert strict[0][0] == (9, 7)
    with pytest.raises(ValueError, match=r'b.jpg is 7 x 9 pixels, .*image_sizes.txt says 9 x 7'):
        strict[1]
    write(folder, image_ids='a.jpg\nb.jpg', class_labels='a.jpg,1\nb.jpg,1', image_sizes='')
    assert data.with_sizes(split).sizes is None  # the protocol leaves some of these files empty


def test_evaluation_transform_is_the_released_one():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    released = transforms.Compose(
        [
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    assert torch.equal(make_transform(False)(image), released(image))


OTHER = Preprocessing((0.5, 0.4, 0.3), (0.21, 0.5, 0.33), 'bicubic', None)


def plain_transform(training, resize_size, crop_size, preprocessing):
    """The same steps in plain torchvision code."""
    resize = [
        transforms.Resize((size, size), transforms.InterpolationMode(preprocessing.interpolation))
        for size in (resize_size, crop_size)
    ]
    cut = [resize[0], transforms.RandomCrop(crop_size), transforms.RandomHorizontalFlip()] if training else [resize[1]]
    last = [transforms.ToTensor(), transforms.Normalize(preprocessing.mean, preprocessing.std)]
    return transforms.Compose([*cut, *last])


@pytest.mark.parametrize('preprocessing', [PAPER, OTHER], ids=['paper', 'another'])
@pytest.mark.parametrize('sizes', [(40, 32), (33, 32), (32, 32)])
def test_training_images_are_torchvisions_bit_for_bit(sizes, preprocessing):
    """And so are the random numbers: the same draws in the same order from the same seed."""
    plain = plain_transform(True, *sizes, preprocessing)
    ours = make_transform(True, *sizes, preprocessing)
    rng = np.random.default_rng(0)
    for seed, shape in enumerate([(50, 70, 3), (70, 50, 3), (32, 32, 3), (20, 90, 3)] * 3):
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        torch.manual_seed(seed)
        expected = plain(image)
        left = torch.get_rng_state()
        torch.manual_seed(seed)
        assert torch.equal(ours(image), expected) and torch.equal(torch.get_rng_state(), left)
        generator = torch.Generator().manual_seed(seed)
        assert torch.equal(ours(image, generator), expected) and torch.equal(generator.get_state(), left)


def test_every_byte_is_normalised_as_torchvision_does(device):
    pixels = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).expand(-1, -1, 3)
    for preprocessing in (PAPER, OTHER):
        image = Image.fromarray(pixels.numpy())
        expected = plain_transform(False, 16, 16, preprocessing)(image)
        for channels_last in (False, True):
            found = network_input(pixels[None], preprocessing, device, channels_last)
            layout = torch.channels_last if channels_last else torch.contiguous_format
            assert found.device.type == device.type and found.is_contiguous(memory_format=layout)
            assert torch.equal(found[0].cpu(), expected)


def test_batches_are_those_of_plain_torchvision_code(places, device):
    """Seeds as they always were: an image's numbers come from a generator seeded by (seed, epoch, number)."""
    plain = plain_transform(True, 40, 32, PAPER)
    expected = []
    for index in range(8):
        words = np.random.SeedSequence((5, 2, index)).generate_state(2)
        torch.manual_seed((int(words[0]) << 31) ^ int(words[1]))
        expected.append(plain(data.read_image(os.path.join(places.root, places.image_ids[index]))))
    keys = [[16 + index for index in batch] for batch in ([0, 1, 2, 3, 4], [5, 6, 7])]
    loader = data.make_loader(places, True, 5, 0, 40, 32, 5, keys, device=device, channels_last=True)
    batches = list(loader)
    assert [len(labels) for _, labels, _ in batches] == [5, 3] and len(loader) == 2
    assert all(images.device.type == device.type for images, _, _ in batches)
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _, _ in batches)
    assert torch.equal(torch.cat([images for images, _, _ in batches]).cpu(), torch.stack(expected))
    pixels, labels, ids = next(iter(loader.loader))  # what the loader's processes send
    assert pixels.dtype == torch.uint8 and pixels.shape == (5, 32, 32, 3) and list(ids) == places.image_ids[:5]


def test_an_image_that_is_rgb_already_is_not_copied(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / 'rgb.png')
    Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)).save(tmp_path / 'grey.png')
    read = {name: data.read_image(str(tmp_path / f'{name}.png')) for name in ('rgb', 'grey')}
    for name, image in read.items():
        with Image.open(tmp_path / f'{name}.png') as file:
            assert image.mode == 'RGB' and image.tobytes() == file.convert('RGB').tobytes()
    monkeypatch.setattr(Image.Image, 'copy', None)
    monkeypatch.setattr(Image.Image, 'convert', None)
    for photograph in (False, True):
        assert data.read_image(str(tmp_path / 'rgb.png'), photograph).tobytes() == read['rgb'].tobytes()


def test_denormalize_gives_the_picture_back():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    pixels = denormalize(make_transform(False, crop_size=24)(image)[None])[0]
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy() * 255, np.asarray(image), atol=1e-3)


def epoch_of(workers, epoch, seed=5):
    split = data.load_split('CUB', 'train', DATA, META)
    loader = data.make_loader(split, True, 7, workers, 40, 32, seed)
    loader.batch_sampler.epoch = epoch
    batches = list(loader)
    return torch.cat([batch[0] for batch in batches]), sum((list(batch[2]) for batch in batches), [])


def test_an_epoch_depends_on_seed_and_epoch_alone():
    images, ids = epoch_of(0, 1)
    torch.manual_seed(99)
    again, same = epoch_of(2, 1)  # other workers, another global state
    assert torch.equal(images, again) and ids == same and len(set(ids)) == 24
    for other, order in (epoch_of(0, 2), epoch_of(0, 1, seed=6)):
        assert order != ids and sorted(order) == sorted(ids) and not torch.equal(other, images)


@pytest.fixture
def places(tmp_path):
    """A split of one picture under eight ids, whose pixels tell where they are: red is 6 x, green 6 y, [40, 40]."""
    (tmp_path / 'images').mkdir()
    y, x = np.mgrid[:40, :40]
    picture = np.stack([6 * x, 6 * y, 0 * x], axis=2).astype(np.uint8)
    ids = [f'{number}.png' for number in range(8)]
    for name in ids:
        Image.fromarray(picture).save(tmp_path / 'images' / name)
    return data.Split('train', str(tmp_path / 'images'), '', ids, [0] * 8, 1)


def crop_of(item):
    """(flipped?, x, y) of the corner of a crop of 32 x 32 pixels out of such a picture; nothing else happened to it."""
    pixels = (denormalize(item[0][None])[0] * 255 / 6).round().int()
    x, y = pixels[0, 0, :], pixels[1, :, 0]
    flipped = bool(x[0] > x[-1])
    left, top = min(x[0], x[-1]).item(), y[0].item()
    columns = torch.arange(left, left + 32)
    assert torch.equal(pixels[0], (columns.flip(0) if flipped else columns).expand(32, 32))
    assert torch.equal(pixels[1], torch.arange(top, top + 32)[:, None].expand(32, 32))
    return flipped, left, top


def test_augmentation_crops_anywhere_and_flips(places):
    dataset = data.ImageLabelDataset(places, make_transform(True, 40, 32), seed=1)
    crops = [crop_of(dataset[key]) for key in range(20 * len(dataset))]
    counts = [{value: crops_at.count(value) for value in set(crops_at)} for crops_at in zip(*crops)]
    flips, lefts, tops = counts
    assert set(flips) == {False, True} and 50 < flips[True] < 110  # of 160
    assert set(lefts) == set(tops) == set(range(9)) and max(*lefts.values(), *tops.values()) < 40
    assert any(left != top for _, left, top in crops)


def test_what_is_cropped_is_the_picture_resized_to_a_square():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    whole = make_transform(False, crop_size=32)(image)
    seen = [make_transform(True, 32, 32)(image) for _ in range(12)]  # nothing left to crop
    assert {torch.equal(one, whole) for one in seen} == {True, False}
    assert all(torch.equal(one, whole) or torch.equal(one.flip(2), whole) for one in seen)


def test_the_randomness_of_an_image_is_of_seed_epoch_and_image(places):
    """Each of the three alone changes it; nothing else does."""

    def crops(seed, epoch):
        dataset = data.ImageLabelDataset(places, make_transform(True, 40, 32), seed)
        return [crop_of(dataset[epoch * len(dataset) + index]) for index in range(8)]

    first = crops(1, 3)
    torch.manual_seed(99)
    assert crops(1, 3) == first
    assert len(set(first)) > 5  # the images of an epoch each have their own
    for other in (crops(1, 4), crops(2, 3)):
        assert sum(a == b for a, b in zip(first, other)) < 3
    before = torch.get_rng_state()
    crops(5, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_crop_larger_than_the_picture_is_refused_in_training_alone():
    with pytest.raises(ValueError, match='crop_size 33 is larger than resize_size 32'):
        make_transform(True, 32, 33)
    assert make_transform(True, 32, 32) and make_transform(False, 32, 33)


def test_batches_of_an_epoch_by_hand():
    """The order of (seed, epoch) cut into batches, of which a process takes every world-th image."""
    order = np.random.default_rng((5, 2)).permutation(10).tolist()
    keys = [20 + index for index in order]  # epoch * length + index
    cases = {
        (0, 1, 0): [keys[:4], keys[4:8], keys[8:]],
        (0, 1, 1): [keys[4:8], keys[8:]],
        (0, 3, 0): [[keys[0], keys[3]], [keys[4], keys[7]], [keys[8]]],
        (1, 3, 0): [[keys[1]], [keys[5]], [keys[9]]],
        (2, 3, 2): [[]],
    }
    for (rank, world, start), batches in cases.items():
        sampler = data.EpochBatches(10, 4, 5, rank, world)
        assert len(sampler) == 3
        sampler.epoch = 2
        sampler.start = start
        assert list(sampler) == batches and len(sampler) == len(batches)


def test_a_loader_without_batches_goes_through_all_images(places):
    plain = data.make_loader(places, False, 3, 0, 40, 32)
    assert [list(ids) for _, _, ids in plain] == [places.image_ids[i : i + 3] for i in (0, 3, 6)]
    assert all(images.shape[1:] == (3, 32, 32) for images, _, _ in plain)
    mixed = [list(ids) for _, _, ids in data.make_loader(places, True, 3, 0, 40, 32, seed=4)]
    order = np.random.default_rng((4, 0)).permutation(8)
    assert sum(mixed, []) == [places.image_ids[i] for i in order] and [len(batch) for batch in mixed] == [3, 3, 2]
    images, labels, ids = next(iter(data.make_loader(places, False, 3, 0, 40, 32, batches=[[]])))
    assert images.shape == (0, 3, 32, 32) and labels.dtype == torch.long and len(labels) == len(ids) == 0
