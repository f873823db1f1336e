#!/usr/bin/env bash
# Top-1 accuracy of CAM, CALM-ML and CALM-EM on CUB, OpenImages and ILSVRC: of runs trained here, or of given checkpoints.
#
#   bash scripts/reproduce/classification.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# The released CALM checkpoints: scripts/download_checkpoints.sh, then --checkpoints checkpoints.

set -euo pipefail
SETS='CUB OpenImages ILSVRC'
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
for set in $SETS; do
    prepare "$set"
    for method in CAM CALM-ML CALM-EM; do
        have "${method}_$set" || continue
        accuracy "${method}_$set"
    done
done
table classification
