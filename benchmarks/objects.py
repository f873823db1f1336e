"""Grad-CAM of one image by a reusable object: `attribution.Explainer` against captum, torchcam and grad-cam.

ResNet-50 with random weights; every object is called `CALLS` times per turn, for a given class. On a CPU, CPU time is
measured.
"""

import time
from functools import partial

import torch
from torchvision import models

from benchmarks.timing import Row, seconds
from wsol import attribution

CALLS = 20
TARGET = 7  # arbitrary class


def captum_object(net, layer, x):
    """captum."""
    from captum.attr import LayerGradCam

    return partial(LayerGradCam(net, layer).attribute, x, target=TARGET)


def torchcam_object(net, layer, x):
    """torchcam, which explains a forward pass made by its caller."""
    from torchcam.methods import GradCAM

    extractor = GradCAM(net, layer)
    return lambda: extractor(TARGET, net(x))


def grad_cam_object(net, layer, x):
    """pytorch-grad-cam."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    return partial(GradCAM(model=net, target_layers=[layer]), x, [ClassifierOutputTarget(TARGET)])


def object_rows(args, device):
    """A row per installed library: the Explainer's time, which includes logits and probabilities, over its own."""
    x = torch.randn(1, 3, args.size, args.size, device=device)
    made = {}
    for name, make in (('captum', captum_object), ('torchcam', torchcam_object), ('pytorch-grad-cam', grad_cam_object)):
        net = models.resnet50().to(device).eval()  # one each: the objects' hooks stay on it
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
