#!/usr/bin/env bash
# Builds the book and checks the links of README.md, CONTRIBUTING.md and docs/src. Installs mdbook into the
# target directory if it is not there; needs cargo and Python 3.9. The Rust blocks of the book are tests:
# `cargo test --doc --workspace`.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.5.4
target=${CARGO_TARGET_DIR:-target}
tools=$(mkdir -p "$target/mdbook" && cd "$target/mdbook" && pwd)
mdbook=$tools/bin/mdbook

if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
  # In a target directory of its own, which goes afterwards: no lock of another build, and its objects are of no use.
  env -u CARGO_TARGET_DIR cargo install --quiet --locked --force mdbook --version "$version" \
    --no-default-features --features search --root "$tools"
fi

"$mdbook" build docs --dest-dir "$tools/book" 2>&1 | tee "$tools/build.log"
if grep -qE 'WARN|ERROR' "$tools/build.log"; then
  echo "docs: mdbook has warnings" >&2
  exit 1
fi
python3 docs/links.py
echo "docs: $tools/book/index.html"
