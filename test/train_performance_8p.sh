#!/usr/bin/env bash
# Performance run on eight devices: 3 epochs. Every option of train_model.py can follow: bash test/train_performance_8p.sh --batch-size 8
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" performance_8p 8 "$@"
