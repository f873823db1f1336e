"""Seeds, logs, results and checkpoints: what every command needs and nothing scientific."""
import json
import os
import pickle
import random
import secrets
import subprocess
import sys
import tempfile
import time
import traceback

import numpy as np
import torch
import torchvision
from tqdm import tqdm

CHECKPOINT = '{}_checkpoint.pth.tar'          # of 'last' or 'best', the released file name
DOWNLOADED = 'checkpoints'                    # where scripts/download_checkpoints.sh puts the released ones


def command(main):
    """Run an entry script's main(); a user's mistake or a failed run ends in one line on standard error and exit code 2."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        if os.environ.get('CALM_TRACEBACK'):
            traceback.print_exc()
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        line = lines[-1] if lines[0].startswith('Caught ') else ' '.join(lines)        # an error of a loader's process
        print(f'{os.path.basename(sys.argv[0])}: error: {line.removeprefix(type(error).__name__ + ": ")}', file=sys.stderr)
        sys.exit(2)


def set_seed(seed):
    """Seed Python, NumPy and PyTorch; None draws a seed. Returns the seed used."""
    seed = secrets.randbits(31) if seed is None else seed
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)
    return seed


def progress(iterable, total, text):
    """tqdm on a terminal; elsewhere a plain line at each tenth of the way, on standard error."""
    if sys.stderr.isatty():
        yield from tqdm(iterable, total=total, desc=text, leave=False)
        return
    start, told = time.monotonic(), 0
    for count, item in enumerate(iterable, 1):
        yield item
        if count * 10 // total > told or count == total:
            told = count * 10 // total
            print(f'{text}: {count}/{total}, {time.monotonic() - start:.0f} s', file=sys.stderr, flush=True)


def commit():
    """The checkout's commit, or None outside one."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        words = subprocess.run(['git', '-C', here, 'rev-parse', 'HEAD'], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return words.stdout.strip() or None if words.returncode == 0 else None


class Log:
    """A file of JSON lines whose first record has the arguments, the commit and the versions; records are also printed."""

    def __init__(self, path, args):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, 'w')
        versions = {'python': sys.version.split()[0], 'torch': torch.__version__, 'torchvision': torchvision.__version__,
                    'numpy': np.__version__}
        self.write(arguments=dict(args), commit=commit(), versions=versions)

    def write(self, **record):
        """Append a record."""
        self.file.write(json.dumps(record) + '\n')
        self.file.flush()

    def report(self, text, **record):
        """Append a record and print it as `text`."""
        self.write(**record)
        print(text, flush=True)


def check_claim(folder, files, override):
    """A file of `files` already in the experiment folder is a FileExistsError unless `override`."""
    existing = [name for name in files if os.path.exists(os.path.join(folder, name))]
    if existing and not override:
        raise FileExistsError(f'{folder} already holds {", ".join(existing)}: give another --experiment_name, '
                              'or --override_cache=True to replace them')


def atomically(path, write):
    """Call write(file) on a temporary binary file beside `path`, then rename it to `path`; on failure nothing is left."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or '.', prefix=os.path.basename(path) + '.')
    try:
        with os.fdopen(handle, 'wb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path, value):
    """Write `value` as indented JSON; NaN is refused."""
    text = json.dumps(value, indent=1, allow_nan=False) + '\n'
    atomically(path, lambda file: file.write(text.encode()))


def save_checkpoint(path, model, optimizer, epoch, args):
    """Write {architecture, epoch, state_dict, optimizer, args}."""
    record = {'architecture': args.architecture, 'epoch': epoch, 'state_dict': model.state_dict(),
              'optimizer': optimizer.state_dict(), 'args': dict(args)}
    atomically(path, lambda file: torch.save(record, file))


def find_checkpoint(path, save_root):
    """The file that --load_checkpoint means: a file, or a folder with last_checkpoint.pth.tar.

    Looked for as given, below save_root, and among the downloaded ones (checkpoints/NAME).
    """
    name = CHECKPOINT.format('last')
    tried = [os.path.join(root, path, *rest) for root in ('', save_root, DOWNLOADED) for rest in ((), (name,))]
    for candidate in tried:
        if os.path.isfile(candidate):
            return candidate
    raise FileNotFoundError(f'no checkpoint {path}: none of {", ".join(tried)} is a file; give --load_checkpoint=FILE or FOLDER')


def read_checkpoint(path, architecture, attribution_method, large_feature_map, other_method=False):
    """The record of a checkpoint file, on the CPU, tensors and plain values only.

    ValueError when the file is damaged, carries other objects, or is of another architecture, map size or (unless
    `other_method`) method. Released files carry neither map size nor method: ResNet's weights fit both sizes.
    """
    try:
        record = torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, OSError) as error:      # torch's reader raises any of these
        reason = str(error).strip().splitlines()
        raise ValueError(f'{path} is damaged or holds more than tensors and plain values: '
                         f'{reason[0] if reason else type(error).__name__}') from None
    if not isinstance(record, dict) or 'state_dict' not in record:
        raise ValueError(f'{path} is no checkpoint: it has no state_dict')
    found = record.get('architecture', architecture)
    if found != architecture:
        raise ValueError(f'{path} is of architecture {found}, not {architecture}: give --architecture={found}')
    trained = record.get('args', {})
    if trained.get('large_feature_map', large_feature_map) != large_feature_map:
        raise ValueError(f'{path} was trained with another map size: give --large_feature_map={not large_feature_map}')
    method = trained.get('attribution_method', attribution_method)
    if method != attribution_method and not other_method:
        raise ValueError(f'{path} was trained as {method}, not {attribution_method}: give --attribution_method={method}, '
                         'or --is_different_checkpoint=True to start training from it')
    return record
