"""LFI-CAM: the equations in NumPy, limit cases by hand, every backbone's shapes and rates, checkpoints, and its
explanations."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import wsol
from wsol import attribution, lfi_cam
from wsol.attribution import Options, explain, layers, perturbation
from wsol.network import Network


def convolution(x, weight):
    """3x3 convolution with padding 1, as nine shifted products: [B, L, H, W], [O, L, 3, 3] -> [B, O, H, W]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    return sum(
        np.einsum('blhw,ol->bohw', padded[:, :, i : i + h, j : j + w], weight[:, :, i, j], optimize=True)
        for i in range(3)
        for j in range(3)
    )


def batch_norm(x, state, name):
    weight, bias, mean, var = (
        state[f'{name}.{key}'][:, None, None] for key in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return (x - mean) / np.sqrt(var + 1e-5) * weight + bias


def shrunk(grey, size):
    """One image [h, w] resized to [H, W]: the value between its four neighbours at the pixels' centres."""
    result = np.zeros(size)
    for i, j in np.ndindex(*size):
        y, x = (
            min(max((k + 0.5) * full / small - 0.5, 0), full - 1) for k, full, small in zip((i, j), grey.shape, size)
        )
        top = int(y)
        left = int(x)
        low = min(top + 1, grey.shape[0] - 1)
        right = min(left + 1, grey.shape[1] - 1)
        a = y - top
        b = x - left
        result[i, j] = (1 - a) * ((1 - b) * grey[top, left] + b * grey[top, right]) + a * (
            (1 - b) * grey[low, left] + b * grey[low, right]
        )
    return result


def slow_scaled(maps):
    result = np.zeros_like(maps)
    for index in np.ndindex(*maps.shape[:-2]):
        one = maps[index]
        result[index] = one != 0 if one.max() == one.min() else (one - one.min()) / (one.max() - one.min())
    return result


def slow_head(model, F, images):
    """(f, M) of the gated head in NumPy and eval mode, from F [B, L, H, W] and images [B, 3, h, w], by the
    definitions."""
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    image = np.stack([shrunk(one.mean(axis=0), F.shape[2:]) for one in images])
    x = slow_scaled(F) * image[:, None]
    for conv, relu in ((0, False), (2, True), (5, False), (7, True)):
        x = batch_norm(convolution(x, state[f'importance.{conv}.weight']), state, f'importance.{conv + 1}')
        x = np.maximum(x, 0) if relu else x
    weights = np.exp(x.mean(axis=(2, 3)))
    weights /= weights.sum(axis=1, keepdims=True)
    M = np.maximum((weights[:, :, None, None] * F).sum(axis=1), 0)
    gated = F * (1 + slow_scaled(M))[:, None]
    f = (
        np.einsum('blhw,cl->bchw', gated, state['conv_last.weight'][:, :, 0, 0])
        + state['conv_last.bias'][:, None, None]
    )
    return f, M[:, None]


def network(channels=8, classes=5):
    """A small network in float64: 8 x 8 locations for 16 px, signed features, batch norms that have seen data."""
    parts = OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1),
        bn1=nn.BatchNorm2d(6),
        relu=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, channels, 3, padding=1),
    )
    net = Network(nn.Sequential(parts), channels, classes, 'LFI-CAM').double()
    net.conv_last.weight.data *= 5
    net.train()(torch.randn(8, 3, 16, 16).double())
    return net.eval()


def photos(n=3):
    return torch.randn(n, 3, 16, 16).double()


def test_equals_the_equations_in_numpy():
    net = network()
    x = photos()
    y = torch.tensor([0, 2, 4])
    with torch.no_grad():
        output = net(x)
        F = net.forward_features(x)
        F[0, 3] = 0  # channels without contrast: a mask of zeros, a mask of ones
        F[1, 2] = -0.5
        for features, output in ((net.forward_features(x), output), (F, net.forward_head(F, x))):  # noqa: B020
            f, M = slow_head(net, features.numpy(), x.numpy())
            assert (M > 0).any(axis=(1, 2, 3)).all()
            np.testing.assert_allclose(output.f.numpy(), f, rtol=1e-9)
            np.testing.assert_allclose(output.h.numpy(), M, rtol=1e-9, atol=1e-12)
            logits = f.mean(axis=(2, 3))
            p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            np.testing.assert_allclose(output.log_score.numpy(), logits, rtol=1e-9)
            np.testing.assert_allclose(output.probs.numpy(), p, rtol=1e-9)
            np.testing.assert_allclose(output.loss(y).numpy(), -np.log(p[range(3), y]), rtol=1e-9)
    f, M = slow_head(net, net.forward_features(x).detach().numpy(), x.numpy())
    np.testing.assert_allclose(explain('vanilla', net, x, y).numpy(), f[range(3), y], rtol=1e-9)
    np.testing.assert_allclose(
        explain('saliency', net, x, y).numpy(), (M / M.sum(axis=(2, 3), keepdims=True))[:, 0], rtol=1e-9, atol=1e-12
    )


def test_limit_cases():
    F = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]], [[4.0, 2.0], [1.0, 0.0]]]])
    assert torch.equal(lfi_cam.scaled(F[0, 0]), torch.tensor([[0, 0.25], [0.5, 1]]))
    assert torch.equal(
        lfi_cam.scaled(torch.tensor([[[3.0, 3.0]], [[0.0, 0.0]], [[-2.0, -2.0]]])),
        torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]]),
    )
    assert torch.equal(lfi_cam.masked_images(F, torch.full((1, 3, 8, 8), 2.0)), 2 * lfi_cam.scaled(F))
    alike = lfi_cam.importance(torch.zeros(1, 2, 2, 2))
    assert torch.equal(alike, torch.full((1, 2), 0.5))
    assert torch.equal(lfi_cam.attention_map(F, alike), torch.tensor([[[[2.0, 1.5], [1.5, 2.0]]]]))
    one = lfi_cam.attention_map(F, torch.tensor([[1.0, 0.0]]))
    assert torch.equal(one, F[:, :1]) and torch.equal(lfi_cam.gated(F, one), F * (1 + F[:, :1] / 4))
    below = lfi_cam.attention_map(-F, alike)  # no attention anywhere: the gate is open and this is CAM
    assert torch.equal(below, torch.zeros(1, 1, 2, 2)) and torch.equal(lfi_cam.gated(-F, below), -F)


def test_training_reaches_the_importance_network():
    net = network().float().train()
    x = torch.randn(6, 3, 16, 16)
    y = torch.arange(6) % 5
    optimizer = torch.optim.SGD(wsol.parameter_groups(net, 'vgg_tiny', 0.005, 3), momentum=0.9)
    losses = []
    start = net.importance[0].weight.detach().clone()
    for _ in range(25):
        loss = net(x).loss(y).mean()
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.grad.abs().max() > 0 for p in net.importance.parameters() if p.ndim == 4)
    assert not torch.allclose(net.importance[0].weight, start, atol=1e-5)
    assert all(p.grad is None for p in net.attention.parameters())  # it exists in every network; CALM's alone use it


@pytest.mark.parametrize('large, side', [(False, 14), (True, 28)])
@pytest.mark.parametrize('architecture', wsol.ARCHITECTURES)
def test_every_backbone_has_both_map_sizes_and_learns_the_importance_fast(architecture, large, side):
    """Shapes without computing anything (device meta)."""
    with torch.device('meta'):
        model = Network(*wsol.BACKBONES[architecture].backbone(architecture, large, True)[:2], 5, 'LFI-CAM').eval()
        output = model(torch.zeros(2, 3, 224, 224))
    assert (
        output.f.shape == (2, 5, side, side) and output.h.shape == (2, 1, side, side) and output.probs.shape == (2, 5)
    )
    own = {id(p) for p in model.importance.parameters()}
    for whole in (False, True):
        slow, fast = wsol.parameter_groups(model, architecture, 0.01, 10, whole)
        assert not own & {id(p) for p in slow['params']} and own <= {id(p) for p in fast['params']}


def test_keys_and_initialization():
    cam, lfi = (wsol.build_model('vgg_tiny', method, 3) for method in ('CAM', 'LFI-CAM'))
    extra = lfi.state_dict().keys() - cam.state_dict().keys()
    norms = {
        f'importance.{i}.{key}'
        for i in (1, 3, 6, 8)
        for key in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    }
    assert (
        extra == {f'importance.{i}.weight' for i in (0, 2, 5, 7)} | norms
        and cam.state_dict().keys() < lfi.state_dict().keys()
    )
    shapes = {i: tuple(lfi.importance[i].weight.shape) for i in (0, 2, 5, 7)}
    assert shapes == {
        0: (128, 128, 3, 3),
        2: (64, 128, 3, 3),
        5: (128, 64, 3, 3),
        7: (128, 128, 3, 3),
    }  # the authors' widths
    assert [m.out_channels for m in lfi_cam.importance_network(2048) if isinstance(m, nn.Conv2d)] == [
        256,
        128,
        256,
        2048,
    ]
    assert float(lfi.importance[0].weight.detach().std()) == pytest.approx(
        (2 / (128 * 9)) ** 0.5, rel=0.02
    )  # He, as VGG's heads


def test_pretrained_networks_initialize_it_as_the_other_heads(monkeypatch):
    import torchvision

    state = torchvision.models.resnet18(weights=None).state_dict()
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', lambda *_, **__: dict(state))
    model = wsol.build_model('resnet18', 'LFI-CAM', 3, pretrained=True)
    bound = (6 / (9 * (512 + 256))) ** 0.5  # Xavier, uniform
    assert bound * 0.99 < float(model.importance[0].weight.detach().abs().max()) <= bound
    assert torch.equal(model.state_dict()['conv1.weight'], state['conv1.weight'])


def test_from_a_cam_checkpoint_and_back():
    cam, lfi = (wsol.build_model('vgg_tiny', method, 3) for method in ('CAM', 'LFI-CAM'))
    own = lfi.importance[0].weight.clone()
    scores = lfi.conv_last.weight.clone()
    with pytest.raises(ValueError, match='missing 24 .importance'):
        wsol.load_weights(lfi, cam.state_dict())
    fresh = 'fresh: conv_last, importance (dropped because of is_different_checkpoint)'
    assert wsol.start_weights(lfi, cam.state_dict(), 'vgg_tiny', drop_conv_last=True) == [fresh]
    assert torch.equal(lfi.importance[0].weight, own) and torch.equal(lfi.conv_last.weight, scores)
    assert torch.equal(lfi.features[0].weight, cam.features[0].weight)
    nn.init.ones_(lfi.features[0].weight)
    wsol.start_weights(cam, lfi.state_dict(), 'vgg_tiny', drop_conv_last=True)
    assert torch.equal(cam.features[0].weight, torch.ones_like(cam.features[0].weight))


def test_ablation_reruns_the_head():
    """The closed form of a linear head does not hold here."""
    net = network()
    x = photos()
    y = torch.tensor([0, 2, 4])
    with torch.no_grad():
        A = net.forward_features(x)
        whole = torch.zeros(3, 8).double()
        for k in range(8):
            F = A.clone()
            F[:, k] = 0
            whole[:, k] = torch.tensor(slow_head(net, F.numpy(), x.numpy())[0].mean(axis=(2, 3))[range(3), y])
        got = perturbation.ablated_scores(net, x, net.conv2, A, y, Options(batch_size=7))
        torch.testing.assert_close(got, whole, rtol=1e-9, atol=1e-12)
        linear = perturbation.ablated_head_scores(net, A, y, Options(batch_size=7))
        assert (linear - whole).abs().max() > 0.01 * whole.abs().max()
        s = net(x).log_score.gather(1, y[:, None])
    expected = (((s - whole) / s.abs())[:, :, None, None] * A).sum(1).relu()
    torch.testing.assert_close(explain('ablation_cam', net, x, y, batch_size=5), expected)


def test_gradients_are_those_of_the_whole_head():
    """By finite differences of the NumPy head: at the features (Grad-CAM) and, through the grey image too, at the
    pixels."""
    net = network()
    x = photos(1)
    F = net.forward_features(x).detach()

    def score(F, x):
        return slow_head(net, F.numpy(), x.numpy())[0].mean(axis=(2, 3))[0, 1]

    A, G = layers.layer_gradients(net, x, [net.conv2], torch.tensor([1]))
    assert torch.equal(A[0], F)

    def slope(what, index, step):
        up = what.clone()
        down = what.clone()
        up[index] += 1e-5
        down[index] -= 1e-5
        return (step(up) - step(down)) / 2e-5

    for index in ((0, 0, 0, 0), (0, 3, 5, 2), (0, 7, 7, 7), (0, 4, 1, 6)):
        assert float(G[0][index]) == pytest.approx(slope(F, index, lambda moved: score(moved, x)), rel=1e-4, abs=1e-9)
    expected = (G[0].mean(dim=(2, 3), keepdim=True) * F).sum(1).relu().detach()
    torch.testing.assert_close(explain('grad_cam', net, x, 1), expected)

    def at(moved):
        return score(net.forward_features(moved).detach(), moved)

    pixel = explain('input_grad', net, x, 1)
    for i, j in ((0, 0), (7, 9)):
        strength = max(abs(slope(x, (0, c, i, j), at)) for c in range(3))
        assert float(pixel[0, i, j]) == pytest.approx(strength, rel=1e-4)


@pytest.mark.parametrize('name', ['vanilla', 'saliency', 'input_grad', 'grad_cam', 'ablation_cam', 'score_cam'])
def test_explains_in_bf16_and_float32(name):
    net = network()
    x = photos()
    maps = explain(name, net, x, 1)
    assert maps.dtype == torch.float64 and maps.abs().max() > 0
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.25)):  # one after the other: the weights are cut
        got = explain(name, net.to(dtype), x.to(dtype), 1)
        assert got.dtype == dtype and (got.double() - maps).abs().max() <= tolerance * maps.abs().max()


def test_every_readout_and_method_knows_it():
    net = network()
    x = photos(2)
    names = [name for name in attribution.MAPS if name not in attribution.SUPERCLASS_READOUTS]
    for name in names:
        few = {'smooth_grad_nr_iter': 2, 'integrated_grad_nr_iter': 2, 'num_samples': 1, 'rise_nr_masks': 2}
        maps = explain(name, net, x, **few)
        assert maps.shape[0] == 2 and torch.isfinite(maps).all(), name
    assert len(names) >= 18
