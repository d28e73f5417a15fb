#!/usr/bin/env bash
# Compares a three-node Kvorum with Redis Clusters on this machine: the same redis-benchmark load on each in turn.
# Usage: bench/compare.sh [--rounds N] [--seconds S] [--pipelines 1,16,64] [--json FILE]      (see bench/README.md)
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in redis-server redis-cli redis-benchmark python3; do
  command -v "$tool" >/dev/null || { echo "compare.sh needs $tool (Debian: apt-get install redis-server python3)" >&2; exit 2; }
done
cargo build --release --quiet
exec python3 bench/compare.py --kvorum "${CARGO_TARGET_DIR:-target}/release/kvorum" "$@"
