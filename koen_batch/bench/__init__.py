"""This pipeline against the bare engine and against the naive loop, in one run, on the same sentences.

What is measured, each as a pass over the same segments in the same prompts, greedy, with the same budgets:

- ``engine``: the bare engine. All prompts are tokenised beforehand and handed over in one call: ``LLM.generate`` for
  vLLM; for Hugging Face batches of like length straight into the model's ``generate``. No text, no checks, no file.
- ``pipeline``: a whole job, file to file: JSONL read, split, stored, tokenised, checked, asked again where a check
  failed (the ladder), joined, written in parts and assembled.
- ``naive``: the loop of a model's card: tokenise, ``generate``, decode, one sentence after the other, in transformers.

``engine`` and ``pipeline`` drive the very same engine in the very same child process, so that nothing but the host
differs; the naive loop has a process of its own. All are loaded, and warmed up, before the first pass, and stay loaded;
the prefix cache is emptied between the passes. Those whose turn it is not wait for a message: the processor time that
they take meanwhile is measured and reported. The passes take turns, another one first in each round, so that
whatever else the machine does falls on all of them.

Ratios are of tokens a second, within a round, over all the output tokens that were generated, the ladder's included: a
ladder that asks more often is work that was asked for, not time that was lost. Where segments are repeated the pipeline
asks once for what the bare engine computes again each time; its tokens then count once for each time they are used.
"""
