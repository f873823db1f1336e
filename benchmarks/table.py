"""The section "On a GPU" of docs/performance.md, from the result files of benchmarks/gpu_check.py."""

import os

from benchmarks import records
from benchmarks.timing import Row

TITLES = {
    'tests': 'The tests on the device',
    'speed': 'Training and forward passes',
    'compiled': 'The same, compiled',
    'loader': 'The data loader',
    'evaluators': 'The evaluators over their forward passes',
    'agreement': 'Agreement of the device with the CPU',
}


def conditions(made):
    """Device, driver and versions in one line."""
    driver = f', driver {made["driver"]}' if made.get('driver') else ''
    versions = ', '.join(f'{name} {version}' for name, version in made['versions'].items())
    return f'{made["device"]}{driver}; {versions}; commit {(made["commit"] or "unknown")[:10]}.'


def lines_of(made):
    """Markdown lines of a result file."""
    if 'counts' in made:
        yield ', '.join(f'{count} {name}' for name, count in made['counts'].items()) + '.'
        yield from (['', '| failed | why |', '|---|---|'] if made['failed'] else [])
        yield from (f'| {name} | {" ".join(why.split()).replace("|", "/")} |' for name, why in made['failed'].items())
    else:
        yield records.HEAD
        for rows in made['jobs'].values():
            yield from (records.text_of(Row(**row)) for row in rows)
        yield from (f'\nFailed: {job}: {error}' for job, error in made['errors'].items())
    if not made['complete']:
        yield '\nNot finished.'


def section(folder, names):
    """The section's text from the files `NAME.json` of a folder; missing files are marked as not run."""
    found = {name: records.read(os.path.join(folder, f'{name}.json')) for name in names if name in TITLES}
    there = [made for made in found.values() if made]
    lines = ['## On a GPU', '', *([conditions(there[0])] if there else [])]
    for name, made in found.items():
        lines += ['', f'**{TITLES[name]}**', '', *(lines_of(made) if made else ['Not run.'])]
    return '\n'.join(lines) + '\n'
