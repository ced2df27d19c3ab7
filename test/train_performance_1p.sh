#!/usr/bin/env bash
# Performance run on one device: 3 epochs. Every option of train_model.py can follow: bash test/train_performance_1p.sh --batch-size 8
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" performance_1p 1 "$@"
