"""What results say of the machine and the versions that they were made with."""

import importlib.metadata
import re
import shutil
import subprocess

import pytest
import torch
from conftest import ROOT

from engine import machine


def test_versions_are_the_exact_ones_of_the_installed_packages():
    found = machine.versions()
    for name in ('torch', 'torchvision', 'numpy', 'pillow'):
        installed = importlib.metadata.version(name)
        assert found[name].partition('+')[0] == installed.partition('+')[0], name
    assert found['torch'] == torch.__version__ and found['python'].count('.') == 2


def test_a_cpu_has_its_model_its_instructions_and_its_threads(monkeypatch):
    monkeypatch.setattr(machine, '_cpu_model', lambda: 'Abacus 3')
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 1)
    cpu = torch.device('cpu')
    assert re.fullmatch(r'Abacus 3, \w+, 1 thread', machine.device_name(cpu))
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 2)
    assert machine.device_name(cpu).endswith(', 2 threads')


def test_a_gpu_has_its_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'GPU number {device.index}')
    assert machine.device_name(torch.device('cuda', 1)) == 'GPU number 1'


def test_the_model_of_a_cpu_is_never_empty():
    with open('/proc/cpuinfo') as file:
        names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
    assert machine._cpu_model() == names[0] if names else machine._cpu_model()


@pytest.mark.skipif(not shutil.which('git'), reason='git is not installed')
def test_the_commit_is_the_checkouts():
    said = subprocess.run(['git', '-C', ROOT, 'rev-parse', 'HEAD'], capture_output=True, text=True)
    assert machine.commit() == (said.stdout.strip() or None)
