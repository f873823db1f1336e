"""Start-up cost: from the start of a command's process to its first batch, or to a finished picture.

All figures are CPU times of separate single-threaded processes, which depend little on other load.
"""

import os
import subprocess
import sys
import tempfile

import torch

import wsol
from benchmarks import ROOT
from benchmarks.timing import Row, children_time, seconds
from wsol.backbones import packaged

# Runs a command and exits when a loader yields its first batch.
FIRST_BATCH = """
import os, runpy, sys
sys.path.insert(0, os.getcwd())
import wsol.preprocessing
original = wsol.preprocessing.ImageLoader.__iter__
def __iter__(self):
    next(original(self))
    os._exit(0)
wsol.preprocessing.ImageLoader.__iter__ = __iter__
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
sys.exit(7)
"""
PLAIN_LOADING = """
import sys, timm, torch
net = timm.create_model('tf_efficientnet_lite0').eval()
state = torch.load(sys.argv[1], weights_only=True)
net.load_state_dict(dict(zip(net.state_dict(), state.values())))
"""
LITE = 'timm/tf_efficientnet_lite0'
COMMANDS = {
    'main.py': ['--epochs=1', '--pretrained=False', '--resize_size=40'],
    'eval_cue_location.py': ['--score_map_process=jointll', '--load_checkpoint=net.pth.tar'],
    'eval_pixel_perturb.py': ['--score_map_process=jointll', '--load_checkpoint=net.pth.tar'],
    'eval_wsol.py': ['--score_map_process=jointll', '--load_checkpoint=net.pth.tar'],
    'eval_attribution.py': ['--methods=jointll', '--metrics=loc_iou', '--load_checkpoint=net.pth.tar'],
}


def python(words, folder):
    """Run Python with these arguments, on one thread."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': ROOT, 'TMPDIR': folder},
    )
    assert done.returncode == 0, done.stderr


def start_rows(args, device):
    """CPU seconds that each command needs to its first batch beyond importing torch, on the tests' small data set."""
    small = os.path.join(ROOT, 'tests', 'minicub')
    with tempfile.TemporaryDirectory() as folder:
        model = wsol.build_model('vgg_tiny', 'CALM-EM', 200, large_feature_map=True)
        torch.save({'architecture': 'vgg_tiny', 'state_dict': model.state_dict()}, os.path.join(folder, 'net.pth.tar'))
        shared = [f'--data_root={small}/dataset', f'--metadata_root={small}/metadata', '--dataset=CUB', '--workers=0']
        shared += [f'--save_root={folder}', '--architecture=vgg_tiny', '--attribution_method=CALM-EM', '--crop_size=32']
        number = iter(range(10**6))

        def start(name):
            own = f'--experiment_name=run{next(number)}'
            words = ['-c', FIRST_BATCH, name, *shared, '--large_feature_map=True', *COMMANDS[name], own]
            python(words, folder)

        actions = [lambda: python(['-c', 'import torch'], folder)]
        actions += [lambda name=name: start(name) for name in COMMANDS]
        torch_alone, *times = seconds(actions, torch.device('cpu'), args.repeats, children_time)
    note = f'importing torch: {torch_alone:.2f} CPU seconds'
    over = 'importing torch (difference in seconds)'
    return [
        Row(f'{name} to its first batch', over, time - torch_alone, '<= 1.5', note)
        for name, time in zip(COMMANDS, times)
    ]


def photograph_rows(args, device):
    """CAM and Grad-CAM of one photograph, from the shell to the picture, over loading the network in plain code."""
    weights = packaged.file_for('tf_efficientnet_lite0')
    if weights is None:
        return [Row(f'a photograph by CAM: without {packaged.hint()}')]
    photograph = os.path.join(ROOT, 'docs', 'photographs', 'cat.jpg')
    with tempfile.TemporaryDirectory() as folder:
        words = ['inference.py', f'--classifier={LITE}', f'--images={photograph}', '--method=vanilla,grad_cam']
        words += ['--seed=0', f'--output={folder}', '--override_cache=True']
        actions = [lambda: python(words, folder), lambda: python(['-c', PLAIN_LOADING, weights], folder)]
        ours, other = seconds(actions, torch.device('cpu'), args.repeats, children_time)
    over = 'starting Python, importing torch and timm, loading the weights'
    what = 'inference.py, a photograph by CAM and Grad-CAM'
    return [Row(what, over, ours / other, '<= 1.3', f'{ours:.2f} s, {other:.2f} s')]
