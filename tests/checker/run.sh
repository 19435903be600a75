#!/usr/bin/env bash
# Proves lowered nests with the checker: its own tests, the nests of tests/filetests, every layer of the
# suites and random problems; with --long all suites, pairs, gradients, 2000 random problems and damaged
# nests. Needs cargo and Python 3.11 with venv. Ends with "checker: all proved", or with what was not.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
venv=$target/checker-venv
requirements=tests/checker/requirements.txt

long=false
case "${1:-}" in
  "") ;;
  --long) long=true ;;
  *) echo "usage: tests/checker/run.sh [--long]" >&2; exit 2 ;;
esac

# The environment is complete when the copy of the requirements is in it.
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
  rm -rf "$venv"
  python3 -m venv "$venv"
  "$venv/bin/pip" --quiet --disable-pip-version-check install --requirement "$requirements"
  cp "$requirements" "$venv/requirements.txt"
fi

check() {
  "$venv/bin/python" -O tests/checker/check.py "$@"
}

# The nests of a kind, by the example `nests`.
checked() {
  printf -- '-- nests %s\n' "$*"
  "$target/debug/examples/nests" "$@" | check --stream
}

cargo build --quiet --example nests

printf -- '-- self-test\n'
check --self-test
printf -- '-- filetests\n'
check tests/filetests/*/*.conv tests/filetests/{lower,schedule}/snapshots/*.snap

if $long; then
  checked suites
  checked pairs
  checked gradients
  checked random 2000 1
  checked mutants 2000 1
else
  checked suites 8
  checked random 40 1
  checked mutants 100 1
fi
echo "checker: all proved"
