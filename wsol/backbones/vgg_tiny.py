"""A narrow VGG for CPUs (not in the paper): six 3x3 convolutions with batch norm, 28x28 or 14x14 locations at 224 px.

On two CPU cores it learns ToyBirds from scratch in a time in which torchvision's mobile networks and ResNet-18 do not.
"""

from collections import OrderedDict

from torch import nn
from torchvision.models.vgg import make_layers

CHANNELS = 128
SMALL_LR_PATTERNS = ('features.',)
BACKBONE_PATTERNS = ('features.',)
INIT = 'he'


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, []): no part has pretrained weights. Ignores `use_bn`: there is always batch norm."""
    pool = [] if large_feature_map else ['M']
    layers = make_layers([32, 32, 'M', 64, 64, 'M', CHANNELS, *pool, CHANNELS], batch_norm=True)
    layers[0].stride = (2, 2)
    return nn.Sequential(OrderedDict(features=layers)), CHANNELS, []
