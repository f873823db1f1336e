"""Networks that learn no more, in mixed precision, channels-last, compiled: close to exact, and exact where nothing is
asked for."""

import copy

import numpy as np
import pytest
import torch
from test_attribution import FEW, NOISY, classifier, network, photos

from engine import comparing, models
from engine.map_maker import MapMaker
from wsol import attribution
from wsol.classifiers import PlainClassifier
from wsol.errors import UserError
from wsol.preprocessing import PAPER
from wsol.scoring import regions, sanity, scores

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

        def counted(model, images):
            calls.append(len(images))
            return compiled(model, images)

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


@pytest.fixture
def without_a_compiler(monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda function, options: original(function, backend='eager'))


FORMS = {'channels_last': True}, {'compile': True}, {'amp': 'bf16'}


@pytest.mark.parametrize('form', FORMS, ids=lambda form: next(iter(form)))
@pytest.mark.parametrize('method', ['CALM-EM', 'LFI-CAM'])
def test_a_copy_runs_its_own_weights(form, method, without_a_compiler):
    """Randomized networks are copies: what they say is what a plain network of their weights says."""
    net = network(method)
    fast = in_form(net, 'cpu', **form)
    images = photos(2)
    with torch.no_grad():
        fast(images)  # compiled for its own weights first
        for other in sanity.randomized(fast, images[:1], 3, seed=5):
            plain = network(method)
            plain.load_state_dict(other.state_dict())
            expected = plain(images).f
            assert (other(images).f - expected).abs().max() <= 0.03 * expected.abs().max()
            assert (net(images).f - expected).abs().max() > 0.3 * expected.abs().max()
            near = attribution.explain('grad_cam', other, images, 1, target_layer='conv2')
            assert cosine(near, attribution.explain('grad_cam', plain, images, 1, target_layer='conv2')) > 0.99


def every_score(model, images, name):
    """{score: figure} of --metrics=all for the map `name`, by true boxes and by masks, as eval_attribution.py has
    them."""
    region = np.zeros((16, 16), bool)
    region[4:10, 3:12] = True
    truths = [regions.Truth(np.array([[3, 4, 11, 9]]), region, None)] * len(images)
    masks = [regions.Truth(None, region, np.zeros_like(region))] * len(images)
    maker = MapMaker(model, name, attribution.Options(batch_size=4))
    labels = torch.arange(len(images))
    found = {}
    for kind, given in (('box', truths), ('mask', masks)):
        chosen = [one for one, row in scores.METRICS.items() if row.truth in (None, 'any', kind)]
        settings = scores.Settings(chosen, 4, 0.2, 50, 2, 1, [30, 50, 70], 0.1, 4, infidelity_draws=6)
        batch = comparing.predict(model, images, labels, list(range(len(images))), given)
        randomized = comparing.random_networks(model, settings, images.shape[-1], maker.seed)
        part = comparing.score_map(model, name, maker, settings, batch, randomized)
        shared = comparing.score_images(model, settings, batch, 0)
        totals = {key: np.asarray(value) for key, value in {**shared.totals, **part.totals}.items()}
        [figures] = comparing.map_figures(totals, [name], settings, {name: np.zeros(1)}).values()
        found.update({key: value for key, value in figures.items() if not key.endswith(('seconds', 'passes'))})
    assert {*scores.METRICS} <= {*found}
    return found


@pytest.mark.parametrize('form', FORMS[:2], ids=lambda form: next(iter(form)))
@pytest.mark.parametrize('name', ['jointll', 'input_grad', 'layer_cam'])
@pytest.mark.slow
def test_every_score_is_equal_in_every_layout(form, name, without_a_compiler):
    """In float64: maps are rounded to float32 before pixels are ranked, so no rank depends on a layout's rounding."""
    net = network('CALM-EM').double()
    images = photos(3).double()
    expected = every_score(net, images, name)
    found = every_score(in_form(net, 'cpu', **form), images, name)
    assert expected['randomization'] < 0.95  # the copies differ from the network
    for key, value in expected.items():
        np.testing.assert_allclose(*np.array([found[key], value], float), rtol=1e-6, atol=1e-9, err_msg=key)


@pytest.mark.parametrize('name', ['jointll', 'grad_cam'])
@pytest.mark.slow
def test_randomized_networks_in_mixed_precision(name, without_a_compiler):
    """Rank correlations with random weights: near those in float32, where bf16 keeps 8 bits."""
    net = network('CALM-EM')
    images = photos(3)
    expected, found = (every_score(one, images, name) for one in (net, in_form(net, 'cpu', amp='bf16')))
    np.testing.assert_allclose(found['rank_correlation_curve'], expected['rank_correlation_curve'], atol=0.05)
    np.testing.assert_allclose(found['ssim_curve'], expected['ssim_curve'], atol=0.05)
