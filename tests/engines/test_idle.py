"""The engine's own account of how long it had nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

from koen_batch.engines.base import Decoding, EngineSpec, Request
from koen_batch.engines.pool import Pool, PoolPlan


def test_the_time_between_two_requests_counts_and_that_after_the_last_does_not(tmp_path: Path) -> None:
    pool = Pool(PoolPlan((EngineSpec("echo", {"max_num_seqs": 8}),), window=16), tmp_path / "engine.log", print)

    def ask(number: int) -> None:
        pool.submit(Request(number, [65], Decoding(max_new_tokens=10)))
        while not pool.poll():
            pass

    ask(1)
    assert pool.idle == 0, "what comes before the first request is no idle time"
    time.sleep(0.3)
    ask(2)
    idle = pool.idle
    assert idle >= 0.3
    time.sleep(0.3)
    pool.poll()
    pool.close()
    assert pool.idle == idle
