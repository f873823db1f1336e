"""Metadata parsers, image roots, transforms, and the loaders' randomness."""

import os

import numpy as np
import pytest
import torch
from conftest import MINICUB
from PIL import Image
from torchvision import transforms

import data_loaders as data
from wsol.preprocessing import PAPER, denormalize, make_transform

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
    assert data.read_image_ids(folder) == ['x/1.jpg', 'x/2.jpg'] and data.read_image_ids(folder, proxy=True) == [
        'x/2.jpg'
    ]
    assert data.read_labels(folder) == {'x/1.jpg': 0, 'x/2.jpg': 7}
    assert data.read_sizes(folder) == {'x/1.jpg': (500, 335)}
    assert data.read_boxes(folder) == {'x/1.jpg': [(1, 2, 3, 4), (5, 6, 7, 8)]}
    masks = write(tmp_path / 'b', localization='i.jpg,m1.png,g.png\ni.jpg,m2.png,\nj.jpg,m3.png,h.png')
    assert data.read_masks(masks) == {'i.jpg': (['m1.png', 'm2.png'], 'g.png'), 'j.jpg': (['m3.png'], 'h.png')}


def test_parsers_name_file_and_line(tmp_path):
    folder = write(tmp_path, class_labels='a.jpg,0\nb.jpg', image_sizes='a.jpg,1,two', localization='i,m,g\ni,m,g')
    for read, message in (
        (data.read_labels, 'class_labels.txt, line 2'),
        (data.read_sizes, 'image_sizes.txt, line 1'),
        (data.read_masks, 'line 2: a second ignore mask'),
        (data.read_image_ids, 'no metadata file'),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            read(folder)


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
    write(meta, image_ids='c.jpg', class_labels='c.jpg,1')
    with pytest.raises(FileNotFoundError, match='c.jpg is not in .*OpenImages'):
        load()
    with pytest.raises(ValueError, match='CUB, ILSVRC, OpenImages, ToyBirds'):
        data.load_split('CUB200', 'test', '', '')


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


def test_augmentation_crops_and_flips():
    split = data.load_split('CUB', 'train', DATA, META)
    dataset = data.ImageLabelDataset(split, make_transform(True, 40, 32), seed=1)
    picture = data.read_image(os.path.join(split.root, split.image_ids[0]))
    resized = transforms.Compose(
        [transforms.Resize((40, 40)), transforms.ToTensor(), transforms.Normalize(*PAPER[:2])]
    )(picture)
    flips = set()
    for epoch in range(12):
        crop = dataset[epoch * len(dataset)][0]
        found = [
            (flip, i, j)
            for flip, whole in ((0, resized), (1, resized.flip(2)))
            for i in range(9)
            for j in range(9)
            if torch.allclose(whole[:, i : i + 32, j : j + 32], crop, atol=1e-6)
        ]
        assert found, 'a training image is no 32 x 32 crop of the resized picture'
        flips.add(found[0][0])
    assert flips == {0, 1}
