#!/usr/bin/env bash
# Starts a SLURM of this one machine (Debian: apt install slurm-wlm), with its own munge; nothing outside FOLDER is
# written.
#
#   export SLURM_CONF=$(bash tests/slurm/start.sh FOLDER [NODES [PROCTRACK]])
#   sbatch ...; squeue; ...
#   bash tests/slurm/stop.sh FOLDER
#
# FOLDER: new or empty. NODES: 1 node of two CPUs (the default), or 2 of one each, both this machine. PROCTRACK: pgid
# (the default: a signal reaches a step's first process alone, as under control groups) or linuxproc (every process).
# Exit code 2: could not be started.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin                         # where the daemons are, on no user's path
die() { echo "start.sh: error: $*" >&2; exit 2; }
for tool in munged slurmctld slurmd sbatch scontrol python3; do
    command -v "$tool" > /dev/null || die "$tool is not installed: on Debian, apt install slurm-wlm"
done
[ $# -ge 1 ] || die "give a folder for its state and logs"
mkdir -p "$1"
folder=$(cd "$1" && pwd) nodes=${2:-1} proctrack=${3:-pgid}
[ -z "$(ls -A "$folder")" ] || die "$folder is not empty: give another"
host=$(hostname -s)
read -r ctld_port port1 port2 < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in held))')
names=("$host")                             # both names must lead to this machine: workers find each other by them
lines="NodeName=$host NodeAddr=127.0.0.1 Port=$port1 CPUs=2 State=UNKNOWN"
if [ "$nodes" = 2 ]; then
    names+=(localhost)
    lines="NodeName=$host NodeAddr=127.0.0.1 Port=$port1 CPUs=1 State=UNKNOWN"
    lines+=$'\n'"NodeName=localhost NodeHostname=$host NodeAddr=127.0.0.1 Port=$port2 CPUs=1 State=UNKNOWN"
fi

template=$(grep -v '^#' "$here/slurm.conf.template")
for key in HOST=$host USER=$(id -un) CTLD_PORT=$ctld_port "FOLDER=$folder" PROCTRACK=$proctrack "NODES=$lines"; do
    template=${template//@${key%%=*}@/${key#*=}}
done
printf '%s\n' "$template" > "$folder/slurm.conf"
export SLURM_CONF=$folder/slurm.conf
mkdir "$folder/state"
trap '[ $? -eq 0 ] || bash "$here/stop.sh" "$folder"' EXIT

( umask 077; head -c 128 /dev/urandom > "$folder/munge.key" )
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --seed-file="$folder/munge.seed" --log-file="$folder/munged.log" 2> "$folder/munged.err" ||
    die "munged: $(tail -n 1 "$folder/munged.err")"
slurmctld -c || die "slurmctld: see $folder/slurmctld.log"
for name in "${names[@]}"; do slurmd -N "$name" || die "slurmd: see $folder/slurmd.$name.log"; done
for _ in $(seq 60); do
    [ "$(sinfo --noheader --Node --format=%T 2> /dev/null | grep -c idle)" != "${#names[@]}" ] ||
        { echo "$SLURM_CONF"; exit 0; }
    sleep 0.5
done
die "the nodes do not answer within 30 seconds: see $folder/slurmctld.log and slurmd.*.log"
