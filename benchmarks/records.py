"""Result files of benchmarks: each job's rows are written when it is done, so that a stopped run can resume."""

import json
import os
import subprocess
import sys
import traceback

import util
from benchmarks.timing import Row
from engine import machine
from wsol.errors import UserError

HEAD = '| | over | ratio | goal | |\n|---|---|---|---|---|'


def driver():
    """Version of NVIDIA's driver; None without one."""
    words = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split('\n')[0].strip() or None if done.returncode == 0 else None


def conditions(device):
    """Device, commit, versions and driver of a measurement."""
    made = {'device': machine.device_name(device), 'commit': machine.commit(), 'versions': machine.versions()}
    return {**made, 'driver': driver()} if device.type != 'cpu' else made


def text_of(row):
    """The table line of a row."""
    ratio = '-' if row.ratio is None else f'{row.ratio:.2f}'
    return f'| {row.what} | {row.over} | {ratio} | {row.goal} | {row.note} |'


def read(path):
    """A result file, or None if it does not exist."""
    if not path or not os.path.exists(path):
        return None
    with open(path) as file:
        return json.load(file)


class Record:
    """Result file of a run; without a path nothing is written and an error ends the run."""

    def __init__(self, path, device):
        """Raises UserError if the file is from another device or commit."""
        self.path = path
        self.made = read(path) or {**conditions(device), 'complete': False, 'jobs': {}, 'errors': {}}
        own = conditions(device)
        for name in ('device', 'commit'):
            if self.made[name] != own[name]:
                raise UserError(f'{path} was made with the {name} {self.made[name]}, this is {own[name]}: move it away')

    def rows_of(self, job, measure):
        """Rows of a job, from the file or else from `measure()`; an error is recorded and other jobs continue."""
        if job in self.made['jobs']:
            return [Row(**row) for row in self.made['jobs'][job]]
        try:
            rows = measure()
        except Exception as error:
            if not self.path:
                raise
            traceback.print_exc()
            self.made['errors'][job] = f'{type(error).__name__}: {str(error).strip()}'.splitlines()[0][:300]
            rows = []
        else:
            self.made['errors'].pop(job, None)
            self.made['jobs'][job] = [row._asdict() for row in rows]
        self._write()
        return rows

    def finish(self):
        """Mark the file complete unless jobs failed; then print them and exit with code 1."""
        self.made['complete'] = not self.made['errors']
        self._write()
        if self.made['errors']:
            sys.exit('\n'.join(f'failed: {job}: {error}' for job, error in self.made['errors'].items()))

    def _write(self):
        if self.path:
            util.write_json(self.path, self.made)
