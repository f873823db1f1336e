#!/usr/bin/env bash
# Prepares ImageNet (ILSVRC2012) and ImageNetV2 for the data loaders, from archives on disk.
#
#   scripts/prepare_imagenet.sh [--archives DIR] [--data_root DIR] [--no_checksum] [PART...]
#
# PART: val (ILSVRC2012_img_val.tar), train (ILSVRC2012_img_train.tar), val2 (imagenetv2-threshold0.7.tar.gz, the only
# one downloaded: the others need an account at image-net.org), boxes (ILSVRC2012_bbox_val_v3.tgz); default: val train
# val2. Makes ILSVRC/{train/<synset>,val,val2/<class>} and, from boxes, ILSVRC/Annotations/CLS-LOC/val in the data root
# (default: the folder dataset of the checkout). Archives are searched in --archives, then in the data root; they are
# kept. Finished parts, and each synset of train, have a marker in DATA_ROOT/.prepared, so the command can be
# interrupted and rerun. Existing files are never overwritten. Newer ImageNetV2 archives name images by hash: the
# protocol's list of names, mapping.txt, is taken from the archives' folder or downloaded.
# CALM_MIRROR=<address> names a copy of the archives. Next: scripts/fetch_metadata.sh ILSVRC

set -uo pipefail
shopt -s nullglob dotglob
# prepare_options sets data_root and work; each arrange_PART sets layout, for prepare_archive's error message.
# shellcheck disable=SC2034,SC2154 source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
V2=https://s3-us-west-2.amazonaws.com/imagenetv2public/imagenetv2-threshold0.7.tar.gz
PROTOCOL=https://raw.githubusercontent.com/clovaai/wsolevaluation/e9972606b18064ea886f098f2b5b29b9ade75f09
MAPPING=$PROTOCOL/metadata/ILSVRC/val/mapping.txt

archive_of() {
    case $1 in
        val | train) echo "ILSVRC2012_img_$1.tar" ;;
        val2) echo imagenetv2-threshold0.7.tar.gz ;;
        boxes) echo ILSVRC2012_bbox_val_v3.tgz ;;
    esac
}

prepare_val() { prepare_archive val ILSVRC2012_img_val.tar 29b22e2961454d5413ddabcf34fc5622 - 7; }
prepare_val2() { prepare_archive val2 imagenetv2-threshold0.7.tar.gz - "$V2" 2; }
prepare_boxes() { prepare_archive boxes ILSVRC2012_bbox_val_v3.tgz - - 1; }

arrange_val() {
    layout='ILSVRC2012_val_*.JPEG are expected'
    local folder; folder=$(folder_with "$1" 'ILSVRC2012_val_*.JPEG') || return 1
    mkdir "$2/ILSVRC" && mv "$folder" "$2/ILSVRC/val"
}

arrange_boxes() {
    layout='val/ILSVRC2012_val_*.xml are expected'
    local folder; folder=$(folder_with "$1" 'ILSVRC2012_val_*.xml') || return 1
    mkdir -p "$2/ILSVRC/Annotations/CLS-LOC" && mv "$folder" "$2/ILSVRC/Annotations/CLS-LOC/val"
}

arrange_val2() {
    layout='the class folders 0 to 999 are expected'
    local folder; folder=$(folder_with "$1" '0') || return 1
    mkdir "$2/ILSVRC" && mv "$folder" "$2/ILSVRC/val2" || return 1
    [ -e "$2/ILSVRC/val2/0/0.jpeg" ] || rename_val2 "$2/ILSVRC/val2"
}

rename_val2() {  # hash names to the protocol's <class>/<0..9>.jpeg; mapping lines: "0/0.jpeg, 0/<hash>.jpeg"
    local mapping new old; mapping=$(find_archive mapping.txt)
    [ -n "$mapping" ] || mapping="$work/mapping.txt"
    if [ ! -f "$mapping" ]; then
        say "its images are named by hash: downloading the protocol's names, mapping.txt ..."
        download "$MAPPING" "$mapping"
    fi
    while IFS=', ' read -r new old; do
        [ -n "$old" ] || continue
        if ! [ -f "$1/$old" ] || [ -e "$1/$new" ]; then
            die "$mapping names $old as $new, which does not match the archive: use the mapping of" \
                "imagenetv2-threshold0.7"
        fi
        mv "$1/$old" "$1/$new"
    done < <(tr -d '\r' < "$mapping")
    old=$(find "$1" -type f ! -regex '.*/[0-9]\.jpeg' -print -quit)
    [ -z "$old" ] || die "$mapping has no name for ${old#"$1/"}: use the mapping of imagenetv2-threshold0.7"
}

# The archive contains one archive per synset. Each is unpacked next to its destination and renamed, which avoids a
# second copy of 138 GB.
prepare_train() {
    local name=ILSVRC2012_img_train.tar ready="$work/train.synsets" archive member synset members
    [ ! -e "$work/train.done" ] || { say "train: already done ($work/train.done)"; return; }
    get_archive $name - 0
    [ -s "$ready" ] || check_md5 "$archive" 1d675b47d978889d74fa0da5fadfb00e
    members=$(tar -tf "$archive" 2>/dev/null | grep -E '(^|/)n[0-9]+\.tar$') ||
        die "$archive contains no n<number>.tar of a synset: get the right archive"
    mkdir -p "$work" "$data_root/ILSVRC/train" || die "cannot write into $data_root: give another --data_root"
    touch "$ready"
    local total; total=$(wc -l <<< "$members")
    need_space "$data_root" $(($(file_bytes "$archive") * (total - $(wc -l < "$ready")) / total)) train
    local count=0
    trap 'rm -rf "$work/train.stage"' EXIT
    for member in $members; do
        count=$((count + 1)) synset=$(basename "$member" .tar)
        grep -qx "$synset" "$ready" || { unpack_synset "$archive" "$member" "$synset" && echo "$synset" >> "$ready"; }
        [ $((count % 100)) -ne 0 ] || say "train: $count of $total synsets"
    done
    echo $name > "$work/train.done"
    say "train: done, $total synsets"
}

unpack_synset() {  # unpack_synset ARCHIVE MEMBER SYNSET
    local stage="$work/train.stage" place="$data_root/ILSVRC/train/$3"
    rm -rf "$stage"; mkdir "$stage"
    tar --occurrence=1 -xOf "$1" "$2" 2>/dev/null | tar -xf - -C "$stage" --no-same-owner 2>/dev/null ||
        die "$2 in $1 cannot be unpacked: the archive is damaged; get it again"
    if [ -d "$place" ]; then  # the user's folder, or the run was interrupted right after the rename
        diff -rq "$stage" "$place" >/dev/null ||
            die "$place exists with different content: nothing was changed; move it away and run this again"
        return 0
    fi
    mv -T "$stage" "$place"
}

prepare_options 'val train val2 boxes' 'val train val2' "$@"
need tar md5sum
run_parts
