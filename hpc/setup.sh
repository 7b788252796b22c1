#!/usr/bin/env bash
# Creates the virtual environment $1 from requirements.lock with uv, which is installed first if it is missing.
# TORCH_BACKEND (cpu, cu128, auto, ...) selects uv's torch build: torch and torchvision then get the newest versions of
# that build, and everything else stays locked. Without it, all is as locked, and a machine that can have no use for
# CUDA gets the CPU build of the same versions.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: $python is not Python 3.11 or newer; choose another with PYTHON=/path/to/python3.11" >&2
    exit 2
fi

if command -v uv >/dev/null; then
    uv=uv
else
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "installing uv"
        if ! "$python" -m venv .uv 2>/dev/null || ! .uv/bin/python -m pip install -q --disable-pip-version-check uv; then
            rm -rf .uv
            echo "error: uv is missing and could not be installed; install uv (https://docs.astral.sh/uv) or python3-venv" >&2
            exit 2
        fi
    fi
fi

# --compile-bytecode: without it, every process compiles torch again if PYTHONDONTWRITEBYTECODE is set, as in many
# containers, or if .venv is read-only, and all tasks of an array do so at once: 4 s to import torch instead of 2.
install() { "$uv" pip install -q --compile-bytecode --python "$venv/bin/python" "$@"; }

has_driver() { [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; }

echo "setting up $venv (torch ${TORCH_BACKEND:-as locked})"
[ -x "$venv/bin/python" ] || "$uv" venv -q --python "$python" "$venv"
if [ -n "${TORCH_BACKEND:-}" ]; then
    constraints=$(mktemp)
    trap 'rm -f "$constraints"' EXIT
    grep -vE '^(torch|torchvision)==' requirements.lock >"$constraints"
    # --reinstall-package: another build of a version that is installed would count as installed.
    install -r pyproject.toml --extra dev -c "$constraints" --torch-backend "$TORCH_BACKEND" \
        --reinstall-package torch --reinstall-package torchvision
# A login node has no driver, but its compute nodes do: where there is sbatch, CUDA is of use.
elif has_driver || command -v sbatch >/dev/null; then
    install -r requirements.lock
else
    echo "no NVIDIA driver and no sbatch here: torch without CUDA, which would take 6 GB" \
        "(TORCH_BACKEND=auto or cu128 chooses another build, also later)"
    # PyTorch's own index has this build. Not every network reaches it.
    if ! refused=$(install -r requirements.lock --torch-backend cpu 2>&1); then
        echo "not to be had here (${refused##*: }); torch with CUDA instead, as locked" >&2
        install -r requirements.lock
    fi
fi
