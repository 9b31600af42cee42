#!/usr/bin/env bash
# Make .venv and install requirements.txt, once; later calls return at once. Other scripts source this file.
#   PYTHON=python3.12 scripts/setup.sh      to choose the interpreter
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
_setup() {
  local stamp=.venv/.requirements python=${PYTHON:-python3}
  if [ -x .venv/bin/python ] && cmp -s requirements.txt "$stamp"; then return 0; fi
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
    { echo "error: Python 3.11 or 3.12 is needed, $python is $("$python" --version 2>&1): set PYTHON=..." >&2; return 2; }
  echo "setup: installing requirements.txt into .venv (some minutes, once)"
  # --system-site-packages only where a GPU build of torch is there already: it is gigabytes to fetch again
  local share=()
  if "$python" -c 'import torch, sys; sys.exit(not torch.version.cuda)' 2>/dev/null; then share=(--system-site-packages); fi
  if [ ! -x .venv/bin/python ]; then
    "$python" -m venv "${share[@]}" .venv ||
      { echo "error: no venv module: apt-get install python3-venv" >&2; return 2; }
  fi
  if [ ${#share[@]} -gt 0 ]; then
    grep -v '^torch==' requirements.txt | .venv/bin/python -m pip install -q --disable-pip-version-check -r /dev/stdin || return 1
  else
    .venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt || return 1
  fi
  cp requirements.txt "$stamp"
}
_setup || exit $?
