"""A job on a Ray cluster of two nodes: the output is that of ``translate``, also when a node or the driver dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import koen_batch
from koen_batch.errors import InputError, UsageError

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
ECHO: dict[str, Any] = {"engine": "echo", "part_size": 100}
SLOW = {"echo_latency": 0.05, "max_num_seqs": 16}
"""320 requests a second and worker: time enough to kill something."""
SHARDS = 16
ROWS = 100 * SHARDS
COMMAND = (sys.executable, "-m", "koen_batch.cli", "translate")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each; this process is connected to them."""
    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(**NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [json.dumps({"id": n, "text": f"Sentence number {n} of a corpus."}) for n in range(ROWS - 2)]
    path.write_text("\n".join([*rows[:33], '{"text": 1}', *rows[33:], "no JSON"]) + "\n")
    return path


@pytest.fixture
def expected(corpus: Path, tmp_path: Path) -> tuple[bytes, bytes]:
    """What ``translate`` makes of it: the output and the rejected records."""
    alone = tmp_path / "alone" / "corpus.ko.jsonl"
    koen_batch.translate(str(corpus), to="ko", engine="echo", output=str(alone))
    return outputs_of(alone)


def outputs_of(output: Path) -> tuple[bytes, bytes]:
    return output.read_bytes(), output.with_name(output.name + ".rejects.jsonl").read_bytes()


def events(log: Path, name: str) -> list[dict[str, Any]]:
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event for event in found if event["event"] == name]


def once(happened: Callable[[], bool], action: Callable[[], None]) -> Thread:
    """Do ``action`` once something has happened."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.02)
        action()

    thread = Thread(target=watch)
    thread.start()
    return thread


def test_a_job_that_cannot_be_done_ends_in_one_line(cluster: Any, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "corpus.ko.jsonl").write_text("somebody else's\n")
    with pytest.raises(UsageError, match="--overwrite"):
        koen_batch.translate(str(corpus), to="ko", ray=True, **ECHO)
    with pytest.raises(InputError, match=r"missing\.jsonl"):
        koen_batch.translate(str(tmp_path / "missing.jsonl"), to="ko", ray=True, **ECHO)


def test_a_job_submitted_by_the_script_makes_what_translate_makes(
    cluster: Any, corpus: Path, expected: tuple[bytes, bytes], tmp_path: Path
) -> None:
    """jobs/ray/submit.sh, with a program in the place of ``ray`` that takes the command to the cluster's head."""
    from ray.runtime_env import RuntimeEnv

    jobs = Path(__file__).resolve().parents[2] / "jobs"
    path = os.pathsep.join([str(Path(__file__).parent / "programs"), str(Path(sys.executable).parent)])
    done = subprocess.run(
        [jobs / "ray" / "submit.sh", corpus, "--to", "ko", "--engine", "echo", "--part-size", "300"],
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "RAY_ADDRESS": cluster.address},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert outputs_of(tmp_path / "corpus.ko.jsonl") == expected
    import yaml

    told = yaml.safe_load((jobs / "ray" / "runtime_env.yaml").read_text())
    assert RuntimeEnv(**told).env_vars() == told["env_vars"]


def test_a_node_that_is_killed_costs_nothing_but_time_and_a_finished_job_is_left_alone(
    cluster: Any, corpus: Path, expected: tuple[bytes, bytes], tmp_path: Path
) -> None:
    output, log = tmp_path / "corpus.ko.jsonl", tmp_path / "log.jsonl"
    [node] = list(cluster.worker_nodes)
    killer = once(
        lambda: {event["worker"] for event in events(log, "shard")} == {0, 1},
        lambda: cluster.remove_node(node, allow_graceful=False),
    )
    summary = koen_batch.translate(str(corpus), to="ko", ray=True, log_json=str(log), **ECHO, **SLOW)
    killer.join()
    assert outputs_of(output) == expected
    assert summary.records_read == summary.records_written + summary.records_rejected == ROWS
    assert any(lost["shards"] for lost in events(log, "worker lost")), "it was killed with work in hand"
    assert sorted(event["number"] for event in events(log, "shard")) == list(range(SHARDS))
    written = output.stat().st_mtime_ns
    again = koen_batch.translate(str(corpus), to="ko", ray=True, **ECHO)
    assert (again.already_done, again.status, again.segments_sent) == (True, 3, 0)
    assert output.stat().st_mtime_ns == written


# --- the driver --------------------------------------------------------------------------------------------------


def driver(corpus: Path, log: Path) -> subprocess.Popen[str]:
    """The command, with a Ray of its own."""
    settings = ["--engine", "echo", "--echo-latency", "0.05", "--max-num-seqs", "16", "--part-size", "100"]
    return subprocess.Popen(
        [*COMMAND, str(corpus), "--to", "ko", "--ray", "local", *settings, "--log-json", str(log)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_ADDRESS": ""},
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str], stop: signal.Signals) -> None:
    """Ctrl-C reaches all that the terminal's command has started; other signals, one process."""
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_driver_that_is_stopped_is_resumed_by_the_same_command(
    corpus: Path, expected: tuple[bytes, bytes], tmp_path: Path, stop: signal.Signals
) -> None:
    log = tmp_path / "log.jsonl"
    first = driver(corpus, log)
    once(lambda: len(events(log, "shard")) >= 3, lambda: kill(first, stop)).join()
    _, said = first.communicate(timeout=120)
    assert first.returncode == (-stop if stop == signal.SIGKILL else 128 + stop), said
    if stop != signal.SIGKILL:
        assert said.endswith("koen-batch: stopped; the same command resumes\n")
    before = {event["number"] for event in events(log, "shard")}
    assert 3 <= len(before) < SHARDS
    second = driver(corpus, log)
    _, said = second.communicate(timeout=240)
    assert second.returncode == 3, said
    assert "Traceback" not in said
    assert outputs_of(tmp_path / "corpus.ko.jsonl") == expected
    made_twice = [event["number"] for event in events(log, "shard") if event["number"] in before]
    assert len(made_twice) == len(before), "what was committed is not made again"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(900)
def test_a_real_engine_translates_on_a_cluster(tmp_path: Path) -> None:
    from koen_batch.starter import PACKAGE

    if find_spec(PACKAGE) is None:
        pytest.skip("the starter model is not installed")
    corpus = tmp_path / "corpus.jsonl"
    texts = ["Where is the station?", "She laughed.", "Open the settings.", "It rained all day.", "40"]
    corpus.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    done = subprocess.run(
        [*COMMAND, str(corpus), "--to", "ko", "--model", "starter", "--ray", "local", "--part-size", "2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_ADDRESS": ""},
    )
    assert done.returncode in (0, 3), done.stderr
    rows = [json.loads(line) for line in (tmp_path / "corpus.ko.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(len(texts)))
    assert rows[4]["translation"] == "40"
    assert all(any("가" <= letter <= "힣" for letter in row["translation"]) for row in rows[:4])
