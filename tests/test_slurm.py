"""The batch scripts, on a real SLURM of one machine (tests/slurm/start.sh): ToyBirds jobs as a user submits them."""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT

SCRIPTS = os.path.join(ROOT, 'scripts', 'slurm')
HERE = os.path.join(ROOT, 'tests', 'slurm')
TOOLS = ('munged', 'slurmctld', 'slurmd', 'sbatch')
PLACE = ['--gpus-per-node=0', '--cpus-per-task=1']  # sbatch's flags: what this machine has
LIMIT = 240  # seconds that a test waits for a job


def missing():
    path = os.environ['PATH'] + ':/usr/sbin:/sbin'
    return [tool for tool in TOOLS if not shutil.which(tool, path=path)]


def install():
    """Debian's SLURM, if nobody has to be asked: as root, in a container's system, whose packages start no daemons."""
    if os.geteuid() or not shutil.which('apt-get') or not os.path.exists('/usr/sbin/policy-rc.d'):
        return 'on Debian, apt install slurm-wlm'
    for words in (['update'], ['install', '-y', '--no-install-recommends', 'slurm-wlm']):
        command = ['apt-get', '-qq', '-o', 'Acquire::http::Timeout=10', '-o', 'Acquire::Retries=0', *words]
        environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
        except subprocess.TimeoutExpired:
            return f'apt-get {words[0]} took over 180 seconds'
        if done.returncode:
            return f'apt-get {words[0]}: {(done.stderr.strip().splitlines() or ["failed"])[-1]}'
    return 'apt-get install slurm-wlm did not bring them'


class Slurm:
    """The running SLURM: its environment, and the folder jobs are submitted from."""

    def __init__(self, folder, environment):
        self.folder = folder
        self.environment = environment

    def run(self, *words):
        """What a command prints, which must succeed."""
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.folder, env=self.environment
        )
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout.strip()

    def submit(self, *words):
        return self.run('sbatch', '--parsable', *PLACE, *words)

    def job(self, number):
        """What scontrol says of a job: [{field: value}], an array's tasks each."""
        lines = self.run('scontrol', '--oneliner', 'show', 'job', number).splitlines()
        return [dict(re.findall(r'(\w+)=(\S*)', line)) for line in lines]

    def ended(self, number):
        """The records of a job that has ended, as `job`."""
        going = ('PENDING', 'RUNNING', 'COMPLETING', 'REQUEUED')
        self.wait(lambda: all(task['JobState'] not in going for task in self.job(number)), number)
        return self.job(number)

    def wait(self, condition, number):
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, (self.job(number), self.printed(number))
            time.sleep(0.2)

    def printed(self, number):
        """What a job has printed so far."""
        paths = glob.glob(os.path.join(glob.escape(self.folder), f'slurm-*-{number}.out'))
        return open(paths[0]).read() if paths else ''


@pytest.fixture(scope='module')
def slurm(tmp_path_factory):
    if not os.access(os.path.join(ROOT, '.venv', 'bin', 'python'), os.X_OK):
        pytest.skip('the batch scripts need .venv in the checkout: scripts/test.sh makes it')
    if missing() and (reason := install()) and missing():
        pytest.skip(f'{", ".join(missing())} not installed: {reason}')
    state = str(tmp_path_factory.mktemp('slurm') / 'state')
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(('SLURM', 'SBATCH', 'SRUN', 'OMP_'))
    }
    started = subprocess.run(
        ['bash', os.path.join(HERE, 'start.sh'), state, '2'], capture_output=True, text=True, env=environment
    )
    assert started.returncode == 0, started.stderr
    try:
        yield Slurm(str(tmp_path_factory.mktemp('jobs')), {**environment, 'SLURM_CONF': started.stdout.strip()})
    finally:
        subprocess.run(['bash', os.path.join(HERE, 'stop.sh'), state], check=True)
    alive = [pid for pid in filter(str.isdigit, os.listdir('/proc')) if state in command_line(pid)]
    assert not alive, [command_line(pid) for pid in alive]


def command_line(pid):
    try:
        with open(f'/proc/{pid}/cmdline') as file:
            return file.read().replace('\0', ' ')
    except OSError:
        return ''


def flags(slurm, name):
    return [
        f'--config={ROOT}/configs/CAM_ToyBirds.yaml',
        f'--data_root={slurm.folder}/data',
        '--metadata_root=metadata',
        '--save_root=my runs',
        f'--experiment_name={name}',
        '--epochs=3',
        '--batch_size=16',
        '--workers=1',
        '--seed=0',
    ]


def result(slurm, *path):
    return os.path.join(slurm.folder, 'my runs', *path)


@pytest.fixture(scope='module')
def jobs(slurm):
    """{name: job}: all are submitted at once; `stopped` gets SIGUSR1 in its second epoch."""
    slurm.run(
        sys.executable,
        os.path.join(ROOT, 'scripts', 'make_toybirds.py'),
        '--data_root=data',
        '--metadata_root=metadata',
        '--classes=20',
        '--train=10',
        '--val=1',
        '--test=2',
    )
    train, evaluate = (os.path.join(SCRIPTS, f'{name}.sbatch') for name in ('train', 'evaluate'))
    found = {name: slurm.submit(train, *flags(slurm, name)) for name in ('plain', 'stopped')}
    found['evaluated'] = slurm.submit(
        f'--dependency=afterok:{found["plain"]}',
        evaluate,
        'eval_pixel_perturb.py',
        *flags(slurm, 'plain'),
        '--load_checkpoint=plain',
    )
    found['nodes'] = slurm.submit('--nodes=2', train, *flags(slurm, 'nodes'), '--epochs=1')
    found['mistaken'] = slurm.submit(train, *flags(slurm, 'mistaken'), '--lr=fast')
    log = result(slurm, 'stopped', 'log.jsonl')
    slurm.wait(lambda: os.path.exists(log) and '"epoch": 1' in open(log).read(), found['stopped'])
    slurm.run('scancel', '--signal=USR1', found['stopped'])
    return found


@pytest.mark.slow
def test_a_stopped_training_requeues_itself_and_ends_like_an_undisturbed_one(slurm, jobs):
    (plain,) = slurm.ended(jobs['plain'])
    (stopped,) = slurm.ended(jobs['stopped'])
    assert (plain['JobState'], plain['Restarts']) == ('COMPLETED', '0'), slurm.printed(jobs['plain'])
    assert (stopped['JobState'], stopped['Restarts']) == ('COMPLETED', '1'), slurm.printed(jobs['stopped'])
    printed = slurm.printed(jobs['stopped'])
    assert 'stopped on request' in printed and f'requeueing job {jobs["stopped"]}' in printed
    assert not os.path.exists(result(slurm, 'stopped', f'requeue_{jobs["stopped"]}'))
    for name in ('last', 'best'):
        one, other = (
            torch.load(result(slurm, run, f'{name}_checkpoint.pth.tar'), weights_only=True)
            for run in ('plain', 'stopped')
        )
        assert one['epoch'] == other['epoch'] and one['state_dict'].keys() == other['state_dict'].keys()
        assert all(torch.equal(value, other['state_dict'][key]) for key, value in one['state_dict'].items())
    one, other = (json.load(open(result(slurm, run, 'accuracy.json'))) for run in ('plain', 'stopped'))
    assert one['test_accuracy'] == other['test_accuracy'] and one['best_val_accuracy'] == other['best_val_accuracy']


@pytest.mark.slow
def test_an_evaluation_waits_for_its_training(slurm, jobs):
    (task,) = slurm.ended(jobs['evaluated'])
    assert task['JobState'] == 'COMPLETED', slurm.printed(jobs['evaluated'])
    assert json.load(open(result(slurm, 'plain', 'pixel_perturb_vanilla.json')))['images'] == 40


@pytest.mark.slow
def test_two_nodes_train_together(slurm, jobs):
    (task,) = slurm.ended(jobs['nodes'])
    printed = slurm.printed(jobs['nodes'])
    assert (task['JobState'], task['NumNodes']) == ('COMPLETED', '2'), printed
    assert printed.count('test accuracy') == 1  # two runs of one process would both speak
    assert json.load(open(result(slurm, 'nodes', 'accuracy.json')))['images'] == 40


@pytest.mark.slow
def test_a_mistake_ends_the_job(slurm, jobs):
    (task,) = slurm.ended(jobs['mistaken'])
    assert (task['JobState'], task['ExitCode'], task['Restarts']) == ('FAILED', '2:0', '0')
    assert "'fast' is not a number" in slurm.printed(jobs['mistaken'])


def finish(slurm, name, readout):
    """What a task of the array leaves that has ended: its steps are not repeated."""
    folder = result(slurm, 'table', name)
    os.makedirs(folder)
    means = dict.fromkeys(('cue_1', 'cue_2', 'cue_3', 'mean'), 12.5)
    for file, value in (
        ('accuracy', {'test_accuracy': 50.0}),
        *((f'cue_location_{one}', {'released': means, 'per_pair': means, 'exact': means}) for one in readout.split()),
    ):
        with open(os.path.join(folder, f'{file}.json'), 'w') as target:
            json.dump(value, target)


@pytest.mark.slow
def test_an_array_makes_a_table(slurm):
    """Of its three tasks the last one trains and evaluates; the others have ended before."""
    finish(slurm, 'CAM_ToyBirds', 'input_grad integrated_grad smooth_grad var_grad vanilla')
    finish(slurm, 'CALM-ML_ToyBirds', 'jointll')
    said = slurm.run(
        'bash',
        os.path.join(SCRIPTS, 'table.sh'),
        'cue_localization',
        '--toy',
        '--epochs=1',
        '--images=2',
        '--test_images=1',
        '--workers=0',
        '--save_root',
        result(slurm, 'table'),
        '--',
        *PLACE,
    )
    array, printed = re.search(
        r'array (\d+): CAM_ToyBirds CALM-ML_ToyBirds CALM-EM_ToyBirds\n.*?: (.*/cue_localization-table-\d+\.out)', said
    ).groups()
    job = re.search(r'(\d+)\.out', printed)[1]
    (task,) = slurm.ended(job)
    outputs = ''.join(
        open(path).read()
        for path in glob.glob(os.path.join(os.path.dirname(glob.escape(printed)), 'cue_localization-*.out'))
    )
    assert task['JobState'] == 'COMPLETED' and {task['JobState'] for task in slurm.job(array)} == {'COMPLETED'}, outputs
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in open(printed) if line.startswith('| ')]
    table = [dict(zip(rows[0], row)) for row in rows[1:]]
    shown = {
        row['method']: row['trained']
        for row in table
        if row['parts'] == 'mean' and row['map'] in ('vanilla', 'jointll')
    }
    means = json.load(open(result(slurm, 'table', 'CALM-EM_ToyBirds', 'cue_location_jointll.json')))['released']
    assert shown == {'CAM': '12.50', 'CALM-ML': '12.50', 'CALM-EM': f'{means["mean"]:.2f}'}, (rows, outputs)
    for name in ('CAM_ToyBirds', 'CALM-ML_ToyBirds'):
        assert not glob.glob(glob.escape(result(slurm, 'table', name)) + '/*.pth.tar')


def test_a_batch_script_outside_slurm_says_what_to_do():
    environment = {name: value for name, value in os.environ.items() if not name.startswith('SLURM')}
    for name in ('train', 'evaluate', 'table'):
        done = subprocess.run(
            ['bash', os.path.join(SCRIPTS, f'{name}.sbatch')], capture_output=True, text=True, env=environment
        )
        assert done.returncode and 'submit this file with sbatch' in done.stderr
    done = subprocess.run(
        ['bash', os.path.join(SCRIPTS, 'table.sh'), 'table7'], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2 and done.stderr.startswith("table.sh: error: 'table7' is not a table")
