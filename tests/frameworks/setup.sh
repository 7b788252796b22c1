#!/usr/bin/env bash
# Creates the virtual environment $1 with the frameworks of the examples, beside the environment $2, which is Relay's. It
# gets the same build of torch: uv then links the files that it has in its cache.
set -euo pipefail
venv=$1 relay=$2
uv=$(command -v uv || echo .uv/bin/uv)
build=$("$relay/bin/python" -c 'from importlib.metadata import version; print(version("torch").partition("+")[2])')
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
grep -vE '^(torch|torchvision)==' requirements.lock >"$constraints"
requirements=()
for file in examples/*/requirements.txt tests/frameworks/requirements.txt; do
    requirements+=(-r "$file")
done

echo "setting up $venv"
rm -rf "$venv"
"$uv" venv -q --python "$relay/bin/python" "$venv"
"$uv" pip install -q --compile-bytecode --python "$venv/bin/python" "${requirements[@]}" -c "$constraints" \
    ${build:+--torch-backend "$build"}
