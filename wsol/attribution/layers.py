"""Target layers: find them, run the network with a graph that begins at them, put other activations in their place.

A [B, L, H, W] is what a layer gives out, G [B, L, H, W] the gradient of the explained score there.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UserError
from ..network import Network
from ..registry import did_you_mean
from .common import chosen, distinct, gradients_by_class, scores_of
from .scalars import bare

STRIDES = (2, 4, 8, 16, 32, 64)  # of the layers that `stage_layers` takes
BORDER = 3  # pixels of a map that convolutions without padding may have cost


@contextmanager
def hooks(modules, function):
    """A forward hook on each module, gone afterwards, also after an exception. What is compiled, which would not call
    them, runs as it is written meanwhile."""
    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(function))
        with torch.compiler.set_stance('force_eager'):
            yield
    finally:
        for handle in handles:
            handle.remove()


def find_layers(model, target_layer, images):
    """The modules that `target_layer` names: a module, a dotted name, a list of those; None is the last feature layer.

    A name or module the model does not have is a UserError that lists close and valid names.
    """
    model = bare(model)
    if target_layer is None:
        return [last_feature_layer(model, images)]
    wanted = list(target_layer) if isinstance(target_layer, (list, tuple)) else [target_layer]
    if not wanted:
        raise UserError('target_layer is an empty list: name at least one layer')
    return [_find_layer(dict(model.named_modules()), layer) for layer in wanted]


def _find_layer(named, layer):
    if isinstance(layer, nn.Module):
        if not any(layer is module for module in named.values()):
            raise UserError(f'target_layer {type(layer).__name__} is no module of this model')
        return layer
    if not isinstance(layer, str):
        raise UserError(f'target_layer holds {type(layer).__name__}: give modules, dotted names, or a list of those')
    inside = [name for name in named if layer and name.endswith(f'.{layer}')]
    if layer not in named and len(inside) == 1:  # a classifier's own name of a layer, wherever it is wrapped
        return named[inside[0]]
    if not layer or layer not in named:
        names = [name for name in named if name]
        hint = did_you_mean(layer, names, 5)
        raise UserError(f'unknown target_layer {layer!r}: {hint}choose one of {", ".join(names)}')
    return named[layer]


def last_feature_layer(model, images):
    """The module whose output is the last [B, L, H, W] with more than one location: F in this project's networks.

    Elsewhere one forward pass of one image finds it; the outermost of nested modules is taken. None: a UserError.
    """
    model = bare(model)
    if isinstance(model, Network):
        return getattr(model, model.feature_names[-1])
    return _feature_layers(model, images)[-1][0]


def stage_layers(model, images, count):
    """The last modules of the `count` coarsest map sizes, from fine to coarse; without any, the last feature layer.

    A map has the image's size over a stride of 2, 4, 8, 16, 32 or 64, but for the borders: tokens and channels-last
    outputs do not. One forward pass of one image finds them; errors as for `last_feature_layer`.
    """
    wanted = [[side / stride for side in images.shape[2:]] for stride in STRIDES]
    stages = {}
    for module, size in _feature_layers(bare(model), images):
        if any(abs(size[0] - h) <= BORDER and abs(size[1] - w) <= BORDER for h, w in wanted):
            stages.pop(size, None)  # the order is that of each size's last layer
            stages[size] = module
    return list(stages.values())[-count:] or [last_feature_layer(model, images)]


def _feature_layers(model, images):
    """(module, size [H, W]) of every output [B, L, H, W] with several locations, in the order in which they come; the
    head of this project's networks is left out."""
    seen = []

    def note(module, inputs, output):
        if torch.is_tensor(output) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            seen.append((module, tuple(output.shape[2:])))

    modules = [m for m in model.modules() if m is not model]
    if isinstance(model, Network):
        modules = [m for name in model.feature_names for m in getattr(model, name).modules()]
    with hooks(modules, note), torch.no_grad():
        model(images[:1].clone())
    if not seen:
        raise UserError('no layer of this model gives [B, L, H, W] with several locations: name one as target_layer')
    return seen


def capture(model, images, layers):
    """(activations, one A a layer; scores [B, C]) of one forward pass; a layer called twice counts with its last call.

    Equal images that follow each other pass once; there is no graph. A layer that does not run, or gives something else
    than [B, L, H, W], is a UserError.
    """
    firsts, owner = distinct(images)
    if owner is None:
        return _pass(model, images, layers, graph=False)
    activations, scores = _pass(model, images[firsts], layers, graph=False)
    return [A[owner] for A in activations], scores[owner]


def _pass(model, images, layers, graph):
    """`capture` of images as they are; with `graph` the graph begins at the first of the layers: whatever lies below
    runs without one."""
    kept = {}

    def keep(module, inputs, output):
        if not torch.is_tensor(output) or output.ndim != 4:
            raise UserError(f'target_layer {type(module).__name__} does not give a tensor [B, L, H, W]')
        if output.shape[2] * output.shape[3] == 1:
            raise UserError(f'target_layer {type(module).__name__} gives one value a channel, a map without locations')
        torch.set_grad_enabled(graph)
        output = output.to(images.dtype)  # in mixed precision it is another
        if not graph:
            output = output.detach()
        elif not output.requires_grad:
            output = output.detach().requires_grad_()
        kept[module] = output
        return output.clone()  # a layer above may work in place: what is kept stays as it is

    with hooks(dict.fromkeys(layers), keep), torch.no_grad():
        scores = scores_of(model, images.clone())
    missing = [type(layer).__name__ for layer in layers if layer not in kept]
    if missing:
        raise UserError(f'target_layer {", ".join(missing)} does not run in the forward pass')
    return [kept[layer] for layer in layers], scores


def layer_gradients(model, images, layers, target, create_graph=False, scalars=None):
    """(activations A, gradients G = d score_target / d A), one [B, L, H, W] a layer, by one forward pass and one
    backward pass, of equal images that follow each other one a class; with create_graph G can be differentiated again,
    and every row passes. scalars: (scores [D, C], the target classes) -> what is explained in their place [D, C].

    Nothing below the layers and no parameter gets a gradient. A layer the score does not depend on is a UserError.
    """
    firsts, owner = ([], None) if create_graph else distinct(images)
    with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():  # fused attention has no second derivative
        activations, scores = _pass(model, images if owner is None else images[firsts], layers, graph=True)
    target = chosen(scores if owner is None else scores[owner], target)[1]
    scores = scalars(scores, target) if scalars else scores
    try:
        if create_graph:
            score = chosen(scores, target)[0]
            gradients = torch.autograd.grad(score.sum(), activations, create_graph=True)
        else:
            gradients = gradients_by_class(scores, target, owner, activations)
    except RuntimeError as error:
        if 'not have been used in the graph' not in str(error) and 'does not require grad' not in str(error):
            raise
        raise UserError('the score does not depend on target_layer') from error
    return [A if owner is None else A[owner] for A in activations], list(gradients)


def scores_with(model, images, layer, activation):
    """Scores [B, C] with the output of `layer` replaced by `activation` [B, L, H, W], without a graph.

    At the last feature layer of this project's networks only the head runs again.
    """
    with torch.no_grad():
        if isinstance(model, Network) and layer is last_feature_layer(model, images):
            return model.forward_head(activation, images).log_score
        with hooks([layer], lambda module, inputs, output: activation.clone()):
            return scores_of(model, images.clone())
