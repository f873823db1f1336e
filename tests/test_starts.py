"""What a training may start from, and an evaluator take: checkpoints of another head or map size, of the WSOL
protocol's code, of torchvision. Key names and shapes are the other code bases' own."""

import json
import sys

import pytest
import torch
from conftest import MINICUB
from munch import Munch
from torchvision import models as published
from weights import fill

import eval_pixel_perturb
import main
import wsol
from engine import models, training
from engine.resume import resuming
from wsol import foreign_weights
from wsol.errors import UserError

C = 5  # classes of the files here

# The protocol's CAM networks: what they hold beside the layers of torchvision's ResNet-50 and Inception-v3.
VGG_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
VGG_NUMBERS = {  # of the convolutions in `features`
    False: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    True: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 23, 25, 27),
}
VGG_REST = {'conv6': (1024, 512, 3, 3), 'fc': (C, 1024)}
INCEPTION_REST = {'SPG_A3_1b.0': (1024, 768, 3, 3), 'SPG_A3_2b.0': (1024, 1024, 3, 3), 'SPG_A4': (C, 1024, 1, 1)}
INCEPTION_WITHOUT = ('AuxLogits', 'Mixed_7a', 'Mixed_7b', 'Mixed_7c', 'fc')  # of torchvision's parts

IMAGE = torch.linspace(-2, 2, 3 * 64 * 64).view(1, 3, 64, 64).sin() * 1.5
LOGITS = {  # (architecture, large_feature_map): what the protocol's own network with `protocol_weights` says of IMAGE
    ('resnet50', True): [-4.8233, 1.8573, -4.4423, 0.478, 0.692],
    ('vgg16', False): [0.1988, -0.8569, 0.1534, 0.2214, -0.0358],
    ('vgg16', True): [0.4647, -0.0554, 1.2299, -0.4609, 0.5091],
    ('inception_v3', False): [0.1428, 0.2195, 0.2577, 0.0312, -0.1349],
}


def torchvision_shapes(name, **options):
    """{key: shape} of a classifier of torchvision; nothing is filled."""
    with torch.device('meta'):
        network = getattr(published, name)(weights=None, **options)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def with_biases(weights):
    """{key: shape} of weights and biases from {layer: shape of the weight}."""
    shapes = {f'{layer}.weight': shape for layer, shape in weights.items()}
    return shapes | {f'{layer}.bias': shape[:1] for layer, shape in weights.items()}


def protocol_shapes(architecture, large_feature_map):
    """{key: shape} of the protocol's CAM network of C classes."""
    if architecture == 'resnet50':
        return torchvision_shapes('resnet50', num_classes=C)
    if architecture == 'inception_v3':
        shapes = torchvision_shapes('inception_v3', init_weights=False)
        kept = {key: shape for key, shape in shapes.items() if key.split('.')[0] not in INCEPTION_WITHOUT}
        return kept | with_biases(INCEPTION_REST)
    inputs = (3, *VGG_WIDTHS)
    layers = {
        f'features.{number}': (VGG_WIDTHS[i], inputs[i], 3, 3)
        for i, number in enumerate(VGG_NUMBERS[large_feature_map])
    }
    return with_biases(layers | VGG_REST)


def filled(shapes):
    """Weights of these shapes that depend on the keys alone; large matrices are one number, which saves memory."""
    result = {}
    for key, shape in shapes.items():
        if len(shape) == 2 and max(shape) > 4000:
            result[key] = torch.tensor(0.01).expand(shape)
        elif len(shape) == 2:
            result[key] = fill({key: torch.empty(*shape, 1, 1)}, 1)[key][:, :, 0, 0]
        else:
            result[key] = fill({key: torch.empty(shape)}, 1)[key]
    return result


def protocol_weights(architecture, large_feature_map=False):
    return filled(protocol_shapes(architecture, large_feature_map))


def spec(architecture, method='CALM-EM', large_feature_map=False, use_bn=False):
    return models.Spec(architecture, method, large_feature_map, use_bn, False, False, False)


def saved(path, record):
    torch.save(record, path)
    return str(path)


def step(model, architecture):
    """One step of training on two small images: from the first layer to the class scores all learns."""
    values = Munch(
        dict.fromkeys(training.Recipe._fields, False), architecture=architecture, amp='off', em_teacher='current'
    )
    values.update(batch_size=2, lr=0.001, lr_classifier_ratio=10, momentum=0.9, weight_decay=0, gradient_reg=0)
    recipe = training.Recipe(**values)
    trainer = training.Trainer(resuming.Run('', {}, False, False), recipe, model.train(), torch.device('cpu'))
    image = IMAGE[..., :40, :40]
    trainer.train_step(torch.cat([image, image.flip(3)]), torch.tensor([1, 2]), 2)
    for learns in (next(model.parameters()), model.conv_last.weight):
        assert learns.grad.isfinite().all() and learns.grad.any()
    assert torch.isfinite(trainer.total)


@pytest.mark.parametrize('architecture, large', LOGITS)
@pytest.mark.slow
def test_an_evaluator_of_cam_reads_the_protocols_checkpoint_as_the_protocol_does(architecture, large, tmp_path):
    record = {'architecture': architecture, 'epoch': 7, 'state_dict': protocol_weights(architecture, large)}
    path = saved(tmp_path / 'cam.pth', record)
    model = models.load_model(spec(architecture, 'CAM', large), C, torch.device('cpu'), path).eval()
    with torch.no_grad():
        found = model(IMAGE).log_score[0]
    torch.testing.assert_close(found, torch.tensor(LOGITS[architecture, large]), rtol=1e-4, atol=2e-4)
    assert not any(value.any() for value in model.attention.state_dict().values())
    with pytest.raises(UserError, match='cam.pth: it has no attention, which CALM-ML reads: .*attribution_method=CAM'):
        models.load_model(spec(architecture, 'CALM-ML', large), C, torch.device('cpu'), path)


START = {
    'resnet50': 'layer1.0.conv1.weight',
    'vgg16': 'features.2.weight',
    'inception_v3': 'Mixed_6e.branch1x1.bn.bias',
}
SCORES = {'resnet50': 'fc', 'vgg16': 'fc', 'inception_v3': 'SPG_A4'}


@pytest.mark.parametrize(
    'architecture, form, classes', [('resnet50', 'bare', C), ('vgg16', 'module.', C), ('inception_v3', 'record', 3)]
)
@pytest.mark.slow
def test_calm_trains_from_the_protocols_checkpoint(architecture, form, classes, tmp_path):
    weights = protocol_weights(architecture)
    state = {f'module.{key}': value for key, value in weights.items()} if form == 'module.' else weights
    path = saved(tmp_path / 'cam.pth', state if form == 'bare' else {'state_dict': state, 'epoch': 10})
    model, lines = models.start_model(spec(architecture), classes, torch.device('cpu'), path, False)
    told = 'epoch 10; it does not record its method, map size'
    told = 'it does not record its method, map size, epoch' if form == 'bare' else told
    fresh = 'fresh: attention (not in the file)'
    if classes == C:
        assert lines == [f'starts from {path}: {told}', fresh]
        scores = weights[f'{SCORES[architecture]}.weight']
        torch.testing.assert_close(model.conv_last.weight.detach().flatten(1), scores.flatten(1), rtol=0, atol=0)
    else:
        assert lines == [f'starts from {path}: {told}', f'fresh: conv_last ({C} classes in the file, 3 here)', fresh]
    assert torch.equal(model.state_dict()[START[architecture]], weights[START[architecture]])
    assert model.attention[0].weight.any()
    step(model, architecture)
    if architecture == 'inception_v3':  # the two layers of the tail are there, or neither
        del state['SPG_A3_2b.0.weight'], state['SPG_A3_2b.0.bias']
        with pytest.raises(UserError, match=r'missing 2 \(A3_2b.0.bias'):
            wsol.start_weights(model, state, architecture)


@pytest.mark.parametrize(
    'name, architecture, classes, lines',
    [
        ('resnet50', 'resnet50', 1000, ['fresh: attention (not in the file)']),
        (
            'resnet18',
            'resnet18',
            C,
            ['fresh: conv_last (1000 classes in the file, 5 here)', 'fresh: attention (not in the file)'],
        ),
        (
            'vgg16_bn',
            'vgg16',
            C,
            [
                'fresh: conv_last, attention, conv6, bn6 (not in the file)',
                'left out: classifier (this network has no such module)',
            ],
        ),
        (
            'inception_v3',
            'inception_v3',
            C,
            [
                'fresh: conv_last, attention, A3_1b, A3_2b (not in the file)',
                'left out: AuxLogits, Mixed_7a, Mixed_7b, Mixed_7c, fc (this network has no such module)',
            ],
        ),
    ],
)
@pytest.mark.slow
def test_calm_trains_from_a_classifier_of_torchvision(name, architecture, classes, lines, tmp_path):
    options = {'init_weights': False} if name == 'inception_v3' else {}
    shapes = torchvision_shapes(name, **options)
    weights = filled(
        {key: shape for key, shape in shapes.items() if not key.endswith('num_batches_tracked')}
    )  # as of old
    parallel = {'state_dict': {f'module.{key}': value for key, value in weights.items()}}
    path = saved(tmp_path / 'net.pth', parallel if name == 'inception_v3' else weights)
    wanted = spec(architecture, 'CALM-ML', True, name == 'vgg16_bn')
    model, said = models.start_model(wanted, classes, torch.device('cpu'), path, False)
    assert said == [f'starts from {path}: it does not record its method, map size, epoch', *lines]
    own = model.state_dict()
    if classes == 1000:
        assert torch.equal(own['conv_last.weight'][:, :, 0, 0], weights['fc.weight'])
    if architecture == 'vgg16':  # the fourth pool is not there
        assert torch.equal(own['features.39.weight'], weights['features.40.weight'])
    else:
        last = {'resnet18': 'layer4.1.conv2.weight', 'resnet50': 'layer4.2.conv3.weight'}
        last = last.get(architecture, 'Mixed_6e.branch_pool.conv.weight')
        assert torch.equal(own[last], weights[last])
    if name != 'resnet50':
        step(model, architecture)
        reason = 'wrong shape .*conv_last' if name == 'resnet18' else 'only initialise a training'
        with pytest.raises(UserError, match=f'{path}: .*({reason})'):
            models.load_model(wanted._replace(attribution_method='CAM'), classes, torch.device('cpu'), path)


def test_the_protocols_adl_networks_differ_in_their_numbers_alone():
    """ADL has no weights, and stands behind the first block of layer3 and the first and third of layer4."""
    there = {f'layer3.{n}.conv1.weight': n for n in (0, 2, 3, 4, 5, 6)} | {f'layer4.{n}.bn1.bias': n for n in (0, 2, 3)}
    own = {f'layer3.{n}.conv1.weight': None for n in range(6)} | {f'layer4.{n}.bn1.bias': None for n in range(3)}
    found = foreign_weights.renumbered({'conv1.weight': 9, **there}, own, 'resnet50')
    assert found == {
        'conv1.weight': 9,
        **{f'layer3.{n}.conv1.weight': old for n, old in enumerate((0, 2, 3, 4, 5, 6))},
        **{f'layer4.{n}.bn1.bias': old for n, old in enumerate((0, 2, 3))},
    }
    assert foreign_weights.renumbered(there, {**own, 'layer4.3.bn1.bias': None}, 'resnet50').keys() >= {
        'layer4.3.bn1.bias'
    }
    assert foreign_weights.renumbered(there, own, 'timm/resnet50') == there


DATA = [
    '--dataset=CUB',
    f'--data_root={MINICUB}/dataset',
    f'--metadata_root={MINICUB}/metadata',
    '--workers=0',
    '--seed=3',
]
TINY = ['--architecture=vgg_tiny', '--pretrained=False', '--resize_size=40', '--crop_size=32', '--batch_size=24']


def command(script, root, monkeypatch, *flags):
    """Run a script's main() on minicub, its folder root/run."""
    arguments = [*DATA, *TINY, f'--save_root={root}', '--experiment_name=run', '--override_cache=True', *flags]
    monkeypatch.setattr(sys, 'argv', [script.__name__, *arguments])
    script.main()


def cam_file(path, num_classes=200, large_feature_map=False, **more):
    """A checkpoint of a CAM network with something to say; its state dict."""
    state = fill(wsol.build_model('vgg_tiny', 'CAM', num_classes, large_feature_map).state_dict(), 2)
    trained = {'attribution_method': 'CAM', 'large_feature_map': large_feature_map}
    torch.save({'architecture': 'vgg_tiny', 'epoch': 4, 'state_dict': state, 'args': trained, **more}, path)
    return state


def test_calm_on_large_maps_trains_from_cam_on_small_ones_conv_last_included(tmp_path, monkeypatch, capsys):
    state = cam_file(tmp_path / 'cam.pth')
    flags = ['--attribution_method=CALM-EM', '--large_feature_map=True', '--epochs=1', '--lr=1e-12']
    command(main, tmp_path, monkeypatch, *flags, '--load_checkpoint=cam.pth')
    line = f'starts from {tmp_path}/cam.pth: CAM, --large_feature_map=False, epoch 4'
    assert [said for said in capsys.readouterr().out.splitlines() if 'starts' in said or 'fresh' in said] == [line]
    with open(tmp_path / 'run' / 'log.jsonl') as file:
        assert [record['start'] for record in map(json.loads, file) if 'start' in record] == [line]
    trained = torch.load(tmp_path / 'run' / 'last_checkpoint.pth.tar', weights_only=True)['state_dict']
    torch.testing.assert_close(trained['conv_last.weight'], state['conv_last.weight'], rtol=0, atol=1e-6)
    # small maps have a pool more, before the last convolution
    torch.testing.assert_close(trained['features.17.weight'], state['features.18.weight'], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match='another map size: give --large_feature_map=False'):
        command(eval_pixel_perturb, tmp_path, monkeypatch, *flags[:2], '--load_checkpoint=cam.pth')
    with pytest.raises(UserError, match='as CAM, not CALM-EM: give --attribution_method=CAM, or start a training'):
        command(eval_pixel_perturb, tmp_path, monkeypatch, flags[0], '--load_checkpoint=cam.pth')
    with pytest.raises(UserError, match='as CAM, not CALM-EM'):  # main.py that only tests is an evaluator too
        command(main, tmp_path, monkeypatch, flags[0], '--load_checkpoint=cam.pth', '--is_train=False')


def test_the_two_step_option_leaves_conv_last_fresh_and_says_so(tmp_path, monkeypatch, capsys):
    state = cam_file(tmp_path / 'cam.pth')
    flags = ['--attribution_method=CALM-EM', '--epochs=1', '--lr=1e-12', '--is_different_checkpoint=True']
    command(main, tmp_path, monkeypatch, *flags, '--load_checkpoint=cam.pth')
    assert 'fresh: conv_last (dropped because of is_different_checkpoint)\n' in capsys.readouterr().out
    trained = torch.load(tmp_path / 'run' / 'last_checkpoint.pth.tar', weights_only=True)['state_dict']
    assert (trained['conv_last.weight'] - state['conv_last.weight']).abs().max() > 0.01
    for key in ('attention.0.weight', 'features.18.weight'):
        torch.testing.assert_close(trained[key], state[key], rtol=0, atol=1e-6)


def test_another_class_count_starts_conv_last_afresh_and_stops_an_evaluator(tmp_path, monkeypatch, capsys):
    cam_file(tmp_path / 'cam.pth', num_classes=7)
    flags = ['--attribution_method=CAM', '--epochs=1', '--load_checkpoint=cam.pth']
    command(main, tmp_path, monkeypatch, *flags)
    assert 'fresh: conv_last (7 classes in the file, 200 here)\n' in capsys.readouterr().out
    with pytest.raises(UserError, match=r'cam.pth: .*wrong shape 2 \(conv_last.* check dataset'):
        command(eval_pixel_perturb, tmp_path, monkeypatch, *flags)


def test_a_cam_network_scores_the_same_without_its_attention(tmp_path, monkeypatch):
    state = cam_file(tmp_path / 'cam.pth')
    torch.save({key: value for key, value in state.items() if 'attention' not in key}, tmp_path / 'bare.pth')
    curves = []
    for name in ('cam', 'bare'):
        command(eval_pixel_perturb, tmp_path, monkeypatch, '--attribution_method=CAM', f'--load_checkpoint={name}.pth')
        with open(tmp_path / 'run' / 'pixel_perturb_vanilla.json') as file:
            curves.append({key: value for key, value in json.load(file).items() if key != 'arguments'})
    assert curves[0] == curves[1] and len(curves[0]) > 1
    with pytest.raises(UserError, match='bare.pth: it has no attention, which CALM-EM reads'):
        command(eval_pixel_perturb, tmp_path, monkeypatch, '--attribution_method=CALM-EM', '--load_checkpoint=bare.pth')


def test_lfi_cam_and_the_others_start_from_each_other():
    cam, lfi = (wsol.build_model('vgg_tiny', method, C) for method in ('CAM', 'LFI-CAM'))
    own = lfi.importance[0].weight.clone()
    assert wsol.start_weights(lfi, cam.state_dict(), 'vgg_tiny') == ['fresh: importance (not in the file)']
    assert torch.equal(lfi.importance[0].weight, own) and torch.equal(lfi.conv_last.weight, cam.conv_last.weight)
    lines = wsol.start_weights(wsol.build_model('vgg_tiny', 'CALM-ML', C), lfi.state_dict(), 'vgg_tiny')
    assert lines == ['left out: importance (this network has no such module)']


@pytest.mark.slow
def test_what_does_not_fit_is_refused_where_a_training_starts_too(tmp_path):
    device = torch.device('cpu')
    state = cam_file(tmp_path / 'cam.pth')
    with pytest.raises(UserError, match='is of architecture vgg_tiny, not resnet18'):
        models.start_model(spec('resnet18'), 200, device, str(tmp_path / 'cam.pth'), False)
    del state['features.0.weight']
    path = saved(tmp_path / 'less.pth', state)
    with pytest.raises(UserError, match=r'less.pth: .*missing 1 \(features.0.weight\)'):
        models.start_model(spec('vgg_tiny'), 200, device, path, True)
    for shape in ((200, 64, 1, 1), (7, 64, 1, 1)):
        path = saved(tmp_path / 'narrow.pth', cam_file(tmp_path / 'cam.pth') | {'conv_last.weight': torch.zeros(shape)})
        with pytest.raises(UserError, match=r'wrong shape 1 \(conv_last.weight'):
            models.start_model(spec('vgg_tiny'), 200, device, path, False)
    path = saved(tmp_path / 'vgg.pth', protocol_weights('vgg16'))
    with pytest.raises(UserError, match='vgg.pth: .*use_bn'):  # its features have no batch norm
        models.start_model(spec('vgg16', use_bn=True), C, device, path, False)
    for wrong in ({'state_dict': [1]}, [torch.zeros(1)], {}):
        with pytest.raises(UserError, match='not a checkpoint: it has no state_dict'):
            models.start_model(spec('vgg_tiny'), C, device, saved(tmp_path / 'wrong.pth', wrong), False)
