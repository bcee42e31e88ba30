#!/usr/bin/env bash
# Hand a translation to a Ray cluster that runs already, and follow it:
#
#   RAY_API_SERVER_ADDRESS=http://head:8265 jobs/ray/submit.sh /shared/corpus.parquet --to ko -o /shared/corpus.ko.parquet
#
# Everything goes to `koen-batch translate … --ray auto`, which runs on the cluster; koen-batch must be installed on
# every node (../kubernetes/Containerfile makes an image), and the paths must be seen by every node, or be URLs.
# The same command again resumes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec ray job submit --runtime-env "$here/runtime_env.yaml" -- \
    koen-batch translate "$@" --ray auto
