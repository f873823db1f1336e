"""app.py in headless Chromium: a photograph goes in, a panel comes out, nothing stays behind and no other host is
asked.

Skipped with its reason without gradio, selenium or Chromium.
"""

import base64
import io
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

import app
import inference
import wsol
from data import photographs
from report import live
from wsol.errors import UserError

sys.path.insert(0, os.path.join(ROOT, 'tests', 'browser'))
from chromium import chromium


def save_checkpoint(folder, method):
    model = wsol.build_model('vgg_tiny', method, 6, large_feature_map=True)
    trained = {
        'architecture': 'vgg_tiny',
        'attribution_method': method,
        'large_feature_map': True,
        'crop_size': 32,
        'dataset': 'CUB',
    }
    folder.mkdir(parents=True)
    torch.save(
        {'architecture': 'vgg_tiny', 'epoch': 1, 'state_dict': model.state_dict(), 'optimizer': {}, 'args': trained},
        folder / 'last_checkpoint.pth.tar',
    )


def test_networks_are_found_and_uploads_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(live, 'packaged_classifiers', list)
    heads = live.packaged_heads()
    assert all(os.path.isfile(path) for path in heads.values())
    monkeypatch.setattr(live, 'packaged_heads', dict)
    with pytest.raises(ValueError, match='give --checkpoints'):
        app.find_networks(None, str(tmp_path))
    save_checkpoint(tmp_path / 'runs' / 'one', 'CAM')
    name = str(tmp_path / 'runs' / 'one')
    assert app.find_networks(None, str(tmp_path)) == {name: f'{name}/last_checkpoint.pth.tar'}
    monkeypatch.setattr(live, 'packaged_classifiers', lambda: ['timm/some'])
    found = app.find_networks(None, str(tmp_path))
    assert next(iter(found.items())) == ('timm/some', None) and len(found) == 2
    Image.new('RGB', (50, 40), 'red').save(tmp_path / 'a.png')
    photo, title = app.receive(str(tmp_path / 'a.png'))
    assert photo.size == (50, 40) and title == 'a.png'
    (tmp_path / 'b.jpg').write_text('no picture')
    with pytest.raises(ValueError, match='unreadable'):
        app.receive(str(tmp_path / 'b.jpg'))
    assert sorted(os.listdir(tmp_path)) == ['runs']


@pytest.mark.slow
def test_the_command_line_draws_the_same_panel_and_maps(tmp_path, monkeypatch):
    """Byte for byte, with a method that draws noise; the file's name has a blank and a quote."""
    save_checkpoint(tmp_path / 'one', 'CAM')
    monkeypatch.chdir(tmp_path)
    title = "the cat's photo.png"
    with Image.open(live.CAT) as image:
        image.resize((60, 40)).save(title)
    path = 'one/last_checkpoint.pth.tar'
    request = live.Request('one', ['vanilla', 'smooth_grad'], '@1,2')
    view = live.explain(live.load('one', path), photographs.read_photograph(title), title, request)
    words = shlex.split(live.command_line(request, path, title))
    assert words[0] == 'python'
    monkeypatch.setattr(sys, 'argv', [*words[1:], '--workers=0', '--output=panels', '--save_scoremaps=maps'])
    inference.main()
    np.testing.assert_array_equal(Image.open(f'panels/{title}.png'), Image.open(io.BytesIO(view.png)))
    assert {f'{title}.{name}.npy' for name in view.maps} == {*os.listdir('maps')} and len(view.maps) == 4
    for name, one in view.maps.items():
        np.testing.assert_array_equal(np.load(f'maps/{title}.{name}.npy'), one)
    assert len({*view.top}) == 5 and all(re.fullmatch('class [0-5]', name) for name in view.top)
    page = live.as_html(view, request, title)
    stored = np.load(io.BytesIO(base64.b64decode(re.search('zip;base64,([^"]*)', page)[1])))
    assert {*stored.files} == {*view.maps}


def test_a_typed_network_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    for name, said in (
        ('resnet18', 'not on this machine'),
        ('resnet1', 'did you mean resnet'),
        ('x.pth', 'is not a network of'),
    ):
        with pytest.raises(UserError, match=said):
            live.load(name, None)


def test_without_gradio_there_is_one_line(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / 'one', 'CAM')
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.setattr(sys, 'argv', ['app.py', f'--save_root={tmp_path}'])
    with pytest.raises(ValueError, match='pip install -r requirements-app.txt'):
        app.main()


@pytest.fixture
def server(tmp_path):
    """(address, folder for temporary files) of a running app with two checkpoints; a skip without gradio."""
    pytest.importorskip('gradio', reason='gradio is not installed: pip install -r requirements-app.txt')
    for method in ('CALM-EM', 'CAM'):
        save_checkpoint(tmp_path / 'save' / method, method)
    temporary = tmp_path / 'tmp'
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with open(tmp_path / 'said', 'w') as said:
        process = subprocess.Popen(
            [
                sys.executable,
                os.path.join(ROOT, 'app.py'),
                f'--save_root={tmp_path}/save',
                f'--port={port}',
                f'--checkpoints={tmp_path}/save/CALM-EM',
                '--max_upload_mb=1',
            ],
            stdout=said,
            stderr=said,
            cwd=tmp_path,
            env={**os.environ, 'TMPDIR': str(temporary)},
        )
    address = f'http://127.0.0.1:{port}'
    for _ in range(240):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, (tmp_path / 'said').read_text()
            time.sleep(0.5)
    yield address, temporary
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert os.listdir(temporary) == []  # the folder of the uploads went with it


def uploads(temporary):
    """Files below the temporary folder that hold what was uploaded."""
    return [name for root, _, names in os.walk(temporary) for name in names if name.endswith(('.png', '.jpg', '.txt'))]


@pytest.mark.slow
def test_a_photograph_goes_in_and_a_panel_comes_out(server, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    address, temporary = server
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / 'my photo.png')
    Image.fromarray(rng.integers(0, 256, (800, 900, 3), dtype=np.uint8)).save(tmp_path / 'large.png')
    (tmp_path / 'broken.jpg').write_text('no picture')
    (tmp_path / 'notes.txt').write_text('words')
    with chromium() as page:

        def until(test):
            return WebDriverWait(page, 60, ignored_exceptions=()).until(lambda page: test())

        def find(css):
            return page.find_elements(By.CSS_SELECTOR, css)

        def source():
            return next(
                iter(page.execute_script("return [...document.querySelectorAll('#panel')].map(one => one.src)")), ''
            )

        def width(source):
            return Image.open(io.BytesIO(base64.b64decode(source.split(',')[1]))).size[0]

        def text():
            return page.execute_script('return document.body.innerText')

        def upload(name):
            until(lambda: find('#photograph input[type=file]'))
            find('#photograph input[type=file]')[0].send_keys(str(tmp_path / name))

        def value(field):
            return page.execute_script(f"return document.querySelector('#{field} input, #{field} textarea').value")

        def type_into(field, words):
            box = find(f'#{field} input')[0]
            box.send_keys(Keys.CONTROL + 'a')
            box.send_keys(words + Keys.ENTER)

        page.get(address)
        until(source)  # of the photograph that the page opens on
        opened = source()
        assert f'inference.py --images={live.CAT} ' in value('command')
        assert {one.get_attribute('download') for one in find('#output a')} == {'cat.panel.png', 'cat.maps.npz'}
        upload('my photo.png')
        until(lambda: source() not in ('', opened))
        first = source()
        assert width(first) > 1000
        assert uploads(temporary) == []
        find('#b input')[0].click()
        until(lambda: len(find('#b [role=option], ul[role=listbox] li')) == 6)  # five classes and none
        assert re.search('class [0-5], second', text())
        type_into('b', 'third')  # picks; the photograph is still known
        until(lambda: source() not in ('', first))
        assert '--classes=@1,@3' in value('command') and re.fullmatch('class [0-5], third', value('b'))
        second = source()
        type_into('b', 'none')
        until(lambda: source() not in ('', second) and width(source()) < 1000)  # one class
        type_into('a', '17')
        until(lambda: 'there are 6 classes' in text())
        type_into('network', 'resnet1')
        until(lambda: 'did you mean resnet' in text())
        upload('broken.jpg')
        until(lambda: 'broken.jpg is unreadable' in text())
        assert str(temporary) not in text() and uploads(temporary) == []
        page.refresh()
        upload('notes.txt')
        until(lambda: 'invalid file type' in text().lower())
        page.refresh()
        until(source)
        upload('large.png')
        until(lambda: 'maximum' in text().lower())  # over a megabyte
        assert source() == opened and uploads(temporary) == []
        events = [json.loads(entry['message'])['message'] for entry in page.get_log('performance')]
        asked = {
            event['params']['requestId']: event['params']['request']['url']
            for event in events
            if event['method'] == 'Network.requestWillBeSent'
        }
        foreign = {key: url for key, url in asked.items() if not url.startswith((address, 'data:', 'blob:', 'chrome'))}
        blocked = {
            event['params']['requestId']
            for event in events
            if event['method'] == 'Network.loadingFailed' and event['params'].get('blockedReason') == 'csp'
        }
        assert len(asked) > 10 and not foreign.keys() - blocked, foreign
