"""What an accelerator gives beside the CPU: the evaluators' results for each image and pair, of one network."""

import os
import subprocess
import sys

import numpy as np

from benchmarks.timing import Row

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EVALUATORS = {  # the file that they keep: (title, command, flags)
    'pixel_perturb_jointll': ('remove-and-classify', 'eval_pixel_perturb.py', []),
    'cue_location_jointll': (
        'cue localization', 'eval_cue_location.py', ['--norm_type=clipping', '--threshold_type=log'],
    ),
    'wsol_jointll': ('boxes', 'eval_wsol.py', []),
}  # fmt: skip


def start(command, flags, on_cpu):
    """A command of the checkout that is under way; on_cpu hides the accelerator."""
    env = {**os.environ, **({'CUDA_VISIBLE_DEVICES': ''} if on_cpu else {})}
    words = [sys.executable, command, *flags]
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait(*commands):
    """Wait for all of them; a failure is an error with its last line."""
    for command in commands:
        said = command.communicate()[1].strip().splitlines()
        if command.returncode:
            raise RuntimeError(f'{command.args[1]} ended with code {command.returncode}: {said[-1] if said else ""}')


def difference(found, expected):
    """How two arrays of one shape differ, in words; places that are NaN in both are equal."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    if expected.dtype.kind in 'biu':
        return f'{np.count_nonzero(found != expected)} of {expected.size} counts differ'
    apart = np.abs(found - expected)[~(np.isnan(found) & np.isnan(expected))]
    largest = np.nan if np.isnan(apart).any() else apart.max(initial=0)
    return f'{np.count_nonzero(~(apart <= 0.01))} of {expected.size} differ by over .01, by at most {largest:.1e}'


def agreement_rows(args, device):
    """Rows of each array that an evaluator keeps: of a network trained for `--epochs` on the device, on both."""
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
        places = (('there', on_cpu), ('cpu', True))  # both at once: they take turns nowhere
        wait(*(start(command, [*flags, f'--experiment_name={place}'], hidden) for place, hidden in places))
        kept = [os.path.join(save_root, place, f'{name}.npz') for place in ('there', 'cpu')]
        with np.load(kept[0]) as found, np.load(kept[1]) as expected:
            assert found.files == expected.files and np.array_equal(found['ids'], expected['ids'])
            for key in [key for key in expected.files if expected[key].dtype.kind in 'biuf']:
                rows.append(Row(f'{title}: {key}', 'the CPU', None, '', difference(found[key], expected[key])))
    return rows
