"""What a map costs: the passes that are counted are those that the documentation promises for each method."""

import re

import pytest
import torch
from test_attribution import FEW, classifier, one_thread, photos, seeded  # noqa: F401 (two are fixtures)

from engine.costs import COSTS, Meter
from wsol import attribution
from wsol.attribution import masking, perturbation

# For an image of 16 x 16 pixels, FEW draws and the layer `last` of 8 channels.
NUMBERS = {'L': 8, 'G': 4, 'W': len(masking.windows((16, 16), 8))}
DRAWS = {'smooth_grad_cam_pp': 2, 'ss_cam': 2, 'is_cam': 2, 'gradient_shap': 2}  # the others take 3


def number(cost, name):
    """A cost of a row, such as '1 + n L', in numbers."""
    values = {**NUMBERS, 'n': DRAWS.get(name, 3)}
    terms = [re.findall(r'\w+', term) for term in cost.split('+')]
    return sum(torch.tensor([values.get(word) or int(word) for word in term]).prod().item() for term in terms)


@pytest.mark.parametrize('name', [name for name, row in attribution.MAPS.items() if row.kind != 'readout'])
def test_a_map_costs_what_the_documentation_says(monkeypatch, name):
    monkeypatch.setattr(perturbation, 'GROUPS', NUMBERS['G'])
    net = classifier()
    meter = Meter(net)
    with meter.running():
        attribution.explain(name, net, photos(2), [1, 3], target_layer='last', occlusion_window=8, **FEW)
    assert meter.spent['forward_passes'] / 2 == number(attribution.MAPS[name].forward, name)
    assert meter.spent['backward_passes'] / 2 == number(attribution.MAPS[name].backward, name)
    assert meter.spent['seconds'] > 0 and tuple(meter.spent) == COSTS


def test_every_map_is_told_about():
    for name, row in attribution.MAPS.items():
        assert row.idea and row.source, name
        if row.kind == 'readout':
            assert (row.forward, row.backward) == ('1', '0')
        assert ('gradients' in row.needs) == (row.backward != '0'), name


def test_a_meter_leaves_nothing_behind_and_goes_on_counting():
    net = classifier()
    meter = Meter(net)
    grad = torch.autograd.grad
    with pytest.raises(ZeroDivisionError), meter.running():
        net(photos(2))
        raise ZeroDivisionError
    assert torch.autograd.grad is grad and not net._forward_pre_hooks
    net(photos(2))
    with meter.running():
        net(photos(3))
    assert meter.spent['forward_passes'] == 5 and meter.spent['backward_passes'] == 0


@pytest.mark.slow
def test_measuring_a_forward_pass_compiles_nothing_anew():
    """A network that is compiled runs as it is, measured or not; torch.autograd.grad stays itself meanwhile."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    net = classifier()
    grad = torch.autograd.grad
    whole = torch.nn.Sequential(net)
    net.forward = torch.compile(net.forward, backend=backend)
    meter = Meter(whole)
    with torch.no_grad():
        whole(photos(2))
        before = len(compiled)
        with meter.running():
            whole(photos(2))
        assert before == len(compiled) > 0
    with meter.running():
        images = photos(2).requires_grad_()
        assert torch.autograd.grad is grad
        torch.autograd.grad(whole(images).sum(), images)
    assert meter.spent['forward_passes'] == 4 and meter.spent['backward_passes'] == 2
