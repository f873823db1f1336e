"""Imported first by every command, for its effect: the threads that PyTorch keeps do not spin while they wait.

OpenMP reads OMP_WAIT_POLICY once, when PyTorch is loaded. Where other work wants the cores (a second run, the loaders'
processes), spinning threads slow all of it down many times over. A value that is set already counts.
"""

import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
