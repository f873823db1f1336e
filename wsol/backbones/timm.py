"""Backbones from timm, `timm/<name>`: convolutional networks such as ConvNeXt, and ViTs, a patch token a location.

timm is optional (requirements-timm.txt) and imported when such a backbone is built. The network is timm's own without
pooling and classifier; a norm that timm has between the two is applied to every location instead. Convolutional
networks get an output stride of 16, or 8 with large_feature_map: 14x14 or 28x28 locations for 224 px. A ViT has one
location a patch, its class and register tokens take part in the attention and are then dropped. Images are normalised
with the ImageNet mean and deviation, as for every backbone here, whatever the pretrained weights were made with.
"""

import difflib
import queue
import threading
import warnings
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import nn

from ..errors import UserError

PREFIX = 'timm/'
SMALL_LR_PATTERNS = ('trunk.',)
BACKBONE_PATTERNS = ('trunk.',)
INIT = 'xavier'  # of the heads: timm's networks come initialised
PROBE = 224  # side of the image that shows at once what a network gives out
PATIENCE = 3  # seconds that the host of the weights has for any answer; with none there is no network


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
                f'{self.patch[0]}x{self.patch[1]}: give a --crop_size that is a multiple of {self.patch[0]}'
            )
        return self.to_map(self.net(images), images)  # [B, L, H, W]


def _library():
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f'architectures timm/... need the package timm ({error}): pip install -r requirements-timm.txt'
        ) from None
    return timm


def _check(timm, name, pretrained):
    """A UserError for an unknown name (close ones are listed) or tag behind its dot, or weights that do not exist."""
    base = name.split('.')[0]
    if not timm.is_model(base):
        close = ', '.join(PREFIX + one for one in difflib.get_close_matches(base, timm.list_models(), n=5))
        hint = f'close: {close}; ' if close else ''
        raise UserError(f'unknown architecture {PREFIX + name!r}: {hint}timm.list_models() has them all')
    published = timm.list_models(f'{base}.*', pretrained=True)
    if '.' in name and name not in published:
        raise UserError(
            f'unknown weights {PREFIX + name!r}: choose one of {", ".join(PREFIX + one for one in [base, *published])}'
        )
    if pretrained and not published:
        raise UserError(f'{PREFIX}{name} has no pretrained weights: give --pretrained=False')


def _unreachable():
    """Why the host of timm's weights cannot be reached, an exception; None where it answers whatever it answers."""
    from huggingface_hub import constants, utils

    answers = queue.SimpleQueue()

    def ask():
        try:
            utils.get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            answers.put(None)
        except Exception as error:  # of whichever HTTP library it takes
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # looking up a name, or many addresses, has no time limit
    try:
        return answers.get(timeout=PATIENCE)
    except queue.Empty:
        return TimeoutError(f'no answer within {PATIENCE} seconds')


@contextmanager
def _no_retries_without_network():
    """Without a network, weights come from the cache or are a ConnectionError at once.

    The library that timm downloads with would try again for most of a minute; in its offline mode it does not.
    """
    try:
        from huggingface_hub import constants
    except ImportError:  # timm then downloads by itself
        yield
        return
    reason = None if constants.HF_HUB_OFFLINE else _unreachable()
    if reason is None:
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    except OSError:
        raise ConnectionError(f'{constants.ENDPOINT} is out of reach: {reason}') from None
    finally:
        constants.HF_HUB_OFFLINE = False


def _create(timm, name, large_feature_map, pretrained):
    """timm's network with the first of these options that it has: an output stride, images of any size, none.

    With large_feature_map it must have the first. One without any that is made for images of one size is refused too:
    a UserError.
    """
    finer = [{'output_stride': 8 if large_feature_map else 16}]
    for options in finer if large_feature_map else [*finer, {'dynamic_img_size': True}, {}]:
        try:
            net = timm.create_model(name, pretrained=pretrained, **options)
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
        f'{PREFIX}{name} has no output stride to choose: give --large_feature_map=False '
        '(a ViT of smaller patches has a finer map)'
    )


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules that have no pretrained weights).

    `weights`: anything true loads timm's pretrained ones. `use_bn` changes nothing. Errors: a UserError without timm,
    for an unknown name, and for a network without a map, of one image size, or without a choice of stride where
    large_feature_map asks for one; an OSError where weights cannot be had.
    """
    timm = _library()
    name = architecture.removeprefix(PREFIX)
    _check(timm, name, weights)
    with _no_retries_without_network() if weights else nullcontext():
        net = _create(timm, name, large_feature_map, bool(weights))
    if weights:
        _tell_normalisation(timm, architecture, net.pretrained_cfg)
    try:
        net.reset_classifier(0, '')  # from now on unpooled features come out
        trunk = Trunk(net)
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f'{architecture} cannot be a backbone here: {error}') from None
    return nn.Sequential(OrderedDict(trunk=trunk)), trunk.channels, []


def _tell_normalisation(timm, architecture, config):
    own = (config['mean'], config['std'])
    here = (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    if own != here:
        warnings.warn(
            f'the weights of {architecture} were trained on images of mean {own[0]} and deviation {own[1]}; '
            f'images have {here[0]} and {here[1]} here',
            stacklevel=2,
        )
