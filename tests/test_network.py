"""What the heads say of themselves, how weights begin, and what an output of the network can be asked for."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

import wsol
from wsol import backbones, calm, cam
from wsol.attribution import doubt, suited, unit_of
from wsol.network import HEADS, Network, Output, initialize_weights

FACTS = {  # head: (own map, attends, gated, linear, explained scalar)
    'CAM': ('vanilla', False, False, True, 'the logit'),
    'CALM-EM': ('jointll', True, False, False, 'log p(y|x)'),
    'CALM-ML': ('jointll', True, False, False, 'log p(y|x)'),
    'LFI-CAM': ('vanilla', False, True, False, 'the logit'),
}


@pytest.mark.parametrize('name', FACTS)
def test_the_facts_of_a_head(name):
    head = HEADS[name]
    assert (head.own_map, head.attends, head.gated, head.linear, head.scalar) == FACTS[name]
    assert unit_of('input_grad', name) == f'|gradient| of {FACTS[name][4]}'
    assert unit_of('saliency', name) == ('attention M' if name == 'LFI-CAM' else 'p(z | x)')
    left_out = {'vanilla', 'vanilla-saliency', 'jointll', 'gtcond', 'saliency'} - {*suited(name)}
    unsuited = {'CAM': {'jointll', 'gtcond', 'saliency'}, 'LFI-CAM': {'jointll', 'gtcond'}}
    assert left_out == unsuited.get(name, set())
    assert {one for one in left_out if doubt(one, name)} == left_out and not doubt(FACTS[name][0], name)
    sets = {one for one in suited(name, sets=True) if one.endswith(('-superclass', '-superclass-mean'))}
    assert sets == {'vanilla-superclass'} | (
        set() if left_out else {f'{one}-superclass{end}' for one in ('jointll', 'gtcond') for end in ('', '-mean')}
    )


@pytest.mark.parametrize(
    'name, prediction, loss, score',
    [
        ('CAM', cam.p_y_given_x, cam.loss, cam.log_score),
        ('LFI-CAM', cam.p_y_given_x, cam.loss, cam.log_score),
        ('CALM-EM', calm.p_y_given_x, calm.em_loss, calm.log_p_y_given_x),
        ('CALM-ML', calm.p_y_given_x, calm.ml_loss, calm.log_p_y_given_x),
    ],
)
def test_an_output_answers_by_its_head(name, prediction, loss, score):
    f = torch.randn(3, 4, 2, 2, dtype=torch.bfloat16)
    h = torch.rand(3, 1, 2, 2, dtype=torch.bfloat16)
    y = torch.tensor([3, 0, 1])
    output = Output(f, h, HEADS[name]).float()
    f = f.float()
    h = h.float()
    found = output.probs, output.loss(y), output.log_score
    for one, want in zip(found, (prediction(f, h), loss(f, h, y), score(f, h))):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, want)
    for b in range(3):
        torch.testing.assert_close(output.image(b).probs, output.probs[b : b + 1])
        torch.testing.assert_close(output.image(b).loss(y[b : b + 1]), output.loss(y)[b : b + 1])


def test_f_and_h_are_the_two_convolutions_the_second_one_cut_at_zero():
    net = Network(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 6, 3))), 6, 4, 'CALM-ML')
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        F = net.conv(x)
        output = net(x)
        torch.testing.assert_close(output.f, net.conv_last(F))
        torch.testing.assert_close(output.h, net.attention[0](F).clamp(min=0))
    assert (output.h == 0).any() and (output.h > 0).any()
    assert net.feature_names == ['conv'] and net.conv_last.weight.shape == (4, 6, 1, 1)
    assert net.attention[0].weight.shape == (1, 6, 1, 1) and net.num_classes == 4


def test_how_weights_begin():
    """He: normal of variance 2 over the outputs of a kernel; Xavier: uniform within sqrt(6 / (in + out)); no bias."""
    torch.manual_seed(0)
    for mode in ('he', 'xavier'):
        conv = nn.Conv2d(20, 80, 3)
        norm = nn.BatchNorm2d(3)
        nn.init.constant_(norm.weight, 5)
        nn.init.constant_(norm.bias, 5)
        initialize_weights([conv, nn.Conv2d(3, 3, 1, bias=False), norm, nn.ReLU()], mode)
        weight = conv.weight.detach()
        if mode == 'he':
            assert weight.std().item() == pytest.approx(math.sqrt(2 / (80 * 9)), rel=0.03)
        else:
            bound = math.sqrt(6 / (20 * 9 + 80 * 9))
            assert 0.99 * bound < weight.abs().max() <= bound
        assert conv.bias.eq(0).all() and norm.weight.eq(1).all() and norm.bias.eq(0).all()


@pytest.mark.parametrize(
    'architecture, init, fresh',
    [
        ('vgg16', 'he', ['conv6']),
        ('resnet18', 'xavier', []),
        ('resnet50', 'xavier', []),
        ('inception_v3', 'xavier', ['A3_1b', 'A3_2b']),
        ('vgg_tiny', 'he', []),
    ],
)
def test_what_has_no_pretrained_weights_and_how_it_begins(architecture, init, fresh):
    module = backbones.BACKBONES[architecture]
    assert module.INIT == init and module is backbones.backbone_module(architecture)
    with torch.device('meta'):
        backbone, channels, parts = module.backbone(architecture, use_bn=True)
    names = {id(child): name for name, child in backbone.named_children()}
    assert [names[id(part)] for part in parts] == fresh
    assert channels == {'resnet18': 512, 'resnet50': 2048, 'vgg_tiny': 128}.get(architecture, 1024)


def test_pretrained_networks_keep_their_weights_and_begin_the_rest(monkeypatch):
    """Which modules are initialised: the heads and what the backbone calls fresh, or everything without weights."""
    seen = []
    monkeypatch.setattr(wsol, 'initialize_weights', lambda modules, mode: seen.append(({*map(id, modules)}, mode)))
    monkeypatch.setattr(wsol, 'pretrained_weights', lambda architecture, use_bn: None)
    for pretrained in (False, True):
        model = wsol.build_model('vgg_tiny', 'LFI-CAM', 3, pretrained=pretrained)
        initialised, mode = seen.pop()
        heads = [model.conv_last, model.attention, model.importance]
        wanted = [model] if not pretrained else heads
        assert initialised == {id(module) for root in wanted for module in root.modules()} and mode == 'he'
