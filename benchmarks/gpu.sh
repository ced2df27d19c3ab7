#!/usr/bin/env bash
# Everything that wants a CUDA GPU, in one command: the GPU tests, motion10 trained at O0 to O3 and under NCCL, and the speed of the
# full-size step. Needs no network, a python3 with torch, OpenCV and pytest, and under 13 minutes. Prints a table last.
# usage: bash benchmarks/gpu.sh [DIR for logs and JSON]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(bash test/setup.sh)
out=${1:-$(mktemp -d)}
mkdir -p "$out"
"$python" -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "benchmarks/gpu.sh: torch sees no CUDA GPU here")'
failed=0
note() { echo "FAILED: $1 (see $out)" >&2; failed=1; }

timeout 150 "$python" -m pytest -m gpu test/unit -p no:cacheprovider 2>&1 | tee "$out/tests.log" || note "GPU tests"
for run in O0 O1 O2 O3 nccl; do
  launcher=() options=(--opt-level "$run")
  if [ "$run" = nccl ]; then # one process in a group of its own: the collectives run, nobody else answers
    launcher=(-m torch.distributed.run --standalone --nproc_per_node 1) options=(--opt-level O2 --distributed)
  fi
  timeout 100 "$python" "${launcher[@]}" train_model.py --recipe performance_1p --dataset motion10 --device cuda \
    "${options[@]}" --model-dir "$out/exps" --task-name "motion10_$run" \
    2>&1 | tee "$out/motion10_$run.log" || note "motion10: $run"
done
for what in step infer; do # `auto` is reference here until these rows say otherwise (network/execution.py)
  timeout 150 "$python" -m tools.benchmark "$what" --device cuda --batch-size "${BATCH:-32}" \
    --variants reference,compiled,O1,O2,O3 --rounds 9 --json "$out/$what.json" >"$out/$what.md" || note "$what"
done
timeout 100 "$python" -m tools.benchmark_options --device cuda --batch-size "${BATCH:-32}" --opt-level O2 >"$out/options.md" || note "options of a step"

"$python" - "$out" <<'PY'
import datetime, json, pathlib, sys, torch
out = pathlib.Path(sys.argv[1])
print("\n# GPU results\n\n`bash benchmarks/gpu.sh`, %s, %s, torch %s, Python %s\n" % (
    datetime.date.today(), torch.cuda.get_device_name(0), torch.__version__, sys.version.split()[0]))
print("motion10 from scratch, 32x32 crop, 3 epochs of 900 clips:\n\n| run | AMP_Type | ACC@1 | clips/s | waits for data | seconds |\n| --- | --- | --- | --- | --- | --- |")
for run in ("O0", "O1", "O2", "O3", "nccl"):
    path = out / "exps" / ("motion10_" + run) / "result.json"
    if path.is_file():
        r = json.loads(path.read_text())
        print("| %s | %s | %.2f | %.1f | %.0f %% | %.0f |" % (run, r["amp_type"], r["accuracy_top1"], r["fps"], 100 * r["data_wait_share"], r["seconds"]))
    else:
        print("| %s | failed | | | | |" % run)
for name in ("step.md", "infer.md", "options.md"):
    print("\nFull size, synthetic clips (reference: fp32), %s:\n" % name)
    print((out / name).read_text() if (out / name).is_file() else "failed")
PY
exit "$failed"
