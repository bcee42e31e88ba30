"""Jobs, inputs and outputs behind fsspec: in memory, and over HTTP on an S3 server of this machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sharding import Sharding, files_of

from koen_batch.errors import InputError, KoenError, StoppedError, UsageError
from koen_batch.shards import status
from koen_batch.shards.storage import Storage, extents_hash, fetch

ROWS = [{"id": n, "text": f"Sentence {n % 7} is here. And one more."} for n in range(40)]
BAD = b'{"text": "cut off\n'


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket on a loopback server; what a client must know of it stands in the environment, as for any other."""
    server_module = pytest.importorskip("moto.server", reason="moto is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "none")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "none")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture(params=["memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder behind a URL that no other test uses."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"memory://{tmp_path.name}"


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def got(folder: str) -> dict[str, bytes]:
    """What stands in a folder behind a URL, without working folders."""
    storage = Storage(folder)
    return {name: storage.read(name) or b"" for name in storage.sizes() if ".koen/" not in name}


def corpora(folder: Path) -> dict[str, bytes]:
    """Inputs of several formats, by name, also written into ``folder``."""
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    lines.insert(11, BAD)
    data = b"".join(lines)
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "made.parquet", row_group_size=6)
    files = {
        "a.jsonl": data,
        "b.jsonl.gz": gzip.compress(data, mtime=0),
        "deep/c.parquet": (folder / "made.parquet").read_bytes(),
        "deep/d.csv": b"id,text\n" + b"".join(b'%d,"Line %d, here."\n' % (n, n) for n in range(25)),
        "e.srt": b"1\n00:00:01,000 --> 00:00:02,000\nHello there.\n",
        "f.txt": b"",
    }
    (folder / "made.parquet").unlink()
    for name, content in files.items():
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return files


def as_local(files: dict[str, bytes], local: str, url: str) -> dict[str, bytes]:
    """Side files name their input as it was given: the URL's become the local path's."""
    return {name: data.replace(url.encode(), local.encode()) for name, data in files.items()}


def test_inputs_job_and_outputs_behind_a_url(place: str, sharding: Sharding) -> None:
    files = corpora(sharding.folder)
    for name, data in files.items():
        put(f"{place}/in/{name}", data)
    job = f"{place}/job"
    manifest = sharding.cut([f"{place}/in/"], job, 7)
    assert [source.below for source in manifest.sources] == sorted(files)
    count = len(manifest.shards)
    sharding.work(job, range(1, count, 2), name="one")  # type: ignore[arg-type]
    assert status.of(job).missing == list(range(0, count, 2))
    sharding.work(job, range(0, count, 2), name="two")  # type: ignore[arg-type]
    assert not list(sharding.folder.glob("one")), "what was under way is gone once it is committed"

    expected = files_of(sharding.translated([str(sharding.folder / "in")]))
    summary = sharding.merge(job, f"{place}/out/")
    assert summary.status == 3
    url = manifest.sources[0].url.removesuffix("/a.jsonl")
    assert as_local(got(f"{place}/out"), str(sharding.folder / "in"), url) == expected
    assert sharding.merge(job, f"{place}/out/").already_done

    (sharding.folder / "merged").mkdir()
    sharding.merge(job, f"{sharding.folder}/merged/")
    assert as_local(files_of(sharding.folder / "merged"), str(sharding.folder / "in"), url) == expected


def test_an_output_that_is_not_ours_is_not_replaced(place: str, sharding: Sharding) -> None:
    put(f"{place}/in/a.jsonl", json.dumps(ROWS[0]).encode() + b"\n")
    sharding.cut([f"{place}/in/a.jsonl"], f"{place}/job", 7)
    sharding.work(f"{place}/job", [0])
    put(f"{place}/out.jsonl", b"mine")
    with pytest.raises(UsageError, match="exists and was not made by this job: --overwrite"):
        sharding.merge(f"{place}/job", f"{place}/out.jsonl")
    with fsspec.open(f"{place}/out.jsonl") as file:
        assert file.read() == b"mine"


def test_the_default_place_is_beside_the_input(place: str, sharding: Sharding) -> None:
    put(f"{place}/in/a.jsonl", json.dumps(ROWS[0]).encode() + b"\n")
    sharding.cut([f"{place}/in/a.jsonl"], f"{place}/job", 7)
    sharding.work(f"{place}/job", [0])
    sharding.merge(f"{place}/job")
    assert Storage(f"{place}/in").read("a.ko.jsonl")
    again = sharding.cut([f"{place}/in"], f"{place}/job2", 7)
    assert [source.below for source in again.sources] == ["a.jsonl"], "what we made is no input"


def test_only_the_bytes_of_a_shard_are_fetched(place: str, sharding: Sharding) -> None:
    """The rest is a hole in the file: an input of terabytes needs no terabytes on a worker."""
    data = bytes(range(256)) * 4096
    put(f"{place}/big", data)
    target = sharding.folder / "copy"
    extents = [(0, 3), (500_000, 540_000), (len(data) - 10, len(data))]
    fetch(f"{place}/big", len(data), extents, target)
    assert target.stat().st_size == len(data)
    assert target.stat().st_blocks * 512 < 120_000
    (sharding.folder / "whole").write_bytes(data)
    assert extents_hash(target, extents) == extents_hash(sharding.folder / "whole", extents)
    assert extents_hash(target, [(0, 9)]) != extents_hash(sharding.folder / "whole", [(0, 9)])


def test_an_input_that_changed_is_refused(place: str, sharding: Sharding) -> None:
    lines = [json.dumps(row).encode() + b"\n" for row in ROWS]
    put(f"{place}/a.jsonl", b"".join(lines))
    sharding.cut([f"{place}/a.jsonl"], f"{place}/job", 10)
    lines[15] = lines[15].replace(b"here", b"gone")
    put(f"{place}/a.jsonl", b"".join(lines))
    with pytest.raises(InputError, match="changed since it was cut"):
        sharding.work(f"{place}/job", [0, 1, 2, 3])
    assert status.of(f"{place}/job").missing == [1], "the shards that it does not concern are made"


def test_what_is_not_there_is_told_in_one_line(sharding: Sharding, s3: str) -> None:
    wrong = [
        ("memory://nothing/here.jsonl", "nothing to translate there"),
        ("nosuch://bucket/in.jsonl", "nosuch"),
        (f"{s3}-of-others/in.jsonl", "in.jsonl"),
    ]
    for url, told in wrong:
        with pytest.raises(KoenError, match=told) as caught:
            sharding.cut([url], str(sharding.folder / "job"), 7)
        assert "\n" not in str(caught.value)


def test_a_store_that_cannot_be_reached_is_resumable(sharding: Sharding, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "none")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "none")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(StoppedError, match=r"127.0.0.1:9"):
        sharding.cut(["s3://bucket/in.jsonl"], str(sharding.folder / "job"), 7)
    fsspec.filesystem("s3").clear_instance_cache()
