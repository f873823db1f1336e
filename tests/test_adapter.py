"""Classifiers that are not this project's: torchvision's, tokens, other outputs, and the documentation's example."""

import os
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn
from torchvision import models

from wsol import attribution


@pytest.fixture
def vit():
    """A small transformer: 4 x 4 patches and a class token."""
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    nn.init.normal_(model.heads.head.weight)  # torchvision's zeros explain nothing
    return model.eval()


LAYER = 'encoder.layers.encoder_layer_2.ln_1'


@pytest.mark.parametrize(
    'name, size',
    [
        ('resnet18', 64),
        pytest.param('vgg11', 64, marks=pytest.mark.slow),
        ('mobilenet_v3_small', 64),
        ('inception_v3', 96),
    ],
)
def test_torchvision_classifiers_need_no_wrapper(name, size):
    more = {'init_weights': False} if name == 'inception_v3' else {}
    model = models.get_model(name, weights=None, num_classes=7, **more)
    images = torch.randn(2, 3, size, size)
    assert model.training  # inception returns a tuple in this mode
    for process in ('grad_cam', 'layer_cam', 'input_grad'):
        maps = attribution.explain(process, model, images, target=[3, 6])
        assert maps.shape[0] == 2 and maps.isfinite().all()
        assert maps.shape[1:] == (size, size) if process == 'input_grad' else maps.shape[1] > 1
    assert model.training


def test_tokens_are_explained_as_pytorch_grad_cam_does(vit):
    grad_cam = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed')
    images = torch.randn(3, 3, 32, 32)
    classes = [4, 0, 2]
    layer = vit.get_submodule(LAYER)

    def reshape(tokens):
        return tokens[:, 1:].reshape(len(tokens), 4, 4, -1).permute(0, 3, 1, 2)

    ours = attribution.explain(
        'grad_cam', attribution.Classifier(vit, tokens=LAYER), images, classes, target_layer='maps'
    )
    targets = [grad_cam.utils.model_targets.ClassifierOutputTarget(y) for y in classes]
    with grad_cam.GradCAM(vit, [layer], reshape_transform=reshape) as theirs:
        theirs(images, targets)
        A = theirs.activations_and_grads.activations[0]
        G = theirs.activations_and_grads.gradients[0]
        want = theirs.get_cam_image(images, layer, targets, A.detach().numpy(), G.detach().numpy(), False).clip(min=0)
    assert ours.shape == (3, 4, 4) and ours.max() > 0
    torch.testing.assert_close(ours, torch.as_tensor(want), rtol=1e-4, atol=1e-7)


def test_the_wrapper_changes_no_output_and_leaves_no_hook(vit):
    images = torch.randn(2, 3, 32, 32)
    for tokens in (LAYER, vit.get_submodule(LAYER), None):
        torch.testing.assert_close(attribution.Classifier(vit, tokens=tokens)(images), vit(images))
    wrapped = attribution.Classifier(vit, tokens=LAYER)
    attribution.explain('ablation_cam', wrapped, images, target_layer='maps')
    assert not any(module._forward_hooks for module in wrapped.modules())
    torch.testing.assert_close(
        attribution.explain('grad_cam', wrapped, images),
        attribution.explain('grad_cam', wrapped, images, target_layer='maps'),
    )


def test_channels_last_and_long_grids():
    class Rows(nn.Module):  # [B, H, W, L], as Swin's blocks
        def __init__(self, flat):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.block = nn.Identity()
            self.head = nn.Linear(4, 5)
            self.flat = flat

        def forward(self, x):
            rows = self.conv(x).permute(0, 2, 3, 1)
            rows = self.block(rows.flatten(1, 2) if self.flat else rows)
            return self.head(rows.flatten(1, -2).mean(dim=1))

    images = torch.randn(2, 3, 6, 10)
    for flat, grid in ((False, None), (True, (4, 8))):
        model = Rows(flat)
        maps = attribution.explain(
            'grad_cam', attribution.Classifier(model, tokens='block', grid=grid), images, 2, target_layer='maps'
        )
        want = torch.einsum('blhw,l->bhw', model.conv(images), model.head.weight[2] / 32).relu()  # linear: by hand
        torch.testing.assert_close(maps, want)
    wide = torch.randn(1, 3, 4, 62)  # 2 x 60 tokens: far from the images' aspect ratio
    model = attribution.Classifier(Rows(True), tokens='block', grid=(2, 60))
    assert attribution.explain('grad_cam', model, wide, 2).shape == (1, 2, 60)
    square = attribution.Classifier(Rows(True), tokens='block')  # 4 x 4 tokens, none of them a class token
    assert attribution.explain('grad_cam', square, images[..., :6], 2, target_layer='maps').shape == (2, 4, 4)
    with pytest.raises(ValueError, match='32 tokens do not form a grid of 5 x 8'):
        attribution.Classifier(Rows(True), tokens='block', grid=(5, 8))(images)
    with pytest.raises(ValueError, match='did you mean block'):
        attribution.Classifier(Rows(True), tokens='blok')


@pytest.mark.parametrize(
    'pack', [lambda y: SimpleNamespace(logits=y), lambda y: {'logits': y}, lambda y: (y, None), lambda y: [(y,)]]
)
def test_logits_are_found_in_what_models_return(pack):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    class Packed(nn.Module):
        def forward(self, x):
            return pack(net(x))

    images = torch.randn(2, 3, 8, 8)
    want = attribution.explain('input_grad', net, images, 1)
    torch.testing.assert_close(attribution.explain('input_grad', attribution.Classifier(Packed()), images, 1), want)
    named = attribution.Classifier(Packed(), logits=lambda output: net(images))
    torch.testing.assert_close(named(images), net(images))
    with pytest.raises(ValueError, match='give Classifier a function'):
        attribution.logits_of({'scores': 1})


def test_the_wrapper_has_the_models_preprocessing(vit):
    config = {'mean': (0.5,) * 3, 'std': (0.5,) * 3, 'interpolation': 'bicubic', 'crop_pct': 0.9}
    vit.pretrained_cfg = config | {'input_size': (3, 32, 32)}
    vit.class_names = list('abcde')
    own, wrapped = (attribution.Explainer(one) for one in (vit, attribution.Classifier(vit)))
    for name in ('preprocessing', 'image_size', 'class_names'):
        assert getattr(wrapped, name) == getattr(own, name)
    assert wrapped.preprocessing.mean == (0.5,) * 3 and wrapped.image_size == 32
    some = attribution.Explainer(attribution.Classifier(vit, logits=lambda output: output[:, :2]))
    assert some.image_size == 32 and some.class_names is None


def test_the_example_of_the_documentation_runs():
    with open(os.path.join(ROOT, 'docs', 'library.md')) as file:
        found = re.search(r'<!-- tested: any classifier -->\s*```python\n(.*?)```', file.read(), re.S)
    assert found, 'docs/library.md has lost the example behind <!-- tested: any classifier -->'
    names = {}
    exec(compile(found.group(1), 'docs/library.md', 'exec'), names)
    assert names['maps'].shape == (2, 224, 224) and 0 <= names['maps'].min() < names['maps'].max() <= 1
