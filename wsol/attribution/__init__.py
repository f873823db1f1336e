"""Attribution maps by name: `explain`, its registry METHODS, and `normalize` and `upsample` as the caller's choice.

Every entry of METHODS is a function (model, images, target=None, options=Options()) -> maps [B, h, w] at native size.
"""

import difflib
from dataclasses import replace

import torch

from ..errors import UserError
from . import cam_family, gradient, perturbation
from .classifier import Classifier, logits_of
from .common import Options, chosen, explainer, scores_of
from .gradient import guided_gradients, integrated_gradients_by_channel, integrated_gradients_with_gap
from .maps import NORMALIZATIONS, fuse, normalize, upsample
from .readouts import READOUTS, SUPERCLASS_READOUTS, class_maps


def _readout(process):
    """The readout `process` (readouts.py) of the target class, as a method like every other."""

    @explainer
    def read(model, images, target=None, options=Options()):
        with torch.no_grad():
            output = model(images)
            if not hasattr(output, 'f'):
                raise UserError(f"{process} reads this project's networks; a plain classifier needs a post-hoc method")
            target = chosen(output.log_score, target)[1]
            return class_maps(process, output.f, output.h, target[:, None], options.superclass).squeeze(1)  # [B, H, W]

    return read


__all__ = [
    'METHODS',
    'NORMALIZATIONS',
    'PROCESSES',
    'READOUTS',
    'SUPERCLASS_READOUTS',
    'Classifier',
    'Options',
    'chosen',
    'class_maps',
    'explain',
    'explainer',
    'fuse',
    'guided_gradients',
    'integrated_gradients_by_channel',
    'integrated_gradients_with_gap',
    'logits_of',
    'lookup',
    'normalize',
    'scores_of',
    'upsample',
]

METHODS = {process: _readout(process) for process in (*READOUTS, *SUPERCLASS_READOUTS)}
METHODS.update(
    input_grad=gradient.input_grad,
    smooth_grad=gradient.smooth_grad,
    smooth_grad_square=gradient.smooth_grad_square,
    var_grad=gradient.var_grad,
    integrated_grad=gradient.integrated_grad,
    integrated_gradients=gradient.integrated_gradients,
    guided_backprop=gradient.guided_backprop,
    grad_cam=cam_family.grad_cam,
    grad_cam_pp=cam_family.grad_cam_pp,
    smooth_grad_cam_pp=cam_family.smooth_grad_cam_pp,
    layer_cam=cam_family.layer_cam,
    eigen_cam=cam_family.eigen_cam,
    taylor_cam=cam_family.taylor_cam,
    score_cam=perturbation.score_cam,
    ss_cam=perturbation.ss_cam,
    ablation_cam=perturbation.ablation_cam,
)


PROCESSES = tuple(METHODS)


def lookup(process):
    """METHODS[process]; an unknown name is a ValueError that lists close and valid ones."""
    if process not in METHODS:
        close = difflib.get_close_matches(str(process), METHODS)
        hint = f'did you mean {" or ".join(close)}? ' if close else ''
        raise UserError(f'unknown attribution map {process!r}: {hint}valid: {", ".join(METHODS)}')
    return METHODS[process]


def explain(
    process,
    model,
    images,
    target=None,
    *,
    options=Options(),
    target_layer=None,
    superclass=None,
    batch_size=None,
    generator=None,
    progress=None,
    smooth_grad_nr_iter=None,
    smooth_grad_sigma=None,
    integrated_grad_nr_iter=None,
    baseline=None,
    num_samples=None,
    std=None,
):
    """Attribution maps [B, h, w] at native size, unscaled, signed where the method is.

    process: a name of METHODS. model: a `wsol.network.Network`, or for the post-hoc methods any classifier that returns
    logits [B, C]. images [B, 3, H, W]. target: the explained class, an int, a list or LongTensor [B], or None for the
    prediction. The other arguments are the fields of Options; None leaves what `options` says.
    The model, its gradients, hooks and modes are afterwards as before.
    Unknown names, wrong lengths and classes outside the model's are a ValueError.
    """
    given = dict(
        target_layer=target_layer,
        superclass=superclass,
        batch_size=batch_size,
        generator=generator,
        progress=progress,
        smooth_grad_nr_iter=smooth_grad_nr_iter,
        smooth_grad_sigma=smooth_grad_sigma,
        baseline=baseline,
        integrated_grad_nr_iter=integrated_grad_nr_iter,
        num_samples=num_samples,
        std=std,
    )
    changes = {name: value for name, value in given.items() if value is not None}
    return lookup(process)(model, images, target, replace(options, **changes))
