"""Import this before PyTorch: settings of a process, for speed and for odd machines. What the user has set is kept.

- Idle OpenMP threads sleep instead of spin: spinning threads slow down everything else on the same cores (a second run,
  data loading processes) many times over. OpenMP reads OMP_WAIT_POLICY once, when PyTorch loads.
- glibc keeps the memory of freed tensors for the next ones instead of returning it to the system: the page faults would
  take a tenth of a training's processor time and a quarter of an evaluation's.
- A user without a name (`docker run --user 1234`) gets one: PyTorch names a folder after the user when it is imported.
- Standard output takes every text, in every locale.
"""

import codecs
import ctypes
import getpass
import os
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
OWN = ('MALLOC_TRIM_THRESHOLD_', 'MALLOC_MMAP_THRESHOLD_', 'GLIBC_TUNABLES')  # the user's settings


def print_all(stream):
    """Make a stream print file names that are not UTF-8 as their bytes, and letters that it cannot encode as '?'."""

    def encode(error):
        letters = map(ord, error.object[error.start : error.end])
        return bytes(letter - 0xDC00 if 0xDC80 <= letter <= 0xDCFF else ord('?') for letter in letters), error.end

    if hasattr(stream, 'reconfigure'):
        codecs.register_error('print_all', encode)
        stream.reconfigure(errors='print_all')


print_all(sys.stdout)
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
if platform.libc_ver()[0] == 'glibc' and not any(name in os.environ for name in OWN):
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**30)  # bytes; larger tensors are returned to the system
    ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
try:
    getpass.getuser()
except (KeyError, OSError):  # not in /etc/passwd; OSError from Python 3.13
    os.environ['LOGNAME'] = f'user-{os.getuid()}'
