#!/usr/bin/env bash
# Compares Kvorum with Redis on this machine: the same loads on each in turn.
# Usage: bench/compare.sh [--kvorum BINARY] [--single] [--tool redis-benchmark] [--rounds N] [--seconds S] [--loads set:16,...] [--json FILE] [--plot FILE]      (see bench/README.md)
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in redis-server redis-cli python3; do
  command -v "$tool" >/dev/null || { echo "compare.sh needs $tool (Debian: apt-get install redis-server python3)" >&2; exit 2; }
done
case " $* " in
  *" --kvorum "* | *" --kvorum="*) exec python3 bench/compare.py "$@" ;;
esac
cargo build --release --quiet
exec python3 bench/compare.py --kvorum "${CARGO_TARGET_DIR:-target}/release/kvorum" "$@"
