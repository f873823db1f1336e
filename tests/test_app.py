"""app.py in headless Chromium: a photograph goes in, a panel comes out, nothing stays behind and no other host is
asked.

Skipped with its reason without gradio, selenium or Chromium.
"""

import base64
import io
import json
import os
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
import wsol

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


def test_checkpoints_are_found_and_uploads_deleted(tmp_path):
    with pytest.raises(ValueError, match='give --checkpoints'):
        app.find_checkpoints(None, str(tmp_path))
    save_checkpoint(tmp_path / 'runs' / 'one', 'CAM')
    found = app.find_checkpoints(None, str(tmp_path))
    assert found[str(tmp_path / 'runs' / 'one')] == str(tmp_path / 'runs' / 'one' / 'last_checkpoint.pth.tar')
    Image.new('RGB', (50, 40), 'red').save(tmp_path / 'a.png')
    photo, name = app.receive(str(tmp_path / 'a.png'))
    assert photo.size == (50, 40) and name == 'a.png'
    (tmp_path / 'b.jpg').write_text('no picture')
    with pytest.raises(ValueError, match='unreadable'):
        app.receive(str(tmp_path / 'b.jpg'))
    assert sorted(os.listdir(tmp_path)) == ['runs']
    panel = app.explain(found[str(tmp_path / 'runs' / 'one')], photo, name, [], '@1,2')
    assert Image.open(io.BytesIO(panel)).size[0] > 1000
    with pytest.raises(ValueError, match='6 classes'):
        app.explain(found[str(tmp_path / 'runs' / 'one')], photo, name, ['grad_cam'], '6')


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


def test_a_photograph_goes_in_and_a_panel_comes_out(server, tmp_path):
    from selenium.webdriver.common.by import By
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

        def text():
            return page.execute_script('return document.body.innerText')

        def upload(name):
            until(lambda: find('#photograph input[type=file]'))
            find('#photograph input[type=file]')[0].send_keys(str(tmp_path / name))

        page.get(address)
        upload('my photo.png')
        until(source)
        first = source()
        assert Image.open(io.BytesIO(base64.b64decode(first.split(',')[1]))).size[0] > 1000
        assert uploads(temporary) == []
        box = find('#classes textarea, #classes input')[0]
        box.clear()
        box.send_keys('3')
        find('#explain')[0].click()  # the photograph is still known
        until(lambda: source() not in ('', first))
        assert Image.open(io.BytesIO(base64.b64decode(source().split(',')[1]))).size[0] < 1000  # one class
        box.clear()
        box.send_keys('17')
        find('#explain')[0].click()
        until(lambda: 'there are 6 classes' in text())
        upload('broken.jpg')
        until(lambda: 'broken.jpg is unreadable' in text())
        assert str(temporary) not in text() and uploads(temporary) == []
        page.refresh()
        upload('notes.txt')
        until(lambda: 'invalid file type' in text().lower())
        page.refresh()
        upload('large.png')
        until(lambda: 'maximum' in text().lower())  # over a megabyte
        assert not source() and uploads(temporary) == []
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
