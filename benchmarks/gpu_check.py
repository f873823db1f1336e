"""GPU check: correctness, speed, and estimated training times on this machine.

    bash scripts/gpu_check.sh [--minutes N] [--output DIR] [--device cpu]

Steps: the tests' device cases; training and forward passes; the same compiled; the loader; the evaluators over their
passes; counts and PxAP against the CPU; a table, DIR/table.md. Each step gets a share of the remaining minutes and
writes DIR/STEP.json; a further call skips finished steps. --device cpu is a dry run with tiny sizes. Exit codes: 2 no
GPU; 1 a step failed; 75 out of time, call it again.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch

import util
from benchmarks import ROOT, records, table
from engine.command import STOPPED, command
from wsol.errors import UserError

GRACE = 10  # seconds, at most a fifth of a step's limit, for saving partial results
TABLE = 3  # seconds for the table
CORES = os.cpu_count() or 1


class Step(NamedTuple):
    """A step of the check."""

    name: str  # of its result file
    share: int  # of the remaining time, relative to the following steps
    script: str
    flags: str  # on a GPU
    tiny: str  # in a dry run


TOYS = '--classes=24 --train=40 --val=2 --test=108'  # 2592 test images
TINY_TOYS = '--classes=20 --train=2 --val=1 --test=1 --size=224'
RUN = 'benchmarks/run.py'
STEPS = (
    Step('tests', 4, 'benchmarks/device_tests.py', f'--workers={min(8, CORES)}', '--workers=1 --select=equations'),
    Step(
        'speed', 3, RUN,
        '--only=loss,step --architecture=resnet50,vgg16 --classes=200,1000 '
        '--forms=tf32,bf16+channels_last,bf16,float32 --heads=CALM-EM,CALM-ML,CAM --batch=64',
        '--only=loss,step --architecture=vgg_tiny --classes=5 --forms=tf32,bf16+channels_last --heads=CALM-EM,CAM '
        '--size=32 --batch=2 --repeats=1',
    ),
    Step(
        'compiled', 2, RUN,
        '--only=step,erase --architecture=resnet50,vgg16 --forms=bf16+channels_last+compile --batch=64',
        '--only=erase --architecture=vgg_tiny --classes=5 --size=32 --batch=2 --repeats=1',  # needs no compiler
    ),
    Step('toybirds', 2, 'scripts/make_toybirds.py', f'{TOYS} --workers={CORES}', f'{TINY_TOYS} --workers=1'),
    Step(
        'loader', 1, RUN,
        f'--only=item,load --forms=bf16+channels_last --batch=64 --workers={CORES}',
        '--only=item,load --architecture=vgg_tiny --size=32 --batch=2 --files=2 --repeats=1 --workers=0',
    ),
    Step(
        'evaluators', 3, RUN,
        '--only=cue,erase,score --architecture=resnet50,vgg16 --forms=float32,bf16 --images=2579 --batch=64 '
        f'--repeats=3 --workers={CORES}',
        '--only=cue,erase,score --architecture=vgg_tiny --forms=float32,bf16 --classes=5 --images=4 --size=32 '
        '--batch=2 --repeats=1 --workers=0',
    ),
    Step(
        'agreement', 2, RUN,
        f'--only=agree --size=96 --epochs=8 --workers={min(8, CORES)}',
        '--only=agree --size=32 --epochs=1 --workers=0',
    ),
)  # fmt: skip


def words_of(step, folder, device):
    """A step's command as a list of words."""
    words = [sys.executable, os.path.join(ROOT, step.script), *(step.tiny if device == 'cpu' else step.flags).split()]
    roots = [f'--data_root={folder}/dataset', f'--metadata_root={folder}/metadata']
    if step.script == RUN:
        words += [*roots, f'--save_root={folder}/save']
    if step.name == 'toybirds':
        return [*words, *roots]
    return [*words, f'--device={device}', f'--output={folder}/{step.name}.json']


def run(words, seconds, log):
    """Run a command for at most `seconds` and kill its process group; returns its exit code, None if stopped."""
    grace = min(GRACE, seconds / 5)
    with open(log, 'a') as errors:
        process = subprocess.Popen(words, cwd=ROOT, stderr=errors, start_new_session=True)
        code = None
        try:
            code = process.wait(seconds - grace)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(grace)
            except subprocess.TimeoutExpired:
                pass
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    return code


def run_step(step, folder, device, seconds):
    """Run a step with a time limit and print how it ended; returns its exit code, None if unfinished."""
    start = time.monotonic()
    log = os.path.join(folder, f'{step.name}.log')
    print(f'\n{step.name}: at most {seconds:.0f} s', flush=True)
    code = run(words_of(step, folder, device), seconds, log) if seconds > 1 else None
    state = 'stopped by its limit' if code is None else 'done' if code == 0 else f'failed with code {code}: see {log}'
    print(f'{step.name}: {state}, {time.monotonic() - start:.0f} s', flush=True)
    return code


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=14, help='time limit in all; default %(default)s')
    parser.add_argument('--output', default='save/gpu_check', metavar='DIR', help='default %(default)s')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda', help='cpu: dry run with tiny sizes')
    parser.add_argument('--since', type=float, metavar='TIME', help='start of the minutes; default: now')
    return parser.parse_args()


def main():
    """Run the unfinished steps and write the table."""
    args = parse()
    passed = time.time() - args.since if args.since else 0  # PyTorch takes seconds to import
    deadline = time.monotonic() + 60 * args.minutes - passed
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('PyTorch finds no GPU on this machine: --device=cpu does a dry run with tiny sizes')
    folder = os.path.abspath(args.output)
    os.makedirs(folder, exist_ok=True)
    codes = {}
    made = {step: records.read(os.path.join(folder, f'{step.name}.json')) for step in STEPS}
    left = [step for step in STEPS if not (made[step] and made[step]['complete'])]
    for place, step in enumerate(left):
        remaining = deadline - time.monotonic() - TABLE
        seconds = remaining * step.share / sum(one.share for one in left[place:])
        codes[step.name] = run_step(step, folder, args.device, seconds)
    text = table.section(folder, [step.name for step in STEPS])
    util.write_text(os.path.join(folder, 'table.md'), text)
    print(f'\n{text}\nwritten to {folder}/table.md')
    sys.exit(1 if any(codes.values()) else STOPPED if None in codes.values() else 0)


if __name__ == '__main__':
    command(main)
