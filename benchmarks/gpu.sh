#!/usr/bin/env bash
# Everything that wants a CUDA GPU, in one command and at most ten minutes: the speed of the full-size step and of inference, whole
# training from real files, the GPU tests, motion10 trained at O0 to O3 and under NCCL. Needs no network and a python3 with torch,
# OpenCV and pytest. The dearest questions come first; what no time is left for is named. Prints tables last.
# usage: bash benchmarks/gpu.sh [DIR for logs and JSON]
#   DEVICE=cpu SIZE="--clip-length 2 --crop-size 32" BATCHES="2" LIMIT=… : a rehearsal
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash test/setup.sh)
out=${1:-$(mktemp -d)}
device=${DEVICE:-cuda} end=$((SECONDS + ${LIMIT:-600})) failed=0
read -r -a size <<<"${SIZE:-}"
read -r -a batches <<<"${BATCHES:-64 128 32}"
graphs=; [ "$device" = cpu ] || graphs=,compiled-graphs-O2
read -r -a items <<<"${ITEMS:-step infer whole tests options motion10}"
mkdir -p "$out"
"$python" -c 'import sys, torch; sys.exit(0 if sys.argv[1] == "cpu" or torch.cuda.is_available() else "benchmarks/gpu.sh: torch sees no CUDA GPU here")' "$device"

run() { # NAME SECONDS COMMAND...: within its own limit and what is left of all
  local name=$1 limit=$2 left=$((end - SECONDS)); shift 2
  [ "$left" -gt 5 ] || { echo "NO TIME LEFT: $name" >&2; failed=1; return; }
  timeout -k 5 "$((limit < left ? limit : left))" "$@" >"$out/$name.log" 2>&1 || { echo "FAILED: $name (see $out/$name.log)" >&2; failed=1; }
}
bench() { # NAME SECONDS SUBCOMMAND OPTIONS...
  local name=$1 limit=$2; shift 2
  run "$name" "$limit" "$python" -m tools.benchmark "$@" --device "$device" "${size[@]}" --json "$out/$name.json"
}
step() {
  bench step 180 step --batch-size "${batches[0]}" --rounds "${ROUNDS:-9}" \
    --variants "${VARIANTS:-strict,tf32,compiled,channels-last,O1,O2,O3,channels-last-O2,compiled-O2,compiled-O1$graphs}"
  for batch in "${batches[@]:1}"; do bench "step_$batch" 70 step --batch-size "$batch" --rounds 9 --variants "O2,compiled-O2,channels-last-O2$graphs"; done
}
infer() {
  bench infer 90 infer --batch-size "${batches[0]}" --rounds "${ROUNDS:-9}" \
    --variants "${VARIANTS:-strict,tf32,compiled,O2,channels-last-O2,compiled-O2$graphs}"
}
whole() {
  for source in packed video; do
    bench "whole_$source" 80 end-to-end --source "$source" --batch-size "${batches[0]}" --steps "${STEPS:-20}" --rounds "${PASSES:-2}" --variants "${WHOLE:-compiled-O2}"
  done
}
options() { # what accumulating, clipping, averaging and recomputing cost
  run options 60 "$python" -m tools.benchmark_options --device "$device" --batch-size "${batches[${#batches[@]} - 1]}" --opt-level O2 "${size[@]}" \
    --json "$out/options.json"
}
tests() { run tests 150 "$python" -m pytest -m gpu test/unit -p no:cacheprovider; }
motion10() {
  for level in O2 nccl O0 O1 O3; do
    local launcher=() options=(--opt-level "$level")
    if [ "$level" = nccl ]; then # one process in a group of its own: the collectives run, nobody else answers
      launcher=(-m torch.distributed.run --standalone --nproc_per_node 1) options=(--opt-level O2 --distributed)
    fi
    run "motion10_$level" 60 "$python" "${launcher[@]}" train_model.py --recipe performance_1p --dataset motion10 --device "$device" \
      "${options[@]}" --model-dir "$out/exps" --task-name "motion10_$level"
  done
}
for item in "${items[@]}"; do
  case $item in step) step ;; infer) infer ;; whole) whole ;; options) options ;; tests) tests ;; motion10) motion10 ;; *) echo "ITEMS: no $item" >&2; exit 2 ;; esac
done
"$python" benchmarks/gpu_report.py "$out"
exit "$failed"
