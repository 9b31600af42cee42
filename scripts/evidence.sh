#!/usr/bin/env bash
# The runs behind README's section Evidence, then ledger, readout, report and videos. Type it again to go on after a stop.
#
#   scripts/evidence.sh [small] [ablations] [worlds] [atari] [paper] [--seeds 1] [--runs runs] [--results results] [--dry-run]
#
#   small        preset small, MLR and Baseline, three seeds: cartpole_swingup, then ball_in_cup_catch
#   ablations    MLR with one setting changed, preset small, cartpole_swingup, two seeds
#   worlds       MaDi, SVEA and SAC, preset madi_small, cartpole_swingup, two seeds, 100k env steps, each judged in every world
#   atari        preset small, MLR and Baseline, three seeds: boxing, then freeway; then boxing with Adam's usual epsilon, two seeds
#   paper        the published setting, for a GPU: six tasks to 100k, then the games, MLR first; one seed, or --seeds 1-10
#                (the paper has 10 on DMControl, 3 on Atari)
# results/ holds our own runs, and a second run of the same name is refused there: --results mine begins a ledger of your own, whose
# REPORT.md stands beside it. Without it, README and the videos are written as well.
# Without a word: the first four, which two CPU cores can do (some 12 hours). Two runs go side by side; JOBS=8 changes that.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
jobs=${JOBS:-2} runs=runs results=results seeds=1 dry=() stages=()
while (($#)); do
  case $1 in
    --seeds) seeds=${2:?--seeds needs a list such as 1-3}; shift 2 ;;
    --runs) runs=${2:?--runs needs a folder}; shift 2 ;;
    --results) results=${2:?--results needs a folder}; shift 2 ;;
    --dry-run) dry=(--dry-run); shift ;;
    small | ablations | worlds | atari | paper) stages+=("$1"); shift ;;
    *) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[[ $seeds == 1 || " ${stages[*]} " == *" paper "* ]] || { echo "error: --seeds is for the stage paper; the others have their own" >&2; exit 2; }
((${#stages[@]})) || stages=(small ablations worlds atari)

dmcontrol() { scripts/run_dmcontrol.sh "$@" --jobs-per-gpu "$jobs" --runs "$runs" "${dry[@]}"; }
atari() { scripts/run_atari.sh "$@" --jobs-per-gpu "$jobs" --runs "$runs" "${dry[@]}"; }
variant() { dmcontrol cartpole_swingup --seeds 1-2 --method mlr --preset small "$@"; }

for stage in "${stages[@]}"; do
  case $stage in
    small)
      for task in cartpole_swingup ball_in_cup_catch; do dmcontrol $task --seeds 1-3 --method "mlr baseline" --preset small; done ;;
    ablations)
      variant mlr.mask.ratio=0.1 name=ratio0.1
      variant mlr.mask.ratio=0.9 name=ratio0.9
      variant mlr.mask.strategy=spatial name=spatial
      variant mlr.mask.strategy=temporal name=temporal
      variant mlr.target=pixels name=pixels
      variant mlr.action_tokens=false name=no-actions ;;
    worlds)
      dmcontrol cartpole_swingup --seeds 1-2 --method "madi svea sac" --preset madi_small env_steps=100000
      for folder in "$runs"/dmcontrol/cartpole_swingup/*-madi_small/seed*/; do
        if ((${#dry[@]})) || grep -q ",distracting_cs," "$folder/eval.csv"; then continue; fi # judged before
        .venv/bin/python -m DMControl.evaluate run="${folder%/}" worlds=clean,color_easy,color_hard,video_easy,video_hard,distracting_cs
      done ;;
    atari)
      for game in boxing freeway; do atari $game --seeds 1-3 --method "mlr baseline" --preset small; done
      atari boxing --seeds 1-2 --method "mlr baseline" --preset small rainbow.adam_eps=1e-8 name=eps ;;
    paper)
      for method in mlr baseline; do
        dmcontrol "cartpole_swingup ball_in_cup_catch reacher_easy cheetah_run" --seeds "$seeds" --method $method --preset paper
      done
      dmcontrol "finger_spin walker_walk" --seeds "$seeds" --method "mlr baseline" --preset paper
      atari "pong kangaroo frostbite qbert freeway" --seeds "$seeds" --method "mlr baseline" --preset paper
      atari all26 --seeds "$seeds" --method "mlr baseline" --preset paper ;;
  esac
done
((${#dry[@]})) && exit 0
scripts/ledger.sh "$runs" --results "$results"
looked=()
for folder in "$runs"/{dmcontrol,atari}/*/*-*/*seed*/; do
  if [[ -e $folder/result.json && -e $folder/checkpoint ]]; then looked+=("${folder%/}"); fi
done
if ((${#looked[@]})); then scripts/readout.sh "${looked[@]}" results="$results" || echo "evidence: no readout; the rest goes on" >&2; fi
if [[ $results != results ]]; then exec scripts/report.sh --results "$results" --figs "$results/figs"; fi
for tree in dmcontrol atari; do
  for film in "$runs/$tree"/*/{mlr,madi}-*/seed1/video/final.mp4; do
    if [[ -e $film ]]; then scripts/policies.sh "${film%/video/final.mp4}"; fi
  done
done
masked="$runs/dmcontrol/cartpole_swingup/madi-madi_small/seed1"
if [[ -e $masked/result.json ]]; then
  scripts/masks.sh "$masked" worlds=clean,color_hard,video_easy,video_hard,distracting_cs intensities=0.1,0.5 figure=figs/madi.png
fi
scripts/report.sh --readme README.md
