"""Backbones from timm: maps against timm's own features, training, every map, pretrained weights, refusals."""

import http.server
import json
import socket
import sys
import threading
import time

import pytest
import torch
from conftest import MINICUB
from test_attribution import AT_THE_INPUT

import config
import main
import wsol
from wsol import attribution
from wsol.attribution.layouts import Layout
from wsol.backbones import hub as hub_of_weights

timm = pytest.importorskip('timm', reason='timm is not installed: pip install -r requirements-timm.txt')

VIT, CONVNEXT = 'timm/test_vit', 'timm/test_convnext'
IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def build(architecture, method='CALM-EM', large=False, **more):
    return wsol.build_model(architecture, method, 3, large, **more)


def plain(model, **options):
    """timm's whole classifier with the backbone's weights, in eval mode."""
    net = timm.create_model(model.trunk.net.pretrained_cfg['architecture'], **options)
    wrong = net.load_state_dict(model.trunk.net.state_dict(), strict=False)
    assert not wrong.unexpected_keys and all(
        key.startswith(('head.fc', 'head.w', 'head.b')) for key in wrong.missing_keys
    ), wrong
    return net.eval()


def test_patch_tokens_are_laid_out_as_timm_lays_them_out():
    model = build(VIT).eval()
    with torch.no_grad():
        F = model.forward_features(IMAGES)
        (want,) = plain(model, dynamic_img_size=True).forward_intermediates(
            IMAGES, indices=1, norm=True, output_fmt='NCHW', intermediates_only=True
        )
    assert F.shape == (2, 64, 4, 6)
    torch.testing.assert_close(F, want)


def test_class_and_register_tokens_are_dropped():
    tokens = torch.randn(2, 5 + 6, 7)
    F = Layout('tokens', (2, 3), 5).to_map(tokens)
    for i in range(2):
        for j in range(3):
            assert torch.equal(F[:, :, i, j], tokens[:, 5 + 3 * i + j])


def test_convnext_norms_each_location_as_its_head_norms_the_mean():
    model = build(CONVNEXT).eval().double()
    head = timm.create_model('test_convnext').head.norm
    net = plain(model, output_stride=16).double()
    net.head.norm.weight.data.uniform_(0.5, 2)
    model.trunk.net.load_state_dict(net.state_dict(), strict=False)
    with torch.no_grad():
        x = net.forward_features(IMAGES.double())
        mean, variance = x.mean(dim=1, keepdim=True), x.var(dim=1, keepdim=True, unbiased=False)
        want = (x - mean) / (variance + head.eps).sqrt() * net.head.norm.weight[:, None, None] + net.head.norm.bias[
            :, None, None
        ]
        torch.testing.assert_close(model.forward_features(IMAGES.double()), want)


@pytest.mark.parametrize(
    'architecture, large, shape',
    [
        (VIT, False, (64, 4, 6)),
        (CONVNEXT, False, (64, 4, 6)),
        (CONVNEXT, True, (64, 8, 12)),
        ('timm/test_resnet', True, (96, 8, 12)),
        ('timm/test_efficientnet.r160_in1k', False, (256, 4, 6)),
        ('timm/test_mambaout', False, (256, 2, 3)),
    ],
)
def test_map_sizes(architecture, large, shape):
    """An output stride of 16 or 8, a location a patch, or the network's own stride; test_mambaout has channels last."""
    with torch.no_grad():
        output = build(architecture, large=large).eval()(IMAGES)
    assert output.f.shape == (2, 3, *shape[1:]) and build(architecture, large=large).conv_last.in_channels == shape[0]


@pytest.mark.parametrize('architecture', [VIT, CONVNEXT])
@pytest.mark.parametrize('method', wsol.ATTRIBUTION_METHODS)
def test_every_method_trains_and_reloads(architecture, method):
    model = build(architecture, method)
    x = torch.randn(4, 3, 64, 64)
    y = torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.SGD(wsol.parameter_groups(model, architecture, 1e-4, 2))
    losses = []
    for _ in range(4):
        loss = model.train()(x).loss(y).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0], losses
    assert not [
        name for name, p in model.trunk.named_parameters() if p.grad is None
    ]  # no layer of timm's is left unused
    again = build(architecture, method)
    wsol.load_weights(again, {f'module.{key}': value for key, value in model.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(again.eval()(x).probs, model.eval()(x).probs)


@pytest.mark.parametrize('whole', [False, True])
def test_the_backbone_learns_at_the_small_rate(whole):
    model = build(VIT)
    slow, fast = wsol.parameter_groups(model, VIT, 0.01, 10, whole)
    assert [id(p) for p in slow['params']] == [id(p) for p in model.trunk.parameters()] and slow['lr'] == 0.01
    assert {id(p) for p in fast['params']} == {
        id(p) for head in (model.conv_last, model.attention) for p in head.parameters()
    }


@pytest.mark.parametrize('architecture', [VIT, CONVNEXT])
@pytest.mark.slow
def test_every_attribution_method_explains_it(architecture):
    model = build(architecture).eval()
    options = {'smooth_grad_nr_iter': 2, 'integrated_grad_nr_iter': 2, 'num_samples': 2, 'rise_nr_masks': 2}
    options |= {'superclass': {0: [0, 1]}, 'occlusion_window': 48}
    for process in attribution.MAPS:
        maps = attribution.explain(process, model, IMAGES, 0, **options)
        size = (64, 96) if process in AT_THE_INPUT else (4, 6)
        if process == 'refine_cam' and architecture == CONVNEXT:
            size = (16, 24)  # of its first stage: a ViT has one
        assert maps.shape == (2, *size), process
        assert torch.isfinite(maps).all(), process
        if process != 'group_cam':  # an untrained network may score every group below the blurred image
            assert (maps.flatten(1).amax(dim=1) > maps.flatten(1).amin(dim=1)).any(), process
    assert not any(module._forward_hooks for module in model.modules()) and all(
        p.grad is None for p in model.parameters()
    )


def test_grad_cam_of_a_vit_is_the_cam_by_hand():
    """CAM's logit is mean_z w_y F, so the mean gradient of a channel is w_y over the number of locations."""
    model = build(VIT, 'CAM').eval().double()
    with torch.no_grad():
        F = model.forward_features(IMAGES.double())
        want = torch.einsum('l,blhw->bhw', model.conv_last.weight[2, :, 0, 0] / 24, F).clamp(min=0)
    assert want.max() > 0
    torch.testing.assert_close(attribution.explain('grad_cam', model, IMAGES.double(), 2), want)


def with_weights_from(monkeypatch, tmp_path, name):
    """timm reads its pretrained weights from a file here, made of fresh ones, which are returned."""
    torch.manual_seed(7)
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / 'weights.pth')
    create = timm.create_model
    monkeypatch.setattr(
        timm,
        'create_model',
        lambda *names, **options: create(
            *names, **options, pretrained_cfg_overlay={'file': str(tmp_path / 'weights.pth')}
        ),
    )
    return state


def test_pretrained_weights_reach_the_backbone(monkeypatch, tmp_path):
    state = with_weights_from(monkeypatch, tmp_path, 'test_vit')
    model = build(VIT, pretrained=True)
    assert model.preprocessing.mean == model.preprocessing.std == (0.5, 0.5, 0.5)  # the weights' own, not ImageNet's
    assert all(torch.equal(value, state[key]) for key, value in model.trunk.net.state_dict().items())
    assert model.conv_last.bias.abs().max() == 0


def test_pretrained_without_a_network_names_the_way_out(monkeypatch):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(ConnectionError, match='pretrained=False'):
        build(VIT, pretrained=True)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The host of timm's weights is one that refuses, the cache is empty; waiting before another try is an error."""
    constants = pytest.importorskip('huggingface_hub').constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', False)
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(time, 'sleep', lambda seconds: pytest.fail(f'it waits for {seconds} s'))
    return constants


def test_without_a_network_nothing_is_tried_again(hub):
    with pytest.raises(ConnectionError, match=r'127.0.0.1:9 is out of reach: .*refused.*pretrained=False'):
        build(VIT, pretrained=True)
    assert hub.HF_HUB_OFFLINE is False


def test_a_network_that_swallows_everything_is_none(hub, monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        monkeypatch.setattr(hub, 'ENDPOINT', f'http://127.0.0.1:{silent.getsockname()[1]}')
        monkeypatch.setattr(hub_of_weights, 'TIMEOUT', 0.2)
        with pytest.raises(ConnectionError, match='out of reach: .*pretrained=False'):
            build(VIT, pretrained=True)


def test_weights_that_were_downloaded_need_no_network(hub, tmp_path):
    safetensors = pytest.importorskip('safetensors.torch')
    folder = tmp_path / 'models--timm--test_vit.r160_in1k'
    (folder / 'refs').mkdir(parents=True)
    (folder / 'refs' / 'main').write_text('1' * 40)
    (folder / 'snapshots' / ('1' * 40)).mkdir(parents=True)
    torch.manual_seed(7)
    state = timm.create_model('test_vit').state_dict()
    safetensors.save_file(state, folder / 'snapshots' / ('1' * 40) / 'model.safetensors')
    model = build(VIT, pretrained=True)
    assert all(torch.equal(value, state[key]) for key, value in model.trunk.net.state_dict().items())


def test_a_host_that_answers_anything_is_reached(hub, monkeypatch):
    """What it then says of the weights is the library's matter."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        monkeypatch.setattr(hub, 'ENDPOINT', f'http://127.0.0.1:{server.server_port}')
        try:
            assert hub_of_weights.unreachable() is None
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    'architecture, options, words',
    [
        ('timm/test_vitt', {}, 'did you mean .*timm/test_vit'),
        ('timm/', {}, 'unknown'),
        ('timm/hf-hub:timm/x', {}, 'unknown'),
        ('timm/test_vit.in22k', {}, r'timm/test_vit.r160_in1k'),
        ('timm/vit_wee_patch16_reg1_gap_257', {}, 'unknown'),
        (VIT, {'large': True}, 'output stride'),
        ('timm/mixer_s32_224', {}, 'only one image size'),
        ('timm/deit_tiny_distilled_patch16_224', {}, 'not a map'),
    ],
)
def test_refusals(architecture, options, words):
    with pytest.raises(ValueError, match=words):
        build(architecture, **options)


def test_an_image_that_does_not_split_into_patches_is_refused():
    with pytest.raises(ValueError, match='crop_size that is a multiple of 16'):
        build(VIT)(torch.zeros(1, 3, 64, 72))


def test_a_network_without_published_weights_is_not_left_random(monkeypatch):
    monkeypatch.setattr(timm, 'list_models', lambda *_, **__: [])
    with pytest.raises(ValueError, match='no pretrained weights'):
        build(VIT, pretrained=True)


def test_without_timm_the_message_names_its_requirements(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ValueError, match='requirements-timm.txt'):
        build(VIT)


def test_the_flag_takes_timm_names_and_lists_close_ones_of_its_own(capsys):
    assert config.get_configs('', [f'--architecture={VIT}']).architecture == VIT
    with pytest.raises(SystemExit) as stop:
        config.get_configs('', ['--architecture=resnet51'])
    assert stop.value.code == 2 and 'did you mean resnet50' in capsys.readouterr().err


@pytest.mark.parametrize('architecture', [VIT, CONVNEXT])
@pytest.mark.slow
def test_the_command_trains_and_evaluates_it(architecture, tmp_path, monkeypatch):
    flags = [
        '--dataset=CUB',
        f'--data_root={MINICUB}/dataset',
        f'--metadata_root={MINICUB}/metadata',
        '--workers=0',
        '--seed=1',
        f'--architecture={architecture}',
        '--attribution_method=CALM-EM',
        '--pretrained=False',
        '--resize_size=40',
        '--crop_size=32',
        f'--save_root={tmp_path}',
        '--experiment_name=run',
    ]
    monkeypatch.setattr(sys, 'argv', ['main.py', *flags, '--epochs=1', '--lr=.001'])
    main.main()
    record = torch.load(tmp_path / 'run' / 'last_checkpoint.pth.tar', weights_only=True)
    assert record['architecture'] == architecture
    trained = json.loads((tmp_path / 'run' / 'accuracy.json').read_text())['test_accuracy']
    monkeypatch.setattr(
        sys, 'argv', ['main.py', *flags, '--is_train=False', '--load_checkpoint=run', '--experiment_name=again']
    )
    main.main()
    assert json.loads((tmp_path / 'again' / 'accuracy.json').read_text())['test_accuracy'] == trained
