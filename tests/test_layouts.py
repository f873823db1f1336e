"""Tokens and channels-last maps as maps: the layer and the grid of every family of transformers, and Grad-CAM by
hand."""

import numpy as np
import pytest
import torch
from torch import nn

from wsol import attribution, classifiers
from wsol.attribution import layers, layouts
from wsol.errors import UserError
from wsol.preprocessing import PAPER

timm = pytest.importorskip('timm', reason='timm is not installed: pip install -r requirements-timm.txt')

VIT = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}
SWIN = {'embed_dim': 16, 'depths': (1, 1, 1, 2), 'num_heads': (1, 1, 2, 2)}
FAMILIES = {  # timm's name: (h, w) of the images, the cell in pixels, options, the layer, tokens before the grid's
    'vit_tiny_patch16_224': (64, 96, 16, VIT, 'blocks.1.norm1', 1),
    'vit_medium_patch16_gap_240': (64, 64, 16, VIT, 'norm', 0),
    'vit_base_patch16_siglip_224': (64, 64, 16, VIT, 'norm', 0),
    'deit_tiny_patch16_224': (64, 64, 16, VIT, 'blocks.1.norm1', 1),
    'deit_tiny_distilled_patch16_224': (64, 64, 16, VIT, 'blocks.1.norm1', 2),
    'vit_small_patch14_dinov2': (70, 42, 14, VIT, 'blocks.1.norm1', 1),
    'vit_small_patch14_reg4_dinov2': (28, 56, 14, VIT, 'blocks.1.norm1', 5),
    'vit_small_patch16_dinov3': (64, 96, 16, VIT, 'norm', 5),
    'eva02_tiny_patch14_224': (56, 56, 14, VIT, 'norm', 1),
    'beit_base_patch16_224': (64, 64, 16, VIT, 'norm', 1),
    'cait_xxs24_224': (64, 64, 16, VIT, 'blocks_token_only.1.norm1', 1),
    'swin_tiny_patch4_window7_224': (112, 112, 28, SWIN, 'norm', None),
    'swinv2_tiny_window8_256': (128, 128, 32, SWIN, 'norm', None),
    'swinv2_cr_tiny_224': (112, 112, 28, SWIN, 'stages', 'maps'),
    'test_mambaout': (96, 64, 32, {}, 'stages', None),
    'pvt_v2_b0': (64, 96, 32, {'depths': (1, 1, 1, 1)}, 'stages', 'maps'),
    'convnext_atto': (64, 96, 32, {'depths': (1, 1, 1, 1), 'dims': (8, 16, 16, 32)}, 'norm_pre', 'maps'),
}
FIXED = ('deit', 'gap', 'siglip', 'eva', 'beit', 'swin', 'cait')  # of one size of images


@pytest.fixture(params=FAMILIES)
def family(request):
    """(network of 5 classes, images, size of the map, expected layer, tokens before the grid's or what it is)."""
    h, w, cell, options, layer, first = FAMILIES[request.param]
    own = dict(options)
    if any(name in request.param for name in FIXED):
        own['img_size'] = (h, w)
    elif 'vit_' in request.param and 'pvt' not in request.param:
        own |= {'img_size': (h, w), 'dynamic_img_size': True}
    torch.manual_seed(3)
    net = timm.create_model(request.param, num_classes=5, **own).eval()
    for name, parameter in net.named_parameters():
        if 'gamma' in name:  # the scale of a new block is nearly 0 in some
            nn.init.ones_(parameter)
    grid = -(-h // cell), -(-w // cell)
    return net, torch.randn(2, 3, h, w), grid, layer, first


def maps_by_hand(output, grid, first):
    """A [B, L, H, W] of a layer's output, cell by cell."""
    if first == 'maps':
        return output
    A = output.new_zeros(len(output), output.shape[-1], *grid)
    for i in range(grid[0]):
        for j in range(grid[1]):
            A[:, :, i, j] = output[:, i, j] if first is None else output[:, first + i * grid[1] + j]
    return A


def test_the_layer_of_a_family_and_its_grad_cam_by_hand(family):
    net, images, grid, layer, first = family
    assert net.get_submodule(layer) is layers.last_feature_layer(net, images)
    kept = []

    def keep(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()

    handle = net.get_submodule(layer).register_forward_hook(keep)
    scores = net(images)
    handle.remove()
    [G] = torch.autograd.grad(scores[[0, 1], [1, 3]].sum(), kept)
    A, G = maps_by_hand(kept[0], grid, first), maps_by_hand(G, grid, first)
    want = (G.mean(dim=(2, 3), keepdim=True) * A).sum(dim=1).relu()
    found = attribution.explain('grad_cam', net, images, [1, 3])
    assert found.shape == (2, *grid) and G.abs().max() > 0
    torch.testing.assert_close(found, want.detach(), rtol=1e-4, atol=1e-4 * float(want.detach().abs().max()) + 1e-9)
    plain = classifiers.PlainClassifier(net, 5, PAPER, classifiers._feature_layer(net, images[:1])).eval()
    torch.testing.assert_close(attribution.explain('grad_cam', plain, images, [1, 3]), found)


def test_an_activation_that_is_put_back_changes_nothing(family):
    """Perturbation methods replace the layer's map; the class tokens stay."""
    net, images, *_ = family
    layer = layers.last_feature_layer(net, images)
    [A], scores = layers.capture(net, images, [layer])
    torch.testing.assert_close(layers.scores_with(net, images, layer, A), scores, rtol=1e-4, atol=1e-5)
    assert (layers.scores_with(net, images, layer, A * 0) - scores).abs().max() > 1e-5


def test_every_stage_of_a_channels_last_network_is_laid_out():
    net = timm.create_model('swin_tiny_patch4_window7_224', num_classes=5, img_size=112, **SWIN).eval()
    images = torch.randn(1, 3, 112, 112)
    for number, side in enumerate((28, 14, 7, 4)):
        maps = attribution.explain('layer_cam', net, images, 1, target_layer=f'layers.{number}')
        assert maps.shape == (1, side, side)


def test_what_has_no_map_is_refused():
    """Of an attention the heads, [B, heads, N, d] as a module gives them, and of a linear layer the scores."""
    net = timm.create_model('vit_tiny_patch16_224', num_classes=5, img_size=64, qk_norm=True, **VIT).eval()
    images = torch.randn(1, 3, 64, 64)
    net.blocks[0].attn.q_norm = nn.LayerNorm(16)
    for layer, shape in (('blocks.0.attn.q_norm', r'\[1, 2, 17, 16\]'), ('head', r'\[1, 5\]')):
        with pytest.raises(UserError, match=f'outputs {shape} .*: name a feature layer .*grid=.rows, columns'):
            attribution.explain('grad_cam', net, images, target_layer=layer)
    odd = attribution.Classifier(net, tokens='blocks.1.norm1')
    with pytest.raises(UserError, match='17 tokens do not form a grid .* 64x48 images: give Classifier grid='):
        odd._layout(17, (64, 48))


@pytest.mark.parametrize(
    'count, size, first, grid',
    [
        (197, (224, 224), None, (14, 14)),
        (261, (224, 224), 5, (16, 16)),
        (1 + 4 * 6, (64, 96), None, (4, 6)),
        (2 + 14 * 20, (224, 320), None, (14, 20)),
        (9, (28, 28), 5, (2, 2)),  # the largest square that fits is 3 x 3
        (4, (28, 28), 5, (2, 2)),  # before the class and register tokens have come
        (5 * 7, (70, 98), None, (5, 7)),
        (49, (224, 320), None, None),
        (512, (224, 224), None, None),  # channels
        (10, (28, 28), 5, None),
    ],
)
def test_the_grid_of_tokens(count, size, first, grid):
    assert layouts.token_grid(count, size, first) == grid


def test_convolutional_networks_keep_their_last_map():
    """A square of an adaptive pooling, also for images that are not; as many channels as rows; flattened maps."""
    flat = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Flatten(2), nn.Linear(64, 2), nn.Flatten(), nn.Linear(32, 5))
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 5))
    for net, size, layer in ((flat, (16, 16), 0), (pooled, (16, 32), 1)):
        images = torch.randn(1, 3, *size)
        assert layers.last_feature_layer(net.eval(), images) is net[layer]


def test_gradient_checkpointing_is_switched_off_meanwhile():
    """Its second forward pass, within the backward pass, would run without hooks and multipliers."""
    net = timm.create_model('vit_tiny_patch16_224', num_classes=5, img_size=64, **VIT).eval()
    images = torch.randn(1, 3, 64, 64)
    for name in ('grad_cam', 'deep_lift', 'taylor_cam'):
        net.set_grad_checkpointing(False)
        want = attribution.explain(name, net, images, 1)
        net.set_grad_checkpointing(True)
        torch.testing.assert_close(attribution.explain(name, net, images, 1), want)
        assert net.grad_checkpointing


@pytest.mark.parametrize('size', [(40, 300), (300, 40), (48, 320), (63, 97)])
def test_long_images_keep_the_last_map(size):
    """A height of 1.25 cells is rounded to 2: the layer is the same, not the last one whose type says what it gives."""
    strided = [nn.Sequential(nn.Conv2d(3, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()) for _ in range(5)]
    net = nn.Sequential(nn.Sequential(*strided), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)).eval()
    images = torch.randn(1, 3, *size)
    assert layers.last_feature_layer(net, images) is net[0]
    grid = [-(-side // 32) for side in size]
    assert attribution.explain('grad_cam', net, images, 1, target_layer='0').shape == (1, *grid)


def test_the_panel_of_a_loaded_transformer(monkeypatch, tmp_path):
    """By the command's own way: a file of weights of a ViT; its maps have the grid's size."""
    net = timm.create_model('test_vit', num_classes=4).eval()
    torch.save(net.state_dict(), tmp_path / 'vit.pth')
    model = classifiers.load_classifier(str(tmp_path / 'vit.pth'), 'timm/test_vit')
    size = model.image_size
    maps = attribution.explain('grad_cam', model, torch.randn(1, 3, size, size))
    assert maps.shape == (1, size // 16, size // 16) and model.feature_layer.startswith('net.model.')
    assert np.isfinite(maps.numpy()).all()
