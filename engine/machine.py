"""Provenance of a figure: the commit, the library versions, the model of the CPU or GPU."""

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
    """The commit of the checkout; None outside a checkout."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        words = subprocess.run(['git', '-C', here, 'rev-parse', 'HEAD'], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return words.stdout.strip() or None if words.returncode == 0 else None


def versions():
    """{package: version} of the libraries that compute a figure; timm only if it is loaded."""
    modules = {'torch': torch, 'torchvision': torchvision, 'numpy': numpy, 'opencv': cv2, 'pillow': PIL}
    if 'timm' in sys.modules:
        modules['timm'] = sys.modules['timm']
    return {'python': platform.python_version(), **{name: module.__version__ for name, module in modules.items()}}


def device_name(device):
    """The device's model; for a CPU also PyTorch's instruction set and threads, which affect rounding."""
    if device.type != 'cpu':
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f'{_cpu_model()}, {torch.backends.cpu.get_cpu_capability()}, {threads} thread{"s" if threads > 1 else ""}'


def _cpu_model():
    """The CPU's model name, else its architecture."""
    try:
        with open('/proc/cpuinfo') as file:
            names = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
    except OSError:
        names = []
    return next(filter(None, names), '') or platform.processor() or platform.machine()
