#!/usr/bin/env bash
# Make .venv and install requirements.txt, once; later calls return at once. Other scripts source this file.
#   PYTHON=python3.12 scripts/setup.sh      to choose the interpreter
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
_torch() { # whether this interpreter has a torch that the code runs with
  "$1" -c 'from importlib.metadata import version as v; exit(v("torch").split(".")[:2] not in (["2", "11"], ["2", "12"], ["2", "13"]))' 2>/dev/null
}
_setup() {
  local stamp=.venv/.requirements python=${PYTHON:-python3} new=true pin=''
  if [ -x .venv/bin/python ]; then
    if cmp -s requirements.txt "$stamp"; then return 0; fi
    python=.venv/bin/python new=false
  fi
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' ||
    { echo "error: Python 3.11 or 3.12 is needed, $python is $("$python" --version 2>&1): set PYTHON=..." >&2; return 2; }
  echo "setup: installing requirements.txt into .venv (some minutes, once)"
  if $new; then
    "$python" -m venv .venv ||
      { echo "error: no venv module: apt-get install python3-venv" >&2; return 2; }
    # a GPU build of torch that the interpreter has is shared: it is gigabytes to fetch again
    if _torch "$python"; then
      "$python" -W ignore -c 'import torch, pathlib; torch.version.cuda and print(pathlib.Path(torch.__file__).parents[1])' \
        > "$(echo .venv/lib/python3*/site-packages)/shared.pth"
    fi
  fi
  if _torch .venv/bin/python; then pin='^torch=='; fi
  grep -v "${pin:-^$}" requirements.txt | .venv/bin/python -m pip install -q --disable-pip-version-check -r /dev/stdin || return 1
  cp requirements.txt "$stamp"
}
_setup || exit $?
