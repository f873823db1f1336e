#!/usr/bin/env bash
# Stops what start.sh FOLDER started: its jobs, then its daemons. The logs stay in FOLDER.
set -uo pipefail
folder=$(cd "$1" && pwd) || exit 2
export SLURM_CONF=$folder/slurm.conf

jobs() { timeout 10 squeue --noheader --format=%A 2> /dev/null; }
if [ -e "$folder/slurmctld.pid" ]; then
    timeout 10 scancel --user="$(id -un)" 2> /dev/null
    for _ in $(seq 60); do [ -n "$(jobs)" ] || break; sleep 0.5; done
fi
pids=$(cat "$folder"/slurmd.*.pid "$folder/slurmctld.pid" "$folder/munged.pid" 2> /dev/null)
for pid in $pids; do kill "$pid" 2> /dev/null; done
for _ in $(seq 40); do
    alive=$(for pid in $pids; do [ ! -d "/proc/$pid" ] || echo "$pid"; done)
    [ -n "$alive" ] || exit 0
    sleep 0.25
done
for pid in $alive; do kill -9 "$pid" 2> /dev/null; done
exit 0
