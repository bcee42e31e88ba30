#!/usr/bin/env bash
# Run the three jobs, each when the one before it is complete. The same command again goes on where it stopped. To
# translate again, or where indices have failed for good, delete the jobs first: kubectl delete job koen-shard koen-translate koen-merge
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubectl apply -f "$here/volume.yaml"
for step in shard translate merge; do
    kubectl apply -f "$here/$step.yaml"
    state=
    until [[ $state == *Complete* ]]; do
        if [[ $state == *Failed* ]]; then
            echo "koen-$step has failed: kubectl logs --selector job-name=koen-$step" >&2
            exit 1
        fi
        sleep "${POLL_SECONDS:-10}"
        state=$(kubectl get "job/koen-$step" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}')
    done
done
