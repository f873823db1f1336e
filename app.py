"""A live view in the browser: a photograph, a checkpoint, methods and classes; the panels of inference.py.

    pip install -r requirements-app.txt
    python app.py                                            # every checkpoint below save/ and checkpoints/
    python app.py --checkpoints quickstart/CALM-EM --port 7861

Open the address it prints. Only this machine reaches it unless --host says otherwise. A photograph is deleted from disk
as soon as it is read and kept in memory for ten minutes; the page asks no other host for anything.
"""

import base64
import glob
import html
import os
import signal
import sys
import tempfile
import threading
from functools import lru_cache

from PIL import Image

import config
import util
from report import experiments, panels, photographs
from report.classes import parse_classes
from wsol import attribution
from wsol.errors import UserError
from wsol.preprocessing import make_transform

PIXELS = 60_000_000  # of a photograph; more is refused
KEPT = 600  # seconds that a photograph is kept in memory after its last use
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; object-src 'none'"


class Policy:
    """Tells browsers to ask no other host for anything (an ASGI middleware)."""

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


def find_checkpoints(given, save_root):
    """{name: checkpoint file}: those given, or all below save_root and the folder of downloaded ones. None is a
    UserError."""
    if given:
        return {name: util.find_checkpoint(name, save_root) for name in given}
    name = util.CHECKPOINT.format('last')
    files = [
        path
        for root in (save_root, util.DOWNLOADED)
        for path in sorted(glob.glob(os.path.join(root, '**', name), recursive=True))
    ]
    if not files:
        raise UserError(
            f'no {name} below {save_root}/ or {util.DOWNLOADED}/: give --checkpoints, or train one '
            '(scripts/quickstart.sh)'
        )
    return {os.path.dirname(path): path for path in files}


@lru_cache(maxsize=2)
def load(path):
    """The `Experiment` of a checkpoint; the last two are kept."""
    return experiments.load_experiment(path, {'batch_size': 8, 'seed': 0})


def receive(path):
    """The photograph of an uploaded file, which is deleted whatever it holds; a name for it."""
    try:
        return photographs.read_photograph(path), os.path.basename(path)
    finally:
        os.unlink(path)


def explain(path, photograph, name, map_names, classes):
    """The PNG of the panel of a photograph, as inference.py draws it."""
    experiment = load(path)
    arguments = experiment.arguments
    chosen = parse_classes(classes or '@1', experiment.model.num_classes, experiment.class_names)
    makers = experiments.map_makers(experiment, map_names)
    images = make_transform(False, crop_size=arguments.crop_size)(photograph)[None]
    device = next(experiment.model.parameters()).device
    [explanation] = experiments.explain_batch(experiment.model, makers, images.to(device), chosen, [0])
    picture = photographs.panel_picture(photograph)
    panel = panels.make_panel(name, picture, experiment.class_names, *explanation, arguments.attribution_method)
    return panels.panel_png(panel)


def page(gradio, checkpoints):
    """The page, a gradio.Blocks."""
    lock = threading.Lock()  # a model is explained by one caller at a time

    def show(photo, checkpoint, methods, classes):
        if photo is None:
            return '<p>Choose a photograph first.</p>'
        try:
            with lock:
                picture = explain(checkpoints[checkpoint], *photo, methods, classes)
        except (UserError, OSError) as error:
            return f'<p role="alert">{html.escape(str(error))}</p>'
        words = f'Maps of {photo[1]} by {checkpoint}'
        return (
            f'<div style="overflow-x:auto"><img id="panel" alt="{html.escape(words)}" '
            'style="width:100%;min-width:640px" '
            f'src="data:image/png;base64,{base64.b64encode(picture).decode()}"></div>'
        )

    def upload(file, checkpoint, methods, classes):
        try:
            photo = receive(file)
        except UserError as error:
            return None, None, f'<p role="alert">{html.escape(str(error).replace(file, os.path.basename(file)))}</p>'
        return None, photo, show(photo, checkpoint, methods, classes)

    offered = [name for name in attribution.MAPS if name not in attribution.SUPERCLASS_READOUTS]
    with gradio.Blocks(title='CALM: why A and not B', analytics_enabled=False, delete_cache=(60, 60)) as blocks:
        gradio.Markdown(
            '# Why A and not B?\nThe maps of class A and of class B over a photograph, and their difference.'
        )
        with gradio.Row():
            checkpoint = gradio.Dropdown(
                list(checkpoints),
                value=next(iter(checkpoints)),
                label='Checkpoint',
                elem_id='checkpoint',
                min_width=280,
            )
            methods = gradio.Dropdown(
                offered,
                multiselect=True,
                label="Methods (none: the network's own map)",
                elem_id='methods',
                min_width=280,
            )
            classes = gradio.Textbox(
                '@1,@2',
                label='Classes A,B: numbers, names, or @1 for the prediction, @2 for the runner-up',
                elem_id='classes',
                max_length=200,
            )
        file = gradio.File(
            label='Photograph', file_types=list(photographs.SUFFIXES), type='filepath', elem_id='photograph', height=140
        )
        button = gradio.Button('Explain', variant='primary', elem_id='explain')
        photo = gradio.State(None, time_to_live=KEPT)
        output = gradio.HTML(elem_id='output')
        settings = [checkpoint, methods, classes]
        file.upload(upload, [file, *settings], [file, photo, output], api_visibility='private')
        for event in (button.click, classes.submit, checkpoint.input):
            event(show, [photo, *settings], output, api_visibility='private')
    return blocks


def serve(options):
    """Run the server until it is stopped; uploads live in a folder of their own, which goes with it."""
    checkpoints = find_checkpoints(options.checkpoints, options.save_root)
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
        Image.MAX_IMAGE_PIXELS = PIXELS // 2  # Pillow refuses twice as many
        fonts = {
            'font': ['system-ui', 'sans-serif'],
            'font_mono': ['ui-monospace', 'monospace'],
        }  # none from another host
        page(gradio, checkpoints).queue(max_size=16).launch(
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
        '--checkpoints', nargs='+', metavar='PATH', help='checkpoint files or folders (default: all that are found)'
    )
    parser.add_argument('--save_root', default='save', help='folder of all runs')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; 0.0.0.0 lets the network in')
    parser.add_argument('--port', type=config.in_range(int, 1, 65535), default=7860, help='port to listen on')
    parser.add_argument('--max_upload_mb', type=config.in_range(int, 1), default=20, help='larger files are refused')
    serve(parser.parse_args())


if __name__ == '__main__':
    util.command(main)
