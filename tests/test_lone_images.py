"""Batches of one image: said before the first batch where the network cannot be trained on them."""

import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import MINICUB
from torch import nn

import main
import wsol
from engine import processes
from engine.lone_images import check_lone_images, shares
from wsol.errors import UserError

timm = pytest.importorskip('timm', reason='timm is not installed: pip install -r requirements-timm.txt')


@pytest.mark.parametrize('count', [1, 2, 7, 8, 9, 17])
@pytest.mark.parametrize('size', [1, 2, 4, 8])
@pytest.mark.parametrize('world', [1, 2, 3])
def test_shares_are_those_of_the_sampler(count, size, world):
    from data_loaders import EpochBatches

    dealt = [len(batch) for rank in range(world) for batch in EpochBatches(count, size, 0, rank, world)]
    assert {*dealt} - {0} == shares(count, size, world)


def trainer(model, size, **flags):
    recipe = {'batch_size': size, 'freeze_bn': False, 'sync_bn': False, 'architecture': 'timm/own', **flags}
    return SimpleNamespace(recipe=SimpleNamespace(**recipe), model=model, device=torch.device('cpu'))


def squeezed():
    """Features gated by what a batch norm makes of their mean, as in SKNet; dropout draws random numbers."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x):
            return nn.functional.dropout(x, 0.5) * self.norm(x.mean(dim=(2, 3), keepdim=True)).sigmoid()

    return wsol.network.Network(nn.Sequential(nn.Conv2d(3, 4, 3), Gate()), 4, 3, 'CAM').train()


def test_one_image_is_refused_where_the_network_cannot_take_it(monkeypatch):
    model = squeezed()
    tiny = wsol.build_model('vgg_tiny', 'CAM', 3)  # its batch norms see locations
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    with pytest.raises(UserError, match='--batch_size=8 of 17 training images .* timm/own .* give --batch_size=7, or'):
        check_lone_images(trainer(model, 8), 17, 8)
    for size, count, flags in ((8, 16, {}), (8, 18, {}), (8, 17, {'freeze_bn': True})):
        check_lone_images(trainer(model, size, **flags), count, 8)
    check_lone_images(trainer(tiny, 8), 17, 32)
    with pytest.raises(UserError, match='give more images, or --freeze_bn'):
        check_lone_images(trainer(model, 8), 1, 8)
    monkeypatch.setattr(processes, 'world', lambda: 4)
    # of 5, 6 or 7 images some of the four processes get one
    with pytest.raises(UserError, match='--batch_size=4 of 16 .* give --batch_size=8'):
        check_lone_images(trainer(model, 4), 16, 8)
    assert torch.equal(torch.get_rng_state(), state) and model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_command_says_it_before_the_first_batch(monkeypatch, tmp_path):
    """Batches of one image less than there are."""
    flags = [f'--data_root={MINICUB}/dataset', f'--metadata_root={MINICUB}/metadata', f'--save_root={tmp_path}']
    flags += ['--architecture=timm/skresnet18', '--pretrained=False', '--resize_size=40', '--crop_size=32']
    with open(f'{MINICUB}/metadata/CUB/train/image_ids.txt') as file:
        count = len(file.read().split())
    words = ['main.py', *flags, '--workers=0', '--seed=0', '--epochs=1', f'--batch_size={count - 1}']
    monkeypatch.setattr(sys, 'argv', words)
    monkeypatch.setattr('engine.training.Trainer.train_step', lambda *_: pytest.fail('a batch was trained on'))
    with pytest.raises(UserError, match=f'leaves a batch with one image, .* in timm/skresnet18 .*={count - 2}'):
        main.main()
