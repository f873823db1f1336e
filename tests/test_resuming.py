"""Several processes, runs that are stopped and go on, and what breaks from outside: commands as a cluster runs them."""

import glob
import json
import os
import random
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import commands
import numpy as np
import pytest
import torch
from conftest import MINICUB, ROOT
from munch import Munch

import eval_pixel_perturb
import main
import util
import wsol
from config import flags_of, get_configs
from engine import arrays, evaluation, processes, training
from engine.command import STOPPED, Stopped
from engine.resume import resuming, sharding
from wsol.errors import InUse, UserError
from wsol.scoring import Tally, join

DATA = [
    '--dataset=CUB',
    f'--data_root={MINICUB}/dataset',
    f'--metadata_root={MINICUB}/metadata',
    '--workers=0',
    '--seed=1',
    '--pretrained=False',
    '--resize_size=40',
    '--crop_size=32',
    '--batch_size=5',
    '--lr=.001',
    '--architecture=vgg_tiny',
    '--attribution_method=CALM-EM',
    '--large_feature_map=True',
]
TRAIN = [*DATA, '--epochs=4', '--lr_decay_frequency=3', '--save_minutes=.000001']  # a state at every step


LAUNCHER = os.path.join(ROOT, 'scripts', 'torchrun.py')


def launch(command, *arguments, launcher='torch.distributed.run'):
    """A command of the checkout under way in two processes under torchrun."""
    flags = ['--standalone', '--nproc_per_node=2']
    return commands.start(launcher, *flags, os.path.join(ROOT, command), *arguments, OMP_NUM_THREADS='1')


def run(command, *arguments, processes=1):
    """Standard output of the first of so many processes; none may fail."""
    together = commands.start_together(processes, command, *arguments) if processes > 1 else []
    ends = [process.finish() for process in together or [commands.start(command, *arguments)]]
    assert all(code == 0 for code, _, _ in ends), [err for _, _, err in ends]
    return ends[0][1]


def read(*path):
    with open(os.path.join(*map(str, path))) as file:
        return json.load(file)


def weights(folder):
    return torch.load(os.path.join(folder, 'last_checkpoint.pth.tar'), weights_only=True)['state_dict']


def epochs(folder):
    """The log's records of the epochs, without what the clock says."""
    with open(os.path.join(folder, 'log.jsonl')) as file:
        records = [json.loads(line) for line in file]
    return [
        {key: value for key, value in record.items() if key not in ('seconds', 'images_per_second')}
        for record in records
        if 'epoch' in record
    ]


def wait_for(process, happened):
    """Wait until happened() or until the process ends."""
    while not happened() and process.poll() is None:
        time.sleep(0.001)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with an uninterrupted training, `whole`."""
    root = tmp_path_factory.mktemp('save')
    run('main.py', *TRAIN, f'--save_root={root}', '--experiment_name=whole')
    return root


@pytest.mark.slow
def test_a_run_killed_and_stopped_anywhere_ends_in_the_same_weights(trained):
    draw = random.Random(0)
    folder = trained / 'cut'
    arguments = ['main.py', *TRAIN, f'--save_root={trained}', '--experiment_name=cut', '--resume=True']
    for number, name in ((2, 'KILL'), (6, 'USR1'), (3, 'in a write'), (7, 'TERM'), (4, 'KILL')):
        moment = 'before' if name == 'in a write' else draw.uniform(0, 0.02)
        sent = 'KILL' if name == 'in a write' else name
        code, _, err = commands.run('tests/until.py', sent, training.STATE, number, moment, *arguments)
        assert code == (STOPPED if name in ('USR1', 'TERM') else -signal.SIGKILL), err
        assert (folder / f'{training.STATE}.partial').exists() or name != 'in a write'
        assert os.path.exists(resuming.marker(folder)) == (name in ('USR1', 'TERM'))
    run(*arguments)
    whole = weights(trained / 'whole')
    cut = weights(folder)
    assert all(torch.equal(value, cut[key]) for key, value in whole.items())
    assert epochs(folder) == epochs(trained / 'whole')
    assert read(folder, 'accuracy.json')['test_accuracy'] == read(trained, 'whole', 'accuracy.json')['test_accuracy']
    assert sorted(os.listdir(folder)) == [
        'accuracy.json',
        'accuracy.npz',
        'best_checkpoint.pth.tar',
        'last_checkpoint.pth.tar',
        'log.jsonl',
    ]
    assert 'nothing to do' in run(*arguments)


@pytest.mark.slow
def test_resume_refuses_another_command_and_a_foreign_folder(trained, tmp_path):
    arguments = [*TRAIN, f'--save_root={trained}', '--experiment_name=whole', '--resume=True']
    code, _, err = commands.run('main.py', *arguments, '--lr=.5', '--seed=2')
    assert code == 2 and '--lr=0.001' in err and '--seed=1' in err and len(err.strip().splitlines()) == 1
    code, _, err = commands.run('main.py', *arguments, '--override_cache=True')
    assert code == 2 and 'give one of them' in err
    (tmp_path / 'old').mkdir()
    (tmp_path / 'old' / 'last_checkpoint.pth.tar').write_bytes(b'precious')
    code, _, err = commands.run('main.py', *TRAIN, f'--save_root={tmp_path}', '--experiment_name=old', '--resume=True')
    assert (
        code == 2
        and 'already holds' in err
        and (tmp_path / 'old' / 'last_checkpoint.pth.tar').read_bytes() == b'precious'
    )


@pytest.mark.parametrize(
    'method', [['--attribution_method=CAM'], ['--attribution_method=CALM-EM', '--em_teacher=ema', '--em_decay=.5']]
)
@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, method):
    more = ['--freeze_bn=True', '--epochs=2', *method, '--batch_size=23']  # the last batch: one image
    for name, count, rate in (('one', 1, '.001'), ('two', 2, '.001'), ('drawn', 1, '1e-12')):
        flags = [*DATA, *more, f'--lr={rate}', f'--save_root={tmp_path}', f'--experiment_name={name}']
        run('main.py', *flags, processes=count)
    one = epochs(tmp_path / 'one')
    two = epochs(tmp_path / 'two')
    # another share of a batch rounds otherwise, and where that turns a ReLU an early layer steps a little differently
    assert [record['loss'] for record in one] == pytest.approx([record['loss'] for record in two], rel=1e-4)
    for figure in ('train_accuracy', 'val_accuracy', 'lr'):
        assert [record[figure] for record in one] == [record[figure] for record in two]
    accuracies = [read(tmp_path, name, 'accuracy.json')['test_accuracy'] for name in ('one', 'two')]
    assert accuracies[0] == accuracies[1]
    trained, other, drawn = (flat(weights(tmp_path / name)) for name in ('one', 'two', 'drawn'))
    moved = (trained - drawn).norm()
    assert (trained - other).norm() < 0.02 * moved and 0 < moved < 0.2 * drawn.norm()


def flat(state):
    """All the numbers of a state dict as one vector."""
    return torch.cat([value.flatten().double() for value in state.values()])


EVALUATIONS = {
    'pixel_perturb_smooth_grad': [
        'eval_pixel_perturb.py',
        '--score_map_process=smooth_grad',
        '--smooth_grad_nr_iter=3',
    ],
    'cue_location_jointll': ['eval_cue_location.py', '--score_map_process=jointll', '--threshold_type=log'],
    'wsol_jointll': ['eval_wsol.py', '--score_map_process=jointll', '--cam_curve_interval=.05'],
}


def finished(shards, number=0):
    """The file of a finished shard, or None."""
    return next(shards.glob(f'{number:06}.*.npz'), None)


def result(folder, name):
    value = read(folder, f'{name}.json')
    value.pop('arguments')
    return value


@pytest.mark.parametrize('name', EVALUATIONS)
@pytest.mark.slow
def test_two_processes_score_as_one_and_an_interrupted_one_goes_on(trained, name):
    command, *flags = EVALUATIONS[name]
    flags = [*DATA, *flags, f'--save_root={trained}', '--load_checkpoint=whole']
    run(command, *flags, '--experiment_name=one')
    run(command, *flags, '--experiment_name=two', processes=2)
    one = result(trained / 'one', name)
    shards = trained / 'cut_off' / f'shards_{name}'
    assert result(trained / 'two', name) == one
    rows = (trained / 'one' / f'{name}.npz').read_bytes()
    assert (trained / 'two' / f'{name}.npz').read_bytes() == rows
    if 'smooth_grad' not in name:
        flags.remove('--seed=1')  # a drawn seed is taken over
    words = [command, *flags, '--experiment_name=cut_off']
    commands.run('tests/until.py', 'KILL', '*.npz', 1, 0, *words)
    code, _, err = commands.run(*words)
    assert code == 2 and '--resume' in err and finished(shards) and not finished(shards, 1)
    stamp = finished(shards).stat().st_mtime_ns
    commands.run('tests/until.py', 'KILL', '*.npz', 1, 0, *words, '--resume=True')
    assert finished(shards).stat().st_mtime_ns == stamp and finished(shards, 1) and not finished(shards, 2)
    run(*words, '--resume=True')
    assert result(trained / 'cut_off', name) == one and not shards.exists()
    assert (trained / 'cut_off' / f'{name}.npz').read_bytes() == rows


@pytest.mark.slow
def test_two_processes_add_to_a_finished_table(trained):
    """A table of attribution scores that grew under two processes is that of one process made at once."""
    few = ['--max_images=20', '--batch_size=4', '--curve_steps=2', '--metrics=win,deletion,remove_and_classify']
    command = ['eval_attribution.py', *DATA, *few, f'--save_root={trained}', '--load_checkpoint=whole', '--seed=1']
    run(*command, '--experiment_name=at_once', '--methods=vanilla,jointll,grad_cam')
    run(*command, '--experiment_name=grown', '--methods=vanilla')
    run(*command, '--experiment_name=grown', '--methods=jointll,grad_cam', '--resume', processes=2)
    name = 'attribution_scores'
    at_once, grown = (result(trained / folder, name) for folder in ('at_once', 'grown'))
    for row in (*at_once['methods'].values(), *grown['methods'].values()):
        assert row.pop('seconds') > 0
    assert grown == at_once and not (trained / 'grown' / f'shards_{name}').exists()
    first, second = (dict(np.load(trained / folder / f'{name}.npz')) for folder in ('at_once', 'grown'))
    assert first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.slow
def test_processes_asked_to_stop_keep_their_shards_with_loaders_beside_them(trained):
    """torchrun passes SIGTERM on to whole process groups, the loaders' processes too."""
    command, *flags = EVALUATIONS['pixel_perturb_smooth_grad']
    arguments = [
        *DATA,
        *flags,
        f'--save_root={trained}',
        '--load_checkpoint=whole',
        '--smooth_grad_nr_iter=80',
        '--batch_size=2',
        '--workers=1',
        '--experiment_name=stopped',
    ]
    process = launch(command, *arguments, launcher=LAUNCHER)
    shards = trained / 'stopped' / 'shards_pixel_perturb_smooth_grad'
    wait_for(process, lambda: finished(shards))
    process.send_signal(signal.SIGTERM)
    code, _, err = process.finish()
    assert code == STOPPED and '--resume' in err and 'loading process' not in err, err
    assert err.count('stopped on request') == 1 and 'Traceback' not in err, err
    assert os.path.exists(resuming.marker(trained / 'stopped', 'pixel_perturb_smooth_grad.json')) and finished(shards)
    assert not (trained / 'stopped' / 'pixel_perturb_smooth_grad.json').exists()
    ends = [process.finish() for process in commands.start_together(2, command, *arguments)]
    err = ''.join(err for _, _, err in ends)
    mistakes = [line for line in err.splitlines() if ': error: ' in line]
    assert [code for code, _, _ in ends] == [2, 2] and len(mistakes) == 1, ends
    assert 'give --resume' in mistakes[0] and 'Traceback' not in err, err


@pytest.mark.slow
def test_signals_to_the_whole_group_stop_a_training_and_its_loaders_end_with_it(tmp_path):
    """`timeout` and SLURM signal every process of a run; its loaders must leave the stop to the main process."""
    folder = tmp_path / 'group'
    arguments = [*TRAIN, '--epochs=500', '--workers=2', f'--save_root={tmp_path}', '--experiment_name=group']
    for signal_number, send, end in (
        (signal.SIGTERM, os.killpg, STOPPED),
        (signal.SIGUSR1, os.killpg, STOPPED),
        (signal.SIGKILL, os.kill, -signal.SIGKILL),
    ):
        process = subprocess.Popen(
            [sys.executable, os.path.join(ROOT, 'main.py'), *arguments, '--resume'],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        before = len(epochs(folder)) if (folder / 'log.jsonl').exists() else 0
        wait_for(process, lambda: (folder / 'log.jsonl').exists() and len(epochs(folder)) > before)
        loaders = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
        assert len(loaders) == 4  # of training and validation
        send(process.pid, signal_number)
        _, err = process.communicate()
        assert process.returncode == end and 'Traceback' not in err and 'loading process' not in err, err
        assert (folder / training.STATE).exists() and err.count('stopped on request') == (end == STOPPED)
        while any(map(commands.is_alive, loaders)):
            time.sleep(0.01)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run(tmp_path):
    process = launch('main.py', *TRAIN, f'--save_root={tmp_path}', '--experiment_name=dead', '--epochs=500')
    wait_for(process, (tmp_path / 'dead' / 'last_checkpoint.pth.tar').exists)
    children = subprocess.run(['pgrep', '-P', str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    code, _, err = process.finish()
    assert code != 0 and 'SIGKILL' in err
    record = util.read_checkpoint(tmp_path / 'dead' / 'last_checkpoint.pth.tar', 'vgg_tiny', 'CALM-EM', True)
    wsol.load_weights(wsol.build_model('vgg_tiny', 'CALM-EM', 200, True), record['state_dict'])


@pytest.mark.slow
def test_a_failure_is_no_wish_to_stop(trained, tmp_path):
    """torchrun stops the processes that are left, which must not call for the job to be queued again."""
    shutil.copytree(os.path.join(MINICUB, 'dataset'), tmp_path / 'data')
    names = open(os.path.join(MINICUB, 'metadata', 'CUB', 'test', 'image_ids.txt')).read().split()
    image = tmp_path / 'data' / 'CUB' / 'images' / names[12]
    image.write_bytes(image.read_bytes()[:900])
    command, *flags = EVALUATIONS['pixel_perturb_smooth_grad']
    flags += [f'--data_root={tmp_path}/data', f'--save_root={trained}', '--load_checkpoint=whole']
    process = launch(command, *DATA, *flags, '--smooth_grad_nr_iter=50', '--experiment_name=broken')
    code, _, err = process.finish()
    assert code != 0 and f'{names[12]} is unreadable' in err and 'stopped on request' not in err
    assert not glob.glob(os.path.join(trained, 'broken', f'{resuming.MARKER}*'))


def call(monkeypatch, command, *arguments):
    """A command in this process."""
    monkeypatch.setattr(sys, 'argv', [command.__name__, *arguments])
    command.main()


def contents(folder):
    """{file: its bytes} of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_a_second_run_in_the_folder_is_refused_while_the_first_lives(tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    arguments = [*TRAIN, f'--save_root={tmp_path}', '--experiment_name=run']
    process = commands.start('main.py', *arguments)
    wait_for(process, (folder / 'last_checkpoint.pth.tar').exists)
    try:
        process.send_signal(signal.SIGSTOP)
        before = contents(folder)
        assert 'accuracy.json.lock' in before
        for flag in ('--resume=True', '--override_cache=True', '--is_train=False'):
            with pytest.raises(InUse, match=f'process {process.pid} on'):
                call(monkeypatch, main, *arguments, flag)
        assert contents(folder) == before
        call(monkeypatch, eval_pixel_perturb, *arguments, '--load_checkpoint=run')  # it writes other files
    finally:
        process.send_signal(signal.SIGKILL)
        process.finish()
    call(monkeypatch, main, *arguments, '--resume=True')
    assert (folder / 'accuracy.json').exists() and not list(folder.glob('*.lock'))


def test_a_training_that_lacks_only_its_test_asks_for_no_further_epoch(tmp_path, monkeypatch, capsys):
    arguments = [*DATA, f'--save_root={tmp_path}', '--experiment_name=run', '--resume=True', '--epochs=2']
    arguments.remove('--seed=1')
    classified_right = training.classified_right

    def stopped_in_the_test(*given):
        if given[4] == 'test':
            raise Stopped
        return classified_right(*given)

    monkeypatch.setattr(training, 'classified_right', stopped_in_the_test)
    with pytest.raises(Stopped):
        call(monkeypatch, main, *arguments)
    monkeypatch.undo()
    with pytest.raises(ValueError, match='give --epochs=2 or more'):
        call(monkeypatch, main, *arguments, '--epochs=1')
    drawn = capsys.readouterr().out
    call(monkeypatch, main, *arguments)
    result = read(tmp_path, 'run', 'accuracy.json')
    assert len(epochs(tmp_path / 'run')) == 2 and not (tmp_path / 'run' / training.STATE).exists()
    told = f'--seed={result["arguments"]["seed"]} repeats this run'
    assert told in drawn and told in capsys.readouterr().out  # nobody gave one; the second call takes it over


def test_the_code_of_a_launch_says_most(capsys, monkeypatch):
    """By the codes of the processes; -15 is torchrun's own SIGTERM to those that are left."""
    monkeypatch.syspath_prepend(os.path.join(ROOT, 'scripts'))
    code_of = runpy.run_path(LAUNCHER)['code_of']
    assert code_of({0: 75, 1: 75}) == code_of({0: -15, 1: 75}) == 75
    assert code_of({0: 2, 1: -15}) == 2 and code_of({0: 2, 1: 1}) == 1  # 1: a defect, whose end 0 has felt
    assert capsys.readouterr().err == ''
    assert code_of({0: -15, 1: -9}) == 1 and '(number 1 by SIGKILL)' in capsys.readouterr().err
    assert code_of({0: 2, 1: -9}) == 1 and 'by SIGKILL): out of memory?' in capsys.readouterr().err
    assert code_of({0: 2, 1: -7}) == 1 and 'by SIGBUS): is the shared memory /dev/shm full?' in capsys.readouterr().err
    assert code_of({0: -15}) == 1 and 'SIGTERM' in capsys.readouterr().err


@pytest.mark.slow
def test_fewer_epochs_than_are_done_are_refused(trained, tmp_path):
    words = ['main.py', *TRAIN, f'--save_root={tmp_path}', '--experiment_name=x']
    commands.run('tests/until.py', 'KILL', 'last_checkpoint.pth.tar', 2, 0, *words)
    code, _, err = commands.run(*words, '--resume=True', '--epochs=1')
    assert code == 2 and 'already: give --epochs=' in err and not (tmp_path / 'x' / 'accuracy.json').exists()
    shutil.copy(tmp_path / 'x' / 'last_checkpoint.pth.tar', tmp_path / 'x' / training.STATE)
    code, _, err = commands.run(*words, '--resume=True')
    assert code == 2 and f'{training.STATE} is not the state of a stopped training' in err, err


@pytest.mark.slow
def test_mixed_precision_layout_gradient_loss_and_tensorboard(tmp_path):
    """The flags of speed change rounding, not the course; what TensorBoard is given is the log's, and a picture of each
    map."""
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    flags = [*DATA, '--epochs=2', '--lr=.0001', f'--save_root={tmp_path}']
    run('main.py', *flags, '--experiment_name=plain')
    run('main.py', *flags, '--experiment_name=fast', '--amp=bf16', '--channels_last=True', '--tensorboard=True')
    run('main.py', *flags, '--experiment_name=drawn', '--gradient_reg=.5', '--gradient_reg_error=cosine')
    plain, fast, drawn = ([record['loss'] for record in epochs(tmp_path / name)] for name in ('plain', 'fast', 'drawn'))
    assert fast == pytest.approx(plain, rel=0.02) and fast != plain
    assert all(0 < more - less <= 1 for more, less in zip(drawn[:1], plain[:1]))  # .5 times an error in [0, 2]
    events = accumulator.EventAccumulator(str(tmp_path / 'fast' / 'tensorboard'))
    events.Reload()
    assert [event.value for event in events.Scalars('loss')] == pytest.approx(fast)
    assert [event.step for event in events.Images('maps/3')] == [1, 2] and len(events.Tags()['images']) == 4


def test_what_cannot_go_together_is_refused():
    for flags, said in ((['--sync_bn=True'], 'accelerator'), (['--gradient_reg=1', '--amp=fp16'], 'leave them out')):
        code, _, err = commands.run('main.py', *DATA, *flags, '--save_root=/nonexistent/save')
        assert code == 2 and said in err and len(err.strip().splitlines()) == 1


def test_shards_cover_every_image_once_whatever_the_number_of_processes(tmp_path, monkeypatch):
    for count in (1, 3):
        seen = []
        for number in range(count):
            monkeypatch.setattr(processes, 'rank', lambda: number)
            monkeypatch.setattr(processes, 'world', lambda: count)
            monkeypatch.setattr(processes, 'wait', lambda: None)
            monkeypatch.setattr(processes, 'agreed', lambda value: value)
            run = resuming.Run(str(tmp_path / f'{count}'), {'seed': 1}, resume=number > 0, override=False)
            shards = sharding.Shards(run, 'x', 100, batch_size=7)
            for index, batches in sharding.missing([shards]):
                tallies = [
                    Tally(
                        {'sum': np.array([sum(batch), len(batch)]), 'first': batch[0]},
                        {'ids': [np.array([f'n{number}' for number in batch])], 'twice': [np.array(batch) * 2]},
                    )
                    for batch in batches
                ]
                shards.save(index, join(tallies))
                seen += [number for batch in batches for number in batch]
            assert sharding.missing([shards]) == []
        total = sharding.total_of([shards])
        assert sorted(seen) == list(range(100))
        assert total['sum'].tolist() == [4950, 100] and total['first'] == sum(range(0, 100, 7))
        rows = sharding.rows_of([shards])
        assert rows['twice'].whole().tolist() == list(range(0, 200, 2))
        arrays.write(str(tmp_path / f'{count}.npz'), rows)
        with np.load(tmp_path / f'{count}.npz') as stored:
            assert stored['ids'].tolist() == [f'n{number}' for number in range(100)]  # as wide as the widest
    assert (tmp_path / '1.npz').read_bytes() == (tmp_path / '3.npz').read_bytes()


@pytest.mark.parametrize('harm', ['cut', 'empty', 'changed'])
def test_a_damaged_shard_is_computed_again(tmp_path, capsys, harm):
    run = resuming.Run(str(tmp_path), {'seed': 1}, True, False)
    shards = sharding.Shards(run, 'x', 24, batch_size=8)
    for index in range(3):
        shards.save(index, Tally({'sum': np.arange(100.0)}, {}))
    path = shards.files()[1]
    data = bytearray(open(path, 'rb').read())
    data[len(data) // 2] ^= 255
    with open(path, 'wb') as file:
        file.write({'cut': data[: len(data) // 2], 'empty': b'', 'changed': data}[harm])
    again = sharding.Shards(run, 'x', 24, batch_size=8)
    assert again.todo == {1} and capsys.readouterr().err == f'{path} is damaged: its images are scored again\n'
    again.save(1, Tally({'sum': np.arange(100.0)}, {}))
    assert sharding.total_of([again])['sum'].tolist() == [3.0 * n for n in range(100)]


def test_shards_of_other_images_are_not_gone_on_with(tmp_path):
    run = resuming.Run(str(tmp_path), {'seed': 1}, True, False)
    first, other = (resuming.digest(['a.jpg', 'b.jpg'], labels) for labels in ([0, 1], [1, 0]))
    sharding.Shards(run, 'x', 2, 8, images=first)
    sharding.Shards(run, 'x', 2, 8, images=first)
    with pytest.raises(UserError, match='plan.json was made with other images or labels .* give another --experiment'):
        sharding.Shards(run, 'x', 2, 8, images=other)
    assert resuming.digest({'b': 1, 'a': (2, 3)}) == resuming.digest({'a': [2, 3], 'b': 1})
    resuming.same_images(first, None, 'a state of an earlier version')


@pytest.mark.slow
def test_a_split_that_changes_at_a_stop_is_refused(tmp_path):
    """A label is another one, or a box: neither a training nor an evaluation mixes old and new."""
    shutil.copytree(os.path.join(MINICUB, 'metadata'), tmp_path / 'metadata')
    words = [*TRAIN, f'--metadata_root={tmp_path}/metadata', f'--save_root={tmp_path}', '--experiment_name=x']
    scoring = ['eval_wsol.py', *words, '--use_load_checkpoint', '--cam_curve_interval=.05']
    for name, moment, command, table in (
        (training.STATE, 8, ['main.py', *words], 'val/class_labels.txt'),  # in the second epoch
        ('*.npz', 1, scoring, 'test/localization.txt'),
    ):
        commands.run('tests/until.py', 'KILL', name, moment, 0, *command)
        path = tmp_path / 'metadata' / 'CUB' / table
        first, *lines = path.read_text().splitlines()
        path.write_text('\n'.join([first[: first.rindex(',')] + ',137', *lines]))
        code, _, err = commands.run(*command, '--resume')
        assert code == 2 and 'was made with other images or labels' in err and err.count('\n') == 1, err


EVERY_FLAG = flags_of('eval_attribution')


@pytest.mark.parametrize('flag', EVERY_FLAG)
def test_a_flag_that_changes_the_result_makes_another_command(flag, tmp_path):
    """Each flag alone differs: from a training's state, from an evaluation's result, from its shards."""
    here = {**get_configs('', [], 'eval_attribution'), 'seed': 1}
    saved = {**here, flag: 'another'}
    affects = EVERY_FLAG[flag].affects
    harmless = affects in ('nothing', 'place') and flag != 'seed'
    for free, same in (((), harmless), (resuming.SCORE_FLAGS, harmless or affects == 'training')):
        if same:
            resuming.same_command(here, saved, 'here', free)
        else:
            with pytest.raises(
                ValueError, match=f'here was made by another command, with --{flag}=another: give the same'
            ):
                resuming.same_command(here, saved, 'here', free)
    runs = [resuming.Run(str(tmp_path / name), one, False, False) for name, one in (('a', here), ('b', saved))]
    first, second = (sharding.Shards(run, 'x', 9, 4).key for run in runs)
    assert (first == second) == (harmless or affects == 'training')


def test_a_seed_that_is_drawn_is_taken_over_and_a_flag_that_is_new_is_no_difference():
    resuming.same_command({'seed': None, 'new': 1}, {'seed': 5, 'old': 2}, 'here')
    with pytest.raises(ValueError, match='--seed=5'):
        resuming.same_command({'seed': 4}, {'seed': 5}, 'here')
    resuming.same_command({'iou_thresholds': (30, 50)}, {'iou_thresholds': [30, 50]}, 'here')  # as JSON has it
    resuming.same_command({'epochs': 4}, {'epochs': 3}, 'here', ['epochs'])
    with pytest.raises(ValueError, match='--a=1, --c=3:'):
        resuming.same_command({'a': 0, 'b': 2, 'c': 0}, {'a': 1, 'b': 2, 'c': 3}, 'here')


@pytest.fixture
def alone(monkeypatch):
    """One process that nobody asked to stop."""
    monkeypatch.setattr(processes, '_signals', [])


class Numbers(evaluation.Evaluator):
    """An evaluation of numbers by some tasks, without a network: each has its own result, or all have one table."""

    title = 'numbers'

    def __init__(self, folder, tasks, *flags, count=20, batch_size=3, stop_at=None, table=False):
        """stop_at: (task, first number) of a batch under way when the stop comes."""
        words = f'--save_root={folder}', '--experiment_name=x', '--seed=1', f'--batch_size={batch_size}', *flags
        super().__init__(get_configs('', words), network=False)
        self.folder = folder / 'x'
        self.maps = tasks
        self.stop_at = stop_at
        self.count = count
        self.grows = table
        self.run.arguments.update(methods=tasks if table else None)
        self.read = []
        self.done = []
        self.found = {}

    def prepare(self):
        pass

    def name_of(self, task):
        return 'table' if self.grows else f'of_{task}'

    def all_runs(self):
        return {'table': self.run} if self.grows else super().all_runs()

    def batches(self, numbers):
        for batch in numbers:
            self.read.append(batch[0])
            yield batch

    def score(self, task, batch):
        if self.stop_at == (task, batch[0]):
            processes._note(15, None)
        self.done.append((task, batch[0]))
        return Tally({f'{task}/sum': sum(batch)}, {f'{task}/ids': [np.array(batch)]})

    def report(self, name, totals, rows, log):
        self.found.update(totals)
        self.rows = {key: some.whole().tolist() for key, some in rows.items()}
        self.write(name, {'methods': dict.fromkeys(self.maps)} if self.grows else {})


@pytest.fixture
def numbers(tmp_path, alone):
    """Run `Numbers` in a folder; returned with what it did."""

    def run(*parts_and_flags, **how):
        evaluator = Numbers(tmp_path, *parts_and_flags, **how)
        processes._signals.clear()
        try:
            evaluation.evaluate(evaluator)
        except Stopped as stopped:
            assert 'run the same command with --resume' in str(stopped)
        return evaluator

    return run


def test_a_stopped_evaluation_repeats_no_shard_and_leaves_no_file(numbers, tmp_path):
    """Batches of 3, shards of 9: at least eight images. Stopped in the second shard, the first one is kept."""
    folder = tmp_path / 'x'
    stopped = numbers('a', stop_at=('a', 12))
    assert stopped.done == [('a', n) for n in (0, 3, 6, 9, 12)] and stopped.found == {}
    mark = resuming.marker(folder, 'of_a.json')
    assert os.path.exists(mark) and len(list(folder.glob('shards_of_a/*.npz'))) == 1
    with pytest.raises(FileExistsError, match='give --resume to continue it, or --override_cache=True'):
        numbers('a')
    with pytest.raises(ValueError, match='another command, with --norm_type=minmax'):
        numbers('a', '--resume', '--norm_type=max')
    again = numbers('a', '--resume')
    assert again.read == [9, 12, 15, 18] and again.found == {'a/sum': sum(range(20))}
    assert again.rows == {'a/ids': list(range(20))}
    assert not (folder / 'shards_of_a').exists() and not os.path.exists(mark)


def test_several_results_go_through_the_images_together(numbers, tmp_path):
    """Each batch is read once; what a stop leaves behind is each result's own."""
    stopped = numbers('ab', stop_at=('b', 9))
    assert stopped.read == [0, 3, 6, 9, 12, 15] and stopped.done[:6] == [(task, n) for task in 'ab' for n in (0, 3, 6)]
    assert stopped.done[6:] == [('a', 9), ('a', 12), ('a', 15), ('b', 9)]
    alone = numbers('b', '--resume')
    assert alone.read == [9, 12, 15, 18] and alone.found == {'b/sum': 190}
    both = numbers('ab', '--resume')
    assert both.done == [('a', 18)] and both.found == {'a/sum': 190}  # the other is complete
    assert sorted(path.name for path in (tmp_path / 'x').iterdir()) == [
        *('log_of_a.jsonl', 'log_of_b.jsonl', 'of_a.json', 'of_a.npz', 'of_b.json', 'of_b.npz')
    ]


def test_data_in_another_place_are_pointed_out_once(tmp_path, capsys):
    saved = {'data_root': str(tmp_path / 'a'), 'metadata_root': 'metadata', 'lr': 0.1}
    for root in ('a', 'a/', 'b', 'b'):
        here = {**saved, 'data_root': str(tmp_path / root), 'metadata_root': './metadata/'}
        resuming.same_command(here, saved, 'plan.json')
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f'plan.json was made with --data_root={tmp_path}/a, now it is {tmp_path}/b')
    with pytest.raises(ValueError, match='--lr=0.1'):
        resuming.same_command({**saved, 'lr': 0.2}, saved, 'plan.json')


def test_batch_scripts_look_for_the_mark_that_their_job_leaves(tmp_path, monkeypatch):
    with open(os.path.join(ROOT, 'scripts', 'slurm', 'common.sh')) as file:
        [named] = re.findall(r'marker=(\S+)', file.read())
    made = {}
    for job in ('7', '8'):
        monkeypatch.setenv('SLURM_JOB_ID', job)
        shell = ['bash', '-c', f'folder={tmp_path}; printf %s {named}']
        made[job] = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
        with pytest.raises(Stopped):
            resuming.stop_marked(tmp_path)
    assert len({*made.values()}) == 2 and all(map(os.path.isfile, made.values()))
    with resuming.claim(resuming.Run(str(tmp_path), {}, True, False), 'x.json') as ours:
        assert ours and os.path.isfile(made['7']) and not os.path.exists(made['8'])  # the other job reads its own


@pytest.mark.parametrize('text', ['{"arguments": {"se', '[1]', '{"arguments": 3}', '{"images": 4}', ''])
def test_a_damaged_result_or_plan_is_one_line(tmp_path, text):
    run = resuming.Run(str(tmp_path), {'seed': 1}, True, False)
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(
        UserError, match='x.json is damaged .*: give --override_cache=True to compute it again'
    ) as error:
        with resuming.claim(run, 'x.json'):
            pass
    assert '\n' not in str(error.value)
    (tmp_path / 'shards_y').mkdir()
    (tmp_path / 'shards_y' / 'plan.json').write_text(text)
    with pytest.raises(UserError, match='plan.json is damaged'):
        sharding.planned_seed({'y': run})
    with pytest.raises(UserError, match='plan.json is damaged'):
        sharding.added_to(run, 'y')


def test_outside_slurm_each_result_of_a_folder_has_a_mark_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    made = [resuming.marker(tmp_path, name) for name in ('wsol_vanilla.json', 'cue_location_vanilla.json')]
    made.append(resuming.marker(tmp_path))  # a training's
    for result in ('wsol_vanilla.json', 'cue_location_vanilla.json', 'accuracy.json'):
        with pytest.raises(Stopped):
            resuming.stop_marked(tmp_path, result)
    assert len({*made}) == 3 and all(map(os.path.isfile, made)) and os.path.basename(made[2]) == 'requeue'
    with resuming.claim(resuming.Run(str(tmp_path), {}, True, False), 'wsol_vanilla.json') as ours:
        assert ours and [*map(os.path.exists, made)] == [False, True, True]  # what the others were told stays


def test_the_tasks_of_a_table_are_finished_one_by_one(numbers):
    """Shards of 9 and 5 images, tasks a and b; stopped in b of the first one; gone on with a, b, c; then with a, d."""
    stopped = numbers('ab', count=14, table=True, stop_at=('b', 0))
    assert stopped.done == [('a', 0), ('a', 3), ('a', 6), ('b', 0)]
    again = numbers(['a', 'b', 'c'], '--resume', count=14, table=True)
    assert again.done[:6] == [(task, n) for task in 'bc' for n in (0, 3, 6)]
    assert again.done[6:] == [(task, n) for task in 'abc' for n in (9, 12)]
    assert again.found == {'a/sum': 91, 'b/sum': 91, 'c/sum': 91}
    assert again.rows == {f'{task}/ids': list(range(14)) for task in 'abc'}
    assert numbers(['c', 'a'], '--resume', count=14, table=True).done == []  # complete
    assert numbers(['a', 'd'], '--resume', count=14, table=True).done != []
    with pytest.raises(ValueError, match='--seed=1'):
        numbers(['a'], '--resume', '--seed=2', count=14, table=True)


def test_a_stopped_evaluation_may_be_begun_anew(numbers, tmp_path):
    numbers('a', stop_at=('a', 12))
    anew = numbers('a', '--override_cache', stop_at=('a', 0))
    assert anew.done == [('a', 0)] and not list(tmp_path.glob('x/shards_of_a/*.npz'))
    assert numbers('a').found == {'a/sum': 190}  # a plan without a finished shard is in nobody's way


@pytest.mark.parametrize('batch_size, size', [(1, 8), (3, 9), (7, 14), (8, 8), (9, 9), (64, 64)])
def test_a_shard_is_whole_batches_of_at_least_eight_images(tmp_path, batch_size, size):
    run = resuming.Run(str(tmp_path), {'seed': 1}, False, False)
    assert sharding.Shards(run, 'x', 100, batch_size).shards == [
        range(first, min(first + size, 100)) for first in range(0, 100, size)
    ]


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path):
    resource = pytest.importorskip('resource')
    model = wsol.build_model('vgg_tiny', 'CAM', 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = str(tmp_path / 'last_checkpoint.pth.tar')
    args = Munch(architecture='vgg_tiny')
    util.save_checkpoint(path, model, optimizer, 1, args)
    before = open(path, 'rb').read()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
        with pytest.raises(OSError, match='last_checkpoint'):
            util.save_checkpoint(path, model, optimizer, 2, args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert open(path, 'rb').read() == before and os.listdir(tmp_path) == ['last_checkpoint.pth.tar']
