"""What a figure was made with: the commit, the exact versions, the model of the CPU or GPU."""

import os
import platform
import subprocess
import sys

import cv2
import numpy
import PIL
import torch
import torchvision


def commit():
    """The checkout's commit, or None outside one."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        words = subprocess.run(['git', '-C', here, 'rev-parse', 'HEAD'], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return words.stdout.strip() or None if words.returncode == 0 else None


def versions():
    """{package: version} of what computes a figure; timm where a network of it is in use."""
    modules = {'torch': torch, 'torchvision': torchvision, 'numpy': numpy, 'opencv': cv2, 'pillow': PIL}
    if 'timm' in sys.modules:
        modules['timm'] = sys.modules['timm']
    return {'python': platform.python_version(), **{name: module.__version__ for name, module in modules.items()}}


def device_name(device):
    """The model of the device; of a CPU also the instructions and threads that PyTorch takes: rounding depends on
    them."""
    if device.type != 'cpu':
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f'{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{"s" if threads > 1 else ""}'


def _cpu_model():
    """The processor's name as the system has it, else its architecture."""
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return next(filter(None, names), '') or platform.processor() or platform.machine()
