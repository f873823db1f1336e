"""Adapt any classifier to the post-hoc methods: extract logits from its output, lay out tokens as maps."""

import math
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn

from ..errors import UserError
from .layers import find_layers, hooks
from .layouts import Layout, Maps, first_tokens, token_grid

INPUT = ('preprocessing', 'pretrained_cfg', 'image_size')  # attributes of a model that an Explainer reads
CLASSES = ('class_names', 'num_classes')  # the same


def logits_of(output):
    """Logits [B, C] from a classifier's output: a tensor, an object or dict with `logits`, or a tuple that starts with
    one.

    Raises UserError for anything else. (Auxiliary outputs of Inception and GoogLeNet occur only in train mode;
    `explain` uses eval mode.)
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
    """Wrap a classifier so that it returns logits [B, C] and, optionally, so that a token layer can be a target layer.

    model: any nn.Module called on images. logits: a function from its output to [B, C] (default: `logits_of`). tokens:
    a layer (module or dotted name in the model) that outputs tokens [B, N, L] or channels-last maps [B, H, W, L]; its
    output also passes through this module's layer 'maps' as [B, L, H, W], the default target layer. grid: (H, W) of the
    tokens (default: (h / patch, w / patch) for images of h x w pixels, see layouts.token_grid); the first N - H W
    tokens, such as the class token, are left out. A transformer that classifies by its class token reads no other token
    after its last block: name a layer before the last attention (torchvision 'encoder.layers.encoder_layer_11.ln_1',
    timm 'blocks.11.norm1'), as for pytorch-grad-cam. The model's preprocessing and image size are
    taken over, and its class names unless `logits` is given.
    """

    def __init__(self, model, logits=None, tokens=None, grid=None):
        super().__init__()
        self.model = model
        self.logits = logits or logits_of
        self.grid = grid
        self.maps = Maps()
        self.layers = () if tokens is None else tuple(find_layers(model, tokens, None))
        self.feature_layer = 'maps' if self.layers else None
        for name in INPUT + (CLASSES if logits is None else ()):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def forward(self, images):
        as_maps = partial(self._as_maps, tuple(images.shape[2:]))
        with hooks(self.layers, as_maps) if self.layers else nullcontext():
            return self.logits(self.model(images))

    def _as_maps(self, size, module, inputs, output):
        """The layer's output for images of `size`, unchanged, routed through self.maps."""
        if isinstance(output, tuple):  # a block that also returns its attention
            return self._as_maps(size, module, inputs, output[0]), *output[1:]
        if output.ndim == 4:
            layout = Layout('rows', tuple(output.shape[1:3]))
        elif output.ndim == 3:
            layout = self._layout(output.shape[1], size)
        else:
            raise UserError(
                f'layer {type(module).__name__} outputs {list(output.shape)}: name one with [B, N, L] or [B, H, W, L]'
            )
        return layout.back(self.maps(layout.to_map(output)), output)

    def _layout(self, count, size):
        """The `Layout` of `count` tokens for images of `size`; raises UserError if they do not form the grid."""
        grid = self.grid or token_grid(count, size, first_tokens(self.model))
        if grid is None:
            raise UserError(
                f'{count} tokens do not form a grid with the aspect ratio of {size[0]}x{size[1]} images: give '
                'Classifier grid=(rows, columns)'
            )
        first = count - math.prod(grid)
        if first < 0:
            raise UserError(f'{count} tokens do not form a grid of {grid[0]} x {grid[1]}')
        return Layout('tokens', tuple(grid), first)
