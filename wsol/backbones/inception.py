"""Inception-v3 backbone up to Mixed_6e with a finer map, then two 3x3 convolutions to 1024 channels (as released)."""

from collections import OrderedDict

from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models.inception import InceptionB

CHANNELS = 1024
SMALL_LR_PATTERNS = ('Mixed', 'Conv2d_1', 'Conv2d_2', 'Conv2d_3', 'Conv2d_4')
BACKBONE_PATTERNS = SMALL_LR_PATTERNS  # as released: its pattern SPG_A3 matches no parameter (they are A3_1b, A3_2b)
INIT = 'xavier'


class InceptionBStride1(InceptionB):
    """torchvision's reduction block without reduction: stride 1 and padding 1 in its three branches."""

    def __init__(self, in_channels):
        super().__init__(in_channels)
        for unit in (self.branch3x3, self.branch3x3dbl_3):
            unit.conv.stride = (1, 1)
            unit.conv.padding = (1, 1)

    def _forward(self, x):
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), double, functional.max_pool2d(x, kernel_size=3, stride=1, padding=1)]


def _tail(in_channels, use_bn):
    norm = [nn.BatchNorm2d(CHANNELS)] if use_bn else []
    return nn.Sequential(nn.Conv2d(in_channels, CHANNELS, kernel_size=3, padding=1), *norm, nn.ReLU())


def backbone(architecture, large_feature_map=False, use_bn=False, weights=None):
    """(nn.Sequential, channels, modules without pretrained weights).

    28x28 locations at 224 px with `large_feature_map`, else 14x14. As released, the tail's convolutions have a bias
    with and without batch norm, and images are normalised with ImageNet's mean and deviation although the pretrained
    weights expect another normalisation.
    """
    net = models.inception_v3(weights=weights, init_weights=False)
    net.Conv2d_1a_3x3.conv.padding = (1, 1)
    reduction = InceptionBStride1(288)
    reduction.load_state_dict(net.Mixed_6a.state_dict())
    pools = [nn.MaxPool2d(kernel_size=3, stride=2, padding=1, ceil_mode=True) for _ in range(2)]
    parts = [(name, getattr(net, name)) for name in ('Conv2d_1a_3x3', 'Conv2d_2a_3x3', 'Conv2d_2b_3x3')]
    parts += [
        ('pool1', pools[0]),
        ('Conv2d_3b_1x1', net.Conv2d_3b_1x1),
        ('Conv2d_4a_3x3', net.Conv2d_4a_3x3),
        ('pool2', pools[1]),
    ]
    parts += [(name, getattr(net, name)) for name in ('Mixed_5b', 'Mixed_5c', 'Mixed_5d')]
    parts += [] if large_feature_map else [('pool3', nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))]
    parts += [('Mixed_6a', reduction)]
    parts += [(name, getattr(net, name)) for name in ('Mixed_6b', 'Mixed_6c', 'Mixed_6d', 'Mixed_6e')]
    tail = [('A3_1b', _tail(768, use_bn)), ('A3_2b', _tail(CHANNELS, use_bn))]
    return nn.Sequential(OrderedDict(parts + tail)), CHANNELS, [module for _, module in tail]
