#!/usr/bin/env bash
# Runs the toolkit on three generations of PyTorch and compares them. Ends with a line for each: … pass|fail|absent
# usage: test/lanes.sh [--tested] [argument of pytest ...]     --tested: leaves out the unit tests in the current environment
# Environments are kept in $GLORE_LANES (~/.cache/glore-lanes; about 2 GB each), what the last run said in its logs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
home=${GLORE_LANES:-${XDG_CACHE_HOME:-$HOME/.cache}/glore-lanes}
logs=$home/logs lanes=(1.5.0:3.7 1.8.1:3.8 2.x:3.10+) tested=
[ "${1:-}" != --tested ] || { tested=yes; shift; }
mkdir -p "$home"
exec 8>"$home/lock"
if command -v flock >/dev/null; then flock 8; fi # one run at a time
rm -rf "$logs"

interpreter() { # VERSION: the path of a Python of that version that can make environments
  local python
  for python in "python$1" "$HOME/.pyenv/versions/$1".*/bin/"python$1"; do
    if "$python" -c "import ensurepip, ssl, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$1')" 2>/dev/null; then
      command -v "$python" && return
    fi
  done
  echo "no Python $1 on the PATH or below ~/.pyenv/versions" >&2
  return 1
}

environment() { # TORCH PYTHON: the Python of the lane, its environment made where it is not there yet
  local venv=$home/torch-$1 base
  if [ "$1" = 2.x ]; then bash test/setup.sh --dev; return; fi
  if [ ! -e "$venv/.torch" ]; then
    base=$(interpreter "$2") || return
    echo "making $venv (once; about two minutes) ..." >&9
    "$base" -m venv --clear "$venv" >&2 && "$venv/bin/python" -m pip install --quiet "torch==$1" >&2 || return
    touch "$venv/.torch"
  fi
  PYTHON=$venv/bin/python GLORE_VENV=$venv bash test/setup.sh --dev
}

names=() pythons=()
exec 9>&2
for lane in "${lanes[@]}"; do
  name=${lane%%:*} out=$logs/${lane%%:*}
  mkdir -p "$out"
  echo "$name ${lane#*:}" >"$out/wanted"
  if [ -n "$tested" ] && [ "$name" = 2.x ]; then touch "$out/tested"; fi
  if python=$(environment "$name" "${lane#*:}" 2>"$out/environment.log" 8>&-); then
    names+=("$name") pythons+=("$python")
  else
    tail -n 1 "$out/environment.log" | grep . >"$out/absent" || echo "its environment cannot be made" >"$out/absent"
  fi
done

each() { # what lane_job.py is to do: in every lane at once
  local i jobs=()
  for i in "${!names[@]}"; do
    "${pythons[i]}" test/lane_job.py "$1" "$logs/${names[i]}" "${@:2}" >>"$logs/${names[i]}/job.log" 2>&1 8>&- &
    jobs+=($!)
  done
  for i in "${jobs[@]}"; do wait "$i" || true; done # the table sees who left nothing
}

export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} GOMP_SPINCOUNT=${GOMP_SPINCOUNT:-1000}
if [ ${#names[@]} -gt 0 ]; then
  "${pythons[0]}" test/lane_job.py prepare "$logs/motion10"
  each work "$logs/motion10" "$@"
  each read "${names[@]/#/$logs/}"
  rm -rf "$logs"/*/scratch
fi
exec "${pythons[0]:-python3}" test/lane_table.py "$logs" "${lanes[@]%%:*}"
