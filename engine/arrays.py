"""Files of named arrays: shards of an evaluation, and the per-image values of a result (NAME.npz of NAME.json).

The format is NumPy's .npz without pickles; equal arrays give equal bytes. docs/evaluating.md lists the arrays of each
command, `report.results.read_arrays` reads them.
"""

import os
import zipfile
import zlib

import numpy as np

import util


class Stored:
    """An array that is stored as chunks of rows in several .npz files."""

    def __init__(self, name, paths):
        """name: the array's name in every file."""
        self.name = name
        self.paths = paths
        heads = [_head(path, name) for path in paths]
        self.dtype = np.result_type(*(dtype for _, dtype in heads))  # of strings, the widest
        self.shape = (sum(shape[0] for shape, _ in heads), *heads[0][0][1:])

    def chunks(self):
        """Yield the chunks; one at a time is in memory."""
        for path in self.paths:
            with np.load(path) as file:
                yield file[self.name]

    def whole(self):
        """The whole array, in memory."""
        return np.concatenate(list(self.chunks()))


def is_whole(path):
    """Is this an undamaged .npz file? Reads all of it; False if it does not exist."""
    if not os.path.exists(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
        return False


def stored(path):
    """{name: `Stored`} of an .npz file."""
    with np.load(path) as file:
        return {name: Stored(name, [path]) for name in file.files}


def _head(path, name):
    """(shape, dtype) of an array in an .npz file, from its header."""
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype


def write(path, arrays):
    """Write {name: array or `Stored`} to an .npz file, atomically; stored arrays are copied chunk by chunk."""

    def write_all(file):
        with zipfile.ZipFile(file, 'w') as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f'{name}.npy')  # has no timestamp
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, 'w', force_zip64=True) as stream:
                    _write_array(stream, array)

    util.atomically(path, write_all)


def _write_array(stream, array):
    """Write an array or a `Stored` in NumPy's format."""
    head = {'descr': np.lib.format.dtype_to_descr(array.dtype), 'fortran_order': False, 'shape': array.shape}
    np.lib.format.write_array_header_1_0(stream, head)
    for chunk in array.chunks() if isinstance(array, Stored) else [array]:
        stream.write(np.ascontiguousarray(chunk, array.dtype).tobytes())
