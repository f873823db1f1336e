"""What is timed: which runs the flags ask for, and how a network is run in each."""

import pytest

from benchmarks import run
from benchmarks.forms import parse_form
from wsol.errors import UserError


def test_a_work_takes_each_of_its_values_one_by_one():
    flags = ['--only=step,erase,loss', '--architecture=resnet50,vgg16', '--classes=200,1000', '--forms=tf32,bf16']
    found = [(one.architecture, one.classes, one.form) for _, one in run.jobs(run.make_parser().parse_args(flags))]
    step = [(a, c, f) for a in ('resnet50', 'vgg16') for c in (200, 1000) for f in ('tf32', 'bf16')]
    assert found == [*step, ('resnet50', 200, 'tf32'), ('vgg16', 200, 'tf32'), ('resnet50', 200, 'tf32')]


def test_forms():
    """What main.py takes by default lets convolutions be TF32's; evaluators do not."""
    assert tuple(parse_form('float32').speed) == ('off', False, False) and not parse_form('float32').tf32
    assert tuple(parse_form('tf32').speed) == ('off', False, False) and parse_form('tf32').tf32
    assert tuple(parse_form('bf16+channels_last+compile').speed) == ('bf16', True, True)
    assert tuple(parse_form('compile').speed) == ('off', False, True)
    for name in ('bf32', 'bf16+fp16', ''):
        with pytest.raises(UserError, match='float32, tf32, bf16, fp16, channels_last, compile'):
            parse_form(name)
