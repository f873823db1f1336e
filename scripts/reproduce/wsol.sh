#!/usr/bin/env bash
# Weakly supervised localization: MaxBoxAcc and MaxBoxAccV2 (CUB, ILSVRC), PxAP (OpenImages), from the data to the table.
#
#   bash scripts/reproduce/wsol.sh [--toy] [--checkpoints DIR] [--dataset SET] [OPTION...]
#
# CAM on VGG-16, Inception and ResNet-50 (the protocol's baselines), CALM-ML and CALM-EM on ResNet-50. Every map is min-max scaled, with
# even thresholds, as the protocol says. Which of CALM's maps stands in the paper's table is not known here: scored are p(y,z|x) of the
# true class (jointll) and p(z|x), the sum over all classes (saliency).

set -euo pipefail
SETS='CUB OpenImages ILSVRC'
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
options "$@"
for set in $SETS; do
    prepare "$set"
    names="CAM_$set CALM-ML_$set CALM-EM_$set"
    [ "$set" = ToyBirds ] || names="CAM_${set}_vgg16 CAM_${set}_inception_v3 $names"
    for name in $names; do
        have "$name" || continue
        case $name in CAM*) maps=vanilla ;; *) maps='jointll saliency' ;; esac
        for map in $maps; do
            evaluate eval_wsol.py wsol "$name" "$map" --norm_type=minmax --threshold_type=even "--mask_root=$data_root"
        done
    done
done
table wsol
