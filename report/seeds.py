"""Several seeds of a run: the folders NAME-seed0, NAME-seed1, …"""

import glob
import os
import re
import statistics


def seed_of(folder):
    """(path without the ending, seed) of a folder NAME-seedN; None of another."""
    match = re.fullmatch(r'(.+)-seed(\d+)', os.path.normpath(folder))
    return match and (match[1], int(match[2]))


def seed_groups(folders):
    """{path without the ending: its folders by seed} of runs that have two seeds or more among the folders."""
    groups = {}
    for folder in folders:
        if found := seed_of(folder):
            groups.setdefault(found[0], []).append(folder)
    return {path: sorted(group, key=lambda one: seed_of(one)[1]) for path, group in groups.items() if len(group) > 1}


def run_seeds(path):
    """{seed: folder} of the run NAME at `path` in its place, ascending."""
    found = {seed_of(folder): folder for folder in glob.glob(f'{glob.escape(path)}-seed*')}
    return {key[1]: found[key] for key in sorted(filter(None, found)) if key[0] == os.path.normpath(path)}


def over_seeds(values, digits=2):
    """'mean ± standard deviation' of a figure over the seeds; '-' where one of them is not known."""
    if None in values:
        return '-'
    deviation = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.{digits}f}{deviation}'
