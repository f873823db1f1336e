"""A study is a list of steps. A step is one command of the README and the result file that it leaves; a step whose file
exists is not repeated, and one that was cut off is resumed."""

import argparse
import os
import signal
import subprocess
import sys
from typing import NamedTuple

from config import Parser
from engine.command import STOPPED, Stopped
from wsol.errors import UserError

CUE, ERASE, BOXES = 'cue_location', 'pixel_perturb', 'wsol'  # results, as their files are named
EVALUATORS = {CUE: 'eval_cue_location.py', ERASE: 'eval_pixel_perturb.py', BOXES: 'eval_wsol.py'}
PROBABILITY = ('--norm_type=clipping', '--threshold_type=log')  # CALM's own map is left as it is
SCALED = ('--norm_type=minmax', '--threshold_type=even')  # other maps have no unit


class Head(NamedTuple):
    """A head of a study and how it is trained."""

    method: str  # --attribution_method
    map: str  # the map that is scored
    start: str | None = None  # the head whose checkpoint it starts from; None: from ImageNet weights, or from scratch
    flags: tuple = ()  # of its training


HEADS = {
    'random': Head('CAM', 'vanilla', None, ('--pretrained=False', '--lr=1e-30')),  # only batch norm's statistics move
    'CAM': Head('CAM', 'vanilla'),
    'CAM-longer': Head('CAM', 'vanilla', 'CAM'),  # a control: as many epochs as CALM has after CAM, at the same rates
    'CALM-ML': Head('CALM-ML', 'jointll', 'CAM'),
    'CALM-EM': Head('CALM-EM', 'jointll', 'CAM'),
    'CALM-EM-epoch': Head('CALM-EM', 'jointll', 'CAM', ('--em_teacher=epoch',)),
    'CALM-EM-ema': Head('CALM-EM', 'jointll', 'CAM', ('--em_teacher=ema',)),
    'CAM-onestep': Head('CAM', 'vanilla'),
    'CALM-ML-onestep': Head('CALM-ML', 'jointll'),
    'CALM-EM-onestep': Head('CALM-EM', 'jointll'),
}


class Step(NamedTuple):
    """One command."""

    experiment: str  # folder of its result below the save root
    result: str  # name of that file
    words: tuple  # of the command, without --experiment_name


class Trained(NamedTuple):
    """A network that a study trains."""

    setting: str  # its network and data, the name of a folder
    head: str  # of HEADS
    seed: int
    flags: tuple  # of every command with it

    @property
    def name(self):
        """Its experiment."""
        return f'{self.setting}/{self.head}-seed{self.seed}'


def train(network, *flags):
    """The step that trains a `Trained`, from another head's checkpoint where its row in HEADS says so."""
    head = HEADS[network.head]
    start = ()
    if head.start:
        start = (f'--load_checkpoint={network._replace(head=head.start).name}', '--is_different_checkpoint=True')
    words = ('main.py', *network.flags, f'--attribution_method={head.method}', *flags, *head.flags, *start)
    return Step(network.name, 'accuracy.json', words)


def score(network, kind, name=None, flags=(), suffix='', setting=None):
    """The step that scores a map of a `Trained`.

    kind: CUE, ERASE or BOXES; name: of the map, by default the head's own; suffix: what `flags` add to the result's
    name; setting: another folder for the results, of another size of the images, say.
    """
    head = HEADS[network.head]
    name = name or head.map
    scale = () if kind != CUE else PROBABILITY if name == 'jointll' else SCALED
    model = (f'--attribution_method={head.method}', f'--load_checkpoint={network.name}')
    words = (EVALUATORS[kind], *network.flags, *model, f'--score_map_process={name}', *scale, *flags)
    return Step(network._replace(setting=setting or network.setting).name, f'{kind}_{name}{suffix}.json', words)


def accuracy(network, flags, setting):
    """The step that tests a `Trained` on images of another size, say."""
    method = f'--attribution_method={HEADS[network.head].method}'
    words = ('main.py', *network.flags, method, '--is_train=False', f'--load_checkpoint={network.name}', *flags)
    return Step(network._replace(setting=setting).name, 'accuracy.json', words)


def blurred(network, deviations, flags=(), setting=None):
    """The steps of a control: cue localization by the head's own map, blurred by each of the deviations in pixels."""
    for one in deviations:
        yield score(network, CUE, None, (*flags, f'--blur={one}'), f'_blur{one}', setting)


def common_parser(description):
    """The parser of a study, with the flags that all of them have."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    parser.add_argument('--workers', type=int, default=1, metavar='N', help='data loading processes (default: 1)')
    parser.add_argument('--list', action='store_true', help='print the steps, finished or not, and run none')
    return parser


def choose(parser, name, allowed, text, default=None):
    """A flag that takes several of `allowed`, by default all of them or those of `default`."""
    default = list(default or allowed)
    parser.add_argument(
        f'--{name}', nargs='+', choices=allowed, default=default, metavar='NAME', help=f'{text}: {", ".join(allowed)}'
    )


def finished(step, root):
    """Has the step left its result?"""
    return os.path.isfile(os.path.join(root, step.experiment, step.result))


def run_command(words):
    """Run a Python command to its end and return its exit code; a SIGTERM is passed on to it."""
    with subprocess.Popen([sys.executable, *words]) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def run(steps, root, only_list=False):
    """Run the steps that have no result yet, in order, or list all of them. A step that fails is a UserError."""
    for step in steps:
        done = finished(step, root)
        if only_list:
            print('finished' if done else 'to do   ', f'{step.experiment}/{step.result}')
        if done or only_list:
            continue
        words = [*step.words, f'--save_root={root}', f'--experiment_name={step.experiment}', '--resume=True']
        print(' '.join(words), file=sys.stderr, flush=True)
        code = run_command(words)
        if code in (STOPPED, -signal.SIGTERM):
            raise Stopped(
                f'stopped in the step that makes {step.experiment}/{step.result}: give the same command again'
            )
        if code:
            raise UserError(
                f'the step that makes {step.experiment}/{step.result} ended with exit code {code}: mend what it says '
                'above, then run the same command again to continue from it'
            )
