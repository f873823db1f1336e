"""A training step in every form on every device that this machine has, against float64 on the CPU."""

import copy
import os
import tempfile
from types import SimpleNamespace

import pytest
import torch
from test_training import RECIPE, Batches, network
from torch.nn.parallel import DistributedDataParallel

import util
from engine import processes, training
from engine.resume import resuming
from wsol.network import Forward

pytestmark = pytest.mark.usefixtures('exact')


@pytest.fixture(autouse=True)
def nobody_asks(monkeypatch):
    monkeypatch.setattr(processes, '_signals', [])


def step(net, device, folder='nowhere', **changes):
    """A trainer after one step on four images."""
    run = resuming.Run(str(folder), {'architecture': 'vgg_tiny', 'seed': 3}, resume=False, override=False)
    one = training.Trainer(run, RECIPE._replace(**changes), net.to(device).train(), device)
    if one.scaler.is_enabled():
        one.scaler.load_state_dict({**one.scaler.state_dict(), 'scale': 128.0})  # from 65536 it must fall first
    batch = Batches(4)
    one.train_step(batch.images.to(next(net.parameters()).dtype), batch.labels, 4)
    return one


VARIANTS = {
    'float32': ({}, 1e-4),
    'bf16': ({'amp': 'bf16'}, 0.03),
    'fp16': ({'amp': 'fp16'}, 0.005),
    'channels_last': ({'channels_last': True}, 1e-4),
    'freeze_bn': ({'freeze_bn': True}, 1e-4),
    'sync_bn': ({'sync_bn': True}, 1e-4),
    'gradient_reg': ({'gradient_reg': 0.5}, 1e-4),
    'gradient_reg_bf16': ({'gradient_reg': 0.5, 'amp': 'bf16'}, 0.2),
}


@pytest.mark.parametrize('method', ['CAM', 'CALM-EM', 'LFI-CAM'])
@pytest.mark.parametrize('name', VARIANTS)
def test_a_training_step(name, method, device):
    """The parameters move as in float64 on the CPU, to a share of their move."""
    changes, tolerance = VARIANTS[name]
    if name == 'sync_bn' and device.type == 'cpu':
        pytest.skip('--sync_bn is of accelerators')
    if 'gradient_reg' in name and method == 'LFI-CAM':
        pytest.skip('covered by the other heads: the loss does not depend on the head')
    exact_changes = {key: value for key, value in changes.items() if key == 'gradient_reg'}
    start = network(method)
    expected = step(copy.deepcopy(start), torch.device('cpu'), **exact_changes)
    found = step(copy.deepcopy(start).float(), device, **changes)
    assert found.optimizer.defaults['fused'] == (device.type != 'cpu')
    moves, own = (
        torch.cat([(p.detach().cpu() - q.detach()).flatten() for p, q in zip(net.parameters(), start.parameters())])
        for net in (expected.model, found.model)
    )
    print('REL', name, method, ((own - moves).norm() / moves.norm()).item())
    assert (own - moves).norm() <= tolerance * moves.norm() and moves.norm() > 0
    assert found.total.item() == pytest.approx(expected.total.item(), rel=tolerance)


@pytest.mark.parametrize('amp', ['off', 'bf16'])
def test_a_training_goes_on_with_the_same_bits(amp, device, tmp_path):
    one = step(network('CALM-EM').float(), device, tmp_path, amp=amp)
    one.save(SimpleNamespace(size=lambda: 0))
    record = util.read_checkpoint(tmp_path / training.STATE, 'vgg_tiny', 'CAM', False)
    other = step(network('CALM-EM', seed=9).float(), device, tmp_path, amp=amp)
    other.load(record)
    images, labels, _ = list(Batches())[1]
    for trained in (one, other):
        trained.train_step(images.float(), labels, 4)
    for (key, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values()):
        assert torch.equal(a, b), key
    assert one.total.item() == other.total.item()


def test_a_compiled_step(accelerator):
    """torch.compile asks for a compiler, which a machine with CUDA has for its kernels; a CPU may have none."""
    start = network('CALM-EM')
    expected = step(copy.deepcopy(start).float(), accelerator)
    net = copy.deepcopy(start).float()
    net.run = Forward(torch.compile(net.run.function))
    found = step(net, accelerator)
    for (key, p), q in zip(found.model.named_parameters(), expected.model.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=lambda text: f'{key}: {text}')


@pytest.fixture
def alone(device):
    """A group of one process: nccl on an accelerator, gloo elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        backend = 'nccl' if device.type == 'cuda' else 'gloo'
        torch.distributed.init_process_group(backend, init_method=f'file://{folder}/store', rank=0, world_size=1)
        yield device
        torch.distributed.destroy_process_group()


def test_a_step_of_data_parallel_training(alone, monkeypatch):
    """Wrapped as with several processes, it is the step of one."""
    start = network('CALM-EM').float()
    expected = step(copy.deepcopy(start), alone)
    wrapped = []
    with monkeypatch.context() as patch:
        patch.setattr(processes, 'world', lambda: 2)  # while it is built
        run = resuming.Run('nowhere', {'architecture': 'vgg_tiny', 'seed': 3}, resume=False, override=False)
        one = training.Trainer(run, RECIPE, start.to(alone).train(), alone)
        wrapped.append(type(one.objective))
    batch = Batches(4)
    one.train_step(batch.images.float(), batch.labels, 4)
    assert wrapped == [DistributedDataParallel]
    for (key, p), q in zip(one.model.named_parameters(), expected.model.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6, msg=lambda text: f'{key}: {text}')


def test_processes_that_share_an_accelerator_talk_by_gloo(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for beside, name in ((None, 'nccl'), ('2', 'nccl'), ('3', 'gloo')):
        if beside:
            monkeypatch.setenv('LOCAL_WORLD_SIZE', beside)
        assert processes._backend(torch.device('cuda', 0)) == name
        assert processes._backend(torch.device('cpu')) == 'gloo'


def half_step(rank, folder, place):
    """The weights after a step of two processes on one device, each with half of the batch."""
    os.environ['LOCAL_WORLD_SIZE'] = '2'
    device = torch.device(place)
    backend = processes._backend(device) if device.type == 'cpu' else 'gloo'  # as where they share one accelerator
    torch.distributed.init_process_group(backend, init_method=f'file://{folder}/store', rank=rank, world_size=2)
    try:
        return whole_step(device, slice(rank, None, 2))
    finally:
        torch.distributed.destroy_process_group()


def whole_step(device, rows=slice(None)):
    """The weights after a step on these rows of the batch, batch norm as in evaluation."""
    run = resuming.Run('nowhere', {'architecture': 'vgg_tiny', 'seed': 3}, resume=False, override=False)
    one = training.Trainer(run, RECIPE, network('CALM-EM').float().to(device).eval(), device)
    batch = Batches(4)
    one.train_step(batch.images[rows].float(), batch.labels[rows], 4)
    return {key: value.cpu() for key, value in one.model.state_dict().items()}


def test_two_processes_on_one_device_step_as_one(accelerator, tmp_path):
    """On a CPU: tests/test_resuming.py, test_two_processes_train_as_one."""
    given = str(tmp_path), str(accelerator)
    other = torch.multiprocessing.get_context('spawn').Process(target=half_step, args=(1, *given))
    other.start()
    found = half_step(0, *given)
    other.join()
    assert other.exitcode == 0
    for key, value in whole_step(accelerator).items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6, msg=lambda text: f'{key}: {text}')
