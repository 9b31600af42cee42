# What run_atari.sh and run_dmcontrol.sh share. They set: module, benchmark, key (game or task).
set -uo pipefail
launcher=$(realpath "$0")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
fail() { echo "error: $*" >&2; exit 2; }
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || fail "bash 5.1 or newer is needed, this is $BASH_VERSION"

# ---- what the user wants
tasks="" seeds=1 methods=mlr preset=paper jobs="" gpus=all runs=runs dry=false settings=() sets=()
while (($#)); do
  case $1 in
    --seeds | --method | --preset | --jobs-per-gpu | --gpus | --runs) [[ -n ${2:-} && $2 != -* ]] || fail "$1 needs a value" ;;&
    --seeds) seeds=$2; shift 2 ;;
    --method) methods=$2; shift 2 ;;
    --preset) preset=$2; shift 2 ;;
    --jobs-per-gpu) jobs=$2; shift 2 ;;
    --gpus) gpus=$2; shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --then) sets+=("$tasks" "$methods"); tasks=""; shift ;;
    --dry-run) dry=true; shift ;;
    -h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$launcher"; exit 0 ;;
    -*) fail "option $1 is unknown: --help lists them" ;;
    seed=* | method=* | preset=* | runs=* | task=* | game=*) fail "${1%%=*} has an option of its own here: --help lists them" ;;
    *=*) settings+=("$1"); shift ;;
    *) tasks+=" $1"; shift ;;
  esac
done
[[ ${jobs:-1} =~ ^[1-9][0-9]*$ ]] || fail "--jobs-per-gpu $jobs must be a whole number from 1 on"
sets+=("$tasks" "$methods")
name=""
for setting in "${settings[@]}"; do [[ $setting == name=* ]] && name=${setting#name=}; done
source scripts/setup.sh
queue=$("$project_python" -m scripts.runs.queue "$benchmark" "$runs" "$preset" "$name" "$seeds" "${sets[@]}" -- "${settings[@]}") || exit 2
mapfile -t queue <<<"$queue"

# ---- slots: each GPU jobs times, or the CPU jobs times
if [ "$gpus" = all ]; then gpus=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | tr '\n' ' ')}; fi
[[ $gpus == none || $gpus == -1 ]] && gpus=""
read -ra gpus <<<"${gpus//,/ }"
cores=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
if [ -z "$jobs" ]; then
  jobs=1 # small runs on a CPU do more side by side, one thread each, than one after the other; large ones need the RAM for themselves
  if [ ${#gpus[@]} -eq 0 ] && [[ $preset != paper && $preset != madi ]]; then jobs=$((${#queue[@]} < cores ? ${#queue[@]} : cores)); fi
fi
slots=()
for ((i = 0; i < jobs; i++)); do slots+=("${gpus[@]:-cpu}"); done
threads=$((cores / ${#slots[@]}))
if ((${#slots[@]} > 1)) && [[ " ${settings[*]:-} " != *" threads="* ]]; then settings+=("threads=$((threads > 0 ? threads : 1))"); fi

# ---- one run: its command, its log
failed=() stopped=() finished=0 skipped=0 signal=""
declare -A run_of=() slot_of=() log_of=()

start() { # task method seed folder log
  local run=${4##*"/$benchmark/"} slot=${slots[0]} log=$5
  local command=("$project_python" -u -m "$module" "$key=$1" "method=$2" "preset=$preset" "seed=$3" "runs=$runs" "${settings[@]}")
  # the training itself compares the user's own settings with those of a finished run
  if [ -f "$4/result.json" ] && [ ${#own[@]} -eq 0 ]; then
    echo "finished, skipped: $4"
    skipped=$((skipped + 1))
    return
  fi
  local device=(env "CUDA_VISIBLE_DEVICES=$slot") line
  if [ "$slot" = cpu ]; then device=() command+=(device=cpu); fi
  slots=("${slots[@]:1}")
  printf -v line '%q ' "${device[@]}" "${command[@]}"
  printf '+ %s>> %q 2>&1\n' "$line" "$log"
  if $dry; then slots+=("$slot"); return; fi
  mkdir -p "${log%/*}"
  # setsid: Ctrl-C reaches this script alone, which asks each run once to save; bash starts what is in the background without Ctrl-C
  setsid env --default-signal=INT "${device[@]}" "${command[@]}" >>"$log" 2>&1 </dev/null &
  run_of[$!]=$run slot_of[$!]=$slot log_of[$!]=$log
}

last_line() { tr '\r' '\n' <"$1" | grep -v '^[[:space:]]*$' | tail -n 1; }

collect() { # wait for a run to end, take its slot back
  local pid="" code run
  # wait -n misses a run that was killed before it began to wait
  for run in "${!run_of[@]}"; do kill -0 "$run" 2>/dev/null || pid=$run; done
  if [ -n "$pid" ]; then wait "$pid" 2>/dev/null; else wait -n -p pid "${!run_of[@]}" 2>/dev/null; fi
  code=$?
  [ -n "${pid:-}" ] || return # a signal ended the wait
  slots+=("${slot_of[$pid]}")
  if ((code == 0)); then
    finished=$((finished + 1))
  elif [ -n "$signal" ]; then
    stopped+=("${run_of[$pid]}")
  else
    failed+=("${run_of[$pid]} (exit code $code, ${log_of[$pid]}): $(last_line "${log_of[$pid]}")")
    echo "failed: ${run_of[$pid]}"
  fi
  unset "run_of[$pid]"
}

stop() { # ask every run to save and end; the second time each ends at once, even one that hangs in a driver
  local how=$1
  if [ "$how" = HUP ]; then how=TERM; fi
  if [ -n "$signal" ]; then how=KILL; fi
  signal=$1
  ((${#run_of[@]})) && kill "-$how" "${!run_of[@]}" 2>/dev/null
}

# ---- all of them
own=("${settings[@]}")
((${#own[@]})) && [[ ${own[-1]} == threads=* ]] && unset 'own[-1]'
trap 'stop INT' INT
trap 'stop TERM' TERM
trap 'stop HUP' HUP # the terminal was closed; nohup has this ignored
for line in "${queue[@]}"; do
  while ! $dry && [ -z "$signal" ] && ((${#slots[@]} == 0)); do collect; done
  IFS=$'\t' read -ra words <<<"$line"
  [ -z "$signal" ] && start "${words[@]}"
done
while ((${#run_of[@]})); do collect; done
$dry && exit 0

echo "$finished finished, $skipped skipped as finished before, ${#failed[@]} failed, ${#stopped[@]} stopped"
((${#failed[@]})) && printf 'FAILED %s\n' "${failed[@]}"
if [ -n "$signal" ]; then
  ((${#stopped[@]})) && printf 'stopped %s\n' "${stopped[@]}"
  echo "type the same line again to go on"
  exit $((128 + $(kill -l "$signal")))
fi
exit $((${#failed[@]} > 0))
