"""The checkout's commands as a user runs them, but for the wait while Python imports PyTorch.

Every command has a process of its own, forked from a server that has imported the libraries and nothing of the project.
"""

import atexit
import contextlib
import glob
import json
import multiprocessing
import os
import re
import runpy
import socket
import sys
import tempfile
import threading

from conftest import ROOT

LIBRARIES = ['torch', 'torchvision', 'torch.utils.data', 'cv2', 'yaml', 'munch', 'tqdm', 'matplotlib.figure']
SERVER = multiprocessing.get_context('forkserver')
SERVER.set_forkserver_preload(LIBRARIES)


def _run(script, arguments, folder, environment, out, err):
    """In the command's process: what `python script arguments` does, its output in the files out and err."""
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tests = os.path.join(ROOT, 'tests')
    module = not script.endswith('.py')
    first = folder if module else os.path.dirname(script)
    sys.path[:] = [first] + [p for p in sys.path if p and p != ROOT and not p.startswith(tests)]
    sys.argv[:] = [script, *arguments]
    multiprocessing.set_start_method(None, force=True)  # the default again, for the command's own processes
    for name in set(sys.modules) & {'conftest', 'commands'}:  # what this process needed to come here
        del sys.modules[name]
    try:
        if module:
            runpy.run_module(script, run_name='__main__', alter_sys=True)
        else:
            runpy.run_path(script, run_name='__main__')
    finally:
        atexit._run_exitfuncs()


class Command:
    """A command under way."""

    def __init__(self, words, folder, environment):
        self.folder = tempfile.TemporaryDirectory()
        self.files = [os.path.join(self.folder.name, name) for name in ('out', 'err')]
        for file in self.files:
            open(file, 'w').close()
        script, *arguments = map(str, words)
        script = os.path.join(ROOT, script) if script.endswith('.py') else script
        environment = {**os.environ, 'CALM_TRACEBACK': '', **environment}
        self.process = SERVER.Process(target=_run, args=(script, arguments, str(folder), environment, *self.files))
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        """The exit code, or None while it runs; of one that a signal ended, the signal's number below zero."""
        return self.process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def finish(self):
        """Wait for its end: (exit code, standard output, standard error).

        Standard error is without the line on flags that have no effect: tests give the same flags to all commands.
        """
        self.process.join()
        out, err = (open(file, newline='').read() for file in self.files)
        self.folder.cleanup()
        return self.process.exitcode, out, re.sub(r'^\S+: no effect here: [^\n]*\n', '', err, flags=re.M)


def start(script, *arguments, cwd=ROOT, **environment):
    """A running Python script, given by its path in the checkout or in full, or a module, given by its name."""
    return Command((script, *arguments), cwd, environment)


def run(script, *arguments, cwd=ROOT, **environment):
    """(exit code, standard output, standard error) of a Python script or a module."""
    return start(script, *arguments, cwd=cwd, **environment).finish()


def is_alive(pid):
    """Does a process run? A dead one has no command line, even if nobody has waited for it."""
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as file:
            return bool(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return False


def start_together(count, script, *arguments):
    """`count` processes of one command, as torchrun starts them on one machine."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    place = {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port, 'TORCHELASTIC_RUN_ID': port}
    place.update(WORLD_SIZE=str(count), LOCAL_WORLD_SIZE=str(count))
    numbers = [{'RANK': str(number), 'LOCAL_RANK': str(number)} for number in range(count)]
    return [start(script, *arguments, **place, **own) for own in numbers]


# .venv/bin/python of a checkout for shell scripts: a Python file runs as `run` runs it, all else as always.
PYTHON = """\
#!{python} -SE
import json, os, socket, sys
words = sys.argv[1:]
if not words[0].endswith('.py'):
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    server.sendall(json.dumps([words, os.getcwd(), dict(os.environ)]).encode())
    server.shutdown(socket.SHUT_WR)
    code, out, err = json.load(server.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


def _serve(server):
    """Run what scripts ask their Python for, one after the other, and tell them how it ended, until `server` closes."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection, connection.makefile('rw') as stream:
            words, folder, environment = json.loads(stream.read())
            json.dump(run(*words, cwd=folder, **environment), stream)


@contextlib.contextmanager
def checkout(folder):
    """The checkout in a new folder, made of links, whose shell scripts start Python commands without the wait."""
    binaries = os.path.join(folder, '.venv', 'bin')
    os.makedirs(binaries)
    for name in os.listdir(ROOT):
        if name != '.venv':
            os.symlink(os.path.join(ROOT, name), os.path.join(folder, name))
    for mark in glob.glob(os.path.join(sys.prefix, 'installed-*')):
        os.symlink(mark, os.path.join(folder, '.venv', os.path.basename(mark)))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind('')  # an address outside of the file system: paths are limited to 107 bytes
        server.listen()
        with open(os.path.join(binaries, 'python'), 'w') as file:
            file.write(PYTHON.format(python=sys.executable, address=server.getsockname()))
        os.chmod(os.path.join(binaries, 'python'), 0o755)
        thread = threading.Thread(target=_serve, args=(server,))
        thread.start()
        yield folder
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
