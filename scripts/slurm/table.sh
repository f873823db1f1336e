#!/usr/bin/env bash
# A paper table on a cluster: an array job trains and evaluates each network; a dependent job prints the table.
#
#   bash scripts/slurm/table.sh TABLE [OPTION...] [-- SBATCH OPTION...]
#   bash scripts/slurm/table.sh cue_localization --dataset CUB -- --partition=gpu --time=8:00:00
#
# TABLE: classification, cue_localization, remove_and_classify or wsol; OPTIONs are those of scripts/reproduce/TABLE.sh
# (see its --help): --toy, --checkpoints DIR, --dataset SET, --seeds 0 1 2, --save_root DIR ... (except --from_cam and
# flags of the commands). Output goes to SAVE_ROOT/slurm/. Submitting again does not repeat finished steps; rows of failed
# tasks show '-'.

set -euo pipefail
unset CDPATH    # with it, `cd` prints
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=${1:-}
[ $# -eq 0 ] || shift
given=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do given+=("$1"); shift; done
[ $# -eq 0 ] || shift
# shellcheck source=scripts/reproduce/common.sh
source "$here/../reproduce/common.sh"
case $table in -h | --help) usage ;; esac
sets_of "$table" > /dev/null || die "'$table' is not a table: choose from $TABLES"
need sbatch
options "$table" "${given[@]}"
[ -z "$from_cam" ] || [ -n "$toy" ] || die "--from_cam: the tasks of an array do not wait for each other; leave it out"

names=()
for set in $SETS; do
    prepare "$set"
    for name in $(networks "$table" "$set"); do
        [ -z "$checkpoints" ] || have "$name" || continue
        names+=("$name")
    done
done
[ ${#names[@]} -gt 0 ] || die "none of this table's networks is in $checkpoints"

words=("${paths[@]:0:4}")                                  # the three folders and --workers
[ -z "$checkpoints" ] || words+=("--checkpoints=$checkpoints")
[ -z "$architecture" ] || words+=("--architecture=$architecture")
[ -z "$epochs" ] || words+=("--epochs=$epochs")
[ -z "$toy" ] ||
    words+=(--toy "--images=$images" "--test_images=$test_images" "--iterations=$iterations")
mkdir -p "$save_root/slurm"
array=$(sbatch --parsable --job-name="$table" --array="0-$((${#names[@]} - 1))" \
    --output="$save_root/slurm/%x-%A_%a.out" "$@" scripts/slurm/table.sbatch "$table" "${names[*]}" "${words[@]}")
array=${array%%;*}                                         # federated clusters append their name
report=("$PWD/.venv/bin/python" "$PWD/scripts/report.py" "--table=$table"
    ${architecture:+"--architecture=$architecture"})
for set in $SETS; do report+=("--dataset=$set"); done
printed=$(sbatch --parsable --job-name="$table-table" --dependency="afterany:$array" \
    --output="$save_root/slurm/%x-%j.out" "$@" --wrap="$(printf '%q ' "${report[@]}" "$save_root")")
note "array $array: ${names[*]}"
note "the table, once they have finished: $save_root/slurm/$table-table-${printed%%;*}.out"
