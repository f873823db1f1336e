"""Run a command that ends itself at an exact point: python until.py SIGNAL FILE COUNT MOMENT COMMAND [arguments].

It sends itself the signal when it has written the COUNT-th file whose name matches FILE: MOMENT seconds later, or with
`before`, while the file still has its temporary name.
"""

import fnmatch
import os
import runpy
import signal
import sys
import threading

name, pattern, count, moment = sys.argv[1:5]
sys.argv[:] = sys.argv[5:]
sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
number = signal.Signals[f'SIG{name}']
replace = os.replace
written = []


def end():
    os.kill(os.getpid(), number)


def watched(partial, path):
    if fnmatch.fnmatch(os.path.basename(path), pattern):
        written.append(path)
    here = len(written) == int(count) and written[-1] == path
    if here and moment == 'before':
        end()
    replace(partial, path)
    if here and moment == '0':
        end()
    elif here and moment != 'before':
        threading.Timer(float(moment), end).start()


os.replace = watched
runpy.run_path(os.path.join(sys.path[0], sys.argv[0]), run_name='__main__')
