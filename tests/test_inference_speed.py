"""Networks that learn no more, in mixed precision, channels-last, compiled: close to exact, and exact where nothing is
asked for."""

import copy

import pytest
import torch
from test_attribution import FEW, NOISY, classifier, network, photos

from engine import models
from wsol import attribution
from wsol.classifiers import PlainClassifier
from wsol.errors import UserError
from wsol.preprocessing import PAPER

pytestmark = pytest.mark.usefixtures('exact')
EXACT = models.Speed('off', False, False)
MAPS = [name for name in attribution.MAPS if name not in NOISY]


def in_form(net, device, **changes):
    return models.for_inference(copy.deepcopy(net).to(device), EXACT._replace(**changes))


def cosine(a, b):
    return torch.cosine_similarity(a.flatten().double().cpu(), b.flatten().double().cpu(), dim=0).item()


def test_nothing_asked_for_is_nothing_done():
    net = network('CALM-EM').train()
    before = dict(vars(net))
    assert models.for_inference(net, EXACT) is net and not net.training
    assert {key: value for key, value in vars(net).items() if key != 'training'} == {
        key: value for key, value in before.items() if key != 'training'
    }


def test_in_mixed_precision_the_backbone_alone_is(device):
    seen = []
    net = in_form(network('CALM-EM'), device, amp='bf16', channels_last=True)
    net.conv2.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.no_grad():
        output = net(photos(2).to(device))
    assert seen == [torch.bfloat16] and output.f.dtype == output.h.dtype == output.probs.dtype == torch.float32
    assert next(net.parameters()).dtype == torch.float32
    assert net.conv2.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('name', MAPS)
def test_maps_in_mixed_precision_and_channels_last(name, device):
    net = network('CALM-EM')
    images = photos(2)
    expected = attribution.explain(name, net, images, [1, 3], **FEW)
    found = attribution.explain(name, in_form(net, device, channels_last=True), images, [1, 3], **FEW)
    assert (found.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max()
    rough = attribution.explain(name, in_form(net, device, amp='bf16'), images, [1, 3], **FEW)
    assert rough.dtype == torch.float32 and rough.isfinite().all()
    assert cosine(rough, expected) > 0.97


def test_a_classifier_in_mixed_precision(device):
    plain = PlainClassifier(classifier(), 5, PAPER)
    images = photos(2)
    exact = plain(images).log_score
    found = in_form(plain, device, amp='bf16')(images.to(device)).log_score
    assert found.dtype == torch.float32 and 0 < (found.cpu() - exact).abs().max() < 0.05 * exact.abs().max()
    with pytest.raises(UserError, match='--compile is for networks of this project'):
        in_form(plain, device, compile=True)


def test_a_compiled_network_lets_hooks_look_into_it(device, monkeypatch):
    """What torch.compile makes is called for plain passes; hooks see a network that runs as it is written."""
    calls = []
    original = torch.compile

    def traced(function, options):
        assert options == {'freezing': True}
        compiled = original(function, backend='eager')  # no compiler of C++ is needed

        def counted(images):
            calls.append(len(images))
            return compiled(images)

        return counted

    monkeypatch.setattr(torch, 'compile', traced)
    net = network('CALM-EM')
    fast = in_form(net, device, compile=True)
    images = photos(2)
    for name in ('jointll', 'input_grad', 'grad_cam', 'score_cam', 'ablation_cam', 'guided_backprop', 'taylor_cam'):
        expected = attribution.explain(name, net, images, [1, 3], **FEW)
        found = attribution.explain(name, fast, images, [1, 3], **FEW)
        assert (found.cpu() - expected).abs().max() <= 1e-4 * expected.abs().max(), name
    assert calls
