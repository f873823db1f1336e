#!/usr/bin/env python3
"""Writes the sets of classes that superclass maps sum over: a JSON file {"class": [classes]} for --superclass.

    python scripts/make_superclasses.py --dataset=CUB --output=birds.json
    python scripts/make_superclasses.py --dataset=ILSVRC --depth=9 --output=depth9.json [--helper_dir=DIR]

CUB, ToyBirds, ToyBirdsSingle: every class is a bird, so each set contains all classes. ILSVRC: classes that share a
WordNet ancestor at --depth.

The depth of a WordNet entry is the length of the longest is-a path to it from an entry without parents (among nouns
only `entity`, depth 0; `physical entity` has depth 1, `mammal` 9, `dog` 13). A class belongs to every entry at that
depth that is the class itself or an ancestor through any parent; its set is the union of the classes of those entries.
A class shallower than --depth has no such entry and forms a set alone. So every set contains its own class, and B is in
the set of A if and only if A is in that of B.

The helper files imagenet_class_index.json, wordnet.is_a.txt and words.txt come from the released CALM repository and
are checked by their git blob ids; missing ones are downloaded into --helper_dir (CALM_MIRROR=<address> names a copy,
with the paths metadata/...).
"""

import json
import os
import subprocess
import sys
from collections import defaultdict

from checkout import ROOT
from shared import data_parser, git_blob

import util
from data_loaders import class_count
from engine.command import command
from wsol.errors import AlreadyThere, UserError

SOURCE = 'https://raw.githubusercontent.com/naver-ai/calm/HEAD'
FOLDER = 'metadata/ILSVRC/helper'  # in SOURCE
INDEX = 'imagenet_class_index.json'
IS_A = 'wordnet.is_a.txt'
WORDS = 'words.txt'
BLOBS = {
    INDEX: '5fe0dfefcd3dca3b1d169c7ab51b93de327e07e2',
    IS_A: '82ceff950c7144985e9e03f5f3e95b27ad7cbf2b',
    WORDS: 'a2403d121c447293ce23537495a2b94cd822eef6',
}
FETCH = 'source "$1" && download "$2" "$3" "$4"'  # lib.sh's download
SHOWN = 20  # sets listed in the summary


def fetch(name, path):
    """Download a helper file to `path`."""
    command = ['bash', '-c', FETCH, os.path.basename(__file__), os.path.join(ROOT, 'scripts', 'lib.sh')]
    if subprocess.run([*command, f'{SOURCE}/{FOLDER}/{name}', path, f'{FOLDER}/{name}']).returncode:
        sys.exit(2)  # download has printed the reason


def read_helper(folder, name, checksum):
    """The text of a helper file, downloaded into `folder` if missing. Raises UserError for different content."""
    path = os.path.join(folder, name)
    fetched = not os.path.exists(path)
    source = path + '.new' if fetched else path
    if fetched:
        fetch(name, source)
    with open(source, 'rb') as file:
        data = file.read()
    blob = git_blob(data)
    if checksum and blob != BLOBS[name]:
        if fetched:
            os.remove(source)
        raise UserError(
            f'{path} has the git blob id {blob} instead of {BLOBS[name]}: get the right file, or give '
            '--no_checksum for a different one'
        )
    if fetched:
        os.replace(source, path)
    return data.decode()


def read_classes(text):
    """[synset of class 0, of class 1, ...] from the class index {"0": [synset, name], ...}."""
    try:
        rows = {int(key): row[0] for key, row in json.loads(text).items()}
        return [rows[number] for number in range(len(rows) or 1)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'{INDEX} is not {{"0": ["synset", "name"], ...}} with classes from 0 on: {error}') from None


def read_parents(text):
    """{entry: [parents]} from lines `parent child`."""
    parents = defaultdict(list)
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if len(words) != 2:
            raise UserError(f'{IS_A}, line {number}: {line[:60]!r} is not `parent child`')
        parents[words[1]].append(words[0])
    return dict(parents)


def ancestors(entry, parents):
    """The entry and all entries above it."""
    found = {entry}
    waiting = [entry]
    while waiting:
        new = set(parents.get(waiting.pop(), ())) - found
        found |= new
        waiting += new
    return found


def depths(entries, parents):
    """{entry: length of the longest path from an entry without parents}, for the entries and their ancestors.

    Raises UserError for a cycle.
    """
    depth = {}
    above = {}
    for entry in entries:
        for one in sorted(ancestors(entry, parents)):
            above.setdefault(one, set(parents.get(one, ())))
    while above:  # each round: entries whose parents all have a depth
        ready = [entry for entry, up in above.items() if up <= depth.keys()]
        if not ready:
            raise UserError(f'{IS_A} has a cycle: {sorted(above)[0]} is part of it, or above or below it')
        for entry in ready:
            depth[entry] = 1 + max((depth[parent] for parent in above[entry]), default=-1)
        for entry in ready:
            del above[entry]
    return depth


def groups_at(classes, parents, depth):
    """{entry at that depth: [classes at or below it]}.

    Raises UserError if the is-a file lacks a class, or if the depth is below every class.
    """
    named = parents.keys() | {parent for row in parents.values() for parent in row}
    for synset in classes:
        if synset not in named:
            raise UserError(f'{IS_A} lacks the class {synset}: the helper files do not match')
    level = depths(classes, parents)
    groups = defaultdict(list)
    for number, synset in enumerate(classes):
        for entry in ancestors(synset, parents):
            if level[entry] == depth:
                groups[entry].append(number)
    deepest = max(level[synset] for synset in classes)
    if depth > deepest:
        raise UserError(f'--depth={depth} is below every class: the deepest is at {deepest}')
    return dict(groups)


def sets_of(num_classes, groups):
    """{class: sorted classes that share a group with it}; a class without a group forms a set alone."""
    sets = {number: {number} for number in range(num_classes)}
    for members in groups.values():
        for number in members:
            sets[number].update(members)
    return {number: sorted(members) for number, members in sets.items()}


def summary(num_classes, groups, names):
    """Lines on the groups, largest first, and on the classes in none or several."""
    counts = defaultdict(int)
    for members in groups.values():
        for number in members:
            counts[number] += 1
    largest = sorted(groups, key=lambda entry: (-len(groups[entry]), entry))
    yield (
        f'{num_classes} classes, {len(groups)} sets; {num_classes - len(counts)} classes are in none and stand alone, '
        f'{sum(count > 1 for count in counts.values())} are in several and get their union'
    )
    for entry in largest[:SHOWN]:
        yield f'{len(groups[entry]):5d} {names.get(entry, entry)} ({entry})'
    if len(largest) > SHOWN:
        yield f'      and {len(largest) - SHOWN} smaller sets'


def build(args):
    """({class: [classes]}, lines of the summary) for the command line."""
    if args.dataset != 'ILSVRC':
        count = class_count(args.dataset, args.metadata_root)
        return sets_of(count, {'birds': range(count)}), [f'{count} classes, 1 set: every class is a bird']
    folder = args.helper_dir or os.path.join(args.metadata_root, 'ILSVRC', 'helper')
    classes = read_classes(read_helper(folder, INDEX, args.checksum))
    parents = read_parents(read_helper(folder, IS_A, args.checksum))
    words = read_helper(folder, WORDS, args.checksum)
    groups = groups_at(classes, parents, args.depth)
    names = dict(line.split('\t', 1) for line in words.splitlines() if '\t' in line)
    return sets_of(len(classes), groups), summary(len(classes), groups, names)


def parse(argv):
    """Parse the arguments; an error ends the program with one line and exit code 2."""
    parser = data_parser(__doc__, ('CUB', 'ToyBirds', 'ToyBirdsSingle', 'ILSVRC'), ['metadata_root'])
    parser.add_argument('--output', required=True, metavar='FILE.json', help='the file to write')
    parser.add_argument('--depth', type=int, help='ILSVRC: depth of the shared ancestor, 0 is the root')
    parser.add_argument(
        '--helper_dir', metavar='DIR', help='ILSVRC: folder of the helper files (default: metadata_root/ILSVRC/helper)'
    )
    parser.add_argument(
        '--no_checksum',
        dest='checksum',
        action='store_false',
        help='ILSVRC: accept helper files with different content',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace the output file where it exists')
    args = parser.parse_args(argv)
    if (args.dataset == 'ILSVRC') != (args.depth is not None):
        parser.error('--depth is for --dataset=ILSVRC, and required there: the other sets have one superclass')
    if args.depth is not None and args.depth < 0:
        parser.error(f'--depth={args.depth}: it must be at least 0')
    return args


def main(argv=None):
    """Build and write the sets, and print a summary."""
    args = parse(argv)
    if os.path.lexists(args.output) and not args.overwrite:
        raise AlreadyThere(f'{args.output} exists: give --overwrite to replace it, or another --output')
    sets, lines = build(args)
    rows = ',\n'.join(f'"{number}": {json.dumps(members)}' for number, members in sets.items())
    util.atomically(args.output, lambda file: file.write(f'{{\n{rows}\n}}\n'.encode()))
    print(*lines, f'written to {args.output}', sep='\n')


if __name__ == '__main__':
    command(main)
