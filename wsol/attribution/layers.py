"""Target layers: find them, run the network with a graph that starts at them, replace their activations.

A [B, L, H, W] is a layer's output laid out as a map (layouts.py), G [B, L, H, W] the gradient of the explained score
with respect to A.
"""

from collections import Counter
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

STRIDES = (2, 4, 8, 16, 32, 64)  # strides that `stage_layers` recognises
NAMING = (
    'name a feature layer as target_layer, or wrap the model and describe its tokens: '
    "attribution.Classifier(model, tokens='LAYER', grid=(rows, columns))"
)


@contextmanager
def hooks(modules, function):
    """A forward hook on each module, removed afterwards, also after an exception. Compiled models run eagerly
    meanwhile, because compiled code does not call hooks."""
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
    """The modules named by `target_layer`: a module, a dotted name or a list of those; None: the last feature layer.

    Raises UserError listing similar and valid names if the model does not have it.
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
            raise UserError(f'target_layer {type(layer).__name__} is not a module of this model')
        return layer
    if not isinstance(layer, str):
        raise UserError(f'target_layer contains {type(layer).__name__}: give modules, dotted names, or a list of those')
    inside = [name for name in named if layer and name.endswith(f'.{layer}')]
    if layer not in named and len(inside) == 1:  # the layer's name in a wrapped classifier
        return named[inside[0]]
    if not layer or layer not in named:
        names = [name for name in named if name]
        hint = did_you_mean(layer, names, 5)
        raise UserError(f'unknown target_layer {layer!r}: {hint}choose one of {", ".join(names)}')
    return named[layer]


def last_feature_layer(model, images):
    """The last module that outputs a map with more than one location.

    That is F in this project's networks, and `feature_layer` if the model has that attribute; otherwise one forward
    pass of one image finds it, preferring the outermost of nested modules. A transformer that classifies by its class
    token reads no other token after its last attention; then the last tokens or channels-last maps on whose locations
    the score depends are taken, usually the norm before that attention. Raises UserError if there is none.
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
    """The last modules of the `count` coarsest map sizes, fine to coarse; if there are none, the last feature layer.

    A map size is the image size over a stride in STRIDES, up to borders. Found by one forward pass of one image; errors
    as for `last_feature_layer`.
    """
    last = last_feature_layer(model, images)
    wanted = [[side / stride for side in images.shape[2:]] for stride in STRIDES]
    stages = {}
    for one in _feature_layers(bare(model), images):
        grid = one.layout.grid
        if any(abs(grid[0] - h) <= BORDER and abs(grid[1] - w) <= BORDER for h, w in wanted):
            stages.pop(grid, None)  # keep the order of each size's last layer
            stages[grid] = one.module
        if one.module is last:  # the score may not depend on later modules
            break
    return list(stages.values())[-count:] or [last]


class Seen(NamedTuple):
    """A module that outputs maps, as seen in a forward pass of one image."""

    module: nn.Module
    layout: Layout
    shape: tuple  # output shape


def _feature_layers(model, images):
    """`Seen` for every output with several locations, in call order, without the head of this project's networks."""
    seen = []
    size = tuple(images.shape[2:])
    first = first_tokens(model)

    def note(module, inputs, output):
        layout = layout_of(module, output, size, first)
        if layout and len(output) == 1:  # attention windows have a larger batch
            seen.append(Seen(module, layout, tuple(output.shape)))

    modules = [m for m in model.modules() if m is not model]
    if isinstance(model, Network):
        modules = [m for name in model.feature_names for m in getattr(model, name).modules()]
    with hooks(modules, note), torch.no_grad():
        model(images[:1].clone())
    seen = _without_parts(seen)
    if not seen:
        raise UserError(f'no layer of this model outputs maps with several locations: {NAMING}')
    return seen


def _without_parts(seen):
    """Keep whole feature layers: no attention heads [B, heads, N, d] (N a number of tokens), no flattened maps
    [B, L, H W], no linear projections of tokens or channels."""
    counts = {one.shape[1] for one in seen if one.layout.kind == 'tokens'}
    flat = {(one.shape[1], one.shape[2] * one.shape[3]) for one in seen if one.layout.kind == 'maps'}

    def whole(one):
        if one.layout.kind == 'maps':
            return one.shape[2] not in counts or isinstance(one.module, CHANNELS_FIRST)
        return one.shape[1:] not in flat and not isinstance(one.module, nn.Linear)

    return [one for one in seen if whole(one)]


def _last_read_layer(model, images, modules):
    """The last of the modules for which the scores depend on most locations, by one forward and one backward pass.

    The last linear layer's input replaces the scores, since a new head's weights may be 0. Raises UserError if none is
    found.
    """
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
            return kept[module].clone()  # later layers may modify their input in place
        return None

    with hooks([m for m in model.modules() if m is not model], keep), torch.enable_grad():
        output = model(images[:1].clone())
        value = read[-1] if read else output
        if not torch.is_tensor(value):
            raise UserError(f'cannot find the layer to explain: {NAMING}')
        weights = torch.arange(value.numel(), device=value.device).cos().to(value).view_as(value)
        gradients = torch.autograd.grad((value * weights).sum(), list(kept.values()), allow_unused=True)
    for (module, output), G in reversed([*zip(kept.items(), gradients)]):
        layout = layout_of(module, output, size, first)
        if G is not None and (layout.to_map(G).abs().sum(dim=1) > 0).float().mean() > 0.5:
            return module
    raise UserError(f'the score does not depend on the locations of any layer of this model: {NAMING}')


def capture(model, images, layers, groups=None):
    """(activations, one A per layer; scores [B, C]) from one forward pass without a graph; a layer's last call counts.

    groups: of the rows, from `common.groups_of`; each image passes once. Tokens and channels-last maps are returned as
    [B, L, H, W]. Raises UserError if a layer does not run or outputs no map.
    """
    firsts, owner = groups or (None, None)
    if owner is None:
        return _pass(model, images, layers, graph=False)
    activations, scores = _pass(model, images[firsts], layers, graph=False)
    return [A[owner] for A in activations], scores[owner]


def _layout(module, output, size, first):
    """The `Layout` of a target layer's output; raises UserError if it has none."""
    layout = layout_of(module, output, size, first)
    if torch.is_tensor(output) and output.ndim == 4 and output.shape[2] * output.shape[3] == 1:
        raise UserError(f'target_layer {type(module).__name__} outputs one value per channel, without locations')
    if layout is None:
        what = list(output.shape) if torch.is_tensor(output) else type(output).__name__
        raise UserError(
            f'target_layer {type(module).__name__} outputs {what} for images of {size[0]}x{size[1]}, not '
            f'[B, L, H, W], [B, H, W, L] or a grid of tokens [B, N, L]: {NAMING}'
        )
    return layout


def _pass(model, images, layers, graph):
    """`capture` of ungrouped images; with `graph`, the graph starts at the first of the layers."""
    kept = {}
    size = tuple(images.shape[2:])
    first = first_tokens(model)

    def keep(module, inputs, output):
        layout = _layout(module, output, size, first)
        torch.set_grad_enabled(graph)
        A = layout.to_map(output).to(images.dtype)  # differs in mixed precision
        if not graph:
            A = A.detach()
        elif not A.requires_grad:
            A = A.detach().requires_grad_()
        kept[module] = A
        return layout.back(A, output)  # a copy: later layers may modify their input in place

    with hooks(dict.fromkeys(layers), keep), torch.no_grad():
        scores = scores_of(model, images.clone())
    missing = [type(layer).__name__ for layer in layers if layer not in kept]
    if missing:
        raise UserError(f'target_layer {", ".join(missing)} does not run in the forward pass')
    return [kept[layer] for layer in layers], scores


def layer_gradients(model, images, layers, target, groups=None, create_graph=False, scalars=None):
    """(activations A, gradients G = d score_target / d A), one [B, L, H, W] per layer, from one forward and one
    backward pass.

    groups: of the rows, from `common.groups_of`: each image passes forward once and backward once per class.
    create_graph: G can be differentiated again; every row then passes separately. scalars: (scores [D, C], target
    classes) -> explained scalars [D, C], instead of the scores.

    Computes no gradient below the layers or for parameters. Raises UserError if the score does not depend on a layer.
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


@contextmanager
def counted(layers):
    """{layer: how often it has run} inside this context, a Counter."""
    calls = Counter()
    with hooks(dict.fromkeys(layers), lambda module, inputs, output: calls.update([module])):
        yield calls


def scores_with(model, images, layer, activation, call=1):
    """Scores [B, C] with the output of `layer` at its `call`-th run (from 1) replaced by `activation` [B, L, H, W],
    without a graph.

    At the last feature layer of this project's networks, only the head is rerun.
    """
    with torch.no_grad():
        if isinstance(model, Network) and layer is last_feature_layer(model, images):
            return model.forward_head(activation, images).log_score
        size = tuple(images.shape[2:])
        first = first_tokens(model)

        def put(module, inputs, output):
            last = calls[module] == call
            return _layout(module, output, size, first).back(activation, output) if last else None

        with counted([layer]) as calls, hooks([layer], put):
            return scores_of(model, images.clone())
