"""Files of named arrays: the shards of an evaluation; what each image gave, beside a result (NAME.npz of NAME.json).

It is NumPy's compressed format without pickles: `np.load` reads it. The same arrays give the same bytes.
docs/evaluating.md says what the arrays of each command are, `report.results.read_arrays` reads them.
"""

import zipfile

import numpy as np

import util


class Stored:
    """An array whose chunks, of one or more rows each, lie in several files of arrays."""

    def __init__(self, name, paths):
        """name: of the chunk in each file."""
        self.name = name
        self.paths = paths
        heads = [_head(path, name) for path in paths]
        self.dtype = np.result_type(*(dtype for _, dtype in heads))  # texts: as wide as the widest
        self.shape = (sum(shape[0] for shape, _ in heads), *heads[0][0][1:])

    def chunks(self):
        """The chunks, each read when it is its turn."""
        for path in self.paths:
            with np.load(path) as file:
                yield file[self.name]

    def whole(self):
        """The array, in memory."""
        return np.concatenate(list(self.chunks()))


def stored(path):
    """{name: `Stored`} of a file of arrays."""
    with np.load(path) as file:
        return {name: Stored(name, [path]) for name in file.files}


def _head(path, name):
    """(shape, type) of an array in a file of arrays."""
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as member:
        np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    return shape, dtype


def write(path, arrays):
    """Write {name: array or `Stored`} to a file, atomically; of a stored array one chunk at a time is in memory."""

    def write_all(file):
        with zipfile.ZipFile(file, 'w') as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f'{name}.npy')  # without the time of writing
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
