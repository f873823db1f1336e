"""Cost of maps over a plain forward pass or over the passes they need, with three libraries for comparison.

ResNet-50 with random weights, one batch of `--images`. RISE uses few masks, occlusion few squares. captum, torchcam and
grad-cam are left out if they are not installed (benchmarks/libraries.py).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

import wsol
from benchmarks import libraries
from benchmarks.timing import Row, seconds
from wsol import attribution

TARGET = 7  # arbitrary class
FORWARD = (  # reference: a forward pass
    *('grad_cam', 'grad_cam_pp', 'layer_cam', 'hires_cam', 'xgrad_cam', 'finer_cam', 'eigen_cam', 'eigen_grad_cam'),
    *('refine_cam', 'ablation_cam'),
)
SINGLE = ('input_grad', 'full_grad', 'deep_lift')  # a forward and a backward pass; DeepLIFT also one for its baseline
REPEATED = ('smooth_grad', 'var_grad', 'integrated_gradients', 'gradient_shap')  # n forward and backward passes
FORWARDS = {  # (number of forward passes, options that determine it)
    'rise': (10, {'rise_nr_masks': 10}),
    'occlusion': (10, {}),  # nine squares of half a side, and the image itself
    'group_cam': (34, {}),  # 32 groups, the image itself and its blurred version
}
SCORE_CAM = 2048  # masked passes per image, one per channel of layer4; timed only if named in --methods


class Entry(NamedTuple):
    """A map to time."""

    reference: str  # name of the denominator
    run: Callable


def forwards(net, x, n):
    """n forward passes without gradients."""
    with torch.no_grad():
        for _ in range(n):
            _ = net(x).log_score


def forward_backwards(net, x, n):
    """n forward and backward passes to the input, without weight gradients."""
    for _ in range(n):
        image = x.detach().requires_grad_()
        torch.autograd.grad(net(image).log_score[:, TARGET].sum(), image)


def masked_forwards(net, x, size):
    """Score-CAM's forward passes alone: copies of each image, `size` at a time."""
    rows = x[:1].expand(size, -1, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(len(x) * SCORE_CAM // size):
            net(rows)


def references(net, x, n):
    """{name: denominator of the entries' ratios}."""
    return {
        'forward': partial(forwards, net, x, 1),
        '1 forward-backward': partial(forward_backwards, net, x, 1),
        f'{n} forward-backward': partial(forward_backwards, net, x, n),
        **{f'{passes} forwards': partial(forwards, net, x, passes) for passes, _ in FORWARDS.values()},
        'masked forwards': partial(masked_forwards, net, x, 32),
    }


def our_entries(net, x, n):
    """{name: Entry} of this project."""

    def entry(reference, name, **options):
        return Entry(reference, partial(attribution.explain, name, net, x, TARGET, **options))

    few = {'smooth_grad_nr_iter': n, 'integrated_grad_nr_iter': n, 'num_samples': n, 'batch_size': len(x)}
    layers = {'refine_cam': {'target_layer': ['layer3', 'layer4']}}
    entries = {name: entry('forward', name, **layers.get(name, {})) for name in FORWARD}
    entries.update({name: entry('1 forward-backward', name) for name in SINGLE})
    entries.update({name: entry(f'{n} forward-backward', name, **few) for name in REPEATED})
    half = {'occlusion': {'occlusion_window': min(x.shape[2:]) // 2}}
    for name, (passes, options) in FORWARDS.items():
        entries[name] = entry(f'{passes} forwards', name, batch_size=len(x), **options, **half.get(name, {}))
    return {**entries, 'score_cam': entry('masked forwards', 'score_cam')}


def map_rows(args, device):
    """A row per map: those in `--methods`, by default all but Score-CAM."""
    net = wsol.build_model('resnet50', 'CAM', 200).to(device).eval()
    x = torch.randn(args.images, 3, args.size, args.size, device=device)
    entries = our_entries(net, x, args.samples)
    for name, (reference, run) in libraries.entries(net, net.layer4, x, TARGET, args.samples).items():
        entries[name] = Entry(reference, run)
    chosen = args.methods.split(',') if args.methods else [name for name in entries if name != 'score_cam']
    over = {name: references(net, x, args.samples)[name] for name in {entries[name].reference for name in chosen}}
    actions = [*over.values(), *(entries[name].run for name in chosen)]
    times = dict(zip([*over, *chosen], seconds(actions, device, args.repeats), strict=True))
    return [
        Row(name, entries[name].reference, times[name] / times[entries[name].reference], '', f'{times[name]:.3f} s')
        for name in chosen
    ]
