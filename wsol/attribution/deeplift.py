"""DeepLIFT: each pixel's contribution to the score difference from a reference, by multipliers instead of gradients.

    x, x'    image and reference    [c, h, w];    t, t'   a layer's inputs for them;    a, a'   its outputs
    m        (a - a') / (t - t'), the multiplier of a nonlinearity; its derivative where t = t'

Source: Shrikumar et al., ICML 2017, the rescale rule; as gradients with modified derivatives: Ancona et al., ICLR 2018.
Errors: see common.explainer and common.chosen.
"""

import warnings

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .common import Options, baseline_of, chosen, explainer, gradients_by_class, groups_of, scores_of

SMALL = 1e-10  # smaller differences count as 0, as in captum
NAMES = (  # element-wise nonlinearities
    *('relu', 'relu6', 'hardtanh', 'leaky_relu', 'prelu', 'elu', 'selu', 'celu', 'gelu', 'silu', 'mish', 'softplus'),
    *('sigmoid', 'tanh', 'hardswish', 'hardsigmoid', 'logsigmoid', 'softsign', 'tanhshrink', 'hardshrink'),
    *('clamp', 'clamp_min', 'clamp_max', 'clip', 'threshold', 'softshrink'),
)
HOMES = (functional, torch, torch.Tensor)
NONLINEAR = {
    getattr(home, name + end) for home in HOMES for name in NAMES for end in ('', '_') if hasattr(home, name + end)
}
POOLS = {  # function: the variant that can return indices
    functional.max_pool2d: functional.max_pool2d,
    torch.max_pool2d: functional.max_pool2d,
    functional.adaptive_max_pool2d: functional.adaptive_max_pool2d,
}
GAP = 0.01  # warn if the map's sum differs from the score difference by more than this share of sum |map|


def over(above, below, slope):
    """above / below; `slope` where `below` is 0."""
    none = below.abs() < max(SMALL, torch.finfo(below.dtype).tiny)  # SMALL underflows in float16
    return torch.where(none, slope, above / torch.where(none, 1, below))


class Multipliers(TorchFunctionMode):
    """Inside this context, replace gradients of nonlinearities and max pooling, modules or functions, by multipliers.

    The first run, on references, records inputs and outputs; the second, on images, uses them. Modules are not
    modified.
    """

    def __init__(self):
        super().__init__()
        self.noted = []  # (t', a') of each call, in order
        self.comparing = False  # is it the second run?

    def __torch_function__(self, function, types, args=(), named=None):
        named = named or {}
        rule = self._pool if function in POOLS else self._rescale if function in NONLINEAR else None
        if rule is None or not (args[0] if args else named['input']).is_floating_point():
            return function(*args, **named)
        t, *args = args if args else (named.pop('input'),)
        before = t.detach().clone()
        after = function(before, *args, **named)
        in_place = after is before
        if not self.comparing:
            self.noted.append((t.detach().clone(), after.detach().clone()))
            result = after
        else:
            result = rule(t, after.detach(), function, args, named)
        return t.copy_(result) if in_place else result

    def _rescale(self, t, a, function, args, named):
        """a [...], with the multiplier as its gradient."""
        t0, a0 = self.noted.pop(0)
        now = t.detach()

        def apply(one):
            return function(one.clone(), *args, **named)

        slope = torch.func.jvp(apply, (now,), (torch.ones_like(now),))[1]
        return a + (t - now) * over(a - a0, now - t0, slope)

    def _pool(self, t, a, function, args, named):
        """a [B, L, H, W] of a max pooling, with captum's rule: its difference from the reference goes to the image's
        highest pixel, up to the larger of both outputs, and the rest to the reference's highest pixel."""
        t0, a0 = self.noted.pop(0)
        now = t.detach()
        top = torch.maximum(a, a0)
        change = (t - now).flatten(2)
        for values, above, slope in ((now, top - a0, 1.0), (t0, a - top, 0.0)):
            named = {**named, 'return_indices': True}
            places = POOLS[function](values, *args, **named)[1].flatten(2)
            m = over(above.flatten(2), (now - t0).flatten(2).gather(2, places), slope)
            a = a + (change.gather(2, places) * m).view_as(a)
        return a


@explainer
def deep_lift(model, images, target=None, options=Options()):
    """sum_c (x_c - x'_c) m_c, m the multipliers from the score to the input: DeepLIFT (Shrikumar et al., ICML 2017),
    rescale rule, signed.

    x' is options.baseline. The map sums to S_y(x) - S_y(x') if every operation between x and S_y is linear, an
    element-wise nonlinearity (NAMES) or max pooling (POOLS). Other operations (softmax, products, layer norms, other
    maxima) use their gradient; a warning is issued if the sum is off by more than GAP. Unlike captum's, modules may be
    reused and in place.

    >>> deep_lift(model, images, target=[3, 1]).shape
    torch.Size([2, 16, 16])
    """
    start = baseline_of(images, options)
    firsts, owner = groups_of(images, options)
    rows = slice(None) if owner is None else firsts
    with torch.no_grad(), Multipliers() as rule:
        scores_before = scores_of(model, start[rows].clone())
    rule.comparing = True
    x = images[rows].detach().requires_grad_()
    with rule:
        scores = scores_of(model, x.clone())
    score, target = chosen(scores if owner is None else scores[owner], target)
    before = chosen(scores_before if owner is None else scores_before[owner], target)[0]
    maps = ((images - start) * gradients_by_class(scores, target, owner, [x])[0]).sum(dim=1)  # [B, h, w]
    _check_sum(maps.float(), (score.detach() - before).float(), torch.finfo(images.dtype).eps)
    return maps


def _check_sum(maps, rise, rounding):
    """Warn if the sum of a map [B, h, w] differs from the score difference [B]."""
    missed = (maps.sum(dim=(1, 2)) - rise).abs()
    if (missed > max(GAP, rounding**0.5) * maps.abs().sum(dim=(1, 2)).maximum(rise.abs())).any():
        warnings.warn(
            'deep_lift: a map does not sum to the score difference: layers that are neither linear, an element-wise '
            'nonlinearity nor max pooling use their gradients'
        )
