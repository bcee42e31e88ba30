#!/usr/bin/env bash
# Cut an input into shards, translate them as an array of tasks, and merge when all of them are done:
#
#   jobs/slurm/submit.sh corpus.parquet /shared/job /shared/corpus.ko.parquet --to ko --model koen-v4
#
# What follows the three paths goes to `koen-batch shard`. TASKS (default 32) is the size of the array. The paths must
# be seen by every node, or be URLs (s3://…). The same command again resumes.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: $0 INPUT JOB OUTPUT [options of koen-batch shard]" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
input=$1 job=$2 output=$3
shift 3

koen-batch shard "$input" -o "$job" "$@"
tasks=${TASKS:-32}
array=$(sbatch --parsable --array="0-$((tasks - 1))" "$here/translate.sbatch" "$job" "$tasks")
merge=$(sbatch --parsable --dependency="afterok:${array%%;*}" --kill-on-invalid-dep=yes "$here/merge.sbatch" "$job" "$output")
echo "array ${array%%;*}, merge ${merge%%;*}; koen-batch status $job says how far it is"
