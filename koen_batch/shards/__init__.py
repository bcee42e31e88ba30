"""A job over many machines: cut into shards, translated by workers, merged into what ``translate`` would have made.

A shard is what a part of an output is (:mod:`koen_batch.workdir`): a stretch of records of one file. The folder of a
job is local, on a file system that the machines share, or anything that fsspec reaches::

    JOB/
      manifest.json          settings, model, input files; its hash is the job's id
      shards.jsonl           a line for each shard: file, first and last position, the bytes it needs and their hash
      parts/000003/…         what workers have uploaded, under names that hold a hash of the content
      done/000003.json       the marker: which objects are the shard, with their hashes and counts
"""
