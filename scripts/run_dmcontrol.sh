#!/usr/bin/env bash
# Train tasks x methods x seeds of the control suite, several at a time. Type the same line again to go on after a stop.
#
#   scripts/run_dmcontrol.sh "cheetah_run walker_walk" --seeds 1-3 --method mlr --preset paper --jobs-per-gpu 4
#   scripts/run_dmcontrol.sh all6 --seeds 1,2,5 --method "mlr baseline" --dry-run
#
#   --seeds 1-3          or 1,2,5 (default 1)
#   --method mlr         one or several (default mlr)
#   --preset paper       (default paper)
#   --jobs-per-gpu 4     runs side by side on each GPU; without a GPU, on the CPU (default 1)
#   --gpus 0,1           which GPUs (default all; none for the CPU)
#   --then               more tasks, with a --method of their own, behind these in the same queue
#   --runs runs          where the runs and their logs go
#   --dry-run            print the commands, run nothing
#   key=value ...        settings for every run: env_steps=500000 name=long
module=DMControl.train benchmark=dmcontrol key=task
all6="finger_spin cartpole_swingup reacher_easy cheetah_run walker_walk ball_in_cup_catch"
source "$(dirname "$0")/launch.sh"
