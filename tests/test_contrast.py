"""Maps of a difference of scores against pytorch-grad-cam's Finer-CAM and by hand; cue localization with them."""

import json
import sys

import numpy as np
import pytest
import torch
from test_attribution import FEW, POST_HOC, READOUTS, classifier, close, curved, network, photos, seeded  # noqa: F401
from test_evaluation import DATA, save_root  # noqa: F401

import eval_cue_location
from engine import map_maker
from wsol import attribution
from wsol.attribution import Options, common, explain, layers, perturbation
from wsol.attribution.cam_family import grad_cam_weights, weighted

# Eigen-CAM is the same for every class, Finer-CAM a contrast with classes of its own choice.
EXPLAINING = [name for name in POST_HOC if name not in ('eigen_cam', 'finer_cam')]
A = torch.tensor([0, 2, 4])
B = torch.tensor([1, 0, 3])


def slow_contrast(name, net, x, a, b, gamma, **options):
    """The map of one image with the network's last layer made that of the two classes' difference."""
    wrapped = Difference(net, a, b, gamma).eval()
    layer = layers.find_layers(net, None, x)[0]
    return explain(name, wrapped, x, 0, target_layer=layer, **options)


class Difference(torch.nn.Module):
    """images -> S_a - gamma S_b, the only class [B, 1], of a network of this project or a plain one."""

    def __init__(self, net, a, b, gamma):
        super().__init__()
        self.net = net
        self.how = (a, b, gamma)

    def forward(self, x):
        a, b, gamma = self.how
        scores = common.scores_of(self.net, x)
        return scores[:, a : a + 1] - gamma * scores[:, b : b + 1]


@pytest.mark.parametrize('name', EXPLAINING)
@pytest.mark.parametrize('make', [lambda: network('CALM-EM'), lambda: network('CAM'), lambda: classifier()])
def test_a_contrast_is_the_map_of_the_difference(name, make):
    """Other classes for each image, all at once, against a network of one class, an image at a time."""
    net = make()
    x = photos()
    few = {key: value for key, value in FEW.items() if key != 'superclass'}
    found = explain(name, net, x, A, contrast=B, gamma=0.7, noise_seeds=[1, 2, 3], **few)
    for i in range(3):
        expected = slow_contrast(name, net, x[i : i + 1], int(A[i]), int(B[i]), 0.7, noise_seeds=[i + 1], **few)
        if expected.abs().max() == 0:
            assert found[i].abs().max() < 1e-6
        else:
            close(found[i : i + 1], expected, 1e-3)
    assert found.abs().max() > 0 or name == 'taylor_interaction'


@pytest.mark.parametrize('base, name', [('GradCAM', 'grad_cam'), ('LayerCAM', 'layer_cam')])
@pytest.mark.parametrize('gamma', [1.0, 0.6])
def test_finer_cam_library(base, name, gamma):
    """Its target is S_A - alpha S_B of one class to compare with; its maps are cut at 0, scaled and resized."""
    library = pytest.importorskip('pytorch_grad_cam', reason='grad-cam is not installed (requirements-test.txt)')
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import FinerWeightedTarget

    net = classifier(curved()).double()
    net.relu.inplace = False  # the library's hooks do not survive it
    net.head[2].weight.data /= 30  # it weights by p(B), over p(B) + 1e-9
    x = photos().double()
    assert net(x).softmax(dim=1).min() > 1e-3
    with library.FinerCAM(net, [net.last], base_method=getattr(library, base)) as finer:
        theirs = finer(x.clone(), [FinerWeightedTarget(int(a), [int(b)], gamma) for a, b in zip(A, B)])
    ours = explain(name, net, x, A, contrast=B, gamma=gamma)
    treated = scale_cam_image(scale_cam_image(ours.numpy(), tuple(x.shape[:1:-1])))
    close(treated, theirs)
    other = scale_cam_image(scale_cam_image(explain(name, net, x, B, contrast=A, gamma=gamma).numpy(), (16, 16)))
    assert np.abs(other - theirs).max() > 0.1  # the sign is the library's


def test_of_cam_the_contrast_is_the_difference_of_two_maps():
    """CAM's map is linear in the score: its mean is the score itself, and Grad-CAM at F is its positive part."""
    for method in ('CAM', 'LFI-CAM'):
        net = network(method)
        x = photos()
        with torch.no_grad():
            scores = net(x).log_score
        found = explain('vanilla', net, x, A, contrast=B, gamma=0.5)
        expected = explain('vanilla', net, x, A) - 0.5 * explain('vanilla', net, x, B)
        assert torch.equal(found, expected)
        rows = range(3)
        torch.testing.assert_close(found.mean(dim=(1, 2)), scores[rows, A] - 0.5 * scores[rows, B])
    net = network('CAM')
    bias = net.conv_last.bias.detach()
    whole = explain('vanilla', net, x, A, contrast=B) - (bias[A] - bias[B])[:, None, None]
    close(explain('grad_cam', net, x, A, contrast=B), whole.relu() / 64)
    [activation], [gradient] = layers.layer_gradients(Difference(net, 0, 1, 1), x[:1], [net.last], None)
    close(weighted(activation, grad_cam_weights(gradient)).detach(), whole[:1] / 64)  # before it is cut


def test_a_linear_method_gives_the_difference_of_its_maps():
    """Integrated gradients are linear in the score, and sum to its rise."""
    net = network('CALM-EM').double()
    x = photos().double()
    found = explain('integrated_gradients', net, x, A, contrast=B, gamma=0.4)
    maps = [explain('integrated_gradients', net, x, y) for y in (A, B)]
    torch.testing.assert_close(found, maps[0] - 0.4 * maps[1])
    found = explain('input_grad', net, x, A, contrast=B, gamma=0.4)
    v = x.clone().requires_grad_()
    scores = net(v).log_score[range(3)]
    (scores[range(3), A] - 0.4 * scores[range(3), B]).sum().backward()
    torch.testing.assert_close(found, v.grad.abs().amax(dim=1))


def test_nothing_to_compare_with_is_the_plain_map():
    for net in (network('CALM-ML'), classifier(curved())):
        x = photos()
        for name in ('grad_cam', 'layer_cam', 'score_cam', 'ablation_cam', 'input_grad'):
            close(explain(name, net, x, A, contrast=B, gamma=0), explain(name, net, x, A), 1e-4)
        chosen = common.scores_of(net, x).argmax(dim=1)
        other = (chosen + 1) % 5
        close(explain('grad_cam', net, x, contrast=other), explain('grad_cam', net, x, chosen, contrast=other), 1e-6)


@pytest.mark.parametrize('make', [lambda: network('CALM-EM'), lambda: classifier(curved())])
def test_the_model_is_afterwards_as_before(make, monkeypatch):
    net = make()
    x = photos()
    before = common.scores_of(net, x)
    head = getattr(net, 'head', None)
    with torch.inference_mode():
        inside = explain('grad_cam', net, x, A.clone(), contrast=B.clone())
    close(inside, explain('grad_cam', net, x, A, contrast=B), 1e-6)

    def broken(*_):
        raise RuntimeError('broken')

    monkeypatch.setattr(perturbation, 'masked_scores', broken)
    with pytest.raises(RuntimeError, match='broken'):
        explain('score_cam', net, x, A, contrast=B)
    assert torch.equal(common.scores_of(net, x), before) and getattr(net, 'head', None) is head
    assert not net._forward_hooks


def test_what_has_no_score_to_compare_is_refused():
    x = photos()
    for name in [*READOUTS, 'eigen_cam', 'finer_cam']:
        said = f'{name} does not explain the score of a class.* choose one of input_grad, .*, or vanilla of'
        with pytest.raises(ValueError, match=said):
            explain(name, network('CALM-EM'), x, A, contrast=B)
    for name in set(READOUTS) - {'vanilla'}:
        with pytest.raises(ValueError, match='does not explain the score of a class'):
            attribution.check_contrast(name, network('CAM'))
    with pytest.raises(ValueError, match='vanilla does not explain the score of a class'):
        explain('vanilla', classifier(), x, A, contrast=B)
    for a, b in ((A, [0, 1, 5]), ([0, 1, 5], B), (A, -1)):
        with pytest.raises(ValueError, match='target or contrast contains a class outside 0..4'):
            explain('grad_cam', network(), x, a, contrast=b)
    with pytest.raises(ValueError, match='for 3 images: give one class'):
        explain('grad_cam', network(), x, A, contrast=[1, 2])


def test_cue_localization_takes_what_speaks_for_an_images_own_class():
    """Each image's own class against each partner by attribution.explain, one map at a time."""
    net = network('CALM-EM')
    x = photos(2)
    classes = [torch.tensor([3, 0, 1]), torch.tensor([2, 4])]
    for name in ('grad_cam', 'smooth_grad'):
        maker = map_maker.MapMaker(net, name, Options(smooth_grad_nr_iter=2), seed=5)
        found = eval_cue_location.differences(maker, x, classes, [7, 9], True)
        assert [len(maps) for maps in found] == [2, 1]
        for maps, image, number, (own, *partners) in zip(found, x, (7, 9), map(torch.Tensor.tolist, classes)):
            how = {'noise_seeds': [attribution.noise_seed(5, number)], 'smooth_grad_nr_iter': 2}
            alone = [explain(name, net, image[None], own, contrast=one, **how)[0] for one in partners]
            close(maps, torch.stack(alone), 1e-4)
        plain = eval_cue_location.differences(maker, x, classes, [7, 9], False)
        both = maker(x, None, classes, [7, 9])
        assert all(np.array_equal(maps, one[:1] - one[1:]) for maps, one in zip(plain, both))
        assert all(np.abs(maps - other).max() > 1e-3 * np.abs(maps).max() for maps, other in zip(plain, found))


def run(monkeypatch, save_root, *flags):  # noqa: F811
    arguments = [*DATA, f'--save_root={save_root}', '--experiment_name=contrast', *flags]
    monkeypatch.setattr(sys, 'argv', ['eval_cue_location.py', *arguments])
    eval_cue_location.main()


def test_the_command_writes_both_results_side_by_side(save_root, monkeypatch, capsys):  # noqa: F811
    folder = save_root / 'contrast'
    found = {}
    for how in ('maps', 'score'):
        run(monkeypatch, save_root, '--score_map_process=grad_cam', f'--contrast={how}')
        name = 'cue_location_grad_cam' + ('_contrast' if how == 'score' else '')
        found[how] = json.loads((folder / f'{name}.json').read_text())
        assert found[how]['arguments']['contrast'] == how and (folder / f'log_{name}.jsonl').is_file()
    values = [[row['pxap']['per_pair'] for row in found[how]['pairs']] for how in ('maps', 'score')]
    assert values[0] != values[1] and min(values[1]) > 0
    capsys.readouterr()
    run(monkeypatch, save_root, '--score_map_process=grad_cam', '--contrast=score', '--resume=True')
    assert 'cue_location_grad_cam_contrast.json is complete' in capsys.readouterr().out
    with pytest.raises(ValueError, match='jointll does not explain the score of a class'):
        run(monkeypatch, save_root, '--score_map_process=jointll', '--contrast=score')
    assert not list(folder.glob('*jointll*'))


def test_too_wide_a_blur_leaves_nothing(save_root, monkeypatch):  # noqa: F811
    with pytest.raises(ValueError, match='blur 11 is too large for maps of 32 pixels'):
        run(monkeypatch, save_root, '--score_map_process=jointll', '--blur', '11', '2')
    assert not list((save_root / 'contrast').glob('*jointll*'))


def test_on_cam_both_ways_of_vanilla_count_the_same(save_root, monkeypatch):  # noqa: F811
    flags = [
        '--attribution_method=CAM',
        '--score_map_process=vanilla',
        '--norm_type=minmax',
        '--experiment_name=linear',
    ]
    for how in ('maps', 'score'):
        run(monkeypatch, save_root, *flags, f'--contrast={how}')
    one, other = (
        json.loads((save_root / 'linear' / f'cue_location_vanilla{end}.json').read_text()) for end in ('', '_contrast')
    )
    assert one.pop('arguments') != other.pop('arguments') and one == other
