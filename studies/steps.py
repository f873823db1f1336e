"""A study is a list of steps. A step is a command of the README and its result files; steps with existing results are
skipped, interrupted ones resumed."""

import argparse
import os
import signal
import subprocess
import sys
from typing import NamedTuple

from config import Parser
from engine.command import STOPPED, Stopped
from flags.row import FROM_0
from wsol.errors import UserError

CUE, ERASE, BOXES = 'cue_location', 'pixel_perturb', 'wsol'  # prefixes of result files
EVALUATORS = {CUE: 'eval_cue_location.py', ERASE: 'eval_pixel_perturb.py', BOXES: 'eval_wsol.py'}
PROBABILITY = ('--norm_type=clipping', '--threshold_type=log')  # CALM's map is a probability: not scaled
SCALED = ('--norm_type=minmax', '--threshold_type=even')  # other maps have no unit


class Head(NamedTuple):
    """A head of a study and its training."""

    method: str  # --attribution_method
    map: str  # the map to score
    start: str | None = None  # head whose checkpoint it starts from; None: ImageNet weights, or from scratch
    flags: tuple = ()  # training flags


HEADS = {
    'random': Head('CAM', 'vanilla', None, ('--pretrained=False', '--lr=1e-30')),  # updates only batch norm statistics
    'CAM': Head('CAM', 'vanilla'),
    'CAM-longer': Head('CAM', 'vanilla', 'CAM'),  # control: the same additional epochs and rates as CALM
    'CALM-ML': Head('CALM-ML', 'jointll', 'CAM'),
    'CALM-EM': Head('CALM-EM', 'jointll', 'CAM'),
    'CALM-EM-epoch': Head('CALM-EM', 'jointll', 'CAM', ('--em_teacher=epoch',)),
    'CALM-EM-ema': Head('CALM-EM', 'jointll', 'CAM', ('--em_teacher=ema',)),
    'CALM-EM-low-lr': Head('CALM-EM', 'jointll', 'CAM', ('--lr=0.001',)),
    'CALM-ML-low-lr': Head('CALM-ML', 'jointll', 'CAM', ('--lr=0.001',)),
    'CAM-onestep': Head('CAM', 'vanilla'),
    'CALM-ML-onestep': Head('CALM-ML', 'jointll'),
    'CALM-EM-onestep': Head('CALM-EM', 'jointll'),
    'CALM-EM-onestep-low-lr': Head('CALM-EM', 'jointll', None, ('--lr=0.001',)),
}


class Step(NamedTuple):
    """A command and its results."""

    experiment: str  # result folder below the save root
    results: tuple  # names of the result files
    words: tuple  # the command without --experiment_name


class Trained(NamedTuple):
    """A network trained by a study."""

    setting: str  # network and data, a folder name
    head: str  # in HEADS
    seed: int
    flags: tuple  # for all of its commands

    @property
    def name(self):
        """Its experiment name."""
        return f'{self.setting}/{self.head}-seed{self.seed}'


def train(network, *flags):
    """The step that trains a `Trained`, from its head's start checkpoint if there is one; flags: of the training."""
    head = HEADS[network.head]
    start = ()
    if head.start:
        start = (f'--load_checkpoint={network._replace(head=head.start).name}', '--is_different_checkpoint=True')
    words = ('main.py', *network.flags, f'--attribution_method={head.method}', *flags, *head.flags, *start)
    return Step(network.name, ('accuracy.json',), words)


def score(network, kind, name=None, flags=(), suffixes=('',), setting=None):
    """The step that scores a map of a `Trained`, or several maps.

    kind: CUE, ERASE or BOXES; name: the map or 'MAP,MAP', default the head's; suffixes: of the results' names for
    `flags`; setting: another result folder, for example for another image size.
    """
    head = HEADS[network.head]
    name = name or head.map
    scale = () if kind != CUE else PROBABILITY if name == 'jointll' else SCALED
    results = tuple(f'{kind}_{one}{suffix}.json' for one in name.split(',') for suffix in suffixes)
    model = (f'--attribution_method={head.method}', f'--load_checkpoint={network.name}')
    words = (EVALUATORS[kind], *network.flags, *model, f'--score_map_process={name}', *scale, *flags)
    return Step(network._replace(setting=setting or network.setting).name, results, words)


def accuracy(network, flags, setting):
    """The step that evaluates the accuracy of a `Trained` with other flags, for example another image size."""
    method = f'--attribution_method={HEADS[network.head].method}'
    words = ('main.py', *network.flags, method, '--is_train=False', f'--load_checkpoint={network.name}', *flags)
    return Step(network._replace(setting=setting).name, ('accuracy.json',), words)


def blurred(network, deviations, flags=(), setting=None):
    """The step of a control: cue localization of the head's map, blurred by each of the deviations in pixels."""
    suffixes = [f'_blur{one}' for one in deviations]
    return score(network, CUE, None, (*flags, '--blur', *map(str, deviations)), suffixes, setting)


def common_parser(description):
    """A study's parser with the common flags."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=FROM_0, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    parser.add_argument('--workers', type=FROM_0, default=1, metavar='N', help='data loading processes (default: 1)')
    parser.add_argument('--list', action='store_true', help='list the steps and their state without running them')
    return parser


def choose(parser, name, allowed, text, default=None):
    """Add a flag that takes several of `allowed`; default: `default`, or all."""
    shown = f'{text}: {", ".join(allowed)} (default: {" ".join(default) if default else "all"})'
    default = list(default or allowed)
    parser.add_argument(f'--{name}', nargs='+', choices=allowed, default=default, metavar='NAME', help=shown)


def results_of(step, root):
    """{path of a result below the root: does it exist?}."""
    paths = [f'{step.experiment}/{result}' for result in step.results]
    return {path: os.path.isfile(os.path.join(root, path)) for path in paths}


def run_command(words):
    """Run a Python command and return its exit code; forwards SIGTERM."""
    with subprocess.Popen([sys.executable, *words]) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def run(steps, root, only_list=False):
    """Run the unfinished steps in order, or list all. Raises UserError if a step fails."""
    for step in steps:
        results = results_of(step, root)
        if only_list:
            for path, done in results.items():
                print('finished' if done else 'to do   ', path)
        if all(results.values()) or only_list:
            continue
        made = ' '.join(path for path, done in results.items() if not done)
        words = [*step.words, f'--save_root={root}', f'--experiment_name={step.experiment}', '--resume=True']
        print(' '.join(words), file=sys.stderr, flush=True)
        code = run_command(words)
        if code in (STOPPED, -signal.SIGTERM):
            raise Stopped(f'stopped in the step for {made}: run the same command again to continue')
        if code:
            raise UserError(
                f'the step for {made} ended with exit code {code}: fix the error above, then run the same command '
                'again to continue'
            )
