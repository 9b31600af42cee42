#!/usr/bin/env bash
# The runs behind README's section Evidence, then ledger, readout, report and videos. Type it again to go on after a stop.
#
#   scripts/evidence.sh [small] [ablations] [worlds] [atari] [paper] [--seeds 1] [--gpus all] [--runs runs] [--results results] [--dry-run]
#
#   small        preset small, MLR and Baseline, three seeds: cartpole_swingup, then ball_in_cup_catch
#   ablations    MLR with one setting changed, preset small, cartpole_swingup, two seeds
#   worlds       MaDi, SVEA and SAC, preset madi_small, cartpole_swingup, two seeds, 100k env steps, each judged in every world
#   atari        preset small, MLR and Baseline, three seeds: boxing, then freeway; then boxing with Adam's usual epsilon, two seeds, and
#                what MLR's decoder learns with either
#   paper        the published setting, for a GPU: six tasks to 100k, then the games, MLR first; one seed, or --seeds 1-10
#                (the paper has 10 on DMControl, 3 on Atari); --gpus none does it on the CPU all the same
# results/ holds our own runs, and a second run of the same name is refused there: --results mine begins a ledger of your own, whose
# REPORT.md stands beside it. Without it, README and the videos are written as well.
# Without a word: the first four, which two CPU cores can do (about 14 hours, then the judging and the readout). Two runs go side by
# side, at paper as many as the GPUs carry; JOBS=8 changes that. What fails is listed at the end and keeps nothing from going on.
# Ctrl-C saves the runs under way, and what there is goes into ledger and report; once more ends that too.
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
    small | ablations | worlds | atari | paper) stages+=("$1"); shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
[[ $seeds == 1 || " ${stages[*]} " == *" paper "* ]] || fail "--seeds is for the stage paper; the others have their own"
((${#stages[@]})) || stages=(small ablations worlds atari)
case $gpus in # whatever runs here, judging and readout too, keeps to these
  all) ;;
  none) export CUDA_VISIBLE_DEVICES="" ;;
  *) export CUDA_VISIBLE_DEVICES=${gpus// /,} ;;
esac

# ---- what is done: each child in a session of its own, so that a signal reaches it through this script alone, once
signal=0 child="" collecting=false failed=()

stop() { # the launcher saves its runs and ends, and what there is gets collected; a signal while it is collected ends that
  signal=$1
  if [[ -n $child ]]; then kill -TERM "$child" 2>/dev/null || true; fi
  if $collecting; then exit $((128 + signal)); fi
}

go() { # in the background, for bash heeds no signal while it waits for a command in front
  local line="$*" code
  setsid "$@" &
  child=$!
  while code=0; wait "$child" || code=$?; kill -0 "$child" 2>/dev/null; do :; done # a signal ends the wait, not the child
  child=""
  case $code in
    0) ;;
    129 | 130 | 143) ((signal)) || signal=$((code - 128)) ;; # without a signal here, somebody stopped the launcher itself
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

side_by_side() { # as many runs as the fullest GPU has memory for, at so many GB each, with a core for every run
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

judge() { # in every world, what has finished and was not judged in all of them before: the last of them tells
  local folder
  for folder in "$runs"/dmcontrol/cartpole_swingup/*-madi_small/seed*/; do
    if ((${#dry[@]} || signal)) || [[ ! -e $folder/result.json ]] || grep -q ",distracting_cs,0.5," "$folder/eval.csv"; then continue; fi
    go .venv/bin/python -m DMControl.evaluate run="${folder%/}" worlds=clean,color_easy,color_hard,video_easy,video_hard,distracting_cs
  done
}

decode() { # why MLR's loss is not learnt with the published epsilon
  local frozen=$runs/atari/boxing/baseline-small/seed1 folder settings
  if ((${#dry[@]} || signal)); then return; fi
  for folder in "$runs"/atari/boxing/mlr-small/eps-seed*/; do
    if [[ -e $folder/result.json ]]; then go scripts/decoder.sh "${folder%/}" logged=true results="$results"; fi
  done
  if [[ ! -e $frozen/checkpoint ]]; then return; fi
  for settings in "" "rainbow.adam_eps=1e-8" "rainbow.adam_eps=1e-8 mlr.mask.strategy=temporal" "untrained=true"; do
    go scripts/decoder.sh "$frozen" results="$results" $settings # shellcheck disable=SC2086
  done
}

all() {
  local stage jobs four="cartpole_swingup ball_in_cup_catch reacher_easy cheetah_run"
  for stage in "${stages[@]}"; do
    jobs=${JOBS:-2}
    case $stage in
      small)
        dmcontrol cartpole_swingup --method "mlr baseline" --then ball_in_cup_catch --seeds 1-3 --preset small ;;
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
        atari boxing --seeds 1-2 --method "mlr baseline" --preset small rainbow.adam_eps=1e-8 name=eps
        decode ;;
      paper) # GB of a run: needs.py says 8 and 4, and CUDA with its graphs takes some
        side_by_side 10
        dmcontrol "$four" --method mlr --then "$four" --method baseline --then "finger_spin walker_walk" --method "mlr baseline" \
          --seeds "$seeds" --preset paper
        side_by_side 8
        atari "pong kangaroo frostbite qbert freeway" --method "mlr baseline" --then all26 --seeds "$seeds" --preset paper ;;
    esac
  done
}
if ((${#dry[@]})); then all; exit 0; fi

# ---- what would be noticed after hours
source scripts/setup.sh
if [[ " ${stages[*]} " == *" paper "* && $gpus != none ]]; then
  .venv/bin/python -c 'import torch; exit(not torch.cuda.is_available())' ||
    fail "paper is for a GPU, and torch sees none here: a run would take 50 to 330 hours; --gpus none does it all the same"
fi
listed=$(dry=(--dry-run) && all)
.venv/bin/python -m scripts.ledger.conflicts "$results" <<<"$listed"

mkdir -p "$runs"
trap 'stop 2' INT
trap 'stop 15' TERM
trap 'exec >>"$runs/evidence.log" 2>&1; stop 1' HUP # the terminal is gone: nothing can be said there
all

# ---- what there is, also of runs that failed or were stopped; only the quick parts after a signal
collecting=true
go scripts/ledger.sh "$runs" --results "$results" --cut-off
if ((!signal)); then
  looked=()
  for folder in "$runs"/{dmcontrol,atari}/*/*-*/*seed*/; do
    if [[ -e $folder/result.json && -e $folder/checkpoint ]]; then looked+=("${folder%/}"); fi
  done
  if ((${#looked[@]})); then go scripts/readout.sh "${looked[@]}" results="$results"; fi
fi
if [[ $results != results ]]; then
  go scripts/report.sh --results "$results" --figs "$results/figs"
else
  if ((!signal)); then
    for film in "$runs"/{dmcontrol,atari}/*/{mlr,madi}-*/seed1/video/final.mp4; do
      if [[ -e $film ]]; then go scripts/policies.sh "${film%/video/final.mp4}"; fi
    done
    masked="$runs/dmcontrol/cartpole_swingup/madi-madi_small/seed1"
    if [[ -e $masked/result.json ]]; then
      go scripts/masks.sh "$masked" worlds=clean,color_hard,video_easy,video_hard,distracting_cs intensities=0.1,0.5 figure=figs/madi.png
    fi
  fi
  go scripts/report.sh --readme README.md
fi
if ((${#failed[@]})); then printf 'FAILED %s\n' "${failed[@]}"; fi
if ((signal)); then exit $((128 + signal)); fi
exit $((${#failed[@]} > 0))
