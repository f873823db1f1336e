"""Who makes a result: a lock in the experiment folder that ends with the process that holds it."""

import errno
import fcntl
import os
import socket
from contextlib import suppress

from wsol.errors import InUse

HELD = {errno.EACCES, errno.EAGAIN}  # what the system says of a lock that another process has
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # the file system has none
NO_WRITING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}  # the run says so if it must write


class Lock:
    """The sole right of this process to make the result `name` of a folder, from `take` until `release`.

    It is a POSIX lock on the file NAME.lock, which the system takes back when the process ends, by kill -9 too; the
    processes that it starts do not inherit it, and nothing else in it may open the file, as closing it would give the
    lock back. What stands in the file, process and host, is for people: a file that was left behind locks nothing.
    Other hosts see the lock where their file system passes locks on: NFS does unless it is mounted with nolock or
    local_lock, Lustre does when it is mounted with flock. Where a file system has no locks, or the folder cannot be
    written, runs are not kept apart and nothing is said.
    """

    def __init__(self, folder, name):
        self.folder = os.path.abspath(folder)
        self.name = name
        self.path = os.path.join(self.folder, f'{name}.lock')
        self.file = None  # the descriptor of the file, while the lock is held
        self.made = []  # folders that were not there before, the innermost first

    def take(self):
        """Take the lock; where another process has it, an InUse error that names that process."""
        while self.file is None:
            try:
                self._make_folders()
                self._try()
            except FileNotFoundError:
                continue  # another run has taken its empty folder away again
            except OSError as error:
                if error.errno in NO_WRITING:
                    return
                raise
        with suppress(OSError):
            os.truncate(self.file, 0)
            os.pwrite(self.file, f'process {os.getpid()} on {socket.gethostname()}\n'.encode(), 0)

    def release(self):
        """Give the lock back; its file goes with it, and the folders that were made for it if they are still empty."""
        if self.file is not None:
            with suppress(OSError):
                if is_at(self.file, self.path):
                    os.unlink(self.path)  # before the lock ends: no other run can have it yet
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
        os.makedirs(self.folder, exist_ok=True)
        self.made = missing or self.made

    def _try(self):
        """Open the file and lock it; nothing is held where its last holder removed it in between."""
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
            f'for it or give another --experiment_name; where its host has crashed, remove {self.path}'
        )


def is_at(file, path):
    """Is the open file the one that has this path now?"""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
