"""Classes by name, panels looked at by their pixels."""

import io
import os
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from data.classes import class_names, parse_classes
from report import panels

NAMES = ['001.Black_footed_Albatross', '002.Laysan_Albatross', '003.Indigo_Bunting', '004.Crane', '005.crane']


def test_classes_by_number_name_or_rank():
    def parse(text):
        return parse_classes(text, 5, NAMES)

    assert parse('2') == [2] and parse('0, 4') == [0, 4] and parse('@1,@5') == [-1, -5]
    assert parse('Indigo Bunting,001.Black_footed_Albatross') == [2, 0] and parse('laysan_albatross,3') == [1, 3]
    assert parse('004.Crane') == [3]
    for text, what in (
        ('5', '5 classes, from 0, to 4'),
        ('@6', 'to @5'),
        ('@0', 'from @1'),
        ('Bunting', 'mean 003.Indigo_Bunting'),
        ('albatross', 'mean 001.Black_footed_Albatross or 002.Laysan_Albatross'),
        ('Layson Albatros', 'mean 002.Lay'),
        ('zzzzz', 'names look like'),
        ('crane', '3 \\(004.Crane\\), 4 \\(005.crane\\)'),
        ('1,2,3', 'one class, or two'),
        ('1,', 'one class, or two'),
        ('', 'one class'),
    ):
        with pytest.raises(ValueError, match=what):
            parse(text)
    with pytest.raises(ValueError, match='give a number'):
        parse_classes('Crane', 5)


FOLDERS = ['1', '10', '2', '@1', 'red, robin']


@pytest.mark.parametrize(
    'text, found',
    [
        ('0', [0]),  # a number that is no name
        ('10', [1]),  # a name that is no number of a class
        ('2', [2]),  # both, of one class
        ('name:1', [0]),
        ('number:1', [1]),
        ('rank:1', [-1]),
        ('@2', [-2]),
        ('name:@1', [3]),
        ('red, robin', [4]),
        ('red, robin,2', [4, 2]),
        ('@2,Red, Robin', [-2, 4]),
        ('10,name:1', [1, 0]),
    ],
)
def test_classes_whose_names_are_numbers(text, found):
    assert parse_classes(text, 5, FOLDERS) == found


@pytest.mark.parametrize(
    'text, names, meanings',
    [
        ('1', FOLDERS, 'the name of class number 0 (1) and class number 1 (10): give name:1 or number:1'),
        ('@1', FOLDERS, 'the name of class number 3 (@1) and the prediction of rank 1: give name:@1 or rank:1'),
        ('1', ['01', '02', '03'], 'the name of class number 0 (01) and class number 1 (02): give name:01 or number:1'),
        ('007', ['7', '07'], 'the name of class number 0 (7) and the name of class number 1 (07): give name:7'),
    ],
)
def test_a_word_that_could_mean_two_classes_is_refused_with_both(text, names, meanings):
    with pytest.raises(ValueError, match=re.escape(f'class {text!r} is {meanings}')):
        parse_classes(text, len(names), names)
    with pytest.raises(ValueError, match='give a whole number, as in rank:1'):
        parse_classes('rank:first', len(names), names)


def test_class_names_come_from_the_data_set(tmp_path):
    (tmp_path / 'CUB').mkdir()
    (tmp_path / 'CUB' / 'classes.txt').write_text('1 001.Red bird\n2 002.Blue\n')
    assert class_names('CUB', 2, ('nowhere', str(tmp_path))) == ['001.Red bird', '002.Blue']
    assert class_names('CUB', 3, (str(tmp_path),)) is None and class_names('OpenImages', 100, ('nowhere',)) is None
    assert class_names('ILSVRC', 1000, ('nowhere',))[:2] == ['tench', 'goldfish']


def corners():
    """Maps of A, high at the left, and B, high at the lower right: [2, 4, 4]."""
    maps = np.zeros((2, 4, 4), np.float32)
    maps[0, :, :2] = 0.04
    maps[1, 2:, 2:] = 0.02
    return maps


def test_a_panel_s_scales_and_words(picture):
    panel = panels.make_panel(
        'cost_$5_$6.jpg',
        picture,
        NAMES,
        [0.1, 0.2, 0.6, 0.05, 0.05],
        [2, 1],
        {'jointll': corners(), 'grad_cam': -corners()},
        'CALM-EM',
    )
    assert panel.names == ['003.Indigo_Bunting (2)\np = 0.600', '002.Laysan_Albatross (1)\np = 0.200']
    assert panel.title == 'cost_$5_$6.jpg\npredicted: 003.Indigo_Bunting (2), p = 0.600'
    assert [row.label for row in panel.rows] == ['jointll', 'grad_cam of log p(y | x)']
    figure = panels.draw_panel(panel)
    words = ' '.join(text.get_text() for text in figure.texts) + ' '.join(axes.get_ylabel() for axes in figure.axes)
    assert (
        'p(y, z | x), each of 4 × 4 cells' in words
        and 'A − B: relevance to log p(y | x)' in words
        and 'A: 003.Indigo_Bunting' in words
    )
    overlays = [axes.images[1].get_clim() for axes in figure.axes if len(axes.images) == 2]
    assert np.allclose(overlays[:4], [(0, 0.04), (0, 0.04), (-0.04, 0.04), (-0.04, 0)])
    above = panels.make_panel('x', picture, None, [1.0], [0], {'vanilla': corners()[:1] + 0.5}, 'CAM')
    [overlay] = [axes.images[1].get_clim() for axes in panels.draw_panel(above).axes if len(axes.images) == 2]
    assert np.allclose(overlay, (0, 0.54))  # the scale begins at 0
    assert Image.open(io.BytesIO(panels.panel_png(panel))).size[0] > 1000


def test_the_difference_is_red_for_a_blue_for_b_and_clear_at_zero():
    grey = np.full((40, 40, 3), 128, np.uint8)
    figure = panels.draw_panel(panels.make_panel('x', grey, None, [0.5, 0.5], [0, 1], {'vanilla': corners()}, 'CAM'))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
    box = [axes for axes in figure.axes if len(axes.images) == 2][2].get_window_extent()
    tile = pixels[::-1][int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)][::-1]  # first row on top
    h, w = tile.shape[:2]
    red, blue, clear = tile[h // 2, w // 8], tile[h * 7 // 8, w * 7 // 8], tile[h // 8, w * 7 // 8]
    assert red[0] > red[2] + 60 and blue[2] > blue[0] + 40 and np.ptp(clear) < 12


def test_one_class_flat_maps_and_odd_shapes(tmp_path):
    for shape in ((10, 60, 3), (60, 10, 3)):
        flat = {'saliency': np.zeros((1, 3, 3), np.float32), 'vanilla': np.full((1, 3, 3), -2, np.float32)}
        panel = panels.make_panel('ü 鳥.png' * 12, np.zeros(shape, np.uint8), None, [0.3, 0.7], [1], flat, 'CAM')
        path = str(tmp_path / 'new' / f'{shape[0]}.png')
        assert panels.write_panel((path, panel)) == path and Image.open(path).size[0] > 300
    assert sorted(os.listdir(tmp_path / 'new')) == ['10.png', '60.png']
