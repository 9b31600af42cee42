#!/usr/bin/env bash
# Train games x methods x seeds of Atari-100k, several at a time. Type the same line again to go on after a stop.
#
#   scripts/run_atari.sh "alien amidar pong" --seeds 1-3 --method mlr --preset paper --jobs-per-gpu 4
#   scripts/run_atari.sh all26 --seeds 1,2,5 --method "mlr baseline" --dry-run
#
#   --seeds 1-3          or 1,2,5 (default 1)
#   --method mlr         one or several (default mlr)
#   --preset paper       (default paper)
#   --jobs-per-gpu 4     runs side by side on each GPU; without a GPU, on the CPU (default 1)
#   --gpus 0,1           which GPUs (default all; none for the CPU)
#   --then               more tasks, with a --method of their own, behind these in the same queue
#   --runs runs          where the runs and their logs go
#   --dry-run            print the commands, run nothing
#   key=value ...        settings for every run: mlr.mask.ratio=0.7 name=ratio-0.7
module=Atari.train benchmark=atari key=game
all26="alien amidar assault asterix bank_heist battle_zone boxing breakout chopper_command crazy_climber demon_attack freeway frostbite \
gopher hero jamesbond kangaroo krull kung_fu_master ms_pacman pong private_eye qbert road_runner seaquest up_n_down"
source "$(dirname "$0")/launch.sh"
