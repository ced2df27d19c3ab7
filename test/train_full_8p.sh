#!/usr/bin/env bash
# Accuracy run on eight devices: 90 epochs. Every option of train_model.py can follow: bash test/train_full_8p.sh --batch-size 8
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/launch.sh" full_8p 8 "$@"
