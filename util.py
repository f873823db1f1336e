"""Seeds, progress, logs, results and checkpoints."""

import errno
import json
import os
import random
import secrets
import stat
import sys
import time
from contextlib import contextmanager

import numpy as np
import torch
from tqdm import tqdm

from wsol import trained
from wsol.errors import AlreadyThere, InUse, MissingFile, Unwritable, UserError
from wsol.weights import read_record

CHECKPOINT = '{}_checkpoint.pth.tar'  # of 'last' or 'best', the released file name
FULL = {
    errno.ENOSPC: 'the disk is full',
    errno.EDQUOT: 'the quota is full',
    errno.EFBIG: 'files of this size are not allowed (ulimit -f, or a limit of the file system)',
}
DOWNLOADED = 'checkpoints'  # where scripts/download_checkpoints.sh puts the released ones


def draw_seed():
    """A random seed from the operating system."""
    return secrets.randbits(31)


def set_seed(seed):
    """Seed Python, NumPy and PyTorch; None draws a seed. Returns the seed used."""
    seed = draw_seed() if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    return seed


def tell_seed(seed, file=None):
    """Print the drawn seed, on standard output or to `file`."""
    print(f'the seed is {seed}: --seed={seed} repeats this run', file=file, flush=True)


def progress(iterable, total, text, size=1, shown=True):
    """Yield the items of `iterable`, showing images per second and the time left; size: images per item.

    On standard error: tqdm on a terminal, a line per minute in a SLURM job, else a line per tenth.
    """
    if not shown:
        yield from iterable
        return
    if sys.stderr.isatty():
        with tqdm(total=total * size, desc=text, leave=False, unit='img') as bar:
            for item in iterable:
                yield item
                bar.update(size)
        return
    start = last = time.monotonic()
    shown_tenths = 0
    by_time = 'SLURM_JOB_ID' in os.environ
    for count, item in enumerate(iterable, 1):
        yield item
        now = time.monotonic()
        if count == total or (now - last >= 60 if by_time else count * 10 // total > shown_tenths):
            shown_tenths = count * 10 // total
            last = now
            rate = count / max(now - start, 1e-9)
            print(
                f'{text}: {count}/{total}, {now - start:.0f} s, {rate * size:.3g} images/s, '
                f'{(total - count) / rate:.0f} s left',
                file=sys.stderr,
                flush=True,
            )


def _whole_lines(path, size):
    """The bytes of the whole lines in the first `size` bytes of a file; a shorter file is reported."""
    data = b''
    if os.path.exists(path):
        with open(path, 'rb') as file:
            data = file.read(size)
    if len(data) < size:
        print(f'{path} is gone or cut short: records of the earlier run are missing from it', file=sys.stderr)
    return data.rfind(b'\n') + 1


class Log:
    """A file of JSON lines that begins with the record `head`.

    keep: bytes of an existing file to keep; 0: a new file. path: None (all ranks but 0) to write and print nothing.
    A file that was cut short keeps its whole lines; one that is gone begins anew. Both are reported.
    """

    def __init__(self, path, head, keep=0):
        self.file = None
        if path is None:
            return
        make_folder(os.path.dirname(path))
        if keep:
            keep = _whole_lines(path, keep)
        self.file = open(path, 'r+' if keep else 'w')
        self.file.truncate(keep)
        self.file.seek(keep)
        self.write(**head)

    def write(self, **record):
        """Append a record."""
        if self.file:
            with full_disk_named(self.file.name):
                self.file.write(json.dumps(record) + '\n')
                self.file.flush()

    def size(self):
        """Bytes written so far."""
        return self.file.tell() if self.file else 0

    def report(self, text, **record):
        """Append a record and print it as `text`."""
        self.write(**record)
        if self.file:
            print(text, flush=True)


def check_claim(folder, files, override):
    """AlreadyThere if the experiment folder contains one of `files`, unless `override`."""
    existing = [name for name in files if os.path.exists(os.path.join(folder, name))]
    if existing and not override:
        raise AlreadyThere(
            f'{folder} already holds {", ".join(existing)}: give another --experiment_name, '
            'or --override_cache=True to replace them'
        )


def is_file(path):
    """os.path.isfile, but a PermissionError, not False, if a folder above may not be entered."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except PermissionError:
        raise
    except (OSError, ValueError):
        return False


def _lowest(folder):
    """The lowest part of a folder's path that exists."""
    path = os.path.abspath(folder)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path


def in_the_way(folder):
    """What keeps a folder from being made, as text: a file, or a link to nothing, in its path; None for neither."""
    path = _lowest(folder)
    if os.path.islink(path) and not os.path.exists(path):
        return f'{path} is a link to nothing'
    return f'{path} is a file' if os.path.isfile(path) else None


def make_folder(folder):
    """Make a folder and those above it; Unwritable if something is `in_the_way`."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        if not (found := in_the_way(folder)):
            raise
        raise Unwritable(f'cannot make the folder {folder}: {found}; give another folder') from None


def check_folder(folder):
    """Unwritable if a folder cannot be made or written to; changes nothing. For work whose first result comes late."""
    found = in_the_way(folder)
    if not found and not os.access(_lowest(folder), os.W_OK | os.X_OK, effective_ids=True):
        found = f'{_lowest(folder)} is read-only for you'
    if found:
        raise Unwritable(f'cannot write to the folder {folder}: {found}; give another folder')


@contextmanager
def full_disk_named(path):
    """Make an OSError for a full disk or quota, or for a file above the limit, Unwritable, which names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Unwritable(f'cannot write {path}: {FULL[error.errno]}') from None


def atomically(path, write):
    """Call write(file) on the binary file PATH.partial, then rename it to `path`; on failure it is removed."""
    temporary = f'{path}.partial'
    try:
        with full_disk_named(path), open(temporary, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if not os.path.exists(temporary):
            raise InUse(f'{path} is being written by another run, too: wait for it, or give another place')
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def write_text(path, text):
    """Write a text file in UTF-8; surrogates, as in file names, become '?'."""
    data = text.encode(errors='replace')
    atomically(path, lambda file: file.write(data))


def write_json(path, value):
    """Write `value` as indented JSON; NaN is refused."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def save_checkpoint(path, model, optimizer, epoch, arguments, progress=None):
    """Write {architecture, epoch, state_dict, optimizer, args}, and {progress} for resuming."""
    record = {
        'architecture': arguments['architecture'],
        'epoch': epoch,
        'state_dict': model.state_dict(),
        'optimizer': optimizer.state_dict(),
        'args': dict(arguments),
        **({'progress': progress} if progress else {}),
    }

    def write(file):
        try:
            torch.save(record, file)
        except RuntimeError as error:  # torch's writer raises this if it cannot write
            raise Unwritable(f'cannot write {path}: {str(error).splitlines()[0]}: is the disk full?') from None

    atomically(path, write)


def find_checkpoint(path, save_root):
    """The file of --load_checkpoint=PATH: a file, a folder with last_checkpoint.pth.tar, or packaged/NAME.

    PATH is tried as given, below save_root, and below checkpoints/ (downloaded ones).
    """
    if path.startswith(trained.PREFIX):
        return trained.file_of(path)
    name = CHECKPOINT.format('last')
    tried = [os.path.join(root, path, *rest) for root in ('', save_root, DOWNLOADED) for rest in ((), (name,))]
    for candidate in tried:
        if is_file(candidate):
            return candidate
    raise MissingFile(
        f'no checkpoint {path}: none of {", ".join(tried)} is a file; give --load_checkpoint=FILE or FOLDER'
    )


def read_checkpoint(path, architecture, attribution_method, large_feature_map, start=False):
    """The record of a checkpoint file (`read_record`).

    UserError for another architecture and, unless training is to `start` from it, another map size or method, if the
    file records them: released files and those of other code bases do not.
    """
    record = read_record(path)
    found = record.get('architecture', architecture)
    if found != architecture:
        raise UserError(f'{path} is of architecture {found}, not {architecture}: give --architecture={found}')
    if start:
        return record
    recorded = trained_with(record)
    if recorded.get('large_feature_map', large_feature_map) != large_feature_map:
        raise UserError(f'{path} was trained with another map size: give --large_feature_map={not large_feature_map}')
    method = recorded.get('attribution_method', attribution_method)
    if method != attribution_method:
        raise UserError(
            f'{path} was trained as {method}, not {attribution_method}: give --attribution_method={method}, '
            'or start a training from it (main.py)'
        )
    return record


def trained_with(record):
    """{flag: value} of the training of a checkpoint's record; {} if it does not record them."""
    arguments = record.get('args')
    return arguments if isinstance(arguments, dict) else {}
