"""``koen-batch`` with the fault-injecting engine in the place of ``echo``: ``python run_faulty.py SETTINGS ARGUMENT…``.

SETTINGS are those of :class:`faulty.FaultyEngine`, as JSON: an object, or a list of one for each replica.
"""

from __future__ import annotations

import dataclasses
import json
import sys

from koen_batch import job
from koen_batch.cli import main
from koen_batch.engines import start
from koen_batch.engines.base import EngineSpec
from koen_batch.engines.pool import PoolPlan
from koen_batch.languages import Direction

settings = json.loads(sys.argv[1])


def prepare(direction: Direction, wishes: start.Wishes) -> start.Prepared:
    replicas = settings if isinstance(settings, list) else [settings]
    plan = PoolPlan(tuple(EngineSpec("faulty:FaultyEngine", each) for each in replicas), window=4)
    return dataclasses.replace(start.prepare(direction, wishes), plan=plan)


job.prepare = prepare
sys.exit(main(sys.argv[2:]))
