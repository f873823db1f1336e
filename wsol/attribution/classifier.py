"""Any classifier as the post-hoc methods take it: logits out of whatever it returns, tokens laid out as maps."""

import math
from contextlib import nullcontext

import torch
from torch import nn

from ..errors import UserError
from .layers import find_layers, hooks


def logits_of(output):
    """Logits [B, C] of what a classifier returns: a tensor, an object or a dict with `logits`, or a tuple whose first
    is one.

    Anything else is a UserError. (Inception's and GoogLeNet's auxiliary outputs come in train mode only: `explain`
    uses eval.)
    """
    if isinstance(output, dict) and 'logits' in output:
        return output['logits']
    if isinstance(output, (tuple, list)) and not hasattr(output, 'logits') and output:
        return logits_of(output[0])
    logits = getattr(output, 'logits', output)
    if not torch.is_tensor(logits):
        raise UserError(
            f'the model returns {type(output).__name__}: give Classifier a function `logits` from that to logits [B, C]'
        )
    return logits


class Classifier(nn.Module):
    """A classifier that returns logits [B, C], around one that returns something else, or whose layers give tokens.

    model: any nn.Module that is called on images. logits: a function from its output to [B, C] (default: `logits_of`).
    tokens: a layer, module or dotted name of the model, that gives tokens [B, N, L] or channels-last maps [B, H, W, L];
    its output also passes through the layer 'maps' of this module as [B, L, H, W]: explain(..., target_layer='maps').
    grid: (H, W) of the tokens (default: the largest square); the N - H W first ones, such as the class token, are left
    out. A transformer that classifies by its class token reads no other token after its last block: name a layer before
    the last attention (torchvision 'encoder.layers.encoder_layer_11.ln_1', timm 'blocks.11.norm1'), as for
    pytorch-grad-cam.
    """

    def __init__(self, model, logits=None, tokens=None, grid=None):
        super().__init__()
        self.model = model
        self.logits = logits or logits_of
        self.grid = grid
        self.maps = nn.Identity()
        self.layers = () if tokens is None else tuple(find_layers(model, tokens, None))

    def forward(self, images):
        with hooks(self.layers, self._as_maps) if self.layers else nullcontext():
            return self.logits(self.model(images))

    def _as_maps(self, module, inputs, output):
        """The layer's output, unchanged, by way of self.maps."""
        if isinstance(output, tuple):  # a block that also returns its attention
            return self._as_maps(module, inputs, output[0]), *output[1:]
        if output.ndim == 4:
            return self.maps(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # [B, H, W, L]
        if output.ndim != 3:
            raise UserError(
                f'layer {type(module).__name__} gives {list(output.shape)}: tokens [B, N, L] or [B, H, W, L] are needed'
            )
        side = math.isqrt(output.shape[1])
        h, w = self.grid or (side, side)
        first = output.shape[1] - h * w
        if first < 0:
            raise UserError(f'{output.shape[1]} tokens do not make a grid of {h} x {w}')
        A = output[:, first:].transpose(1, 2).unflatten(2, (h, w))  # [B, L, H, W]
        return torch.cat([output[:, :first], self.maps(A).flatten(2).transpose(1, 2)], dim=1)  # [B, N, L]
