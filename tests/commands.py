"""The checkout's commands as a user runs them, but for the wait while Python imports PyTorch.

Every command has a process of its own, forked from a server that has imported the libraries and nothing of the project.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import sys
import tempfile

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
    sys.path[:] = [os.path.dirname(script)] + [p for p in sys.path if p and p != ROOT and not p.startswith(tests)]
    sys.argv[:] = [script, *arguments]
    for name in set(sys.modules) & {'conftest', 'commands'}:  # what this process needed to come here
        del sys.modules[name]
    try:
        runpy.run_path(script, run_name='__main__')
    finally:
        atexit._run_exitfuncs()


def run(script, *arguments, cwd=ROOT, **environment):
    """(exit code, standard output, standard error) of a Python script, given by its path in the checkout or in full.

    Standard error is without the line on flags that have no effect: tests give the same flags to all commands.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ('out', 'err')]
        for file in files:
            open(file, 'w').close()
        environment = {**os.environ, 'CALM_TRACEBACK': '', **environment}
        words = (os.path.join(ROOT, script), list(map(str, arguments)), str(cwd), environment)
        process = SERVER.Process(target=_run, args=(*words, *files))
        process.start()
        process.join()
        out, err = (open(file, newline='').read() for file in files)
        return process.exitcode, out, re.sub(r'^\S+: no effect here: [^\n]*\n', '', err, flags=re.M)
