"""Maps of a score difference: the evidence for class A against class B, S_A - gamma S_B, explained directly.

Works for any map that explains a scalar: the batch's pairs (A, B) take the place of the model's classes. With Grad-CAM
this is Finer-CAM (Zhang et al., CVPR 2025) with one class to compare with and comparison strength gamma. Positive
values are evidence for A. Methods that clip at 0 show nothing else: exchange A and B to see the evidence for B.
"""

from contextlib import contextmanager
from dataclasses import replace

import torch

from ..errors import UserError
from ..network import Network
from .common import as_target, evaluating
from .gradient import predictions
from .registry import MAPS


def is_linear(name, model):
    """Does the map sum to the scalar (CAM's class scores)? Then its contrast is a difference of maps."""
    return name == 'vanilla' and isinstance(model, Network) and model.head.own_map == name


def check_contrast(name, model):
    """Raise UserError if the map does not explain a scalar of the model."""
    if '{scalar}' not in MAPS[name].unit and not is_linear(name, model):
        explaining = ', '.join(one for one, row in MAPS.items() if '{scalar}' in row.unit)
        raise UserError(
            f'{name} does not explain the score of a class, so contrast does not apply: subtract two maps, or choose '
            f'one of {explaining}, or vanilla of CAM'
        )


@contextmanager
def contrasting(model, pairs, gamma):
    """Inside this context the model's scores are [B, K]: S_a - gamma S_b for K pairs (a, b), a LongTensor [K, 2]."""

    a, b = pairs.T.tolist()

    def contrasts(scores):
        if not 0 <= min(a + b) <= max(a + b) < scores.shape[1]:
            raise UserError(f'target or contrast contains a class outside 0..{scores.shape[1] - 1}: {sorted({*a, *b})}')
        return scores[:, a] - gamma * scores[:, b]

    def hook(module, inputs, output):
        scores = output if torch.is_tensor(output) else getattr(output, 'log_score', None)
        return output if scores is None or scores.ndim != 2 else contrasts(scores)

    if not isinstance(model, Network):
        handle = model.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
        return
    head = model.head  # not a hook: perturbation maps may rerun only the head
    model.head = head._replace(log_score=lambda f, h: contrasts(head.log_score(f, h)), linear=False)
    try:
        yield
    finally:
        model.head = head


def explain_contrast(name, model, images, target, contrast, gamma, options):
    """Maps [B, h, w] of S_A - gamma S_B, A the target and B the contrast; arguments as for `attribution.explain`."""
    check_contrast(name, model)
    if callable(target) or callable(contrast):
        raise UserError('contrast takes classes: give a target function that returns the difference, without contrast')
    function = MAPS[name].function
    a = as_target(target, len(images))
    a = predictions(model, images, options=options).cpu() if a is None else a.cpu()
    b = as_target(contrast, len(images)).cpu()
    if is_linear(name, model):
        options = replace(options, shared=None)  # the two calls differ in their classes
        return function(model, images, a, options) - gamma * function(model, images, b, options)
    pairs, number = torch.stack([a, b], dim=1).unique(dim=0, return_inverse=True)  # [K, 2], [B]
    with evaluating(model), contrasting(model, pairs, gamma):
        return function(model, images, number, options)
