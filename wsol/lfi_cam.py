"""LFI-CAM: a trained feature-importance network gates the maps (Lee, Park, Oh and Kwak, ICCV 2021), as pure functions.

    F       features(x)                          [B, L, H, W]  backbone features
    s(A)    each map of A scaled to [0, 1]       like A
    I       mean over the image's channels       [B, 1, H, W]  the image in grey, resized to the maps
    X       s(F) I                               [B, L, H, W]  one masked image per channel, as in Score-CAM
    a       softmax over L of mean_z FIN(X)      [B, L]        importance of each channel, by the trained network
    M       relu(sum_k a_k F_k)                  [B, 1, H, W]  the attention map, the same for every class
    f       conv_last(F (1 + s(M)))              [B, C, H, W]  class scores of the gated features
    p(y|x) and the loss are CAM's (cam.py).

Source: the paper, section 3 (arXiv 2105.00937). What it leaves open follows its authors' code
(TrustworthyAI-kr/LFI-CAM, resnet_lfiv2.py): the FIN's four 3x3 convolutions with batch norm and two ReLUs, the softmax,
bilinear resizing, and gradients through M into the FIN. The authors' convolutions are L, L/2, L, L wide; here the inner
L is min(L, 256), because with ResNet-50's 2048 channels at 28 x 28 theirs would cost over four times the backbone.
"""

import torch
from torch import nn
from torch.nn import functional

from .scaling import min_max

WIDTH = 256  # upper limit of the importance network's width


def importance_network(channels):
    """The FIN: [B, channels, H, W] -> [B, channels, H, W], >= 0."""
    width = min(channels, WIDTH)
    sizes = (channels, width, width // 2, width, channels)
    layers = []
    for i in range(4):
        layers += [
            nn.Conv2d(sizes[i], sizes[i + 1], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(sizes[i + 1]),
        ]
        layers += [nn.ReLU()] if i % 2 else []
    return nn.Sequential(*layers)


def scaled(maps):
    """s: min-max scaling of each map [..., H, W]; a constant map becomes 1 unless it is 0, as in the authors' code."""
    flat = maps.amin(dim=(-2, -1), keepdim=True) == maps.amax(dim=(-2, -1), keepdim=True)
    return torch.where(flat, (maps != 0).to(maps.dtype), min_max(maps))


def masked_images(F, images):
    """X [B, L, H, W] from F [B, L, H, W] and the network's input [B, c, h, w]."""
    grey = images.mean(dim=1, keepdim=True)  # [B, 1, h, w]
    return scaled(F) * functional.interpolate(grey, F.shape[2:], mode='bilinear', align_corners=False)


def importance(scores):
    """a [B, L], >= 0, sums to 1, from FIN(X) [B, L, H, W]."""
    return scores.mean(dim=(2, 3)).softmax(dim=1)


def attention_map(F, a):
    """M [B, 1, H, W], >= 0, from F [B, L, H, W] and a [B, L]."""
    return torch.einsum('blhw,bl->bhw', F, a)[:, None].relu()


def gated(F, M):
    """F (1 + s(M)) [B, L, H, W]: unchanged where the attention is 0, doubled at its maximum."""
    return F * (1 + scaled(M))
