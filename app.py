"""Explain photographs in the browser: pick a photograph, a network, methods and classes; see the panel.

    pip install -r requirements-app.txt
    python app.py             # offers installed networks and every checkpoint below save/ and checkpoints/
    python app.py --checkpoints quickstart/CALM-EM --port 7861

Open the printed address; the page starts with a photograph of a cat. It is reachable only from this machine unless you
set --host. An uploaded photograph is deleted from disk once it is read, and kept in memory for ten minutes. Neither the
page nor the server contacts another host.
"""

import engine.before_torch  # noqa: F401 (before PyTorch is loaded)

import glob
import html
import os
import signal
import sys
import tempfile
import threading

from PIL import Image

import config
import util
from data import photographs
from engine.command import command
from flags.row import in_range
from report import live
from wsol import attribution
from wsol.errors import UserError

PIXELS = 60_000_000  # maximum size of a photograph
PLACES = ('first', 'second', 'third', 'fourth', 'fifth')  # ranks of the offered classes; words, as typing filters them
LETTERS = 100  # maximum length of typed names
KEPT = 600  # seconds that a photograph stays in memory after its last use
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; object-src 'none'"


class Policy:
    """ASGI middleware with a content security policy: browsers contact no other host."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message['type'] == 'http.response.start':
                message = {
                    **message,
                    'headers': [*message.get('headers', ()), (b'content-security-policy', POLICY.encode())],
                }
            await send(message)

        await self.app(scope, receive, with_policy if scope['type'] == 'http' else send)


def find_networks(given, save_root):
    """{name: checkpoint file, or None for a trained classifier}; UserError if there are none.

    given: names of checkpoints; None for all installed classifiers and all checkpoints below save_root and
    util.DOWNLOADED.
    """
    if given:
        return {name: util.find_checkpoint(name, save_root) for name in given}
    name = util.CHECKPOINT.format('last')
    files = [
        path
        for root in (save_root, util.DOWNLOADED)
        for path in sorted(glob.glob(os.path.join(root, '**', name), recursive=True))
    ]
    networks = {
        **dict.fromkeys(live.packaged_classifiers()),
        **live.packaged_heads(),
        **{os.path.dirname(path): path for path in files},
    }
    if not networks:
        raise UserError(
            f'no {name} below {save_root}/ or {util.DOWNLOADED}/: give --checkpoints, train one '
            '(scripts/quickstart.sh), or pip install -r requirements-timm.txt for a trained network'
        )
    return networks


def receive(path):
    """(photograph, file name) of an uploaded file, which is deleted."""
    try:
        return photographs.read_photograph(path), os.path.basename(path)
    finally:
        os.unlink(path)


class Desk:
    """The event handlers of the page; one request at a time uses the models."""

    def __init__(self, gradio, networks):
        self.gradio = gradio
        self.networks = networks  # {name: checkpoint file, or None for a trained classifier}
        self.lock = threading.Lock()

    def show(self, photo, network, methods, a, b):
        """[panel as HTML, updates of the fields A and B, command line] for a photograph (image, path)."""
        keep = self.gradio.update()
        if photo is None:
            return ['<p>Choose a photograph first.</p>', keep, keep, '']
        image, photograph = photo
        title = os.path.basename(photograph)
        classes = ','.join(one.strip()[:LETTERS] for one in (a, b) if one and one.strip())
        request = live.Request((network or '').strip()[:LETTERS], methods, classes)
        path = self.networks.get(request.network)
        try:
            with self.lock:
                view = live.explain(live.load(request.network, path), image, title, request)
        except (UserError, OSError) as error:
            return [alert(error), keep, keep, '']
        classes = [(f'{name}, {place}', f'@{rank}') for rank, (name, place) in enumerate(zip(view.top, PLACES), 1)]
        offered = [self.gradio.update(choices=classes), self.gradio.update(choices=[*classes, ('none', '')])]
        return [live.as_html(view, request, title), *offered, live.command_line(request, path, photograph)]

    def upload(self, file, *settings):
        """[empty upload field, photograph to keep, *`show`] for an uploaded file."""
        keep = self.gradio.update()
        try:
            photo = receive(file)
        except UserError as error:
            return [None, None, alert(str(error).replace(file, os.path.basename(file))), keep, keep, '']
        return [None, photo, *self.show(photo, *settings)]

    def first(self, *settings):
        """[photograph to keep, *`show`] for the photograph that the page opens with."""
        photo = photographs.read_photograph(live.CAT), live.CAT
        return [photo, *self.show(photo, *settings)]


def alert(error):
    """An error as HTML."""
    return f'<p role="alert">{html.escape(str(error))}</p>'


def fields(gradio, networks):
    """The input fields: network, methods, A and B."""
    offered = [name for name in attribution.MAPS if name not in attribution.SUPERCLASS_READOUTS]
    free = {'allow_custom_value': True, 'min_width': 280}
    ranks = [f'@{rank}' for rank in range(1, len(PLACES) + 1)]
    with gradio.Row():
        network = gradio.Dropdown(
            list(networks),
            value=next(iter(networks)),
            label='Network: a checkpoint, timm/<name>, or a torchvision name',
            elem_id='network',
            **free,
        )
        methods = gradio.Dropdown(
            offered, multiselect=True, label="Methods (none: the network's own map)", elem_id='methods', min_width=280
        )
    with gradio.Row():
        a = gradio.Dropdown(ranks, value='@1', label='Class A: a name, a number, or @1', elem_id='a', **free)
        b = gradio.Dropdown([*ranks, ''], value='@2', label='Class B: the same, or none', elem_id='b', **free)
    return [network, methods, a, b]


def page(gradio, networks):
    """The page, a gradio.Blocks."""
    desk = Desk(gradio, networks)
    with gradio.Blocks(title='CALM: why A and not B', analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gradio.Markdown(
            '# Why A and not B?\nThe maps of class A and of class B over a photograph, and their difference.'
        )
        settings = fields(gradio, networks)
        file = gradio.File(
            label='Photograph', file_types=list(photographs.SUFFIXES), type='filepath', elem_id='photograph', height=140
        )
        button = gradio.Button('Explain', variant='primary', elem_id='explain')
        photo = gradio.State(None, time_to_live=KEPT)
        output = gradio.HTML(elem_id='output')
        same_panel = gradio.Textbox(
            label='The command that draws the same panel', buttons=['copy'], interactive=False, elem_id='command'
        )
        answers = [output, *settings[2:], same_panel]
        blocks.load(desk.first, settings, [photo, *answers], api_visibility='private')
        file.upload(desk.upload, [file, *settings], [file, photo, *answers], api_visibility='private')
        for event in (button.click, *(one.input for one in settings[:1] + settings[2:])):
            event(desk.show, [photo, *settings], answers, api_visibility='private')
    return blocks


def serve(options):
    """Run the server until it is stopped; uploads go to a temporary folder, which is removed at the end."""
    networks = find_networks(options.checkpoints, options.save_root)
    with tempfile.TemporaryDirectory(prefix='calm-uploads-') as folder:
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED='False', HF_HUB_OFFLINE='1', GRADIO_TEMP_DIR=folder
        )  # read on import
        try:
            import gradio
            from starlette.middleware import Middleware
        except ImportError:
            raise UserError('app.py needs gradio: pip install -r requirements-app.txt') from None
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # so that the folder is removed
        Image.MAX_IMAGE_PIXELS = PIXELS // 2  # Pillow's limit is twice this
        fonts = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['ui-monospace', 'monospace']}  # no web fonts
        page(gradio, networks).queue(max_size=16).launch(
            server_name=options.host,
            server_port=options.port,
            share=False,
            max_file_size=f'{options.max_upload_mb}mb',
            state_session_capacity=8,
            theme=gradio.themes.Default(**fonts),
            footer_links=[],
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            app_kwargs={'middleware': [Middleware(Policy)]},
        )


def main():
    parser = config.Parser(description=__doc__, formatter_class=config.Formatter)
    parser.add_argument(
        '--checkpoints', nargs='+', metavar='PATH', help='checkpoint files or folders (default: all that exist)'
    )
    parser.add_argument('--save_root', default='save', help='folder of all runs')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; 0.0.0.0 lets the network in')
    parser.add_argument('--port', type=in_range(int, 1, 65535), default=7860, help='port to listen on')
    parser.add_argument('--max_upload_mb', type=in_range(int, 1), default=20, help='larger files are refused')
    serve(parser.parse_args())


if __name__ == '__main__':
    command(main)
