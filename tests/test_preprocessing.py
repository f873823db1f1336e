"""What a network sees of a photograph, against timm's and torchvision's own transforms, and what panels show of it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop

from wsol.errors import UserError
from wsol.preprocessing import (
    PAPER,
    Crop,
    Preprocessing,
    denormalize,
    from_record,
    of_timm,
    photograph_transform,
    placement,
    seen_crop,
)

MODES = [Crop.CENTER, Crop.SQUASH, Crop.BORDER]
SIZES = [(60, 30), (30, 61), (33, 32), (32, 32), (47, 90), (150, 8), (20, 27)]  # width, height


def config(mode, share=0.9, interpolation='bicubic'):
    """A part of a timm network's pretrained configuration."""
    mean = (0.48, 0.45, 0.4)
    return {'mean': mean, 'std': (0.2, 0.3, 0.25), 'interpolation': interpolation, 'crop_pct': share, 'crop_mode': mode}


def blurred(width, height):
    """A photograph without fine detail."""
    pixels = np.random.default_rng(width).integers(0, 256, (3, 3, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('mode', MODES)
def test_a_network_of_timm_sees_what_timm_shows_it(mode, size):
    data = pytest.importorskip('timm.data')
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8))
    for share, interpolation in ((1.0, 'bicubic'), (0.875, 'bilinear'), (0.95, 'bicubic'), (1.15, 'bicubic')):
        row = config(mode, share, interpolation)
        expected = data.create_transform((3, 32, 32), is_training=False, **row)(image)
        found = photograph_transform(32, of_timm(row))(image)
        assert torch.equal(found, expected), (share, interpolation)


def test_a_mode_that_timm_does_not_name_is_the_centre():
    row = config(None)
    assert of_timm(row).crop_mode == Crop.CENTER and of_timm({**row, 'crop_mode': 'squash'}).crop_mode == Crop.SQUASH
    record = of_timm(row)._asdict()
    del record['crop_mode']  # of a checkpoint from before there were modes
    assert from_record(record) == of_timm(row)
    with pytest.raises(UserError, match='center, squash, border'):
        of_timm({**row, 'crop_mode': 'stretch'})


def test_the_square_lies_where_torchvision_cuts_it_whatever_the_excess():
    """Pixels that say where they are; the shorter side is as the network wants it, so nothing is resized."""
    whole = Preprocessing((0.5,) * 3, (0.5,) * 3, 'bicubic', 1.0)
    for excess in range(12):
        y, x = np.indices((16, 16 + excess))
        image = Image.fromarray(np.stack([x, y, y], axis=-1).astype(np.uint8))
        left, top, _ = CenterCrop(16)(image).getpixel((0, 0))
        assert placement(*image.size, 16, whole) == (16 + excess, 16, left, top), excess
        assert placement(*image.size[::-1], 16, whole) == (16, 16 + excess, top, left), excess


def test_the_square_lies_where_torchvision_puts_it_whatever_is_lacking():
    for side in range(5, 16):
        white = Image.new('RGB', (side, side), 'white')
        rows, columns = np.asarray(CenterCrop(16)(white))[:, :, 0].nonzero()
        small = Preprocessing((0.5,) * 3, (0.5,) * 3, 'bicubic', 15.999 / side)
        assert placement(side, side, 16, small) == (side, side, -columns.min(), -rows.min()), side


@pytest.mark.parametrize('share', [0.8, 1.0, 1.15])
@pytest.mark.parametrize('size', [(120, 60), (64, 101), (80, 80)])
@pytest.mark.parametrize('mode', MODES)
def test_a_panel_shows_what_was_seen(mode, size, share):
    preprocessing = of_timm(config(mode, share))
    image = blurred(*size)
    seen = denormalize(photograph_transform(64, preprocessing)(image)[None], preprocessing)[0]
    shown = np.asarray(seen_crop(image, preprocessing).resize((64, 64), Image.Resampling.BICUBIC)) / 255
    gap = np.abs(shown - seen.permute(1, 2, 0).numpy())
    assert gap.mean() < 0.03 and (gap > 0.25).mean() < 0.04  # the rims of what lies beside the image


def test_how_much_of_a_wide_photograph_is_seen():
    image = blurred(600, 300)
    seen = {mode: seen_crop(image, of_timm(config(mode, 1.0))) for mode in MODES}
    assert {mode: part.size for mode, part in seen.items()} == {
        'center': (300, 300),
        'squash': (600, 300),
        'border': (600, 600),
    }
    assert np.array_equal(seen['squash'], image) and np.array_equal(seen['center'], image.crop((150, 0, 450, 300)))
    border = np.asarray(seen['border'])
    assert np.array_equal(border[150:450], image) and (border[:150] == [122, 115, 102]).all()  # 255 times the mean
    assert seen_crop(image, PAPER) is image
