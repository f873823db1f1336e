"""Grad-CAM of one image by an object that is made once: `attribution.Explainer` beside captum, torchcam and grad-cam.

ResNet-50 with random weights; every object is called `CALLS` times in each turn, on a class that is given. On a CPU the
processor's time is taken.
"""

import time
from functools import partial

import torch
from torchvision import models

from benchmarks.timing import Row, seconds
from wsol import attribution

CALLS = 20
TARGET = 7  # any class


def captum_object(net, layer, x):
    """Of captum."""
    from captum.attr import LayerGradCam

    return partial(LayerGradCam(net, layer).attribute, x, target=TARGET)


def torchcam_object(net, layer, x):
    """Of torchcam, which explains the pass that its caller makes."""
    from torchcam.methods import GradCAM

    extractor = GradCAM(net, layer)
    return lambda: extractor(TARGET, net(x))


def grad_cam_object(net, layer, x):
    """Of pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return partial(GradCAM(model=net, target_layers=[layer]), x, [ClassifierOutputTarget(TARGET)])


def object_rows(args, device):
    """A row each library that is installed: the Explainer's time over its own. The Explainer's result has logits and
    probabilities too."""
    x = torch.randn(1, 3, args.size, args.size, device=device)
    made = {}
    for name, make in (('captum', captum_object), ('torchcam', torchcam_object), ('pytorch-grad-cam', grad_cam_object)):
        net = models.resnet50().to(device).eval()  # one each: objects leave their hooks
        try:
            made[name] = make(net, net.layer4, x)
        except ImportError as error:
            print(f'left out: {error}')
    explainer = attribution.Explainer(models.resnet50().to(device).eval(), 'grad_cam')

    def calls(one):
        for _ in range(CALLS):
            one()

    actions = [partial(calls, one) for one in (partial(explainer, x, TARGET), *made.values())]
    ours, *times = seconds(
        actions, device, args.repeats, time.process_time if device.type == 'cpu' else time.perf_counter
    )
    goals = {'pytorch-grad-cam': '<= 0.50'}
    return [
        Row(f'Grad-CAM by an Explainer, {CALLS} calls', name, ours / time, goals.get(name, '<= 1.00'), f'{ours:.2f} s')
        for name, time in zip(made, times, strict=True)
    ]
