"""What a map costs: time of each method over that of a plain forward pass without gradients, beside three libraries.

    python scripts/benchmark_attribution.py --images=4 --size=224 --repeats=5

One ResNet-50 with random weights, one batch, one process, CPU. Every figure is the median over the repeats, in which
all entries take turns, divided by its yardstick: a forward pass, or n of them; n forward and backward passes without
weight gradients; or the masked forward passes of Score-CAM. RISE is timed with few masks, occlusion with few squares.
captum, torchcam and grad-cam are left out where they are not installed; grad-cam's FullGrad refuses a network that has
a bias which its score does not read, as CAM's has.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import checkout  # noqa: F401
import torch

from wsol import attribution, build_model

FORWARD = (  # their yardstick: a forward pass
    *('grad_cam', 'grad_cam_pp', 'layer_cam', 'hires_cam', 'xgrad_cam', 'finer_cam', 'eigen_cam', 'eigen_grad_cam'),
    *('refine_cam', 'ablation_cam'),
)
SINGLE = ('input_grad', 'full_grad', 'deep_lift')  # a forward and a backward pass; DeepLIFT's has the reference's too
REPEATED = ('smooth_grad', 'var_grad', 'integrated_gradients', 'gradient_shap')  # n forward and backward passes
FORWARDS = {  # several forward passes: how many, and what makes them so many
    'rise': (10, {'rise_nr_masks': 10}),
    'occlusion': (10, {}),  # squares of half a side: nine, and the image itself
    'group_cam': (34, {}),  # 32 groups, the image itself and its blurred version
}


class Entry(NamedTuple):
    """A map to be timed."""

    yardstick: str  # the name of what its time is divided by
    run: Callable


class Scores(torch.nn.Module):
    """The network as the libraries want it: images -> [B, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).log_score


def forward(net, x):
    """A forward pass without gradients."""
    with torch.no_grad():
        return net(x).log_score


def forward_backward(net, x, y, n):
    """n forward and backward passes to the input, without weight gradients."""
    for _ in range(n):
        image = x.detach().requires_grad_()
        torch.autograd.grad(net(image).log_score[:, y].sum(), image)


def forwards(net, x, n):
    """n forward passes without gradients."""
    for _ in range(n):
        forward(net, x)


def masked_forwards(net, x, channels, size):
    """The forward passes of Score-CAM alone: `channels` copies of each image, `size` at a time, nothing else."""
    rows = x[:1].expand(size, -1, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(len(x) * channels // size):
            net(rows)


def our_entries(net, x, y, n):
    """{name: Entry} of this project."""

    def entry(yardstick, name, **options):
        return Entry(yardstick, partial(attribution.explain, name, net, x, y, **options))

    few = {'smooth_grad_nr_iter': n, 'integrated_grad_nr_iter': n, 'num_samples': n, 'batch_size': len(x)}
    layers = {'refine_cam': {'target_layer': ['layer3', 'layer4']}}
    entries = {name: entry('forward', name, **layers.get(name, {})) for name in FORWARD}
    entries.update({name: entry('1 forward-backward', name) for name in SINGLE})
    entries.update({name: entry(f'{n} forward-backward', name, **few) for name in REPEATED})
    half = {'occlusion': {'occlusion_window': min(x.shape[2:]) // 2}}
    for name, (passes, options) in FORWARDS.items():
        entries[name] = entry(f'{passes} forwards', name, batch_size=len(x), **options, **half.get(name, {}))
    return entries


def captum_entries(model, layer, x, y, n):
    """{name: Entry} of captum."""
    from captum import attr

    def grad_cam():
        attr.LayerGradCam(model, layer).attribute(x, target=y)

    def integrated():
        attr.IntegratedGradients(model).attribute(x, target=y, n_steps=n, internal_batch_size=len(x))

    def smooth():
        tunnel = attr.NoiseTunnel(attr.Saliency(model))
        tunnel.attribute(x, target=y, nt_samples=n, nt_samples_batch_size=1)

    def shap():
        attr.GradientShap(model).attribute(x, torch.zeros_like(x[:1]), n_samples=n, target=y)

    def occlusion():
        side = min(x.shape[2:]) // 2
        window = (x.shape[1], side, side)
        attr.Occlusion(model).attribute(x, window, (x.shape[1], side // 2, side // 2), target=y)

    return {
        'captum LayerGradCam': Entry('forward', grad_cam),
        'captum GradientShap': Entry(f'{n} forward-backward', shap),
        'captum Occlusion': Entry('10 forwards', occlusion),
        'captum IntegratedGradients': Entry(f'{n} forward-backward', integrated),
        'captum NoiseTunnel(Saliency)': Entry(f'{n} forward-backward', smooth),
    }


def torchcam_entries(model, layer, x, y, n):
    """{name: Entry} of torchcam."""
    from torchcam import methods

    names = ('GradCAM', 'GradCAMpp', 'LayerCAM', 'XGradCAM')
    return {
        f'torchcam {name}': Entry('forward', partial(torchcam_map, getattr(methods, name), model, layer, x, y))
        for name in names
    }


def grad_cam_entries(model, layer, x, y, n):
    """{name: Entry} of grad-cam."""
    import pytorch_grad_cam as library
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(y)] * len(x)
    names = ('GradCAM', 'GradCAMPlusPlus', 'LayerCAM', 'HiResCAM', 'XGradCAM', 'EigenGradCAM')
    return {
        f'grad-cam {name}': Entry('forward', partial(grad_cam_map, getattr(library, name), model, layer, x, targets))
        for name in names
    }


LIBRARIES = {'captum': captum_entries, 'torchcam': torchcam_entries, 'grad-cam': grad_cam_entries}


def library_entries(net, x, y, n):
    """{name: Entry} of the libraries that are installed."""
    model = Scores(net)
    entries = {}
    for library, entries_of in LIBRARIES.items():
        try:
            entries.update(entries_of(model, net.layer4, x, y, n))
        except ImportError:
            print(f'{library} is not installed')
    return entries


def torchcam_map(method, model, layer, x, y):
    """A map by one of torchcam's classes."""
    with method(model, layer) as extractor:
        extractor(y, model(x))


def grad_cam_map(method, model, layer, x, targets):
    """A map by one of grad-cam's classes."""
    with method(model=model, target_layers=[layer]) as cam:
        cam(x, targets)
    model.zero_grad()


def medians(entries, repeats):
    """{name: seconds}: the entries take turns, so that a busy machine hits all of them alike."""
    times = {name: [] for name in entries}
    for repeat in range(repeats + 1):
        for name, run in entries.items():
            start = time.perf_counter()
            run()
            if repeat:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {'images': 4, 'size': 224, 'repeats': 5, 'samples': 5, 'threads': 1}.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--score_cam', action='store_true', help='Score-CAM too: 2048 masked forward passes an image')
    parser.add_argument('--only', metavar='NAME,…', help='these entries; default: all')
    return parser.parse_args()


def main():
    """Times everything and prints each map over its yardstick."""
    args = parse()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = build_model('resnet50', 'CAM', 200).eval()
    x = torch.randn(args.images, 3, args.size, args.size)
    y = 7  # any class
    yardsticks = {
        'forward': partial(forward, net, x),
        '1 forward-backward': partial(forward_backward, net, x, y, 1),
        f'{args.samples} forward-backward': partial(forward_backward, net, x, y, args.samples),
        **{f'{passes} forwards': partial(forwards, net, x, passes) for passes, _ in FORWARDS.values()},
    }
    entries = {**our_entries(net, x, y, args.samples), **library_entries(net, x, y, args.samples)}
    if args.score_cam:
        yardsticks['masked forwards'] = partial(masked_forwards, net, x, 2048, 32)
        entries['score_cam'] = Entry('masked forwards', partial(attribution.explain, 'score_cam', net, x, y))
    if args.only:
        entries = {name: entries[name] for name in args.only.split(',')}
        needed = {'forward', *(entry.yardstick for entry in entries.values())}
        yardsticks = {name: run for name, run in yardsticks.items() if name in needed}
    seconds = medians({**yardsticks, **{name: entry.run for name, entry in entries.items()}}, args.repeats)
    print(f'{args.images} images of {args.size} px, {args.threads} threads, forward {seconds["forward"]:.3f} s')
    for name, entry in entries.items():
        print(f'{name:32} {seconds[name] / seconds[entry.yardstick]:6.2f} x {entry.yardstick}')


if __name__ == '__main__':
    main()
