"""Where workers go on a cluster, and which command lines make no sense there; no cluster is needed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

import koen_batch
from koen_batch.commands.arguments import ray_address
from koen_batch.errors import UsageError
from koen_batch.session import RunOptions
from koen_batch.shards import ray_driver
from koen_batch.shards.ray_crew import Placement, place

T4S = {"CPU": 8.0, "GPU": 2.0, "memory": 3e10}
H200S = {"CPU": 96.0, "GPU": 8.0}
LAPTOP = {"CPU": 8.0}
SMALL = {"CPU": 2.0}
HEAD = {"memory": 1e9}


@pytest.mark.parametrize(
    ("nodes", "ranks", "wanted", "expected"),
    [
        pytest.param([HEAD, T4S, T4S], 1, None, Placement(4, 1, 1), id="a worker for each GPU"),
        pytest.param([T4S, H200S], 2, None, Placement(5, 1, 2), id="tensor parallelism stays on a node"),
        pytest.param([T4S, {"CPU": 4.0, "GPU": 3.0}], 2, None, Placement(2, 1, 2), id="a GPU is left over"),
        pytest.param([HEAD, LAPTOP, SMALL], 1, None, Placement(5, 2, 0), id="shares of the smallest node"),
        pytest.param([LAPTOP], 1, 3, Placement(3, 2, 0), id="as many shares as are asked for"),
        pytest.param([SMALL, SMALL], 1, 9, Placement(9, 1, 0), id="more than have a place now"),
        pytest.param([SMALL, {"GPU": 1.0}], 4, 2, Placement(2, 1, 4), id="nodes that are yet to come"),
    ],
)
def test_a_worker_for_each_gpu_or_share_of_the_cpus(
    nodes: list[dict[str, float]], ranks: int, wanted: int | None, expected: Placement
) -> None:
    assert place(nodes, gpus=True, ranks=ranks, wanted=wanted) == expected


def test_echo_takes_no_gpu() -> None:
    assert place([T4S, T4S], gpus=False, ranks=1, wanted=None) == Placement(2, 8, 0)


@pytest.mark.parametrize(
    ("nodes", "ranks", "why"),
    [([HEAD], 1, "neither GPUs nor CPUs"), ([T4S, T4S], 4, "no node of the cluster has that many GPUs")],
)
def test_a_cluster_without_a_place_is_refused(nodes: list[dict[str, float]], ranks: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        place(nodes, gpus=True, ranks=ranks, wanted=None)


@pytest.mark.parametrize("address", ["auto", "local", "head:6379", "192.0.2.1:6379"])
def test_an_address(address: str) -> None:
    assert ray_address(address) == address


@pytest.mark.parametrize("text", ["corpus.jsonl", "data/", "s3://bucket/a:1", "6379", ":6379", "a/b:1"])
def test_an_input_behind_ray_is_not_taken_for_an_address(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="inputs stand before --ray"):
        ray_address(text)


def test_the_ray_client_is_refused_with_what_to_do() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="ray job submit"):
        ray_address("ray://head:10001")


@pytest.mark.parametrize(
    ("given", "output", "options", "why"),
    [
        (["-"], None, RunOptions(), "standard input"),
        (["a.jsonl"], "-", RunOptions(), "standard input"),
        (["a.jsonl"], None, RunOptions(memory=Path("m.sqlite")), "--memory"),
        (["a.jsonl"], None, RunOptions(report=Path("r.html")), "--report"),
    ],
)
def test_what_makes_no_sense_on_a_cluster_is_refused(
    given: list[str], output: str | None, options: RunOptions, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        ray_driver.refuse(given, output, options)


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "corpus.jsonl").write_text('{"text": "One."}\n')
    with pytest.raises(UsageError, match=r"pip install 'koen-batch\[ray\]'"):
        koen_batch.translate(str(tmp_path / "corpus.jsonl"), to="ko", engine="echo", ray=True)


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1:1", "Connection refused"), ("ray://head:10001", "ray job submit")]
)
def test_an_address_where_nobody_listens_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", address)
    (tmp_path / "corpus.jsonl").write_text('{"text": "One."}\n')
    with pytest.raises(UsageError, match=why):
        koen_batch.translate(str(tmp_path / "corpus.jsonl"), to="ko", engine="echo", ray=True)
