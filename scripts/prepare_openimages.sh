#!/usr/bin/env bash
# Prepares OpenImages30k, images and masks, for the data loaders, from local or downloaded archives.
#
#   scripts/prepare_openimages.sh [--archives DIR] [--data_root DIR] [--no_checksum] [PART...]
#
# PART: images (OpenImages_images.zip), annotations (OpenImages_annotations.zip), evaluation (OpenImages30k_eval.zip: the
# images and masks of val and test, enough for evaluation); default: images annotations.
# Makes OpenImages/{train,val,test}/<class>/ in the data root (default: the folder dataset of the checkout).
# Archives are searched in --archives, then in the data root, else downloaded there; they are kept. Finished parts have
# a marker in DATA_ROOT/.prepared, so the command can be interrupted and rerun. Existing files are never overwritten.
# CALM_MIRROR=<address> names a copy of the archives. Next: scripts/fetch_metadata.sh OpenImages

set -uo pipefail
shopt -s nullglob dotglob
# prepare_options sets data_root and work; each arrange_PART sets layout, for prepare_archive's error message.
# shellcheck disable=SC2034,SC2154 source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
ONEDRIVE='https://onedrive.live.com/download?cid=B7111B95B80CCC66&resid=B7111B95B80CCC66%21'

archive_of() {
    case $1 in evaluation) echo OpenImages30k_eval.zip ;; *) echo "OpenImages_$1.zip" ;; esac
}

prepare_images() { prepare_archive oi_images OpenImages_images.zip - "${ONEDRIVE}30813&authkey=AHgXVPxKxO_5Fvc" 11; }
prepare_annotations() {
    prepare_archive oi_annotations OpenImages_annotations.zip - "${ONEDRIVE}30811&authkey=AMWbBWZVQFbm4jw" 1
}
prepare_evaluation() {
    prepare_archive oi_evaluation OpenImages30k_eval.zip - "${ONEDRIVE}30826&authkey=AJI0Cb0e74L3s00" 3
}

arrange_oi_images() {
    layout='the folders train, val and test are expected'
    local folder; folder=$(folder_with "$1" 'test') || return 1
    mv "$folder" "$2/OpenImages"
}

arrange_oi_annotations() { arrange_oi_images "$@"; }

arrange_oi_evaluation() {
    layout='the folders val and test are expected'
    local folder; folder=$(folder_with "$1" 'test') || return 1
    [ -d "$folder/val" ] && mv "$folder" "$2/OpenImages"
}

prepare_options 'images annotations evaluation' 'images annotations' "$@"
need unzip md5sum
run_parts
