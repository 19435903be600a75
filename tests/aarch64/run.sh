#!/bin/sh
# Compiles 200 small problems for aarch64, runs them under QEMU, and compares every output with the
# interpreter's, bit for bit. Ends with "aarch64: 200 problems, 200 identical", or with an error.
# Installs nothing.
set -eu

cd "$(dirname "$0")/../.."

for tool in qemu-aarch64 aarch64-linux-gnu-gcc; do
    if ! command -v "$tool" >/dev/null; then
        echo "$0: $tool is missing; on Debian and Ubuntu:" >&2
        echo "    apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross" >&2
        exit 2
    fi
done

exec cargo test --quiet --test aarch64 -- --ignored --nocapture
