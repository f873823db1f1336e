#!/usr/bin/env bash
# Does it compute right on this GPU, how fast is it, and what would a training take? A table in DIR/table.md says so.
#   bash scripts/gpu_check.sh [--minutes N] [--output DIR] [--device cpu]
#       --minutes N     never more than N minutes in all, default 14; called again with the same DIR, it goes on
#       --output DIR    of the result files, default save/gpu_check
#       --device cpu    a rehearsal without a GPU: every part with tiny sizes
# PYTHON=<command> in place of .venv/bin/python, which scripts/test.sh makes.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(checkout)"
python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || die "$python is missing: run bash scripts/test.sh once, or give PYTHON=<command>"
exec "$python" benchmarks/gpu_check.py --since "$EPOCHSECONDS" "$@"
