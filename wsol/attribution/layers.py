"""Target layers: find them, run the network with a graph that begins at them, put other activations in their place.

A [B, L, H, W] is what a layer gives out, laid out as a map (layouts.py), G [B, L, H, W] the gradient of the explained
score there.
"""

from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import UserError
from ..network import Network
from ..registry import did_you_mean
from .common import chosen, gradients_by_class, scores_of
from .layouts import BORDER, CHANNELS_FIRST, Layout, first_tokens, layout_of
from .scalars import bare

STRIDES = (2, 4, 8, 16, 32, 64)  # of the layers that `stage_layers` takes
NAMING = (
    'name a layer of features as target_layer, or wrap the model and say how its tokens lie: '
    "attribution.Classifier(model, tokens='LAYER', grid=(rows, columns))"
)


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
    """The module that gives the last map with more than one location: F in this project's networks, and elsewhere the
    `feature_layer` that a model names.

    Otherwise one forward pass of one image finds it; the outermost of nested modules is taken. A transformer that
    classifies by its class token reads no other token after its last attention: the last tokens, or channels-last maps,
    on all of whose locations the score depends are taken there, mostly the norm before that attention. None: a
    UserError.
    """
    model = bare(model)
    if isinstance(model, Network):
        return getattr(model, model.feature_names[-1])
    if getattr(model, 'feature_layer', None):
        return model.get_submodule(model.feature_layer)
    seen = _feature_layers(model, images)
    if seen[-1].layout.kind == 'maps':
        return seen[-1].module
    return _last_read_layer(model, images, {one.module for one in seen})


def stage_layers(model, images, count):
    """The last modules of the `count` coarsest map sizes, from fine to coarse; without any, the last feature layer.

    A map has the image's size over a stride of 2, 4, 8, 16, 32 or 64, but for the borders. One forward pass of one
    image finds them; errors as for `last_feature_layer`.
    """
    last = last_feature_layer(model, images)
    wanted = [[side / stride for side in images.shape[2:]] for stride in STRIDES]
    stages = {}
    for one in _feature_layers(bare(model), images):
        grid = one.layout.grid
        if any(abs(grid[0] - h) <= BORDER and abs(grid[1] - w) <= BORDER for h, w in wanted):
            stages.pop(grid, None)  # the order is that of each size's last layer
            stages[grid] = one.module
        if one.module is last:  # what comes later the score may not read
            break
    return list(stages.values())[-count:] or [last]


class Seen(NamedTuple):
    """A module that gives maps, as a forward pass of one image came by."""

    module: nn.Module
    layout: Layout
    shape: tuple  # of its output


def _feature_layers(model, images):
    """`Seen` of every output with several locations, in the order in which they come; the head of this project's
    networks is left out."""
    seen = []
    size = tuple(images.shape[2:])
    first = first_tokens(model)

    def note(module, inputs, output):
        layout = layout_of(module, output, size, first)
        if layout and len(output) == 1:  # windows of an attention are more than the image
            seen.append(Seen(module, layout, tuple(output.shape)))

    modules = [m for m in model.modules() if m is not model]
    if isinstance(model, Network):
        modules = [m for name in model.feature_names for m in getattr(model, name).modules()]
    with hooks(modules, note), torch.no_grad():
        model(images[:1].clone())
    seen = _without_parts(seen)
    if not seen:
        raise UserError(f'no layer of this model gives maps with several locations: {NAMING}')
    return seen


def _without_parts(seen):
    """Those that are whole layers of features: no heads of an attention [B, heads, N, d], N being a number of tokens,
    no maps that are flattened [B, L, H W], no linear projections of tokens or channels."""
    counts = {one.shape[1] for one in seen if one.layout.kind == 'tokens'}
    flat = {(one.shape[1], one.shape[2] * one.shape[3]) for one in seen if one.layout.kind == 'maps'}

    def whole(one):
        if one.layout.kind == 'maps':
            return one.shape[2] not in counts or isinstance(one.module, CHANNELS_FIRST)
        return one.shape[1:] not in flat and not isinstance(one.module, nn.Linear)

    return [one for one in seen if whole(one)]


def _last_read_layer(model, images, modules):
    """The last of the modules on most of whose locations the classes depend, by one forward and one backward pass; the
    last linear layer's input stands for the scores, as a fresh head may give zeros. None: a UserError."""
    kept = {}
    read = []
    size = tuple(images.shape[2:])
    first = first_tokens(model)

    def keep(module, inputs, output):
        if isinstance(module, nn.Linear):
            read.append(inputs[0])
        if module in modules and layout_of(module, output, size, first):
            kept.pop(module, None)
            kept[module] = output if output.requires_grad else output.detach().requires_grad_()
            return kept[module].clone()  # what is kept stays as it is
        return None

    with hooks([m for m in model.modules() if m is not model], keep), torch.enable_grad():
        output = model(images[:1].clone())
        value = read[-1] if read else output
        if not torch.is_tensor(value):
            raise UserError(f'the layer to explain cannot be found: {NAMING}')
        weights = torch.arange(value.numel(), device=value.device).cos().to(value).view_as(value)
        gradients = torch.autograd.grad((value * weights).sum(), list(kept.values()), allow_unused=True)
    for (module, output), G in reversed([*zip(kept.items(), gradients)]):
        layout = layout_of(module, output, size, first)
        if G is not None and (layout.to_map(G).abs().sum(dim=1) > 0).float().mean() > 0.5:
            return module
    raise UserError(f'the score depends on the locations of no layer of this model: {NAMING}')


def capture(model, images, layers, groups=None):
    """(activations, one A a layer; scores [B, C]) of one forward pass; a layer called twice counts with its last call.

    groups: of the rows, as `common.groups_of` gives them: an image passes once. There is no graph. Tokens and
    channels-last maps are laid out as [B, L, H, W]. A layer that does not run, or gives no map, is a UserError.
    """
    firsts, owner = groups or (None, None)
    if owner is None:
        return _pass(model, images, layers, graph=False)
    activations, scores = _pass(model, images[firsts], layers, graph=False)
    return [A[owner] for A in activations], scores[owner]


def _layout(module, output, size, first):
    """The `Layout` of what a target layer gives; without one a UserError."""
    layout = layout_of(module, output, size, first)
    if torch.is_tensor(output) and output.ndim == 4 and output.shape[2] * output.shape[3] == 1:
        raise UserError(f'target_layer {type(module).__name__} gives one value a channel, a map without locations')
    if layout is None:
        what = list(output.shape) if torch.is_tensor(output) else type(output).__name__
        raise UserError(
            f'target_layer {type(module).__name__} does not give a tensor [B, L, H, W], [B, H, W, L] or tokens '
            f'[B, N, L] of a grid, for images of {size[0]}x{size[1]}, but {what}: {NAMING}'
        )
    return layout


def _pass(model, images, layers, graph):
    """`capture` of images as they are; with `graph` the graph begins at the first of the layers: whatever lies below
    runs without one."""
    kept = {}
    size = tuple(images.shape[2:])
    first = first_tokens(model)

    def keep(module, inputs, output):
        layout = _layout(module, output, size, first)
        torch.set_grad_enabled(graph)
        A = layout.to_map(output).to(images.dtype)  # in mixed precision it is another
        if not graph:
            A = A.detach()
        elif not A.requires_grad:
            A = A.detach().requires_grad_()
        kept[module] = A
        return layout.back(A, output)  # a layer above may work in place: what is kept stays as it is

    with hooks(dict.fromkeys(layers), keep), torch.no_grad():
        scores = scores_of(model, images.clone())
    missing = [type(layer).__name__ for layer in layers if layer not in kept]
    if missing:
        raise UserError(f'target_layer {", ".join(missing)} does not run in the forward pass')
    return [kept[layer] for layer in layers], scores


def layer_gradients(model, images, layers, target, groups=None, create_graph=False, scalars=None):
    """(activations A, gradients G = d score_target / d A), one [B, L, H, W] a layer, by one forward pass and one
    backward pass.

    groups: of the rows, as `common.groups_of` gives them: an image passes once, and back once a class. With
    create_graph every row passes, and G can be differentiated again. scalars: (scores [D, C], the target classes) ->
    what is explained in their place [D, C].

    Nothing below the layers and no parameter gets a gradient. A layer the score does not depend on is a UserError.
    """
    firsts, owner = groups or (None, None)
    assert owner is None or not create_graph
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
        size = tuple(images.shape[2:])
        first = first_tokens(model)

        def put(module, inputs, output):
            return _layout(module, output, size, first).back(activation, output)

        with hooks([layer], put):
            return scores_of(model, images.clone())
