"""Maps of captum, torchcam and grad-cam, called as in their documentation, for maps.py.

Without grad-cam's FullGrad, which fails on networks with a bias that does not affect the score, such as CAM's.
"""

from functools import partial

import torch


class Scores(torch.nn.Module):
    """The network as the libraries expect it: images -> [B, C]."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x).log_score


def captum_entries(model, layer, x, y, n):
    """Entries of captum."""
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
        'captum LayerGradCam': ('forward', grad_cam),
        'captum GradientShap': (f'{n} forward-backward', shap),
        'captum Occlusion': ('10 forwards', occlusion),
        'captum IntegratedGradients': (f'{n} forward-backward', integrated),
        'captum NoiseTunnel(Saliency)': (f'{n} forward-backward', smooth),
    }


def torchcam_entries(model, layer, x, y, n):
    """Entries of torchcam."""
    from torchcam import methods

    def explain(method):
        with method(model, layer) as extractor:
            extractor(y, model(x))

    names = ('GradCAM', 'GradCAMpp', 'LayerCAM', 'XGradCAM')
    return {f'torchcam {name}': ('forward', partial(explain, getattr(methods, name))) for name in names}


def grad_cam_entries(model, layer, x, y, n):
    """Entries of grad-cam."""
    import pytorch_grad_cam as library
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets = [ClassifierOutputTarget(y)] * len(x)

    def explain(method):
        with method(model=model, target_layers=[layer]) as cam:
            cam(x, targets)
        model.zero_grad()

    names = ('GradCAM', 'GradCAMPlusPlus', 'LayerCAM', 'HiResCAM', 'XGradCAM', 'EigenGradCAM')
    return {f'grad-cam {name}': ('forward', partial(explain, getattr(library, name))) for name in names}


def entries(net, layer, x, y, n):
    """{'LIBRARY METHOD': (name of its reference in maps.py, function)} for the installed libraries."""
    found = {}
    for entries_of in (captum_entries, torchcam_entries, grad_cam_entries):
        try:
            found.update(entries_of(Scores(net), layer, x, y, n))
        except ImportError as error:
            print(f'left out: {error}')
    return found
