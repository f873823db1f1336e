"""The networks: released figures, frozen keys and map sizes, float64 forward, training groups, pretrained weights."""

import doctest
import os
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from conftest import GOLDEN
from munch import Munch
from test_lfi_cam import slow_head
from weights import fill

import wsol
from wsol import attribution, backbones

METHODS = ('CAM', 'CALM-EM', 'CALM-ML')
HEADS = ['attention.0.bias', 'attention.0.weight', 'conv_last.bias', 'conv_last.weight']
SUPERCLASS = {3: [3, 4, 5], 0: [0, 1], 7: [7, 8, 9, 2]}


def relative(got, want):
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize('large', [0, 1])
@pytest.mark.slow
def test_resnet50_equals_the_released_code(large, monkeypatch):
    """forward.npz: probabilities, losses of every class, all maps; of 14x14 locations train loss and gradient norms.

    The heads share one forward pass, and below layer4.2 one backward pass: what they do to the features is their own.
    """
    golden = np.load(os.path.join(GOLDEN, 'forward.npz'))
    models = {name: wsol.build_model('resnet50', name, 10, large_feature_map=bool(large)) for name in METHODS}
    shared = models['CALM-EM']
    state = fill(shared.state_dict(), seed=1)
    x = torch.from_numpy(np.random.default_rng(5).normal(0, 1, (3, 3, 224, 224)).astype(np.float32))
    y = torch.tensor([3, 0, 7])
    for model in models.values():
        wsol.load_weights(model.eval(), state)
    with torch.no_grad():
        F = shared.forward_features(x)
    for method, model in models.items():
        prefix = f'resnet50/large={large}/{method}/'
        with monkeypatch.context() as patch, torch.no_grad():
            patch.setattr(model, 'forward_features', lambda _: F)
            output = model(x)
            losses = torch.stack([output.loss(torch.full((3,), c)) for c in range(10)], dim=1)
        assert relative(output.probs.numpy(), golden[prefix + 'probs']) < 2e-5
        assert relative(-losses.numpy(), golden[prefix + 'loss_input']) < 2e-5
        names = [key.rsplit('/', 1)[1] for key in golden.files if key.startswith(prefix + 'map/')]
        assert len(names) == (2 if method == 'CAM' else 9)
        for name in names:
            maps = attribution.class_maps(attribution.MAPS[name].readout, output, y[:, None], SUPERCLASS)[:, 0]
            assert relative(maps.numpy(), golden[f'{prefix}map/{name}']) < 2e-5, name
    if large:  # another stride, which the forward figures see; the gradients of 28x28 locations take half a minute
        return
    # in float64: float32 sums over a network's depth depend on the machine's threads by as much as 6e-4
    F = shared.double().train().forward_features(x.double())
    for method, model in models.items():
        prefix = f'resnet50/large={large}/{method}/'
        with monkeypatch.context() as patch:
            patch.setattr(model, 'forward_features', lambda _: F)
            loss = model.double().train()(x.double()).loss(y).mean()
        assert loss.item() == pytest.approx(float(golden[prefix + 'train_loss']), rel=1e-5)
        norms = {key.rsplit('/', 1)[1]: key for key in golden.files if key.startswith(prefix + 'grad_norm/')}
        assert len(norms) >= 7
        own = {name for name in norms if name in HEADS or name == 'layer4.2.conv3.weight'}
        assert len(own) == (3 if method == 'CAM' else 5)
        names = [*norms] if model is shared else [*own]
        parameters = {**dict(shared.named_parameters()), **{n: p for n, p in model.named_parameters() if n in HEADS}}
        gradients = torch.autograd.grad(loss, [parameters[name] for name in names], retain_graph=True)
        for name, gradient in zip(names, gradients):
            expected = pytest.approx(float(golden[norms[name]]), rel=5e-4)  # 4e-4: the stored norms' own rounding
            assert gradient.norm().item() == expected, (method, name)


@pytest.fixture
def meta():
    """Networks without the numbers: their names and shapes alone."""
    with torch.device('meta'):
        yield


def torchvision_keys(name, drop):
    return {key for key in getattr(torchvision.models, name)(weights=None).state_dict() if not key.startswith(drop)}


def test_state_dict_keys_are_torchvisions_and_the_heads(meta):
    for name in ('resnet18', 'resnet50'):
        assert set(wsol.build_model(name, 'CAM', 3).state_dict()) == torchvision_keys(name, 'fc') | set(HEADS)
    tail = {f'A3_{i}b.{layer}' for i in (1, 2) for layer in ('0.weight', '0.bias')}
    inception = torchvision_keys('inception_v3', ('fc', 'AuxLogits', 'Mixed_7'))
    assert set(wsol.build_model('inception_v3', 'CAM', 3).state_dict()) == inception | tail | set(HEADS)
    bn = {
        f'A3_{i}b.1.{entry}'
        for i in (1, 2)
        for entry in ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
    }
    assert set(wsol.build_model('inception_v3', 'CAM', 3, use_bn=True).state_dict()) == inception | tail | bn | set(
        HEADS
    )


def test_vgg_keys_are_numbered_without_the_dropped_pools(meta):
    def convolutions(**kind):
        state = wsol.build_model('vgg16', 'CAM', 3, **kind).state_dict()
        assert {key for key in state if not key.startswith('features.')} - {
            k for k in state if k.startswith('bn6.')
        } == {'conv6.weight', 'conv6.bias', *HEADS}
        return [
            int(key.split('.')[1]) for key, value in state.items() if key.startswith('features.') and value.dim() == 4
        ]

    assert convolutions() == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert convolutions(large_feature_map=True) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27]
    assert convolutions(use_bn=True) == [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]


@pytest.mark.parametrize('architecture', wsol.ARCHITECTURES)
@pytest.mark.parametrize('use_bn', [False, True])
def test_maps_have_14_or_28_locations_at_224(architecture, use_bn, meta):
    for large, side in ((False, 14), (True, 28)):
        with torch.no_grad():
            model = wsol.build_model(architecture, 'CALM-EM', 3, large, use_bn).eval()
            assert model(torch.zeros(1, 3, 224, 224)).f.shape == (1, 3, side, side)


def independent_probs(model, x):
    """p(y|x) in float64 NumPy from the backbone's features and the heads' weights, by the definitions."""
    F = model.forward_features(x).numpy()
    state = {key: value.numpy() for key, value in model.state_dict().items() if key in HEADS}
    f = np.einsum('blhw,cl->bchw', F, state['conv_last.weight'][:, :, 0, 0]) + state['conv_last.bias'][:, None, None]
    h = np.maximum(np.einsum('blhw,l->bhw', F, state['attention.0.weight'][0, :, 0, 0]) + state['attention.0.bias'], 0)

    def softmax(values):
        return np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)

    if model.attribution_method == 'LFI-CAM':
        f, _ = slow_head(model, F, x.numpy())
    if model.attribution_method in ('CAM', 'LFI-CAM'):
        return softmax(f.mean(axis=(2, 3)))
    p_z = h / h.sum(axis=(1, 2), keepdims=True)
    return (softmax(f) * p_z[:, None]).sum(axis=(2, 3))


PAIRS = [('vgg_tiny', method) for method in wsol.ATTRIBUTION_METHODS]  # a head sees the number of channels alone
LARGE_PAIRS = [('resnet18', 'LFI-CAM'), ('resnet50', 'CALM-EM'), ('vgg16', 'CALM-ML'), ('inception_v3', 'CAM')]
PAIRS += [pytest.param(*pair, marks=pytest.mark.slow) for pair in LARGE_PAIRS]


def test_every_architecture_is_in_a_pair():
    assert {architecture for architecture, _ in LARGE_PAIRS} == {*wsol.ARCHITECTURES} - {'vgg_tiny'}


@pytest.mark.parametrize('architecture, method', PAIRS)
def test_every_architecture_and_method_predicts_trains_and_reloads(architecture, method):
    model = wsol.build_model(architecture, method, 5, large_feature_map=True, use_bn=True)
    x = torch.randn(4, 3, 64, 64)
    y = torch.tensor([0, 1, 2, 3])
    double = wsol.build_model(architecture, method, 5, large_feature_map=True, use_bn=True).double().eval()
    wsol.load_weights(double, model.state_dict())
    with torch.no_grad():
        exact = double(x.double()).probs.numpy()
        np.testing.assert_allclose(exact, independent_probs(double, x.double()), rtol=1e-9)
        np.testing.assert_allclose(model.eval()(x).probs.numpy(), exact, rtol=1e-3, atol=1e-5)
    optimizer = torch.optim.SGD(wsol.parameter_groups(model, architecture, 1e-5, 2))
    losses = []
    for _ in range(4):
        loss = model.train()(x).loss(y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.isfinite(losses).all() and min(losses[1:]) < losses[0]
    again = wsol.build_model(architecture, method, 5, large_feature_map=True, use_bn=True)
    wsol.load_weights(again, {f'module.{key}': value for key, value in model.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(again.eval()(x).probs, model.eval()(x).probs)


@pytest.mark.parametrize(
    'architecture, whole, fast',
    [
        (
            'resnet50',
            False,
            {
                'bn1.weight',
                'bn1.bias',
                'layer4.N.conv2.weight',
                'layer4.N.conv3.weight',
                'layer4.N.bn1.weight',
                'layer4.N.bn1.bias',
                'layer4.N.bn2.weight',
                'layer4.N.bn2.bias',
                'layer4.N.bn3.weight',
                'layer4.N.bn3.bias',
                'layer4.N.downsample.N.weight',
                'layer4.N.downsample.N.bias',
                *HEADS,
            },
        ),
        ('resnet50', True, set(HEADS)),
        ('vgg16', False, {'conv6.weight', 'conv6.bias', 'bn6.weight', 'bn6.bias', *HEADS}),
        ('vgg16', True, set(HEADS)),
        ('inception_v3', False, {f'A3_{i}b.N.{kind}' for i in (1, 2) for kind in ('weight', 'bias')} | set(HEADS)),
        # SPG_A3, the pattern the released code adds here, names no parameter
        ('inception_v3', True, {f'A3_{i}b.N.{kind}' for i in (1, 2) for kind in ('weight', 'bias')} | set(HEADS)),
    ],
)
def test_parameter_groups_are_the_released_ones(architecture, whole, fast, meta):
    """The x10 group by name, running numbers as N. ResNet: conv1 also matches inside layer4: it stays slow there."""
    model = wsol.build_model(architecture, 'CALM-EM', 3, use_bn=True)
    slow_group, fast_group = wsol.parameter_groups(model, architecture, 0.01, 10, whole)
    names = {id(p): name for name, p in model.named_parameters()}

    def generic(name):
        parts = name.split('.')
        return '.'.join('N' if part.isdigit() and not name.startswith('attention') else part for part in parts)

    assert {generic(names[id(p)]) for p in fast_group['params']} == fast
    assert len(slow_group['params']) + len(fast_group['params']) == len(names)
    assert (slow_group['lr'], fast_group['lr']) == (0.01, 0.1)


def test_the_example_of_build_model_runs_as_printed():
    (example,) = doctest.DocTestFinder(recurse=False).find(wsol.build_model, globs={})
    result = doctest.DocTestRunner().run(example)
    assert result.attempted == 5 and not result.failed


def test_every_backbone_defines_the_four_names():
    for module in (*backbones.BACKBONES.values(), backbones.timm):
        assert callable(module.backbone) and module.INIT in ('xavier', 'he')
        for patterns in (module.SMALL_LR_PATTERNS, module.BACKBONE_PATTERNS):
            assert isinstance(patterns, tuple) and all(isinstance(pattern, str) for pattern in patterns)


def test_pretrained_weights_are_torchvisions_first_and_refused_where_there_are_none():
    published = torchvision.models
    assert backbones.pretrained_weights('resnet50') is published.ResNet50_Weights.IMAGENET1K_V1
    assert backbones.pretrained_weights('resnet18', True) is published.ResNet18_Weights.IMAGENET1K_V1
    assert backbones.pretrained_weights('inception_v3', True) is published.Inception_V3_Weights.IMAGENET1K_V1
    assert backbones.pretrained_weights('vgg16') is published.VGG16_Weights.IMAGENET1K_V1
    assert backbones.pretrained_weights('vgg16', True) is published.VGG16_BN_Weights.IMAGENET1K_V1
    assert backbones.pretrained_weights('timm/test_vit') is True
    with pytest.raises(ValueError, match='vgg_tiny has no pretrained weights: give pretrained=False'):
        wsol.build_model('vgg_tiny', 'CAM', 3, pretrained=True)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match='resnet50'):
        wsol.build_model('resnet51', 'CAM', 3)
    with pytest.raises(ValueError, match='CALM-EM'):
        wsol.build_model('resnet18', 'CALM', 3)


def test_pretrained_without_a_network_names_the_way_out(monkeypatch):
    def refuse(*_, **__):
        raise URLError('no network')

    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', refuse)
    with pytest.raises(OSError, match='pretrained=False'):
        wsol.build_model('resnet18', 'CAM', 3, pretrained=True)


@pytest.mark.parametrize(
    'architecture, published, first',
    [
        ('resnet18', 'resnet18', 'conv1.weight'),
        pytest.param('vgg16', 'vgg16', 'features.0.weight', marks=pytest.mark.slow),
        ('inception_v3', 'inception_v3', 'Conv2d_1a_3x3.conv.weight'),
    ],
)
def test_pretrained_weights_reach_the_backbone(monkeypatch, architecture, published, first):
    options = {'init_weights': False} if architecture == 'inception_v3' else {}
    state = getattr(torchvision.models, published)(weights=None, **options).state_dict()
    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', lambda *_, **__: dict(state))
    model = wsol.build_model(architecture, 'CALM-EM', 3, large_feature_map=True, pretrained=True)
    assert torch.equal(model.state_dict()[first], state[first])
    last = {
        'vgg16': ('features.27.weight', 'features.28.weight'),
        'resnet18': ('layer4.1.conv2.weight',) * 2,
        'inception_v3': ('Mixed_6a.branch3x3.conv.weight',) * 2,
    }[architecture]
    assert torch.equal(model.state_dict()[last[0]], state[last[1]])


def test_weights_of_another_network_are_refused_by_name():
    model = wsol.build_model('resnet18', 'CAM', 3)
    with pytest.raises(ValueError, match=r'wrong shape 2 \(conv_last'):
        wsol.load_weights(model, wsol.build_model('resnet18', 'CAM', 4).state_dict())
    with pytest.raises(ValueError, match='missing'):
        wsol.load_weights(model, {'conv1.weight': torch.zeros(64, 3, 7, 7)})


def test_calm_from_a_cam_checkpoint_keeps_its_own_class_scores():
    cam, calm = (wsol.build_model('resnet18', method, 3) for method in ('CAM', 'CALM-EM'))
    own = calm.conv_last.weight.clone()
    wsol.start_weights(calm, cam.state_dict(), 'resnet18', drop_conv_last=True)
    assert torch.equal(calm.conv_last.weight, own) and torch.equal(
        calm.layer4[0].conv1.weight, cam.layer4[0].conv1.weight
    )
    assert torch.equal(calm.attention[0].weight, cam.attention[0].weight)


RELEASED_PATTERNS = {
    'vgg16': ['features.'],
    'resnet50': ['conv1', 'layer1', 'layer2', 'layer3'],
    'inception_v3': ['Mixed', 'Conv2d_1', 'Conv2d_2', 'Conv2d_3', 'Conv2d_4'],
}


@pytest.mark.parametrize('architecture', RELEASED_PATTERNS)
@pytest.mark.parametrize('different', [False, True])
def test_one_optimizer_step_equals_the_recipe_written_out(architecture, different):
    """The first Nesterov step is p - lr (1 + m) (g + w p): v = g + w p, and PyTorch's buffer starts as v."""
    from engine.training import make_optimizer

    args = Munch(
        architecture=architecture,
        lr=0.01,
        lr_classifier_ratio=10,
        momentum=0.9,
        weight_decay=1e-4,
        is_different_checkpoint=different,
    )
    with torch.device('meta'):
        model = wsol.build_model(architecture, 'CALM-ML', 3, use_bn=True)
    before = {}
    gradients = {}
    for name, large in dict(model.named_parameters()).items():  # two numbers an axis: the recipe goes by the name
        owner, _, leaf = name.rpartition('.')
        parameter = torch.nn.Parameter(torch.randn([2] * large.dim()))
        setattr(model.get_submodule(owner), leaf, parameter)
        parameter.grad = torch.randn_like(parameter)
        before[name] = parameter.detach().clone()
        gradients[name] = parameter.grad.clone()
    make_optimizer(args, model, torch.device('cpu')).step()
    for name, parameter in model.named_parameters():
        head = name.startswith(('conv_last', 'attention'))
        if different:
            slow = not head and not name.startswith('A3_')  # Inception's SPG_A3 names nothing in the released code
        else:
            slow = any(pattern in name for pattern in RELEASED_PATTERNS[architecture])
        step = (0.01 if slow else 0.1) * 1.9 * (gradients[name] + 1e-4 * before[name])
        torch.testing.assert_close(parameter.detach(), before[name] - step, rtol=1e-4, atol=1e-6, msg=name)
