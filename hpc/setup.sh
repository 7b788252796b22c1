#!/usr/bin/env bash
# Makes the virtual environment $1 from requirements.lock, through uv, which is fetched when it is not there.
# TORCH_BACKEND (cpu, cu128, auto, ...) is uv's choice of torch build: torch and torchvision then come unlocked from
# that build's own versions, everything else stays as locked.
set -euo pipefail
venv=$1
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "error: $python is not Python 3.11 or newer; give one with PYTHON=/path/to/python3.11" >&2
    exit 2
fi

if command -v uv >/dev/null; then
    uv=uv
else
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "fetching uv"
        if ! "$python" -m venv .uv 2>/dev/null || ! .uv/bin/python -m pip install -q --disable-pip-version-check uv; then
            rm -rf .uv
            echo "error: uv is not here and could not be fetched; install it (https://docs.astral.sh/uv) or python3-venv" >&2
            exit 2
        fi
    fi
fi

# --compile-bytecode: else every process compiles torch anew where PYTHONDONTWRITEBYTECODE is set, as many containers
# do, or where .venv cannot be written, and all tasks of an array compile it at once; 4 s each instead of 2.
echo "setting up $venv (torch ${TORCH_BACKEND:-as locked})"
[ -x "$venv/bin/python" ] || "$uv" venv -q --python "$python" "$venv"
if [ -z "${TORCH_BACKEND:-}" ]; then
    "$uv" pip install -q --compile-bytecode --python "$venv/bin/python" -r requirements.lock
else
    constraints=$(mktemp)
    trap 'rm -f "$constraints"' EXIT
    grep -vE '^(torch|torchvision)==' requirements.lock >"$constraints"
    "$uv" pip install -q --compile-bytecode --python "$venv/bin/python" -r pyproject.toml --extra dev -c "$constraints" \
        --torch-backend "$TORCH_BACKEND"
fi
