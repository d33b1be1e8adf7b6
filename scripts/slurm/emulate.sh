#!/usr/bin/env bash
# A real Slurm of two emulated nodes on this one machine, for tests: its own munge, slurmctld and two slurmd, all in one
# folder, with ports of its own, beside any other Slurm. No systemd; needs root, and the packages slurm-wlm and munge.
#   emulate.sh up FOLDER           brings it up; prints the path to put into SLURM_CONF
#   emulate.sh lose FOLDER NODE    a node (n1 or n2) that drops dead: its slurmd and every process of its jobs
#   emulate.sh down FOLDER         ends it with everything that runs in it; harmless where nothing is up
# Each node claims four processors, however many there are. Partitions: cpu and gpu (no GPU in it), both on both nodes;
# a job goes to the node with the least to do.
set -euo pipefail

processors=4
nodes=(n1 n2)

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

[ $# -ge 2 ] || usage
action="$1"
folder="$(mkdir -p "$2" && cd "$2" && pwd)"
export SLURM_CONF="$folder/slurm.conf"
PATH="$PATH:/usr/sbin:/sbin"

free_ports() { # how many
    python3 - "$1" <<'PYTHON'
import socket, sys
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(one.getsockname()[1] for one in held))
PYTHON
}

write_configuration() {
    local ports user node number=0
    read -r -a ports < <(free_ports $((1 + ${#nodes[@]})))
    user="$(id -un)"
    {
        cat <<CONFIGURATION
ClusterName=emulated
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=500
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmdTimeout=5
KillWait=2
CONFIGURATION
        for node in "${nodes[@]}"; do
            number=$((number + 1))
            echo "NodeName=$node NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=${ports[$number]} CPUs=$processors RealMemory=16000"
        done
        echo "PartitionName=cpu Nodes=$(IFS=,; echo "${nodes[*]}") Default=YES MaxTime=INFINITE LLN=YES State=UP"
        echo "PartitionName=gpu Nodes=$(IFS=,; echo "${nodes[*]}") MaxTime=INFINITE LLN=YES State=UP"
    } >"$SLURM_CONF"
}

up() {
    local program node
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || { echo "$program is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
    done
    [ "$(id -u)" = 0 ] || { echo "emulate.sh needs root: slurmd starts jobs for other users" >&2; exit 1; }
    mkdir -p "$folder/munge" "$folder/state"
    chmod 700 "$folder/munge"
    head -c 128 /dev/urandom >"$folder/munge/key"
    chmod 600 "$folder/munge/key"
    write_configuration
    munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" --pid-file="$folder/munge/pid" \
        --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
    slurmctld
    for node in "${nodes[@]}"; do
        mkdir -p "$folder/spool-$node"
        slurmd -N "$node"
    done
    for _ in $(seq 150); do
        if [ "$(sinfo -h -N -p cpu -t idle -o %N 2>/dev/null | wc -l)" = "${#nodes[@]}" ]; then
            echo "$SLURM_CONF"
            return
        fi
        sleep 0.2
    done
    echo "the nodes did not come up; see $folder/slurmctld.log" >&2
    sinfo -N -l >&2 || true
    down
    exit 1
}

kill_daemon() { # pid file, name of the program
    local pid
    [ -f "$1" ] || return 0
    pid="$(cat "$1")"
    [ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null)" != "$2" ] || kill -9 "$pid" 2>/dev/null || true
    rm -f "$1"
}

job_processes() { # node: the processes of its jobs, and what started them
    local environment pid parent
    # grep -z: an environment is a list of texts that end in a zero byte
    for environment in $(grep -lzxF "SLURMD_NODENAME=$1" /proc/[0-9]*/environ 2>/dev/null |
        xargs -r grep -lzxF "SLURM_CONF=$SLURM_CONF" 2>/dev/null); do
        pid="${environment//[!0-9]/}"
        parent="$(awk '/^PPid:/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)"
        [ "$(cat "/proc/$parent/comm" 2>/dev/null)" != slurmstepd ] || echo "$parent"
        echo "$pid"
    done
}

lose() { # node
    local pid
    kill_daemon "$folder/slurmd-$1.pid" slurmd
    for pid in $(job_processes "$1" | sort -u); do
        kill -9 "$pid" 2>/dev/null || true
    done
}

down() {
    local node
    for node in "${nodes[@]}"; do
        lose "$node"
    done
    kill_daemon "$folder/slurmctld.pid" slurmctld
    kill_daemon "$folder/munge/pid" munged
}

case "$action" in
up) up ;;
lose) [ $# -eq 3 ] && lose "$3" || usage ;;
down) down ;;
*) usage ;;
esac
