#!/usr/bin/env bash
# Remove-and-classify, the paper's figure as a table: R_k of seven maps on CUB, OpenImages and ILSVRC, from the data to
# the table.
#
#   bash scripts/reproduce/remove_and_classify.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# Four gradient maps and CAM explain one CAM network; CALM-ML and CALM-EM each their own. Each run's curve is a picture
# beside its result.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table remove_and_classify "$@"
