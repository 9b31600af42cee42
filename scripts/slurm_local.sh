#!/usr/bin/env bash
# A real Slurm of one node on this machine, to try --multirun with hydra/launcher=submitit_slurm. For root only.
#   scripts/slurm_local.sh start [DIR]     then: export SLURM_CONF=DIR/slurm.conf, and sbatch, squeue, ... work
#   scripts/slurm_local.sh stop [DIR]      cancels its jobs, ends its daemons and removes DIR (without DIR: /tmp/slurm_local)
set -euo pipefail
fail() { echo "error: $1" >&2; exit 2; }
[[ ${1:-} =~ ^(start|stop)$ ]] || fail "say what to do: scripts/slurm_local.sh start|stop [DIR]"
[ "$(id -u)" = 0 ] || fail "only root can run Slurm's daemons: try sudo $0 $*"
PATH=$PATH:/usr/sbin
for command in sbatch slurmctld slurmd munged; do
  command -v "$command" > /dev/null || fail "$command is missing: apt-get install -y --no-install-recommends slurm-wlm munge"
done
folder=$(realpath -m "${2:-/tmp/slurm_local}")
export SLURM_CONF=$folder/slurm.conf

ended() { # wait up to 60 s until a command fails: squeue lists no job, a process is gone
  for _ in $(seq 300); do "$@" > /dev/null 2>&1 || return 0; sleep 0.2; done
  return 1
}
jobs_left() { squeue --noheader | grep -q .; }
end() { # the daemon that wrote this file with its process id
  local pid
  pid=$(cat "$folder/$1.pid" 2> /dev/null) || return 0
  kill "$pid" 2> /dev/null || return 0
  ended kill -0 "$pid" || kill -KILL "$pid"
}

if [ "$1" = stop ]; then
  head -n 1 "$SLURM_CONF" 2> /dev/null | grep -q slurm_local.sh || fail "$folder holds no Slurm of this script"
  if scontrol ping 2> /dev/null | grep -q UP; then
    scancel --state=PENDING; scancel --state=RUNNING
    ended jobs_left || echo "warning: jobs are left: $(squeue --noheader -o %A | xargs)" >&2
  fi
  for daemon in slurmctld slurmd munged; do end "$daemon"; done
  rm -rf "$folder"
  echo "stopped"
  exit 0
fi

[ ! -e "$folder" ] || [ -z "$(ls -A "$folder")" ] || fail "$folder is not empty: scripts/slurm_local.sh stop $folder, or name another"
mkdir -p "$folder/state" "$folder/spool"
host=$(hostname -s)
memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cat > "$SLURM_CONF" << END
# written by scripts/slurm_local.sh
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
# a requeued job waits until its credential has expired
AuthInfo=socket=$folder/munge.socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
# no cgroups: they are often not there in a container
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# two cores, whatever the machine has
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory
PartitionName=local Nodes=ALL Default=YES
JobRequeue=1
ReturnToService=2
# what has ended, in place of the accounting database
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/ended.txt
END
head -c 1024 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
trap 'echo "error: Slurm did not start: see $folder/*.log, then scripts/slurm_local.sh stop $folder" >&2; exit 1' ERR
# --force: the folder may be closed to others
munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --seed-file="$folder/munge.seed" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" 2> "$folder/munged.err"
slurmctld
slurmd
for _ in $(seq 150); do
  [ "$(sinfo --noheader --format=%T 2> /dev/null)" != idle ] || { echo "started: export SLURM_CONF=$SLURM_CONF"; exit 0; }
  sleep 0.2
done
false
