#!/usr/bin/env bash
# Make .venv and install requirements.txt, once; later calls return at once. Other scripts source this file and use $project_python.
#   PYTHON=python3.12 scripts/setup.sh      to choose the interpreter
#   MLR_PYTHON=python3 scripts/...          every script uses this interpreter as it is, and nothing is installed
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
_torch() { # whether this interpreter has a torch that the code runs with
  "$1" -c 'from importlib.metadata import version as v; exit(v("torch").split(".")[:2] not in (["2", "11"], ["2", "12"], ["2", "13"]))' 2>/dev/null
}
_python() { # whether it is one that the code runs with
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}
_setup() {
  local stamp=.venv/.requirements python=${PYTHON:-python3} own=.venv/bin/python pin='^$' packages
  if cmp -s requirements.txt "$stamp" && "$own" -c 'import importlib.util as u; exit(not u.find_spec("torch"))'; then return 0; fi
  echo "setup: installing requirements.txt into .venv (some minutes, once)"
  if ! "$own" -m pip --version > /dev/null 2>&1; then # none, or a half made one
    _python "$python" ||
      { echo "error: Python 3.11 or 3.12 is needed, $python is $("$python" --version 2>&1): set PYTHON=..." >&2; return 2; }
    "$python" -m venv --clear .venv ||
      { echo "error: no venv module: apt-get install python3-venv" >&2; return 2; }
  fi
  _python "$own" || { echo "error: Python 3.11 or 3.12 is needed, .venv has $("$own" --version 2>&1): delete .venv" >&2; return 2; }
  if ! _torch "$own" && _torch "$python"; then # a GPU build that the interpreter has is shared: it is gigabytes to fetch again
    packages=$("$own" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return 1
    "$python" -W ignore - "$packages" > "$packages/shared.pth" << 'END'
import os, sys, torch
there, here = os.path.dirname(os.path.dirname(os.path.realpath(torch.__file__))), os.path.realpath(sys.argv[1])
alike = f"python{sys.version_info[0]}.{sys.version_info[1]}" in here
# to pip what lies under a path that begins with .venv's is .venv's own
if torch.version.cuda and alike and not there.startswith(here[: here.index("/lib/python")]):
    print(there)
END
  fi
  if _torch "$own"; then pin='^torch=='; fi
  grep -v "$pin" requirements.txt | "$own" -m pip install -q --disable-pip-version-check -r /dev/stdin || return 1
  cp requirements.txt "$stamp"
}
if [ -n "${MLR_PYTHON:-}" ]; then
  project_python=$MLR_PYTHON
  if ! _python "$project_python" || ! _torch "$project_python"; then
    echo "error: MLR_PYTHON=$MLR_PYTHON must be a Python 3.11 or 3.12 that has torch 2.11 to 2.13" >&2
    exit 2
  fi
else
  project_python=.venv/bin/python
  _setup || exit $?
fi
