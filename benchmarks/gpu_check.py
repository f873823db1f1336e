"""On a GPU: does it compute right here, how fast is it, and what would a training take?

    bash scripts/gpu_check.sh [--minutes N] [--output DIR] [--device cpu]

In this order: the tests' cases for the device; training and forward passes; the same compiled; the loader; the
evaluators over their passes; counts and PxAP beside the CPU's; a table, DIR/table.md. Each step has a share of the
minutes that are left, and leaves DIR/STEP.json; called again, what is there is not done again. --device cpu rehearses
every step with tiny sizes. Exit codes: 2 no GPU; 1 something failed; 75 the time was up, call it again.
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
from benchmarks import records, table
from engine.command import STOPPED, command
from wsol.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
GRACE = 10  # seconds at the end of a step's limit, or a fifth of it, in which it may write down what it has
TABLE = 3  # seconds for the table
CORES = os.cpu_count() or 1


class Step(NamedTuple):
    """A step of the check."""

    name: str  # of its result file
    share: int  # of the time that is left, beside the shares of the steps behind it
    script: str
    flags: str  # on a GPU
    tiny: str  # in a rehearsal


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
    """The command of a step, a list of words."""
    words = [sys.executable, os.path.join(ROOT, step.script), *(step.tiny if device == 'cpu' else step.flags).split()]
    roots = [f'--data_root={folder}/dataset', f'--metadata_root={folder}/metadata']
    if step.script == RUN:
        words += [*roots, f'--save_root={folder}/save']
    if step.name == 'toybirds':
        return [*words, *roots]
    return [*words, f'--device={device}', f'--output={folder}/{step.name}.json']


def run(words, seconds, log):
    """Run a command for at most so long; its exit code, None where it was stopped. Nothing that it started is left."""
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


def is_done(step, folder):
    """Is a step's result there, complete?"""
    made = records.read(os.path.join(folder, f'{step.name}.json'))
    return bool(made and made['complete'])


def run_step(step, folder, device, seconds):
    """Run a step for at most so long and say how it ended; its exit code, None where it is unfinished."""
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
    parser.add_argument('--minutes', type=float, default=14, help='never more than these in all; default %(default)s')
    parser.add_argument('--output', default='save/gpu_check', metavar='DIR', help='default %(default)s')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda', help='cpu: a rehearsal, tiny sizes')
    parser.add_argument('--since', type=float, metavar='TIME', help='the minutes count from here; default: from now')
    return parser.parse_args()


def main():
    """Runs the steps that are not done and writes the table."""
    args = parse()
    passed = time.time() - args.since if args.since else 0  # PyTorch takes seconds to import
    deadline = time.monotonic() + 60 * args.minutes - passed
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('PyTorch sees no GPU on this machine: --device=cpu rehearses the check with tiny sizes')
    folder = os.path.abspath(args.output)
    os.makedirs(folder, exist_ok=True)
    codes = {}
    left = [step for step in STEPS if not is_done(step, folder)]
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
