"""Import this before PyTorch: it makes idle OpenMP threads sleep instead of spin.

OpenMP reads OMP_WAIT_POLICY once, when PyTorch loads. Spinning threads slow down everything else on the same cores (a
second run, data loading processes) many times over. A value that the user has set is kept.
"""

import os

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
