"""VGG-16 backbone: thirteen convolutions without the last pool(s), then conv6 to 1024 channels (released layout)."""

from collections import OrderedDict

from torch import nn
from torchvision import models

CHANNELS = 1024
SMALL_LR_PATTERNS = ('features.',)
BACKBONE_PATTERNS = ('features.', 'conv6', 'bn6')
INIT = 'he'


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules without pretrained weights).

    Drops the fifth pool, and with `large_feature_map` the fourth: 14x14 or 28x28 locations at 224 px. The remaining
    layers are renumbered, so the keys `features.N` match the released ones.
    """
    layers = list(getattr(models, 'vgg16_bn' if use_bn else 'vgg16')(weights=weights).features)
    pools = [layer for layer in layers if isinstance(layer, nn.MaxPool2d)]
    dropped = pools[3:] if large_feature_map else pools[4:]
    kept = [layer for layer in layers if not any(layer is pool for pool in dropped)]
    parts = [('features', nn.Sequential(*kept)), ('conv6', nn.Conv2d(512, CHANNELS, kernel_size=3, padding=1))]
    parts += [('bn6', nn.BatchNorm2d(CHANNELS))] if use_bn else []
    parts += [('relu', nn.ReLU())]
    return nn.Sequential(OrderedDict(parts)), CHANNELS, [parts[1][1]]
