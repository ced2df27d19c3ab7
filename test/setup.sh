#!/usr/bin/env bash
# Finds or makes the Python that runs everything, and prints its path on standard output (words go to standard error).
#   an environment that already has torch ($PYTHON, or python3 on the PATH): used as it is; nothing is installed into it
#   else .venv/ beside this folder's parent: created once from the pinned requirements, reused afterwards
# usage: test/setup.sh [--dev]     --dev: also what the tests need
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${GLORE_VENV:-$root/.venv}
say() { printf '%s\n' "$*" >&2; }

modules="numpy cv2"
[ "${1:-}" = --dev ] && modules="$modules pytest"
missing_in() { "$1" - "$modules" <<'PY'
import importlib.util, sys
print(" ".join(m for m in sys.argv[1].split() if importlib.util.find_spec(m) is None))
PY
}

base=${PYTHON:-python3}
command -v "$base" >/dev/null || { say "No $base found. Install Python 3.10 or later (3.7 for PyTorch 1.5, 3.8 for 1.8), or set PYTHON."; exit 2; }
own=$("$base" -c 'import sys; print(sys.prefix)') # our own .venv may be the active one: then it is completed below
if [ "$own" != "$venv" ] && "$base" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)'; then
  missing=$(missing_in "$base")
  [ -z "$missing" ] || { say "The active Python ($base) has torch but lacks: $missing."
    say "Install them there (see requirements.txt; cv2 is opencv-python-headless), or leave that environment to get a .venv."; exit 2; }
  command -v "$base"
  exit 0
fi

case $("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') in
  3.7) requirements=1.5_requirements.txt ;;
  3.8) requirements=1.8_requirements.txt ;;
  3.9 | 2.* | 3.[0-6]) say "$base is $("$base" --version 2>&1); needed: Python 3.10 or later, 3.8 or 3.7. Set PYTHON to one."; exit 2 ;;
  *) requirements=requirements.txt ;;
esac
files=("$root/$requirements")
[ "${1:-}" = --dev ] && files+=("$root/requirements-dev.txt")

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
if command -v flock >/dev/null; then flock 9; fi # two scripts started at once make it once
for file in "${files[@]}"; do
  stamp=$venv/.installed-$(basename "$file")
  cmp -s "$file" "$stamp" && continue
  say "Setting up $venv from $(basename "$file") (once; about two minutes) ..."
  [ -x "$venv/bin/python" ] || "$base" -m venv "$venv" >&2 || { say "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 2; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$file" >&2 ||
    { say "pip could not install $(basename "$file"); see its message above. Nothing is lost: run the same command again."; exit 2; }
  cp "$file" "$stamp" # last, so that an interrupted installation is taken up again
done
printf '%s\n' "$venv/bin/python"
