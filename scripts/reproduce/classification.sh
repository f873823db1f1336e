#!/usr/bin/env bash
# Top-1 accuracy of CAM, CALM-ML and CALM-EM on CUB, OpenImages and ILSVRC, trained here or from given checkpoints.
#
#   bash scripts/reproduce/classification.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# For the released CALM checkpoints: scripts/download_checkpoints.sh, then --checkpoints checkpoints.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table classification "$@"
