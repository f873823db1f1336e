#!/usr/bin/env bash
# Downloads the released CALM checkpoints (ResNet-50, large feature map) from Google Drive.
#
#   scripts/download_checkpoints.sh [--checkpoints DIR] [--install_gdown] NAME...
#
# NAME: CALM-EM_CUB, CALM-EM_OpenImages, CALM-EM_ILSVRC, CALM-ML_CUB, CALM-ML_OpenImages, CALM-ML_ILSVRC.
# Each is saved as DIR/NAME/last_checkpoint.pth.tar (default: the folder checkpoints of the checkout). Existing files are
# kept. No hashes are published: the sha256 of each download is printed and recorded next to it, and existing files are
# checked against that record. Uses the Python package gdown; --install_gdown installs it with pip. PYTHON=<command>
# names the Python to use.

set -uo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
NAMES='CALM-EM_CUB CALM-EM_OpenImages CALM-EM_ILSVRC CALM-ML_CUB CALM-ML_OpenImages CALM-ML_ILSVRC'
CHECKPOINT=last_checkpoint.pth.tar

drive_id() {
    case $1 in
        CALM-EM_CUB) echo 1XfBEc1Lh24WqJZP1aLLrwGSlj_INMVef ;;
        CALM-EM_OpenImages) echo 11250uUiRNafuTbnx2h4kryiVI-7218mW ;;
        CALM-EM_ILSVRC) echo 17451YI9KANnkmmn2ix0N-uHYZljsq4Lc ;;
        CALM-ML_CUB) echo 1JgupGC2EoIX8wqpYgKPS-3kSLF-29Z8g ;;
        CALM-ML_OpenImages) echo 1QHhiRjO_Oz_yIl64PJqMeCJzK1KUlffA ;;
        CALM-ML_ILSVRC) echo 1w4L4_R9o_Sp-9_Mt5IdEJs5DZuqaCfyp ;;
        *) return 1 ;;
    esac
}

parse() {
    checkpoints="$(checkout)/checkpoints" install=no names=()
    while [ $# -gt 0 ]; do
        case $1 in
            --checkpoints) checkpoints=$(option_value "$1" $# "${2:-}") || exit 2; shift ;;
            --checkpoints=*) checkpoints=${1#*=} ;;
            --install_gdown) install=yes ;;
            -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"; exit 0 ;;
            *) drive_id "$1" >/dev/null || die "unknown checkpoint '$1': choose from $NAMES"; names+=("$1") ;;
        esac
        shift
    done
    [ ${#names[@]} -gt 0 ] || die "no checkpoint named: choose from $NAMES"
}

find_python() {
    python=${PYTHON:-}
    [ -n "$python" ] || { python="$(checkout)/.venv/bin/python"; [ -x "$python" ] || python=python3; }
    need "$python"
}

need_gdown() {
    ! "$python" -c 'import gdown' 2>/dev/null || return 0
    [ "$install" = yes ] || die "the Python package gdown is not installed: run this again with --install_gdown"
    "$python" -m pip install --quiet gdown 2>/dev/null ||
        die "gdown cannot be installed with $python -m pip: go online, or install it by hand"
}

keep() {  # check an existing checkpoint against its record
    [ -f "$1.sha256" ] || { (cd "$(dirname "$1")" && sha256sum $CHECKPOINT > $CHECKPOINT.sha256); }
    (cd "$(dirname "$1")" && sha256sum --status -c $CHECKPOINT.sha256) ||
        die "$1 is not the file whose sha256 is recorded in $1.sha256: move it away to download it again"
    say "$1 exists, kept: sha256 $(cut -d' ' -f1 "$1.sha256")"
}

# Extract the checkpoint from a download: a folder or archive containing it, or the file itself (which may be a zip).
take_checkpoint() {
    local came=$1 target=$2 inner
    if [ ! -d "$came" ]; then
        inner=$( (unzip -Z1 "$came" || tar -tf "$came") 2>/dev/null | grep -E "(^|/)$CHECKPOINT\$" | head -n 1)
        [ -n "$inner" ] || { mv "$came" "$target"; return; }
        mkdir "$came.inside"
        unzip -q "$came" "$inner" -d "$came.inside" 2>/dev/null ||
            tar -xf "$came" -C "$came.inside" "$inner" || return 1
        came="$came.inside"
    fi
    inner=$(find "$came" -type f -name $CHECKPOINT -print -quit)
    [ -n "$inner" ] && mv "$inner" "$target"
}

reason() {  # the line of gdown's log that states the error
    { grep -iE 'error|fail|denied|quota|route' "$1" || grep -v '^ *$' "$1"; } |
        tail -n 1 | cut -c 1-200 | sed 's/^[[:space:]]*//'
}

fetch_checkpoint() {
    local name=$1 folder="$checkpoints/$1" id stage log
    [ ! -e "$folder/$CHECKPOINT" ] || { keep "$folder/$CHECKPOINT"; return; }
    need_gdown
    id=$(drive_id "$name")
    mkdir -p "$checkpoints" || die "cannot make the folder $checkpoints: give another --checkpoints"
    half=$(mktemp -d "$checkpoints/.$name.XXXXXX")
    trap 'rm -rf "$half"' EXIT
    stage=$half log="$half/log"
    say "downloading $name ..."
    "$python" -m gdown "$id" -O "$stage/came" > "$log" 2>&1 ||
        { rm -rf "$stage/came"; "$python" -m gdown --folder "$id" -O "$stage/came" >> "$log" 2>&1; } ||
        die "cannot download $name, Google Drive id $id ($(reason "$log")): go online, or put the file" \
            "into $folder/$CHECKPOINT yourself"
    if ! [ -e "$stage/came" ] || ! take_checkpoint "$stage/came" "$stage/$CHECKPOINT" ||
        ! [ -s "$stage/$CHECKPOINT" ] || [ "$(head -c 1 "$stage/$CHECKPOINT")" = '<' ]; then
        die "Google Drive's file for $name, id $id, is not a checkpoint (perhaps a page saying the quota is" \
            "exceeded): try again later"
    fi
    mkdir -p "$folder" || die "cannot make the folder $folder"
    (cd "$stage" && sha256sum $CHECKPOINT > $CHECKPOINT.sha256)
    mv "$stage/$CHECKPOINT.sha256" "$folder/" && mv -n "$stage/$CHECKPOINT" "$folder/"
    say "$folder/$CHECKPOINT: sha256 $(cut -d' ' -f1 "$folder/$CHECKPOINT.sha256")" \
        "(recorded next to it; none is published)"
    rm -rf "$half"
}

parse "$@"
need sha256sum
find_python
for name in "${names[@]}"; do fetch_checkpoint "$name"; done
