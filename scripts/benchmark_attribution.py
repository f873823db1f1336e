"""What a map costs: time of each method over that of a plain forward pass without gradients, beside three libraries.

    python scripts/benchmark_attribution.py --images=4 --size=224 --repeats=5

One ResNet-50 with random weights, one batch, one process, CPU. Every figure is the median over the repeats, in which all
entries take turns, divided by its yardstick: a forward pass; n forward and backward passes without weight gradients; or
the masked forward passes of Score-CAM. captum, torchcam and grad-cam are left out where they are not installed.
"""

import argparse
import os
import statistics
import sys
import time

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from wsol import attribution, build_model  # noqa: E402  (a script finds the package beside its folder)


class Scores(torch.nn.Module):
    """The network as the libraries want it: images -> [B, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).log_score


def forward(net, x):
    with torch.no_grad():
        return net(x).log_score


def forward_backward(net, x, y, n):
    """n forward and backward passes to the input, without weight gradients."""
    for _ in range(n):
        image = x.detach().requires_grad_()
        torch.autograd.grad(net(image).log_score[:, y].sum(), image)


def masked_forwards(net, x, channels, size):
    """The forward passes of Score-CAM alone: `channels` copies of each image, `size` at a time, nothing else."""
    rows = x[:1].expand(size, -1, -1, -1).contiguous()
    with torch.no_grad():
        for _ in range(len(x) * channels // size):
            net(rows)


def our_entries(net, x, y, n):
    """{name: (yardstick, function)} of this project."""
    explain = lambda name, **more: lambda: attribution.explain(name, net, x, y, **more)
    few = dict(smooth_grad_nr_iter=n, batch_size=len(x))
    entries = {
        name: ('forward', explain(name))
        for name in ('grad_cam', 'grad_cam_pp', 'layer_cam', 'eigen_cam', 'ablation_cam')
    }
    entries['input_grad'] = ('1 forward-backward', explain('input_grad'))
    entries.update({name: (f'{n} forward-backward', explain(name, **few)) for name in ('smooth_grad', 'var_grad')})
    entries['integrated_gradients'] = (
        f'{n} forward-backward',
        explain('integrated_gradients', integrated_grad_nr_iter=n, batch_size=len(x)),
    )
    return entries


def library_entries(net, x, y, n):
    """{name: (yardstick, function)} of the libraries that are installed."""
    model, entries = Scores(net), {}
    try:
        from captum import attr

        ours = f'{n} forward-backward'
        entries['captum LayerGradCam'] = 'forward', lambda: attr.LayerGradCam(model, net.layer4).attribute(x, target=y)
        entries['captum IntegratedGradients'] = (
            ours,
            lambda: attr.IntegratedGradients(model).attribute(x, target=y, n_steps=n, internal_batch_size=len(x)),
        )
        entries['captum NoiseTunnel(Saliency)'] = (
            ours,
            lambda: attr.NoiseTunnel(attr.Saliency(model)).attribute(
                x, target=y, nt_samples=n, nt_samples_batch_size=1
            ),
        )
    except ImportError:
        print('captum is not installed')
    try:
        from torchcam import methods

        for name in ('GradCAM', 'GradCAMpp', 'LayerCAM'):
            entries[f'torchcam {name}'] = (
                'forward',
                lambda name=name: torchcam_map(getattr(methods, name), model, net.layer4, x, y),
            )
    except ImportError:
        print('torchcam is not installed')
    try:
        import pytorch_grad_cam as library
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(y)] * len(x)
        for name in ('GradCAM', 'GradCAMPlusPlus', 'LayerCAM'):
            entries[f'grad-cam {name}'] = (
                'forward',
                lambda name=name: grad_cam_map(getattr(library, name), model, net.layer4, x, targets),
            )
    except ImportError:
        print('grad-cam is not installed')
    return entries


def torchcam_map(method, model, layer, x, y):
    with method(model, layer) as extractor:
        extractor(y, model(x))


def grad_cam_map(method, model, layer, x, targets):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {'images': 4, 'size': 224, 'repeats': 5, 'samples': 5, 'threads': 1}.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--score_cam', action='store_true', help='Score-CAM too: 2048 masked forward passes an image')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net, x, y = build_model('resnet50', 'CAM', 200).eval(), torch.randn(args.images, 3, args.size, args.size), 7
    yard = {
        'forward': lambda: forward(net, x),
        '1 forward-backward': lambda: forward_backward(net, x, y, 1),
        f'{args.samples} forward-backward': lambda: forward_backward(net, x, y, args.samples),
    }
    entries = {**our_entries(net, x, y, args.samples), **library_entries(net, x, y, args.samples)}
    if args.score_cam:
        yard['masked forwards'] = lambda: masked_forwards(net, x, 2048, 32)
        entries['score_cam'] = 'masked forwards', lambda: attribution.explain('score_cam', net, x, y)
    seconds = medians({**yard, **{name: run for name, (_, run) in entries.items()}}, args.repeats)
    print(f'{args.images} images of {args.size} px, {args.threads} threads, forward {seconds["forward"]:.3f} s')
    for name, (base, _) in entries.items():
        print(f'{name:32} {seconds[name] / seconds[base]:6.2f} x {base}')


if __name__ == '__main__':
    main()
