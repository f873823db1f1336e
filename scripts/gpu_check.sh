#!/usr/bin/env bash
# Check correctness and speed on this GPU and estimate training times; writes a table to DIR/table.md.
#   bash scripts/gpu_check.sh [--minutes N] [--output DIR] [--device cpu]
#       --minutes N     time limit in all, default 14; a further call with the same DIR resumes
#       --output DIR    folder for results, default save/gpu_check
#       --device cpu    dry run without a GPU: every part at tiny sizes
# PYTHON=<command> replaces .venv/bin/python, which scripts/test.sh creates.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$(checkout)"
python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || die "$python is missing: run bash scripts/test.sh once, or give PYTHON=<command>"
exec "$python" benchmarks/gpu_check.py --since "$EPOCHSECONDS" "$@"
