#!/usr/bin/env bash
# Copy the shared core from the tree where it was edited to the other one.
#   scripts/sync_core.sh            DMControl/core -> Atari/core
#   scripts/sync_core.sh Atari      Atari/core -> DMControl/core
set -euo pipefail
cd "$(dirname "$0")/.."
from=${1:-DMControl}
case "$from" in
  DMControl) to=Atari ;;
  Atari) to=DMControl ;;
  *) echo "error: say Atari or DMControl, not $from" >&2; exit 2 ;;
esac
mkdir -p "$to"
rm -rf "$to/core.new" && mkdir "$to/core.new"
(cd "$from/core" && find . \( -name '*.py' -o -name '*.c' \) -exec cp --parents {} "../../$to/core.new/" \;)
rm -rf "$to/core" && mv "$to/core.new" "$to/core"
echo "$from/core -> $to/core"
