"""A report in headless Chromium, opened from disk: picks in the gallery, the pixels that follow, keys, a phone."""

import base64
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from chromium import chromium

from report.page import fill_template
from report.page.gallery import data_uri, encode
from report.results import read_runs

pytestmark = pytest.mark.slow
SIDE, CELLS = 288, 4  # pixels of a canvas' side, cells of the drawn maps
NAMES = {'0': 'finch', '1': '<img src=x onerror=alert(1)>', '2': 'wren'}


def method(name, maps, signed):
    """A record of the page for maps [images, K, h, w]."""
    top = encode(maps[0])
    bits = 8 * len(base64.b64decode(top['data'])) // maps[0].size
    return {
        'name': name,
        'unit': 'unit',
        'height': maps.shape[2],
        'width': maps.shape[3],
        'bits': bits,
        'signed': signed,
        'maps': [encode(one) for one in maps],
    }


def picture(grey):
    """A flat picture as a data address."""
    return data_uri(Image.new('RGB', (8, 8), (grey, grey, grey)), 8)


def image_record(n):
    """A record of the page for an image of class n."""
    return {
        'id': f'c/i{n}.png',
        'label': n,
        'classes': [n, *(y for y in range(3) if y != n)],
        'picture': picture(60 + 100 * n),
    }


def run_record(name, maps, names):
    """A record of the page for a run with these of the maps {name: [images, K, h, w]}."""
    return {
        'name': name,
        'method': 'CAM',
        'set': 0,
        'predicted': [0, 2],
        'probs': [[0.5, 0.25, 0.125]] * 2,
        'maps': [method(one, maps[one], one != 'jointll') for one in names],
    }


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
    """(address of a report of two runs with known maps, the maps [images, K, h, w] of each method)."""
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 0.1, (2, 3, CELLS, CELLS)) * np.array([1, 0.6, 0.8])[:, None, None]
    maps = {'jointll': small, 'large': rng.normal(size=(2, 3, 72, 72)), 'vanilla': 100 * (small - 0.05)}
    gallery = {
        'sets': [{'images': [image_record(0), image_record(1)], 'names': NAMES}],
        'runs': [run_record('first', maps, ['jointll', 'large']), run_record('<b>second', maps, ['vanilla'])],
    }
    folder = tmp_path_factory.mktemp('report') / 'a run'
    folder.mkdir()
    epochs = [
        {'epoch': n, 'loss': 1 / n, 'train_accuracy': 9.0 * n, 'val_accuracy': 8.0 * n, 'lr': [0.1]}
        for n in range(1, 9)
    ]
    (folder / 'log.jsonl').write_text(
        '\n'.join(map(json.dumps, [{'arguments': {'experiment_name': 'x' * 80, 'dataset': 'ToyBirds'}}, *epochs]))
    )
    runs, notes = read_runs([str(folder)])
    path = folder.parent / 'report.html'
    page, _ = fill_template(runs, notes, gallery, [])
    path.write_text(page)
    return path.as_uri(), maps


def wait(page):
    """Until the gallery has drawn what was picked."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 20).until(
        lambda page: page.execute_script("return document.getElementById('rows').getAttribute('aria-busy')") == 'false'
    )


def pick(page, **choices):
    """Choose options by their words, as a person does."""
    from selenium.webdriver.support.ui import Select

    for name, words in choices.items():
        Select(page.find_element('id', name)).select_by_visible_text(words)
        wait(page)


def pixels(page, canvas):
    """[SIDE, SIDE, 3] of the canvas of that number."""
    address = page.execute_script(
        'return document.querySelectorAll("#rows canvas")[arguments[0]].toDataURL("image/png")', canvas
    )
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(',')[1]))).convert('RGB')).astype(int)


def centres(page, canvas, cells=CELLS):
    """The colours at the middle of each cell [cells, cells, 3]."""
    middle = ((np.arange(cells) + 0.5) * SIDE / cells).astype(int)
    return pixels(page, canvas)[middle][:, middle]


def redness(colours):
    """Red minus blue."""
    return colours[..., 0] - colours[..., 2]


def full_strength(page, value='100'):
    """The slider set, as by the arrow keys."""
    page.execute_script(
        "const s = document.getElementById('strength'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        value,
    )
    wait(page)


def quiet(page):
    """No script error or warning, nothing asked of any network, no alert."""
    assert page.get_log('browser') == []
    asked = [json.loads(entry['message'])['message'] for entry in page.get_log('performance')]
    addresses = [one['params']['request']['url'] for one in asked if one['method'] == 'Network.requestWillBeSent']
    own = ('chrome:', 'chrome-untrusted:')  # the browser's start page
    addresses = [address for address in addresses if not address.startswith(own)]
    assert any(address.startswith('file:') for address in addresses) and all(
        address.startswith(('file:', 'data:')) for address in addresses
    )


def test_the_gallery_shows_the_difference_of_what_is_picked(page_file):
    address, maps = page_file
    with chromium() as page:
        page.get(address)
        wait(page)
        full_strength(page)
        pick(page, pixels="the map's own cells", beside='<b>second, vanilla')
        assert len(page.find_elements('css selector', '#rows canvas')) == 6 and not page.find_elements(
            'css selector', '#rows b'
        )
        for image, order in ((0, [0, 1, 2]), (1, [1, 0, 2])):
            pick(page, image=f'c/i{image}.png')
            for a, b in ((order[0], order[1]), (order[2], order[0])):
                pick(page, a=NAMES[str(a)], b=NAMES[str(b)])
                for first, name in ((0, 'jointll'), (3, 'vanilla')):
                    mine = maps[name][image]
                    difference = mine[order.index(a)] - mine[order.index(b)]
                    clear = np.abs(difference) > 0.1 * np.abs(difference).max()
                    shown = redness(centres(page, first + 2))
                    assert clear.sum() > 8 and (np.sign(shown) == np.sign(difference))[clear].all()
                    strong = np.unravel_index(np.abs(difference).argmax(), difference.shape)
                    end = [103, 0, 31] if difference[strong] > 0 else [5, 48, 97]
                    assert np.abs(centres(page, first + 2)[strong] - end).max() <= 2
                heights = redness(centres(page, 3))  # vanilla's map of A is signed too
                assert (np.sign(heights) == np.sign(maps['vanilla'][image][order.index(a)]))[np.abs(heights) > 40].all()
        before = redness(centres(page, 2))
        page.find_element('id', 'swap').click()
        wait(page)
        swapped = redness(centres(page, 2))
        assert (np.sign(before) == -np.sign(swapped))[np.abs(before) > 10].all()
        label = page.find_element('css selector', '#rows canvas').get_attribute('aria-label')
        assert (
            label.startswith(f'A: {NAMES["1"]}')
            and 'of 4 by 4' in label
            and NAMES['1'] in page.find_element('id', 'rows').text
        )
        quiet(page)


def test_a_shared_range_own_ranges_and_the_strength_of_the_map(page_file):
    address, maps = page_file
    with chromium() as page:
        page.get(address)
        wait(page)
        full_strength(page)
        pick(page, pixels="the map's own cells", beside='nothing', a='finch', b='wren')
        a, b = maps['jointll'][0][0], maps['jointll'][0][2]
        weaker, top = (1, b) if b.max() < a.max() else (0, a)
        at = np.unravel_index(top.argmax(), top.shape)
        yellow = [253, 231, 37]  # the end of the scale
        assert np.abs(centres(page, weaker)[at] - yellow).max() > 2
        pick(page, range='per map')
        assert np.abs(centres(page, weaker)[at] - yellow).max() <= 1
        full_strength(page, '0')
        assert np.abs(pixels(page, 0) - 60).max() <= 2  # the picture alone
        pick(page, method='first, large')
        full_strength(page)
        difference = maps['large'][0][0] - maps['large'][0][2]
        clear = np.abs(difference) > 0.1 * np.abs(difference).max()
        assert (np.sign(redness(centres(page, 2, 72))) == np.sign(difference))[clear].all()
        pick(page, pixels='smooth', method='first, jointll')
        steps = np.abs(np.diff(pixels(page, 0), axis=1)).max()
        pick(page, pixels="the map's own cells")
        assert steps < 20 < np.abs(np.diff(pixels(page, 0), axis=1)).max()  # between the cells, not of them
        quiet(page)


def test_the_keyboard_reaches_every_control_in_order(page_file):
    from selenium.webdriver import ActionChains, Keys

    with chromium() as page:
        page.get(page_file[0])
        wait(page)
        names = []
        for _ in range(60):
            ActionChains(page).send_keys(Keys.TAB).perform()
            here = page.switch_to.active_element
            names.append(here.get_attribute('id') or here.tag_name)
            outline = page.execute_script('return getComputedStyle(arguments[0]).outlineStyle', here)
            assert outline != 'none', names[-1]
            if names[-1] == 'swap':
                break
        wanted = ['image', 'a', 'b', 'method', 'beside', 'range', 'pixels', 'strength', 'swap']
        assert names[-len(wanted) :] == wanted
        unnamed = page.execute_script(
            'return Array.from(document.querySelectorAll("select, input, button")).filter('
            'one => !(one.labels && one.labels.length) && !one.textContent.trim()).length'
        )
        assert unnamed == 0
        page.find_element('id', 'a').send_keys('w')  # wren, by its letter
        wait(page)
        assert page.find_element('css selector', '#rows figcaption').text.startswith('A: wren')
        status = page.find_element('id', 'status')
        assert (
            'Difference from' in status.get_attribute('textContent') and status.rect['width'] <= 1
        )  # for the ear alone
        quiet(page)


@pytest.mark.parametrize('dark', [False, True])
def test_a_phone_shows_it_all_without_scrolling_sideways(page_file, dark):
    with chromium(360, 740, dark) as page:
        page.get(page_file[0])
        wait(page)
        assert page.execute_script(
            'const root = document.documentElement; return innerWidth === 360 && root.scrollWidth <= root.clientWidth'
        )
        widest = page.execute_script(
            'return Math.max(...Array.from(document.querySelectorAll("select, canvas, .chart svg, button")).map('
            'one => one.getBoundingClientRect().right))'
        )
        assert 200 < widest <= 360
        ink, ground = page.execute_script(
            'const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]'
        )
        light = [sum(map(int, colour[4:-1].split(','))) for colour in (ink, ground)]
        assert (light[0] > light[1]) == dark and abs(light[0] - light[1]) > 450
        quiet(page)
