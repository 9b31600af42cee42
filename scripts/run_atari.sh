#!/usr/bin/env bash
# Train games x methods x seeds of Atari-100k, several at a time. Type the same line again to go on after a stop.
#
#   scripts/run_atari.sh "alien amidar pong" --seeds 1-3 --method mlr --preset paper --jobs-per-gpu 4
#   scripts/run_atari.sh all26 --seeds 1,2,5 --method "mlr baseline" --preset small --dry-run
#
# all26 is a set: a file in configs/sets/atari/. Add a file of your own for another set.
#
#   --seeds 1-3          or 1,2,5 (default 1)
#   --method mlr         one or several (default mlr)
#   --preset paper       (default paper)
#   --jobs-per-gpu 4     runs at a time on each GPU, or on the CPU if there is no GPU (default 1; small presets on a CPU: one per core)
#   --gpus 0,1           which GPUs (default all; none for the CPU)
#   --then               more games with a --method of their own, after these in the same queue
#   --runs runs          the folder of the runs and their logs
#   --dry-run            check all settings and print the commands, run nothing
#   key=value ...        settings for every run: mlr.mask.ratio=0.7 name=ratio-0.7
module=Atari.train benchmark=atari key=game
source "$(dirname "$0")/launch.sh"
