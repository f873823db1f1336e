"""What is timed: which runs the flags ask for, and how a network is run in each."""

import json
import os
import re
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
import torch

import util
from benchmarks import agreement, device_tests, gpu_check, records, run, table
from benchmarks.forms import parse_form
from benchmarks.timing import Row
from wsol.errors import UserError


def test_a_work_takes_each_of_its_values_one_by_one():
    flags = ['--only=step,erase,loss', '--architecture=resnet50,vgg16', '--classes=200,1000', '--forms=tf32,bf16']
    found = [(one.architecture, one.classes, one.form) for _, _, one in run.jobs(run.make_parser().parse_args(flags))]
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


# ---- the check on a GPU (scripts/gpu_check.sh)


def test_without_a_gpu_the_check_says_so_in_a_line(tmp_path):
    with commands.checkout(tmp_path / 'checkout') as folder:
        words = ['bash', f'{folder}/scripts/gpu_check.sh', '--output', str(tmp_path / 'new')]
        env = {**os.environ, 'CUDA_VISIBLE_DEVICES': ''}
        done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert 'no GPU' in done.stderr and '--device=cpu' in done.stderr
    assert not (tmp_path / 'new').exists()


def forked(words, *_):
    """A command of the checkout that the check starts, without the wait while Python imports PyTorch; its exit code."""
    code, out, err = commands.run(*words[1:])
    assert code == 0, (words, out, err)
    return code


class Started:
    """A command as `agreement.start` gives it, without that wait."""

    def __init__(self, command, flags, on_cpu):
        self.args = ['python', command]
        self.command = commands.start(command, *flags, **({'CUDA_VISIBLE_DEVICES': ''} if on_cpu else {}))

    def communicate(self):
        self.returncode, out, err = self.command.finish()
        return out, err


def test_the_cases_of_a_device_are_run_and_counted(tmp_path, monkeypatch, capfd):
    file = tmp_path / 'test_some.py'
    here, elsewhere = '@pytest.mark.on_cpu\ndef', '@pytest.mark.on_cuda\ndef'
    file.write_text(
        f'import pytest\n{here} test_equations(): pass\n{here} test_equations_too(): assert 1 < 0\n'
        f'{here} test_other(): assert 0\n{elsewhere} test_equations_there(): assert 0\n'
    )
    monkeypatch.setattr(device_tests, 'files_of', lambda: [str(file)])
    output = str(tmp_path / 'tests.json')
    for select, code, counts in (
        ('equations and not too', 0, {'passed': 1, 'failed': 0, 'skipped': 0}),
        ('equations', 1, {'passed': 1, 'failed': 1, 'skipped': 0}),
    ):
        words = ['device_tests.py', '--device=cpu', '--workers=1', f'--select={select}', f'--output={output}']
        monkeypatch.setattr(sys, 'argv', words)
        with pytest.raises(SystemExit) as end:
            device_tests.main()
        made = records.read(output)
        assert end.value.code == code and made['complete'] and made['counts'] == counts
    assert list(made['failed']) == ['test_some.test_equations_too'] and '1 < 0' in capfd.readouterr().out


@pytest.mark.slow
def test_a_rehearsal_goes_through_every_part_and_is_not_repeated(tmp_path, monkeypatch, capsys):
    """All parts but the tests on the device, whose result is there already."""
    monkeypatch.setattr(gpu_check, 'run', forked)
    cpu = records.conditions(torch.device('cpu'))
    tests = {**cpu, 'complete': True, 'counts': {'passed': 8, 'failed': 0, 'skipped': 0}, 'failed': {}}
    util.write_json(str(tmp_path / 'tests.json'), tests)
    steps = {step.name: step for step in gpu_check.STEPS}
    # The drawn images, then what starts commands of its own: in this process.
    forked(gpu_check.words_of(steps['toybirds'], tmp_path, 'cpu'))
    with monkeypatch.context() as patch:
        patch.setattr(agreement, 'start', Started)
        patch.setattr(sys, 'argv', gpu_check.words_of(steps['agreement'], tmp_path, 'cpu')[1:])
        run.main()
    monkeypatch.setattr(sys, 'argv', ['gpu_check.py', '--device=cpu', '--minutes=30', f'--output={tmp_path}'])
    for left in (set(steps) - {'tests', 'agreement'}, {'toybirds'}):  # ToyBirds looks for itself that it is there
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            gpu_check.main()
        output = capsys.readouterr().out
        assert end.value.code == 0
        assert all({*re.findall(rf'^(\w+): {said}', output, re.M)} == left for said in ('at most', 'done'))
    assert all(json.loads((tmp_path / f'{name}.json').read_text())['complete'] for name in set(steps) - left)
    text = (tmp_path / 'table.md').read_text()
    assert text in output and all(f'**{title}**' in text for title in table.TITLES.values())
    assert 'Not run' not in text and 'Not finished' not in text and 'Failed' not in text
    assert '8 passed, 0 failed, 0 skipped' in text
    same = [line for line in text.splitlines() if '| the CPU |' in line]
    assert len(same) >= 8 and all(re.search(r' 0 of \d+ (counts differ|differ by over)', line) for line in same)


def is_running(pid):
    """Is there a process of that number that is not dead and only waited for?"""
    try:
        with open(f'/proc/{pid}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='this system has no /proc')
def test_a_part_ends_at_its_limit_with_all_that_it_started(tmp_path):
    child = 'import subprocess, sys; one = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]); '
    child += f'open({str(tmp_path / "pid")!r}, "w").write(str(one.pid)); one.wait()'
    words = [sys.executable, '-c', child]
    seconds = 1
    while not (tmp_path / 'pid').exists() or not (tmp_path / 'pid').read_text():  # Python may start slowly
        assert gpu_check.run(words, seconds, tmp_path / 'log') is None
        seconds *= 2
    while is_running((tmp_path / 'pid').read_text()):  # killed, it takes a moment
        time.sleep(0.05)
    assert gpu_check.run([sys.executable, '-c', 'import sys; sys.exit(3)'], 600, tmp_path / 'log') == 3


def test_a_result_file_keeps_what_is_measured_and_tries_again_what_failed(tmp_path):
    path = str(tmp_path / 'part.json')
    cpu = torch.device('cpu')
    measured = []

    def measure():
        measured.append(1)
        return [Row('a step', 'a plain one', 1.5, '<= 1.1', '3 images/s')]

    def broken():
        raise MemoryError('out of it')

    record = records.Record(path, cpu)
    record.rows_of('good', measure)
    assert record.rows_of('bad', broken) == []
    with pytest.raises(SystemExit, match='bad: MemoryError: out of it'):
        record.finish()
    assert 'Failed: bad' in table.section(str(tmp_path), []) + '\n'.join(table.lines_of(records.read(path)))
    again = records.Record(path, cpu)
    assert again.rows_of('good', broken) == measure() and len(measured) == 2
    again.rows_of('bad', measure)
    again.finish()
    assert records.read(path)['complete'] and records.read(path)['errors'] == {}
    util.write_json(path, {**records.read(path), 'device': 'another'})
    with pytest.raises(UserError, match='another'):
        records.Record(path, cpu)


def test_differences_by_hand():
    counts = agreement.difference(np.array([1, 2, 3]), np.array([1, 0, 3]))
    assert counts == '1 of 3 counts differ'
    found, expected = np.array([1.0, np.nan, 2.0]), np.array([1.5, np.nan, 2.001])
    assert agreement.difference(found, expected) == '1 of 3 differ by over .01, by at most 5.0e-01'
    assert agreement.difference(found[:2], np.array([1.0, 2.0])) == '1 of 2 differ by over .01, by at most nan'


def test_what_failed_on_a_device_and_by_how_much(tmp_path):
    (tmp_path / 'test_some.py').write_text(
        'import pytest\ndef test_good(): pass\ndef test_bad():\n    off = 0.25\n    assert off < 0.1\n'
        'def test_skipped(): pytest.skip("no")\n'
    )
    report = tmp_path / 'report.xml'
    words = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', f'--junitxml={report}', str(tmp_path / 'test_some.py')]
    subprocess.run([sys.executable, *words], capture_output=True, cwd=tmp_path)
    counts, why = device_tests.results(report)
    assert counts == {'passed': 1, 'failed': 1, 'skipped': 1}
    assert list(why) == ['test_some.test_bad'] and '0.25 < 0.1' in why['test_some.test_bad']
    assert {'test_devices.py', 'test_training_devices.py', 'test_evaluation_devices.py'} <= {
        os.path.basename(path) for path in device_tests.files_of()
    }
