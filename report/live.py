"""The content of app.py: networks by name, an explained photograph, its files and its command line."""

import base64
import html
import io
import os
import shlex
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import torch
from torchvision import models

from data import photographs
from data.classes import parse_classes
from engine import experiments
from wsol import classifiers, trained
from wsol.backbones import packaged, timm
from wsol.errors import UserError
from wsol.preprocessing import photograph_transform

from . import panels

CAT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'docs', 'photographs', 'cat.jpg')
OFFERED = 5  # number of most probable classes offered
SEED = {'batch_size': 4, 'seed': 0}  # of the maps; also in `command_line`


class Request(NamedTuple):
    """The settings for explaining a photograph."""

    network: str  # a checkpoint's name, or a trained classifier's
    methods: list  # names of attribution.MAPS; empty: the network's own map
    classes: str  # 'A' or 'A,B', like --classes


class View(NamedTuple):
    """An explained photograph."""

    png: bytes  # the panel
    maps: dict  # {'<method>.<class>': float32 [h, w]}
    top: list  # names of the most probable classes


def packaged_classifiers():
    """The names of the classifiers whose weights are installed as packages."""
    return [f'{timm.PREFIX}{name}' for name in packaged.PACKAGED if packaged.file_for(name) and find_spec('timm')]


def packaged_heads():
    """{name: file} of the trained heads that come with the library, if timm is installed."""
    return {
        f'{trained.PREFIX}{one}': trained.file_of(trained.PREFIX + one) for one in trained.TRAINED if find_spec('timm')
    }


def _check_downloaded(name):
    """UserError for a torchvision network whose weights would have to be downloaded."""
    if name.startswith(timm.PREFIX) or name not in models.list_models(module=models):
        return  # timm is set offline; unknown names are reported later
    path = os.path.join(
        torch.hub.get_dir(), 'checkpoints', os.path.basename(models.get_model_weights(name).DEFAULT.url)
    )
    if not os.path.isfile(path):
        raise UserError(
            f'the weights of {name} are not on this machine: explain a photograph by '
            f'inference.py --classifier={name} once, which downloads them'
        )


@lru_cache(maxsize=2)
def load(name, path):
    """The `Experiment` of a checkpoint file, or of a trained classifier if path is None; the last two are cached."""
    if path:
        return experiments.load_experiment(path, SEED)
    if classifiers.is_file(name):
        raise UserError(
            f'{name} is not a network of this page: choose one of the list, timm/<name> or a torchvision name'
        )
    _check_downloaded(name)
    return experiments.load_classifier_experiment(name, SEED)


def explain(experiment, photograph, title, request):
    """The `View` of a photograph, with the same panel as inference.py."""
    model = experiment.model
    names = experiment.class_names
    chosen = parse_classes(request.classes, model.num_classes, names) if request.classes else [-1]
    makers = experiments.map_makers(experiment, request.methods)
    image = photograph_transform(experiment.arguments.crop_size, model.preprocessing)(photograph)
    images = image[None].to(next(model.parameters()).device)  # [1, 3, S, S]
    [explanation] = experiments.explain_batch(model, makers, images, chosen, [0])
    picture = photographs.panel_picture(photograph, model.preprocessing)
    panel = panels.make_panel(title, picture, names, *explanation, model.attribution_method)
    best = np.argsort(explanation.probs)[::-1]
    top = [names[y] if names else f'class {y}' for y in best[:OFFERED]]
    return View(panels.panel_png(panel), explanation.named_maps(), top)


def command_line(request, path, photograph):
    """The command that draws the same panel; path: of the checkpoint, or None; photograph: its path."""
    words = ['python', 'inference.py', f'--images={photograph}']
    packaged_head = request.network.startswith(trained.PREFIX)
    where = request.network if packaged_head else path and os.path.dirname(path)
    words.append(f'--load_checkpoint={where}' if path else f'--classifier={request.network}')
    words += [f'--classes={request.classes or "@1"}', f'--batch_size={SEED["batch_size"]}', f'--seed={SEED["seed"]}']
    if request.methods:
        words.append(f'--method={",".join(request.methods)}')
    return shlex.join(words)


def as_html(view, request, title):
    """The panel and its files as self-contained HTML."""
    file = io.BytesIO()
    np.savez_compressed(file, **view.maps)
    stem = html.escape(os.path.splitext(title)[0])

    def link(name, kind, content, words):
        address = f'data:{kind};base64,{base64.b64encode(content).decode()}'
        return f'<a id="{words.split()[-1]}" download="{name}" href="{address}">{words}</a>'

    alt = html.escape(f'Maps of {title} by {request.network}')
    source = base64.b64encode(view.png).decode()
    return (
        '<div tabindex="0" role="region" aria-label="panel" style="overflow-x:auto">'
        f'<img id="panel" alt="{alt}" style="width:100%;min-width:640px" src="data:image/png;base64,{source}"></div><p>'
        + link(f'{stem}.panel.png', 'image/png', view.png, 'Download the panel')
        + ' · '
        + link(f'{stem}.maps.npz', 'application/zip', file.getvalue(), 'Download the maps')
        + '</p>'
    )
