#!/usr/bin/env bash
# The paper's remove-and-classify figure as a table: R_k of seven maps on CUB, OpenImages and ILSVRC.
#
#   bash scripts/reproduce/remove_and_classify.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# Four gradient maps and CAM explain one CAM network; CALM-ML and CALM-EM explain their own. Each result comes with a plot
# of its curve.

set -euo pipefail
# shellcheck source=scripts/reproduce/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
table remove_and_classify "$@"
