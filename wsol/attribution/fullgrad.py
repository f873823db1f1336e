"""FullGrad: gradient times input, plus gradient times bias for every convolution and batch norm.

    f_b(x)   b dS_y/db at every location of a layer: its bias times the gradient of its output    [B, L, H, W]
    psi      |.| of a channel, scaled to [0, 1] and resized to the image

Source: Srinivas and Fleuret, NeurIPS 2019. Errors: see common.explainer and common.chosen.
"""

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .common import Options, chosen, explainer, gradients_by_class, groups_of, scores_of
from .postprocessing import upsample

CHUNK = 2**16  # values of a layer that psi processes at once, to fit in the cache


def _batch_norm_bias(input, mean, var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """The bias [L] of functional.batch_norm in eval mode, including the running mean's part; None if there is none."""
    if training or mean is None:
        return bias
    scale = (1 if weight is None else weight) / torch.sqrt(var + eps)
    return (0 if bias is None else bias) - mean * scale


class Probe(torch.autograd.Function):
    """Identity on a layer's output; the gradient of `probe` is read(G, bias), G the gradient of the output.

    Returns the output itself, neither copy nor view: later layers may modify it in place, and no G outlives its layer.
    """

    @staticmethod
    def forward(ctx, output, probe, bias, read):
        ctx.mark_dirty(output)
        ctx.bias, ctx.read = bias, read
        return output

    @staticmethod
    def backward(ctx, G):
        return G, ctx.read(G, ctx.bias), None, None


class Biases(TorchFunctionMode):
    """Inside this context, insert a `Probe` [B, H, W] after every convolution and batch norm with a bias, whether
    called as a module or a function; modules are not modified.

    read: (G [B, L, H, W], bias [L]) -> [B, H, W].
    """

    BIAS_OF = {
        functional.conv2d: lambda input, weight, bias=None, *_, **__: bias,
        functional.batch_norm: _batch_norm_bias,
    }

    def __init__(self, read):
        super().__init__()
        self.read = read
        self.probes = []

    def __torch_function__(self, function, types, args=(), named=None):
        named = named or {}
        result = function(*args, **named)
        bias = self.BIAS_OF[function](*args, **named) if function in self.BIAS_OF else None
        if bias is None or result.ndim != 4 or not result.requires_grad:
            return result
        self.probes.append(result.new_zeros(len(result), *result.shape[2:], requires_grad=True))
        return Probe.apply(result, self.probes[-1], bias.detach(), self.read)


def _psi(G, b=None):
    """Sum over channels of |b_k G_k|, each scaled to [0, 1] (constant channels: 0): [B, H, W] from G [B, L, H, W] and b
    [L] (None: 1). This is psi before resizing. Scaling cancels |b_k| unless it is 0."""
    total = G.new_zeros(len(G), G.shape[2] * G.shape[3])
    channels = max(1, CHUNK // G[:, 0].numel())
    for first in range(0, G.shape[1], channels):
        rows = slice(first, first + channels)
        size = G[:, rows].abs().flatten(2)  # [B, n, H W]
        low, high = size.amin(dim=2), size.amax(dim=2)  # [B, n]
        alive = high > low if b is None else (high > low) & (b[rows] != 0)
        scale = torch.where(alive, 1 / (high - low).clamp(min=torch.finfo(G.dtype).tiny), 0)
        total += torch.bmm(scale[:, None], size)[:, 0] - (low * scale).sum(dim=1, keepdim=True)
    return total.view(len(G), *G.shape[2:])


@explainer
def full_grad(model, images, target=None, options=Options()):
    """sum_c psi(x_c dS_y/dx_c) + sum_layers sum_k psi(b_k dS_y/dA_k): FullGrad (Srinivas and Fleuret, NeurIPS 2019, eq.
    7), at image size.

    A layer's b is the bias of a convolution or batch norm, for the latter including the running mean's part; biases
    without locations are left out. psi scales each channel separately, as in pytorch-grad-cam; the authors' code scales
    a layer's channels jointly. One forward and one backward pass through all layers; ignores target_layer.

    >>> full_grad(model, images, target=[3, 1]).shape
    torch.Size([2, 16, 16])
    """
    firsts, owner = groups_of(images, options)
    x = (images if owner is None else images[firsts]).detach().requires_grad_()
    with Biases(_psi) as biases:
        scores = scores_of(model, x.clone())
    target = chosen(scores if owner is None else scores[owner], target)[1]
    at_input, *found = gradients_by_class(scores, target, owner, [x, *biases.probes], unused=True)
    of_size = {}  # resizing is linear: resize once per size
    for one in found:
        of_size[one.shape] = of_size.get(one.shape, 0) + one
    return _psi(images * at_input) + sum(upsample(one, images.shape[2:]) for one in of_size.values())
