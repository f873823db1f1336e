"""Agreement of an accelerator with the CPU: the evaluators' per-image and per-pair results of one network."""

import os
import subprocess
import sys

import numpy as np

from benchmarks import ROOT
from benchmarks.timing import Row

EVALUATORS = {  # result file: (title, command, flags)
    'pixel_perturb_jointll': ('remove-and-classify', 'eval_pixel_perturb.py', []),
    'cue_location_jointll': (
        'cue localization', 'eval_cue_location.py', ['--norm_type=clipping', '--threshold_type=log'],
    ),
    'wsol_jointll': ('boxes', 'eval_wsol.py', []),
}  # fmt: skip


def start(command, flags, on_cpu):
    """Start a command of the checkout; on_cpu hides the accelerator."""
    env = {**os.environ, **({'CUDA_VISIBLE_DEVICES': ''} if on_cpu else {})}
    words = [sys.executable, command, *flags]
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait(*commands):
    """Wait for all commands; raises RuntimeError with the last line of a failed one."""
    for command in commands:
        said = command.communicate()[1].strip().splitlines()
        if command.returncode:
            raise RuntimeError(f'{command.args[1]} ended with code {command.returncode}: {said[-1] if said else ""}')


def difference(found, expected):
    """The difference of two arrays of the same shape, in words; NaN equals NaN."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    if expected.dtype.kind in 'biu':
        return f'{np.count_nonzero(found != expected)} of {expected.size} counts differ'
    apart = np.abs(found - expected)[~(np.isnan(found) & np.isnan(expected))]
    largest = np.nan if np.isnan(apart).any() else apart.max(initial=0)
    return f'{np.count_nonzero(~(apart <= 0.01))} of {expected.size} differ by over .01, by at most {largest:.1e}'


def agreement_rows(args, device):
    """A row per array that an evaluator stores, for one network trained on the device and evaluated on both."""
    save_root = os.path.abspath(args.save_root)
    shared = ['--config=configs/CALM-EM_ToyBirds.yaml', f'--data_root={os.path.abspath(args.data_root)}']
    shared += [f'--metadata_root={os.path.abspath(args.metadata_root)}', f'--save_root={save_root}', '--seed=0']
    shared += [f'--workers={args.workers}', f'--crop_size={args.size}', f'--resize_size={args.size * 8 // 7}']
    shared += ['--resume=True']
    on_cpu = device.type == 'cpu'
    if not os.path.exists(os.path.join(save_root, 'network', 'accuracy.json')):
        wait(start('main.py', [*shared, '--experiment_name=network', f'--epochs={args.epochs}'], on_cpu))
    rows = []
    for name, (title, command, own) in EVALUATORS.items():
        flags = [*shared, *own, '--score_map_process=jointll', '--load_checkpoint=network']
        places = (('there', on_cpu), ('cpu', True))  # in parallel
        wait(*(start(command, [*flags, f'--experiment_name={place}'], hidden) for place, hidden in places))
        kept = [os.path.join(save_root, place, f'{name}.npz') for place in ('there', 'cpu')]
        with np.load(kept[0]) as found, np.load(kept[1]) as expected:
            assert found.files == expected.files and np.array_equal(found['ids'], expected['ids'])
            for key in [key for key in expected.files if expected[key].dtype.kind in 'biuf']:
                rows.append(Row(f'{title}: {key}', 'the CPU', None, '', difference(found[key], expected[key])))
    return rows
