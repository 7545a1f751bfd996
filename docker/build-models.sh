#!/bin/sh
# Builds what MODELS names (ids of bundles or of the hub, folders or lists, separated by white space) into the repository; arguments go to `sie-triton build`.
set -euf

repository=${SIE_TRITON_REPOSITORY:-/models/repository}
named=
for model in ${MODELS:-}; do
    set -- "--model=$model" "$@"
    named=yes
done
if [ -z "$named" ]; then
    echo 'error: `MODELS` names no model; write for instance MODELS="BAAI/bge-small-en-v1.5 intfloat/e5-small-v2"' >&2
    exit 2
fi
exec sie-triton build --repository="$repository" "$@"
