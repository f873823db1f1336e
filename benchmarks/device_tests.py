"""Runs the tests' device cases in parallel and records failures on the device with their deviations.

    python benchmarks/device_tests.py --output tests.json [--device cpu] [--workers 4] [--select EXPRESSION]

If interrupted, it writes the results so far.
"""

import argparse
import glob
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch

import util
from benchmarks import ROOT, records
from engine.command import command
from wsol.errors import UserError

TAKES_DEVICE = re.compile(r'def \w+\([^)]*\b(device|accelerator)\b')  # the fixtures of tests/conftest.py


def files_of():
    """Test files with device cases."""
    paths = sorted(glob.glob(os.path.join(ROOT, 'tests', 'test_*.py')))
    return [path for path in paths if TAKES_DEVICE.search(open(path).read())]


def run_pytest(words):
    """Run pytest and return its exit code; None if interrupted, after waiting for its report."""
    process = subprocess.Popen([sys.executable, '-m', 'pytest', *words], cwd=ROOT, stdout=sys.stderr)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(2)
        process.wait()
        return None


def results(path):
    """({outcome: number of cases}, {case: reason of failure}) from a JUnit file."""
    counts = dict.fromkeys(('passed', 'failed', 'skipped'), 0)
    why = {}
    for case in ElementTree.parse(path).iter('testcase'):
        wrong = [one for one in case if one.tag in ('failure', 'error')]
        counts['failed' if wrong else 'skipped' if case.find('skipped') is not None else 'passed'] += 1
        for one in wrong:
            said = re.findall(r'^E +(\S.*)$', one.text or '', re.M)
            found = ' '.join(said[:6]) or one.get('message', '')
            why[f'{case.get("classname")}.{case.get("name")}'] = found[:300]
    return counts, why


def parse():
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='FILE.json', required=True)
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda', help='default %(default)s')
    parser.add_argument('--workers', type=int, default=4, help='processes; default %(default)s')
    parser.add_argument('--select', default='', help="pytest's -k")
    return parser.parse_args()


def main():
    """Run the cases and write the result."""
    args = parse()
    if importlib.util.find_spec('pytest') is None:
        raise UserError(
            'pytest is not installed: run bash scripts/test.sh once, or pip install -r requirements-test.txt'
        )
    parallel = ['-n', str(args.workers)] if importlib.util.find_spec('xdist') else []
    with tempfile.TemporaryDirectory() as folder:
        report = os.path.join(folder, 'report.xml')
        words = ['-q', '-p', 'no:cacheprovider', '-m', f'on_{args.device}', '-k', args.select, f'--junitxml={report}']
        code = run_pytest([*words, *parallel, *files_of()])
        counts, why = results(report) if os.path.exists(report) else ({}, {})
    complete = code in (0, 1)  # pytest finished: all passed, or some failed
    made = {**records.conditions(torch.device(args.device)), 'complete': complete, 'counts': counts, 'failed': why}
    util.write_json(args.output, made)
    print(', '.join(f'{count} {name}' for name, count in counts.items()) or f'pytest ended with code {code}')
    for name, reason in why.items():
        print(f'failed: {name}: {reason}')
    sys.exit(0 if complete and not why else 1)


if __name__ == '__main__':
    command(main)
