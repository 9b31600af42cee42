#!/usr/bin/env bash
# Train tasks x methods x seeds of the control suite, several at a time. Type the same line again to go on after a stop.
#
#   scripts/run_dmcontrol.sh "cheetah_run walker_walk" --seeds 1-3 --method mlr --preset paper --jobs-per-gpu 4
#   scripts/run_dmcontrol.sh all6 --seeds 1,2,5 --method "mlr baseline" --preset small --dry-run
#
# all6 is a set: a file in configs/sets/dmcontrol/. Add a file of your own for another set.
#
#   --seeds 1-3          or 1,2,5 (default 1)
#   --method mlr         one or several (default mlr)
#   --preset paper       (default paper)
#   --jobs-per-gpu 4     runs at a time on each GPU, or on the CPU if there is no GPU (default 1; small presets on a CPU: one per core)
#   --gpus 0,1           which GPUs (default all; none for the CPU)
#   --then               more tasks with a --method of their own, after these in the same queue
#   --runs runs          the folder of the runs and their logs
#   --dry-run            check all settings and print the commands, run nothing
#   key=value ...        settings for every run: env_steps=500000 name=long
module=DMControl.train benchmark=dmcontrol key=task
source "$(dirname "$0")/launch.sh"
