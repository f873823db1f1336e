"""Masks of photographs: every way to write a region down gives the same pixels by both readers, or a refusal."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from data import folder_truth, own_photographs
from wsol.errors import UserError
from wsol.masks import read_region
from wsol.preprocessing import PAPER
from wsol.scoring import pixels

REGION = np.zeros((36, 40), bool)
REGION[5:20, 8:31] = True
REGION[30, 2] = True


def grey(values, dtype=np.uint8):
    return Image.fromarray(np.where(REGION, values, 0).astype(dtype))


def palette(colours, numbers=(0, 1)):
    image = Image.fromarray(np.where(REGION, numbers[1], numbers[0]).astype(np.uint8), 'L')
    image.putpalette([value for colour in colours for value in colour])
    return image


def layers(inside, outside):
    """An image of as many channels as the values of a pixel."""
    pixels = np.where(REGION[..., None], np.array(inside), np.array(outside)).astype(np.uint8)
    return Image.fromarray(pixels, {2: 'LA', 3: 'RGB', 4: 'RGBA'}[pixels.shape[-1]])


def deep_png(path, pixels, colour_type):
    """A PNG of 16 bits a channel, written by hand: Pillow writes none with several channels."""
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
    parts = [(b'IHDR', struct.pack('>IIBBBBB', pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0))]
    parts += [(b'IDAT', zlib.compress(rows)), (b'IEND', b'')]
    chunks = (
        struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data)) for name, data in parts
    )
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(chunks))


def deep(inside, outside):
    return np.where(REGION[..., None], np.array(inside), np.array(outside))


ENCODINGS = {
    '0 and 1': grey(1),
    '0 and 255': grey(255),
    'class numbers': grey(np.arange(40) % 7 + 1),
    '1 bit': Image.fromarray(REGION),
    'palette': palette([(0, 0, 0), (128, 0, 0)]),
    'palette, nearly black': palette([(0, 0, 0), (0, 0, 1)]),
    'palette of white on black': palette([(0, 0, 0)] * 255 + [(255, 255, 255)], (0, 255)),
    '16 bits, small numbers': grey(7, np.uint16),
    '16 bits, 256': grey(256, np.uint16),
    '16 bits, all': grey(65535, np.uint16),
    '32 bits': grey(7, np.int32),
    'RGB': layers((255, 255, 255), (0, 0, 0)),
    'RGB, nearly black': layers((0, 0, 1), (0, 0, 0)),
    'RGBA, opaque': layers((255, 255, 255, 255), (0, 0, 0, 255)),
    'RGBA, cut out of white': layers((255, 255, 255, 255), (255, 255, 255, 0)),
    'RGBA, both': layers((9, 0, 0, 200), (0, 0, 0, 0)),
    'LA, opaque': layers((1, 255), (0, 255)),
    'LA, cut out': layers((255, 255), (255, 0)),
}
DEEP = {  # PNG's numbers of the colour types: 2 RGB, 4 grey with alpha, 6 RGBA
    'RGB of 16 bits': (2, deep((0, 3, 0), (0, 0, 0))),
    'LA of 16 bits': (4, deep((3, 65535), (0, 65535))),
    'RGBA of 16 bits': (6, deep((0, 0, 3, 65535), (0, 0, 0, 65535))),
}


def both_readers(path, size):
    """What a folder set and --masks see of a mask in the square of `size`."""
    folder, ignore = pixels.read_ground_truth(path.parent, [path.name], None, size)
    assert not ignore.any()
    return folder, own_photographs.placed_mask(str(path), size, PAPER)


@pytest.mark.parametrize('name', [*ENCODINGS, *DEEP])
def test_every_encoding_gives_the_same_pixels_by_both_readers(name, tmp_path):
    path = tmp_path / 'mask.png'
    if name in DEEP:
        deep_png(path, DEEP[name][1], DEEP[name][0])
    else:
        ENCODINGS[name].save(path, format='TIFF' if name == '32 bits' else 'PNG')
    np.testing.assert_array_equal(read_region(path), REGION)
    # the nearest pixel's centre, worked out by hand
    rows, columns = (((np.arange(18) + 0.5) * side / 18).astype(int) for side in REGION.shape)
    for seen in both_readers(path, 18):
        np.testing.assert_array_equal(seen, REGION[rows][:, columns])


@pytest.mark.parametrize(
    'image',
    [
        palette([(0, 0, 0), (0, 0, 0)]),  # both numbers black
        palette([(255, 255, 255), (0, 0, 0)]),  # black on white: the object by number, the background by colour
        palette([(120, 120, 120), (180, 0, 0)]),  # no colour is black
        layers((0, 0, 0, 255), (0, 0, 0, 0)),  # black on nothing
        layers((255, 255, 255, 0), (0, 0, 0, 0)),  # nothing is visible
        Image.fromarray(
            np.dstack([np.where(REGION, 255, 0)] * 3 + [np.full((36, 40), 255) - 255 * (np.arange(40) < 5)]).astype(
                np.uint8
            )
        ),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(image, tmp_path):
    image.save(tmp_path / 'mask.png')
    for read in (
        lambda: pixels.read_ground_truth(tmp_path, ['mask.png'], None, 18),
        lambda: own_photographs.placed_mask(str(tmp_path / 'mask.png'), 18, PAPER),
    ):
        with pytest.raises(UserError, match='mask.png .*: save it in grey, 0 and 255') as error:
            read()
        assert '\n' not in str(error.value)


def test_a_mask_is_turned_as_its_photograph_is(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey(1).save(tmp_path / 'mask.png', exif=exif)
    np.testing.assert_array_equal(read_region(tmp_path / 'mask.png'), np.rot90(REGION, -1))


def test_the_protocols_masks_keep_their_reading(tmp_path):
    """Grey, OpenCV's nearest pixel, over .5, of 16 bits the upper eight."""
    for number, image in enumerate((grey(255), layers((255, 0, 0), (0, 0, 0)), grey(7, np.uint16))):
        image.save(tmp_path / f'{number}.png')
        read = cv2.imread(str(tmp_path / f'{number}.png'), cv2.IMREAD_GRAYSCALE)
        expected = cv2.resize(read.astype(np.float32), (18, 18), interpolation=cv2.INTER_NEAREST) > 0.5
        found, ignore = pixels.read_ground_truth(tmp_path, [f'{number}.png'], '', 18)
        np.testing.assert_array_equal(found, expected)
        assert found.any() == (number < 2) and not ignore.any()


def test_masks_of_a_folder_set_are_checked_against_their_photographs(tmp_path):
    for place in ('test/a', 'masks/test/a'):
        (tmp_path / place).mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 36)).save(tmp_path / 'test/a/1.jpg')
    Image.new('RGB', (36, 40)).save(tmp_path / 'test/a/2.jpg', exif=exif)  # seen, it is 40 x 36 too
    ids = ['test/a/1.jpg', 'test/a/2.jpg']
    for name in ('1', '2'):
        grey(1).save(tmp_path / f'masks/test/a/{name}.png')
    assert folder_truth.masks(str(tmp_path), ids) == {
        one: ([f'masks/test/a/{name}.png'], None) for one, name in zip(ids, '12')
    }
    Image.new('L', (20, 18), 1).save(tmp_path / 'masks/test/a/2.png')
    with pytest.raises(UserError, match=r'2.png is \(20, 18\), its photograph \(40, 36\)'):
        folder_truth.masks(str(tmp_path), ids)
    (tmp_path / 'masks/test/a/2.png').write_bytes(b'no picture')
    with pytest.raises(UserError, match='mask .*2.png is unreadable'):
        folder_truth.masks(str(tmp_path), ids)
