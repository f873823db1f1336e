"""Backbones from timm, `timm/<name>`: convolutional networks such as ConvNeXt, and ViTs, a patch token a location.

timm is optional (requirements-timm.txt) and imported when such a backbone is built. The network is timm's own without
pooling and classifier; a norm that timm has between the two is applied to every location instead. Convolutional
networks get an output stride of 16, or 8 with large_feature_map: 14x14 or 28x28 locations for 224 px. A ViT has one
location a patch, its class and register tokens take part in the attention and are then dropped. Pretrained weights come
with their own preprocessing (wsol/preprocessing.py), which the network remembers.
"""

from collections import OrderedDict
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn

from ..errors import UserError
from ..preprocessing import PAPER, of_timm
from ..registry import did_you_mean
from . import hub, packaged

PREFIX = 'timm/'
SMALL_LR_PATTERNS = ('trunk.',)
BACKBONE_PATTERNS = ('trunk.',)
INIT = 'xavier'  # of the heads: timm's networks come initialised
PROBE = 224  # side of the image that shows at once what a network gives out


def from_tokens(tokens, images, patch, prefix):
    """[B, prefix + H W, L] of images [B, 3, h, w] -> [B, L, H, W]; the first `prefix` tokens belong to no patch."""
    rows = images.shape[2] // patch[0]
    columns = images.shape[3] // patch[1]
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))  # [B, L, H, W]


def from_channels_last(F, images):
    """[B, H, W, L] -> [B, L, H, W]."""
    return F.permute(0, 3, 1, 2)  # [B, L, H, W]


def as_it_is(F, images):
    """[B, L, H, W]."""
    return F


class Trunk(nn.Module):
    """A timm network without pooling and classifier: images [B, 3, h, w] -> F [B, L, H, W].

    Images that do not split into whole patches are a UserError; so is, when it is made, a network that gives no map.
    """

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.patch = (1, 1)
        with torch.no_grad():
            F = net.eval()(torch.zeros(1, 3, PROBE, PROBE))
        if torch.is_tensor(F) and F.ndim == 3 and hasattr(net, 'num_prefix_tokens'):
            self.patch = tuple(net.patch_embed.patch_size)
            self.to_map = partial(from_tokens, patch=self.patch, prefix=net.num_prefix_tokens)
        elif torch.is_tensor(F) and F.ndim == 4 and F.shape[2] > 1:
            self.to_map = from_channels_last if getattr(net, 'output_fmt', 'NCHW') == 'NHWC' else as_it_is
        else:
            raise UserError('its features are no map [B, L, H, W]')
        self.channels = self.to_map(F, torch.zeros(1, 3, PROBE, PROBE)).shape[1]
        self.train()

    def forward(self, images):
        if any(side % step for side, step in zip(images.shape[2:], self.patch)):
            raise UserError(
                f'images of {images.shape[2]}x{images.shape[3]} do not split into patches of '
                f'{self.patch[0]}x{self.patch[1]}: give a crop_size that is a multiple of {self.patch[0]}'
            )
        return self.to_map(self.net(images), images)  # [B, L, H, W]


def library():
    """The package timm; without it a UserError."""
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f'architectures timm/... need the package timm ({error}): pip install -r requirements-timm.txt'
        ) from None
    return timm


def check(timm, name, pretrained):
    """A UserError for an unknown name (close ones are listed) or tag behind its dot, or weights that do not exist."""
    base = name.split('.')[0]
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models(), 5, PREFIX)
        raise UserError(f'unknown architecture {PREFIX + name!r}: {hint}timm.list_models() has them all')
    published = timm.list_models(f'{base}.*', pretrained=True)
    if '.' in name and name not in published:
        raise UserError(
            f'unknown weights {PREFIX + name!r}: choose one of {", ".join(PREFIX + one for one in [base, *published])}'
        )
    if pretrained and not published:
        raise UserError(f'{PREFIX}{name} has no pretrained weights: give pretrained=False')


def fetching(name, pretrained):
    """The context in which timm's network `name` is made, where its pretrained weights may have to be downloaded."""
    needed = pretrained and packaged.file_for(name) is None
    return hub.no_retries_without_network() if needed else nullcontext()


def create(timm, name, pretrained, **options):
    """timm's network; pretrained weights are those of an installed package (packaged.py) where it has some, else
    timm's.

    Without network the latter are an OSError, within `fetching` at once.
    """
    weights = packaged.state_for(name) if pretrained else None
    net = timm.create_model(name, pretrained=pretrained and weights is None, **options)
    if weights is not None:
        packaged.load_in_order(net, weights)
    return net


def _create(timm, name, large_feature_map, pretrained):
    """timm's network with the first of these options that it has: an output stride, images of any size, none.

    With large_feature_map it must have the first. One without any that is made for images of one size is refused too:
    a UserError.
    """
    finer = [{'output_stride': 8 if large_feature_map else 16}]
    for options in finer if large_feature_map else [*finer, {'dynamic_img_size': True}, {}]:
        try:
            net = create(timm, name, pretrained, **options)
        except (AssertionError, TypeError):  # how timm's networks refuse an option
            if not options:
                raise
            continue
        if net.pretrained_cfg.get('fixed_input_size') and not options:
            raise UserError(
                f'{PREFIX}{name} takes images of one size only: choose a convolutional network or a plain ViT'
            )
        return net
    raise UserError(
        f'{PREFIX}{name} has no output stride to choose: give large_feature_map=False '
        '(a ViT of smaller patches has a finer map)'
    )


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules that have no pretrained weights).

    `weights`: anything true loads timm's pretrained ones. `use_bn` changes nothing. Errors: a UserError without timm,
    for an unknown name, and for a network without a map, of one image size, or without a choice of stride where
    large_feature_map asks for one; an OSError where weights cannot be had.
    """
    timm = library()
    name = architecture.removeprefix(PREFIX)
    check(timm, name, weights)
    with fetching(name, weights):
        net = _create(timm, name, large_feature_map, bool(weights))
    own = of_timm(net.pretrained_cfg) if weights else PAPER
    try:
        net.reset_classifier(0, '')  # from now on unpooled features come out
        trunk = Trunk(net)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'{architecture} cannot be a backbone here: {error}') from None
    layers = nn.Sequential(OrderedDict(trunk=trunk))
    layers.preprocessing = own
    return layers, trunk.channels, []
