#!/usr/bin/env bash
# The runs behind README's results, then ledger, readout, report and videos. Type it again to go on after a stop.
#
#   scripts/evidence.sh [STAGE...] [--seeds 1] [--gpus all] [--runs runs] [--results results] [--dry-run]; a STAGE is one of
#
#   small        preset small, MLR and Baseline, three seeds: cartpole_swingup, then ball_in_cup_catch
#   methods      preset small, cartpole_swingup: CURL, DrQ, SAC+AE, SPR and PlayVirtual, five seeds; Dreamer, PlaNet and SLAC, three
#   ablations    MLR with one setting changed, preset small, cartpole_swingup, two seeds
#   worlds       MaDi, SVEA and SAC, preset madi_small, cartpole_swingup, two seeds, 100k env steps, each judged in every world
#   atari        preset small, MLR and Baseline, three seeds: boxing, then freeway; then boxing with the published epsilon, two seeds,
#                and what MLR's decoder learns with each epsilon
#   paper        the published setting, on a GPU: six tasks to 100k, then the games, MLR first; one seed, or --seeds 1-10
#                (the paper has 10 on DMControl, 3 on Atari); --gpus none runs it on the CPU
# results/ holds our own runs, and the ledger refuses a second run of the same name. --results mine begins a ledger of your own
# and writes its REPORT.md beside it. Without --results, README and the videos are written as well.
# Without a stage: the first five, about 30 hours on two CPU cores, then the judging and the readout. Two runs train at a time, in
# stage paper as many as the GPUs have memory for; JOBS=8 changes that. Failed runs are listed at the end; the others go on.
# Ctrl-C saves the runs under way and puts their results into ledger and report. A second Ctrl-C ends that too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fail() { echo "error: $*" >&2; exit 2; }
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/evidence.sh; }
runs=runs results=results seeds=1 gpus=all dry=() stages=()
while (($#)); do
  case $1 in
    --seeds | --gpus | --runs | --results) [[ -n ${2:-} && $2 != -* ]] || fail "$1 needs a value" ;;&
    --seeds) seeds=$2; shift 2 ;;
    --gpus) gpus=$2; shift 2 ;;
    --runs) runs=$2; shift 2 ;;
    --results) results=$2; shift 2 ;;
    --dry-run) dry=(--dry-run); shift ;;
    small | methods | ablations | worlds | atari | paper) stages+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $seeds == 1 || " ${stages[*]} " == *" paper "* ]] || fail "--seeds is for the stage paper; the others have their own"
((${#stages[@]})) || stages=(small methods ablations worlds atari)
case $gpus in # whatever runs here, judging and readout too, keeps to these
  all) ;;
  none) export CUDA_VISIBLE_DEVICES="" ;;
  *) export CUDA_VISIBLE_DEVICES=${gpus// /,} ;;
esac

# ---- children: each under setsid, so that only this script passes signals on, and each child gets them once
signal=0 child="" collecting=false failed=()

stop() { # the launcher saves its runs and ends, then results are collected; a signal during the collecting ends that
  signal=$1
  local how=$signal
  if ((how == 1)); then how=15; fi
  if [[ -n $child ]]; then kill "-$how" "$child" 2>/dev/null || true; fi
  if $collecting; then exit $((128 + signal)); fi
}

go() { # in the background: bash handles a signal only after a command in the foreground has ended
  local line="$*" code
  setsid env --default-signal=INT "$@" & # bash starts what is in the background without Ctrl-C
  child=$!
  while code=0; wait "$child" || code=$?; kill -0 "$child" 2>/dev/null; do :; done # a signal ends the wait but not the child
  child=""
  case $code in
    0) ;;
    129 | 130 | 143) ((signal)) || signal=$((code - 128)) ;; # if none came here, the launcher itself was stopped
    *) failed+=("${line:0:160} (exit code $code)") ;;
  esac
}

train() { # launcher and its words
  if ((signal)); then return; fi
  set -- "$@" --jobs-per-gpu "$jobs" --runs "$runs"
  if ((${#dry[@]})); then "$@" --dry-run || exit; else go "$@"; fi
}
dmcontrol() { train scripts/run_dmcontrol.sh "$@"; }
atari() { train scripts/run_atari.sh "$@"; }
variant() { dmcontrol cartpole_swingup --seeds 1-2 --method mlr --preset small "$@"; }

side_by_side() { # as many runs as fit into the GPU with the least free memory, at $1 GB each, with a core for every run
  local free=() cores
  if [[ -n ${JOBS:-} || -z ${CUDA_VISIBLE_DEVICES-all} ]]; then return; fi
  mapfile -t free < <(nvidia-smi ${CUDA_VISIBLE_DEVICES:+"--id=$CUDA_VISIBLE_DEVICES"} --query-gpu=memory.free \
    --format=csv,noheader,nounits 2>/dev/null | grep -x '[0-9]*' | sort -n)
  if ((${#free[@]} == 0)); then return; fi
  cores=$(nproc) jobs=$((free[0] / 1024 / $1))
  if ((jobs > cores / ${#free[@]})); then jobs=$((cores / ${#free[@]})); fi
  if ((jobs < 1)); then jobs=1; fi
  echo "side by side: $jobs on each of ${#free[@]} GPU(s), for $((free[0] / 1024)) GB are free, a run takes about $1 GB and a core," \
    "and there are $cores cores (JOBS=... to choose)"
}

finished() { mapfile -t folders < <("$project_python" -m scripts.runs.finished "$runs" "$@"); }

judge() { # finished runs in every world; distracting_cs 0.5 comes last, so a run that has it was judged in all of them before
  local folder folders
  if ((${#dry[@]} || signal)); then return; fi
  finished benchmark=dmcontrol task=cartpole_swingup preset=madi_small name=
  for folder in "${folders[@]}"; do
    if ((signal)) || grep -q ",distracting_cs,0.5," "$folder/eval.csv"; then continue; fi
    go "$project_python" -m DMControl.evaluate run="$folder" worlds=clean,color_easy,color_hard,video_easy,video_hard,distracting_cs
  done
}

decode() { # why MLR's loss is not learnt with the published epsilon
  local folder folders settings
  if ((${#dry[@]} || signal)); then return; fi
  finished benchmark=atari task=boxing method=mlr preset=small name=
  for folder in "${folders[@]}"; do go scripts/decoder.sh "$folder" logged=true results="$results"; done
  finished benchmark=atari task=boxing method=baseline preset=small name= seed=1
  for folder in "${folders[@]}"; do
    for settings in "" "mlr.mask.strategy=temporal" "rainbow.adam_eps=1.5e-4" "untrained=true"; do
      go scripts/decoder.sh "$folder" results="$results" $settings # shellcheck disable=SC2086
    done
  done
}

all() {
  local stage jobs four="cartpole_swingup ball_in_cup_catch reacher_easy cheetah_run"
  for stage in "${stages[@]}"; do
    jobs=${JOBS:-2}
    case $stage in
      small)
        dmcontrol cartpole_swingup --method "mlr baseline" --then ball_in_cup_catch --seeds 1-3 --preset small ;;
      methods)
        dmcontrol cartpole_swingup --seeds 1-5 --method "curl drq sac_ae spr playvirtual" --preset small
        dmcontrol cartpole_swingup --seeds 1-3 --method "dreamer planet slac" --preset small ;;
      ablations)
        variant mlr.mask.ratio=0.1 name=ratio0.1
        variant mlr.mask.ratio=0.9 name=ratio0.9
        variant mlr.mask.strategy=spatial name=spatial
        variant mlr.mask.strategy=temporal name=temporal
        variant mlr.target=pixels name=pixels
        variant mlr.action_tokens=false name=no-actions ;;
      worlds)
        dmcontrol cartpole_swingup --seeds 1-2 --method "madi svea sac" --preset madi_small env_steps=100000
        judge ;;
      atari)
        atari boxing --method "mlr baseline" --then freeway --seeds 1-3 --preset small
        atari boxing --seeds 1-2 --method "mlr baseline" --preset small rainbow.adam_eps=1.5e-4 name=published-eps
        decode ;;
      paper) # GB of a run: memory.py says 8 and 4, and CUDA with its graphs takes some more
        side_by_side 10
        dmcontrol "$four" --method mlr --then "$four" --method baseline --then "finger_spin walker_walk" --method "mlr baseline" \
          --seeds "$seeds" --preset paper
        side_by_side 8
        atari "pong kangaroo frostbite qbert freeway" --method "mlr baseline" --then all26 --seeds "$seeds" --preset paper ;;
    esac
  done
}
if ((${#dry[@]})); then all; exit 0; fi

# ---- mistakes that would show only after hours
source scripts/setup.sh
if [[ " ${stages[*]} " == *" paper "* && $gpus != none ]]; then
  "$project_python" -c 'import torch; exit(not torch.cuda.is_available())' ||
    fail "paper is for a GPU, and torch sees none here: a run would take 50 to 330 hours; --gpus none does it all the same"
fi
listed=$(dry=(--dry-run) && all)
"$project_python" -m scripts.ledger.conflicts "$results" <<<"$listed"

mkdir -p "$runs"
trap 'stop 2' INT
trap 'stop 15' TERM
trap 'exec >>"$runs/evidence.log" 2>&1; stop 1' HUP # the terminal was closed, and cannot show anything
all

# ---- results, also of runs that failed or were stopped; after a signal only the quick parts
collecting=true
go scripts/ledger.sh "$runs" --results "$results" --cut-off
if ((!signal)); then
  finished
  saved=()
  for folder in "${folders[@]}"; do if [[ -e $folder/checkpoint ]]; then saved+=("$folder"); fi; done
  if ((${#saved[@]})); then go scripts/readout.sh "${saved[@]}" results="$results"; fi
fi
if [[ $results != results ]]; then
  go scripts/report.sh --results "$results" --figs "$results/figs"
else
  if ((!signal)); then
    finished method=mlr,madi seed=1 name=
    for folder in "${folders[@]}"; do if [[ -e $folder/video/final.mp4 ]]; then go scripts/policies.sh "$folder"; fi; done
    finished benchmark=dmcontrol task=cartpole_swingup method=madi preset=madi_small seed=1 name=
    for folder in "${folders[@]}"; do
      go scripts/masks.sh "$folder" worlds=clean,color_hard,video_easy,video_hard,distracting_cs intensities=0.1,0.5 figure=figs/madi.png
    done
  fi
  go scripts/report.sh --readme README.md
fi
if ((${#failed[@]})); then printf 'FAILED %s\n' "${failed[@]}"; fi
if ((signal)); then exit $((128 + signal)); fi
exit $((${#failed[@]} > 0))
