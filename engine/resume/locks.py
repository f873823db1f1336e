"""A lock on a result in the experiment folder, which ends with the process that holds it."""

import errno
import fcntl
import os
import socket
from contextlib import suppress

import util
from wsol.errors import InUse

HELD = {errno.EACCES, errno.EAGAIN}  # another process has the lock
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # the file system has no locks
NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}  # reported when the run writes


class Lock:
    """The exclusive right of this process to compute the result `name` of a folder, from `take` to `release`.

    A POSIX lock on the file NAME.lock. The system releases it when the process ends, even by kill -9; child processes
    do not inherit it. Nothing else in the process may open the file, since closing it releases the lock. The content,
    process and host, is informative: a leftover file locks nothing. Other hosts see the lock on NFS (not with nolock or
    local_lock) and on Lustre mounted with flock. Without file locks or write access, runs are not kept apart.
    """

    def __init__(self, folder, name):
        self.folder = os.path.abspath(folder)
        self.name = name
        self.path = os.path.join(self.folder, f'{name}.lock')
        self.file = None  # descriptor, while the lock is held
        self.made = []  # folders that `take` made, innermost first

    def take(self):
        """Take the lock; InUse, naming the process, if another one holds it."""
        while self.file is None:
            try:
                self._make_folders()
                self._try()
            except FileNotFoundError:
                continue  # another run has removed its empty folder
            except OSError as error:
                if error.errno in NO_WRITING:
                    return
                raise
        with suppress(OSError):
            os.truncate(self.file, 0)
            os.pwrite(self.file, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)

    def release(self):
        """Release the lock; remove its file, and the folders made for it if they are empty."""
        if self.file is not None:
            with suppress(OSError):
                if is_at(self.file, self.path):
                    os.unlink(self.path)  # while locked, so no other run holds this file
            os.close(self.file)
            self.file = None
        with suppress(OSError):
            for folder in self.made:
                os.rmdir(folder)
        self.made = []

    def _make_folders(self):
        folder = self.folder
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        util.make_folder(self.folder)
        self.made = missing or self.made

    def _try(self):
        """Open and lock the file; no lock is held if its last holder has just removed it."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                holder = os.pread(file, 200, 0).decode(errors='replace').strip()
                os.close(file)
                raise self._in_use(holder) if error.errno in HELD else error from None
        if is_at(file, self.path):
            self.file = file
        else:
            os.close(file)

    def _in_use(self, holder):
        return InUse(
            f'{os.path.join(self.folder, self.name)} is being made by another run ({holder or "just started"}): wait '
            f'for it or give another --experiment_name; if its host has crashed, remove {self.path}'
        )


def is_at(file, path):
    """Is this path still the open file?"""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
