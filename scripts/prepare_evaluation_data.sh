#!/usr/bin/env bash
# Prepares what evaluation needs of all data sets: images, masks and part annotations, without training data.
#
#   scripts/prepare_evaluation_data.sh [--archives DIR] [--data_root DIR] [--no_checksum] [DATASET...]
#
# DATASET: CUB, OpenImages, ILSVRC; default: all. Calls prepare_cub.sh (images: one archive of 1.1 GB with training and
# test images; segmentations, cubv2), prepare_openimages.sh (evaluation) and prepare_imagenet.sh (val2, and val, whose
# archive needs an account at image-net.org), with the same options. A failing data set does not stop the others.
# Next: scripts/fetch_metadata.sh all, scripts/check_data.py --dataset=CUB --splits val test

set -uo pipefail
SCRIPTS="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib.sh
source "$SCRIPTS/lib.sh"

# prepare_options sets archives, data_root, checksum and parts (here: data sets).
# shellcheck disable=SC2154
prepare() {
    local options=(--data_root "$data_root")
    [ -z "$archives" ] || options+=(--archives "$archives")
    [ "$checksum" = yes ] || options+=(--no_checksum)
    case $1 in
        CUB) bash "$SCRIPTS/prepare_cub.sh" "${options[@]}" images segmentations cubv2 ;;
        OpenImages) bash "$SCRIPTS/prepare_openimages.sh" "${options[@]}" evaluation ;;
        ILSVRC) bash "$SCRIPTS/prepare_imagenet.sh" "${options[@]}" val2 val ;;
    esac
}

prepare_options 'CUB OpenImages ILSVRC' 'CUB OpenImages ILSVRC' "$@"
failed=()
for name in "${parts[@]}"; do prepare "$name" || failed+=("$name"); done
[ ${#failed[@]} -eq 0 ] || die "not prepared: ${failed[*]} (see above); finished parts are not repeated"
