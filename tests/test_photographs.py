"""Photographs as a person sees them, what no reader can read, photographs found by patterns."""

import os

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

import data_loaders
from data import own_photographs
from data.photographs import find_photographs, unique_names
from wsol import cub_parts, photographs
from wsol.errors import UserError
from wsol.photographs import photograph_size, read_photograph
from wsol.preprocessing import PAPER

EXACT = {'quality': 100, 'subsampling': 0}  # of a JPEG file, as near as it comes


def seen(path):
    image = read_photograph(str(path))
    assert image.mode == 'RGB'
    return np.asarray(image).astype(int)


def upright(stored, orientation):
    """What the EXIF standard says is seen: where row 0 and column 0 of the stored pixels lie in the visual image."""
    height, width = stored.shape[:2]
    if orientation <= 4:
        y, x = np.indices((height, width))
        row = {1: y, 2: y, 3: height - 1 - y, 4: height - 1 - y}[orientation]  # top, top, bottom, bottom
        column = {1: x, 2: width - 1 - x, 3: width - 1 - x, 4: x}[orientation]  # left, right, right, left
    else:
        y, x = np.indices((width, height))
        row = {5: x, 6: height - 1 - x, 7: height - 1 - x, 8: x}[orientation]  # left, right, right, left
        column = {5: y, 6: y, 7: width - 1 - y, 8: width - 1 - y}[orientation]  # top, top, bottom, bottom
    return stored[row, column]


@pytest.mark.parametrize('ending, options', [('png', {}), ('tif', {}), ('webp', {'lossless': True}), ('jpg', EXACT)])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_the_camera_s_rotation_is_applied(orientation, ending, options, tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a.{ending}'
    picture[:6, :4] = 0  # no symmetry is left
    Image.fromarray(picture).save(path, exif=exif, **options)
    expected = upright(picture, orientation)
    assert np.abs(seen(path) - expected).max() <= (30 if ending == 'jpg' else 0)
    assert photograph_size(str(path)) == expected.shape[1::-1]
    with Image.open(path) as image:  # not decoded yet
        assert np.array_equal(np.asarray(photographs.as_seen(image)), seen(path))


def test_a_damaged_exif_entry_turns_nothing(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / 'a.png', exif=b'Exif\0\0no entries at all')
    assert np.array_equal(seen(tmp_path / 'a.png'), picture) and photograph_size(str(tmp_path / 'a.png')) == (32, 24)


def test_grey_palette_and_two_colours(tmp_path, picture):
    image = Image.fromarray(picture)
    for mode in ('L', '1', 'P'):
        image.convert(mode).save(tmp_path / f'{mode}.png')
        assert np.array_equal(seen(tmp_path / f'{mode}.png'), np.asarray(image.convert(mode).convert('RGB')))


def test_what_is_transparent_is_white(tmp_path, picture):
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:, :8] = 0
    alpha[:, 8:16] = 51
    image = Image.fromarray(np.dstack([picture, alpha]))
    image.save(tmp_path / 'rgba.png')
    share = alpha[:, :, None] / 255
    assert np.abs(seen(tmp_path / 'rgba.png') - (share * picture + (1 - share) * 255)).max() <= 1
    image.convert('LA').save(tmp_path / 'la.png')
    assert (seen(tmp_path / 'la.png')[:, :8] == 255).all() and (seen(tmp_path / 'la.png')[:12, 16:] < 200).all()
    palette = Image.fromarray((np.arange(32)[None] // 16 * np.ones((24, 1))).astype(np.uint8))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / 'p.png', transparency=0)
    assert (seen(tmp_path / 'p.png')[0, [0, 31]] == [(255, 255, 255), (0, 0, 255)]).all()


def test_sixteen_bits_and_floats_keep_their_greys(tmp_path):
    ramp = np.linspace(0, 1, 256)[None].repeat(4, axis=0)
    Image.fromarray(np.round(ramp * 65535).astype(np.uint16)).save(tmp_path / 'a.png')
    Image.fromarray(np.round(ramp * 65535).astype(np.uint16)).save(tmp_path / 'b.tif')
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / 'c.tif')
    Image.fromarray((ramp * 900 - 300).astype(np.int32)).save(tmp_path / 'd.tif')  # of no known range: its own
    for name in ('a.png', 'b.tif', 'c.tif', 'd.tif'):
        assert np.abs(seen(tmp_path / name)[:, :, 1] - np.arange(256)).max() <= 1, name


def test_the_grey_value_that_a_file_of_sixteen_bits_calls_transparent_is_white(tmp_path):
    values = np.array([[0, 257, 25700, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / 'a.png', transparency=25700)
    assert seen(tmp_path / 'a.png')[0, :, 0].tolist() == [0, 1, 255, 255]


def test_cmyk_and_colour_profiles(tmp_path, picture):
    Image.fromarray(picture).convert('CMYK').save(tmp_path / 'a.jpg', quality=100, subsampling=0)
    assert np.abs(seen(tmp_path / 'a.jpg') - picture).max() < 12
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    swapped = (
        profile.replace(b'rXYZ', b'?XYZ').replace(b'bXYZ', b'rXYZ').replace(b'?XYZ', b'bXYZ')
    )  # red light shines blue
    Image.fromarray(picture).save(tmp_path / 'b.png', icc_profile=swapped)
    assert np.abs(seen(tmp_path / 'b.png') - picture[:, :, ::-1]).max() <= 3
    Image.fromarray(picture).save(tmp_path / 'd.png', icc_profile=profile)
    assert np.array_equal(seen(tmp_path / 'd.png'), picture)
    Image.fromarray(picture).save(tmp_path / 'c.png', icc_profile=b'damaged')
    assert np.array_equal(seen(tmp_path / 'c.png'), picture)


def test_a_camera_file_with_a_second_picture_gives_the_first(tmp_path, picture):
    Image.fromarray(picture).save(
        tmp_path / 'a.jpg', format='MPO', save_all=True, append_images=[Image.new('RGB', (32, 24))], quality=100
    )
    assert np.abs(seen(tmp_path / 'a.jpg') - picture).mean() < 12


def test_what_is_no_single_picture_is_one_line(tmp_path, picture):
    image = Image.fromarray(picture)
    image.save(tmp_path / 'moving.gif', save_all=True, append_images=[Image.new('RGB', (32, 24))])
    image.save(tmp_path / 'cut.jpg')
    (tmp_path / 'cut.jpg').write_bytes((tmp_path / 'cut.jpg').read_bytes()[:400])
    (tmp_path / 'empty.png').touch()
    (tmp_path / 'words.jpg').write_text('no picture')
    for name, what in (
        ('moving.gif', 'animated'),
        ('cut.jpg', 'unreadable'),
        ('empty.png', 'unreadable'),
        ('words.jpg', 'unreadable'),
        ('none.png', 'missing'),
    ):
        with pytest.raises(ValueError, match=what) as error:
            read_photograph(str(tmp_path / name))
        assert name in str(error.value) and '\n' not in str(error.value)


def test_what_is_too_much_for_pillow_is_one_line_that_names_the_file(tmp_path, picture):
    """A text or a colour profile of over 1 MB, 400 million pixels: as a photograph, an image of a data set, a mask."""
    text = PngImagePlugin.PngInfo()
    text.add_text('prompt', 'x' * 2_000_000, zip=True)
    Image.fromarray(picture).save(tmp_path / 'text.png', pnginfo=text)
    Image.fromarray(picture).save(tmp_path / 'profile.png', icc_profile=bytes(2_000_000))
    (tmp_path / 'huge.png').write_bytes(b'P5 20000 20000 255 ')  # a PPM header: Pillow goes by what a file holds
    (tmp_path / 'segmentations').symlink_to(tmp_path)
    (tmp_path / 'part_masks').symlink_to(tmp_path)
    readers = [
        read_photograph,
        photograph_size,
        data_loaders.read_image,
        lambda path: own_photographs.placed_mask(path, 32, PAPER),
        lambda path: cub_parts.segmentation(str(tmp_path), os.path.basename(path), 32),
        lambda path: cub_parts.exact_part_map(str(tmp_path), os.path.basename(path), 32),
    ]
    for name, what in (('text', 'is unreadable'), ('profile', 'is unreadable'), ('huge', 'is too large')):
        for read in readers:
            with pytest.raises(UserError, match=f'{name}.png {what}') as error:
                read(str(tmp_path / f'{name}.png'))
            assert '\n' not in str(error.value)


def test_an_image_of_a_data_set_keeps_its_stored_pixels(tmp_path, picture):
    """The protocol's reading: Pillow's conversion to RGB, without turning, profile or background."""
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:, :8] = 0
    Image.fromarray(picture).save(tmp_path / 'turned.jpg', exif=exif, **EXACT)
    Image.fromarray(np.concatenate([picture, alpha], axis=2)).save(tmp_path / 'transparent.png')
    Image.fromarray(picture[:, :, 0].astype(np.uint16) * 257).save(tmp_path / 'grey.png')
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            expected = np.asarray(image.convert('RGB'))
        assert np.array_equal(np.asarray(data_loaders.read_image(str(path))), expected), path.name
        assert not np.array_equal(np.asarray(data_loaders.read_image(str(path), photograph=True)), expected), path.name


def test_the_names_of_photographs_end_as_pillow_says():
    Image.init()
    formats = {*photographs.FORMATS, 'MPO'}  # a JPEG file with a second picture
    assert {*photographs.SUFFIXES} == {end for end, name in Image.registered_extensions().items() if name in formats}


def test_images_are_found_once_and_named_apart(tmp_path, picture, capsys):
    for name in ('a/x.jpg', 'a/x.png', 'b/x.jpg', 'b/y[1].png', 'b/notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / name) if 'notes' not in name else (tmp_path / name).touch()
    files = find_photographs([f'{tmp_path}/a', f'{tmp_path}/*/x.jpg', f'{tmp_path}/b/y[1].png'])
    assert unique_names(files) == ['a/x.jpg', 'a/x.png', 'b/x.jpg', 'b/y[1].png']
    assert unique_names(files[:1]) == ['x.jpg']
    assert find_photographs([f'{tmp_path}/b']) == [str(tmp_path / 'b' / name) for name in ('x.jpg', 'y[1].png')]
    assert capsys.readouterr().err == f"{tmp_path}/b: skipped 1 without a photograph's extension (.txt)\n"
    with pytest.raises(ValueError, match=r'no image matches --images .*\*\.webp'):
        find_photographs([f'{tmp_path}/*.webp'])


def test_a_folder_is_its_photographs_without_what_is_hidden(tmp_path, capsys):
    """macOS leaves ._NAME beside each file on foreign disks: no picture, by the same ending."""
    names = ['0.png', 'a.JFIF', 'b.avif', 'c.jp2', 'd.jpe']
    for name in [*names, '._0.png', '.DS_Store']:
        (tmp_path / name).touch()
    (tmp_path / 'sub.jpg').mkdir()
    assert [os.path.basename(path) for path in find_photographs([str(tmp_path)])] == names
    assert capsys.readouterr().err == ''
    for name in ('e.heic', 'f.HEIC', 'README'):
        (tmp_path / name).touch()
    assert len(find_photographs([str(tmp_path)])) == 5
    assert "skipped 3 without a photograph's extension (.heic, none)" in capsys.readouterr().err


def test_brackets_in_a_path_mean_themselves(tmp_path):
    for name in (
        'photos[1]/x.jpg',
        'photos[1]/y[ab].jpg',
        'photos1/x.jpg',
        'other/a.jpg',
        'other/b.jpg',
        'new[2]/z.jpg',
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(pattern):
        return unique_names([str(tmp_path / 'none'), *find_photographs([str(tmp_path / pattern)])])[1:]

    assert found('new[2]/*.jpg') == ['new[2]/z.jpg'] and found('other/[ab].jpg') == ['other/a.jpg', 'other/b.jpg']
    assert found('photos[[]1]/*.jpg') == ['photos[1]/x.jpg', 'photos[1]/y[ab].jpg']
    assert found('photos[1]/y[ab].jpg') == found('photos[1]/y*') == ['photos[1]/y[ab].jpg']
    with pytest.raises(UserError, match=r'ambiguous: .*photos\[1\]/x.jpg with literal brackets, or .*photos1/x.jpg'):
        found('photos[1]/*.jpg')
