#!/usr/bin/env bash
# Writes requirements.lock: the newest versions that pyproject.toml allows, for all platforms, without hashes.
# torch's CUDA libraries are left out: torch pins their exact versions, which differ between torch builds.
set -euo pipefail
# From the root, and replaced at the end by mv: an interrupted run leaves the old lock in place.
cd "$(dirname "$0")/.."
uv=$(command -v uv || echo .uv/bin/uv)
compile=("$uv" pip compile -q pyproject.toml --extra dev --universal --python-version 3.11 --no-annotate --no-header)
mapfile -t left_out < <("${compile[@]}" | grep -oE '^(nvidia-[a-z0-9-]+|cuda-[a-z-]+|triton)' | sort -u)
{
    echo "# Written by hpc/lock.sh; names and versions only."
    "${compile[@]}" "${left_out[@]/#/--no-emit-package=}"
} >requirements.lock.new
mv requirements.lock.new requirements.lock
