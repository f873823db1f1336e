"""Backbones from timm, `timm/<name>`: convolutional networks such as ConvNeXt, and ViTs, whose patch tokens are
locations.

timm is optional (requirements-timm.txt) and imported on first use. The backbone is timm's network without pooling and
classifier; a norm between the two is applied at every location instead. Convolutional networks get an output stride of
16, or 8 with large_feature_map: 14x14 or 28x28 locations at 224 px. A ViT has one location per patch; its class and
register tokens take part in the attention and are then dropped. Pretrained weights bring their own preprocessing
(wsol/preprocessing.py).
"""

from collections import OrderedDict
from contextlib import nullcontext

import torch
from torch import nn

from ..attribution.layouts import Layout
from ..errors import UserError
from ..preprocessing import PAPER, of_timm
from ..registry import did_you_mean
from . import hub, packaged

PREFIX = 'timm/'
SMALL_LR_PATTERNS = ('trunk.',)
BACKBONE_PATTERNS = ('trunk.',)
INIT = 'xavier'  # for the heads only: timm initialises its networks
PROBE = 224  # px, side of the image that probes a network's output shape


class Trunk(nn.Module):
    """A timm network without pooling and classifier: images [B, 3, h, w] -> F [B, L, H, W].

    Raises UserError at construction if the network outputs no map, and on images that do not divide into patches.
    """

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.kind, self.patch, self.prefix = 'maps', (1, 1), 0  # fields of the output's `Layout`, side of a patch
        with torch.no_grad():
            F = net.eval()(torch.zeros(1, 3, PROBE, PROBE))
        if torch.is_tensor(F) and F.ndim == 3 and hasattr(net, 'num_prefix_tokens'):
            self.kind, self.patch, self.prefix = 'tokens', tuple(net.patch_embed.patch_size), net.num_prefix_tokens
        elif torch.is_tensor(F) and F.ndim == 4 and F.shape[2] > 1:
            self.kind = 'rows' if getattr(net, 'output_fmt', 'NCHW') == 'NHWC' else 'maps'
        else:
            raise UserError('its features are not a map [B, L, H, W]')
        self.channels = self._map(F, (PROBE, PROBE)).shape[1]
        self.train()

    def forward(self, images):
        if any(side % step for side, step in zip(images.shape[2:], self.patch)):
            raise UserError(
                f'images of {images.shape[2]}x{images.shape[3]} do not divide into patches of '
                f'{self.patch[0]}x{self.patch[1]}: give a crop_size that is a multiple of {self.patch[0]}'
            )
        return self._map(self.net(images), images.shape[2:])

    def _map(self, output, size):
        """The network's output for images of `size` as [B, L, H, W]."""
        grid = tuple(side // step for side, step in zip(size, self.patch))
        return Layout(self.kind, grid, self.prefix).to_map(output)


def library():
    """The package timm; raises UserError if it is missing."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f'architectures timm/... need the package timm ({error}): pip install -r requirements-timm.txt'
        ) from None
    return timm


def check(timm, name, pretrained):
    """Raise UserError for an unknown name (listing similar ones) or tag (after the dot), or if there are no weights."""
    base = name.split('.')[0]
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models(), 5, PREFIX)
        raise UserError(f'unknown architecture {PREFIX + name!r}: {hint}timm.list_models() lists all')
    published = timm.list_models(f'{base}.*', pretrained=True)
    if '.' in name and name not in published:
        raise UserError(
            f'unknown weights {PREFIX + name!r}: choose one of {", ".join(PREFIX + one for one in [base, *published])}'
        )
    if pretrained and not published:
        raise UserError(f'{PREFIX}{name} has no pretrained weights: give pretrained=False')


def fetching(name, pretrained):
    """Context for building timm's network `name` if its pretrained weights may have to be downloaded."""
    needed = pretrained and packaged.file_for(name) is None
    return hub.no_retries_without_network() if needed else nullcontext()


def create(timm, name, pretrained, **options):
    """timm's network; pretrained weights come from an installed package (packaged.py) if possible, else from timm.

    Raises OSError if the latter need a download and there is no network: immediately inside `fetching`.
    """
    weights = packaged.state_for(name) if pretrained else None
    net = timm.create_model(name, pretrained=pretrained and weights is None, **options)
    if weights is not None:
        packaged.load_in_order(net, weights)
    return net


def _create(timm, name, large_feature_map, pretrained):
    """timm's network with the first option it accepts of: an output stride, images of any size, none.

    large_feature_map requires an output stride. Raises UserError without one, and for a network of fixed image size.
    """
    finer = [{'output_stride': 8 if large_feature_map else 16}]
    for options in finer if large_feature_map else [*finer, {'dynamic_img_size': True}, {}]:
        try:
            net = create(timm, name, pretrained, **options)
        except (AssertionError, TypeError):  # how timm rejects an option
            if not options:
                raise
            continue
        if net.pretrained_cfg.get('fixed_input_size') and not options:
            raise UserError(
                f'{PREFIX}{name} accepts only one image size: choose a convolutional network or a plain ViT'
            )
        return net
    raise UserError(
        f'{PREFIX}{name} has no adjustable output stride: give large_feature_map=False '
        '(a ViT with smaller patches has a finer map)'
    )


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules without pretrained weights).

    weights: if true, load timm's pretrained ones. Ignores `use_bn`. Raises UserError without timm, for an unknown name,
    or for a network that has no map, a fixed image size, or no adjustable stride with large_feature_map; OSError if
    weights cannot be downloaded.
    """
    timm = library()
    name = architecture.removeprefix(PREFIX)
    check(timm, name, weights)
    with fetching(name, weights):
        net = _create(timm, name, large_feature_map, bool(weights))
    own = of_timm(net.pretrained_cfg) if weights else PAPER
    try:
        net.reset_classifier(0, '')  # outputs unpooled features from here on
        trunk = Trunk(net)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'{architecture} cannot be a backbone here: {error}') from None
    layers = nn.Sequential(OrderedDict(trunk=trunk))
    layers.preprocessing = own
    return layers, trunk.channels, []
