"""Laws: shards are a partition, and merged they are byte by byte what ``translate`` makes of the same inputs."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharding import CONFIG, Sharding, files_of

from koen_batch.engines.start import Prepared
from koen_batch.job import open_format
from koen_batch.records import START
from koen_batch.shards.manifest import Manifest

TEXTS = ["One is here.", "Two is here. Three is here.", "40", "", "  ", "Line\u2028with a separator.", "자, 간다."]
LINES = [
    *(json.dumps({"text": text}, ensure_ascii=False).encode() for text in TEXTS),
    b'{"text": null}',
    b"",
    b"   ",
    b'{"text": "cut off',
    b'{"other": 1}',
    b'{"text": "\xff"}',
    b'{"id": 12345678901234567890123, "text": "Kept as it is."}\r',
]


def jsonl(rows: list[int], newline: bool) -> bytes:
    lines = [LINES[0], *(LINES[row % len(LINES)] for row in rows)]  # the first has the field: else it is refused
    return b"\n".join(lines) + b"\n" * newline


def text(rows: list[int], newline: bool) -> bytes:
    lines = [b"\xef\xbb\xbfFirst line."] + [[*map(str.encode, TEXTS), b"\xff", b"CR\r"][row % 9] for row in rows]
    return b"\n".join(lines) + b"\n" * newline


def table(rows: list[int], newline: bool) -> bytes:
    cells = [b"One.", b'"quoted, and\nover two lines."', b'stray " quote', b'"open', b"a\tb\tc", b"", b"40", b"\xff"]
    lines = [b"id\ttext", *(b"%d\t" % number + cells[row % len(cells)] for number, row in enumerate(rows))]
    return b"\r\n".join(lines) + b"\r\n" * newline


def csv(rows: list[int], newline: bool) -> bytes:
    return table(rows, newline).replace(b"\t", b",")


def srt(rows: list[int], newline: bool) -> bytes:
    cues = [f"{n + 1}\n00:00:{n % 60:02d},000 --> 00:00:{n % 60:02d},900\n{TEXTS[r % 7]}\n" for n, r in enumerate(rows)]
    return "\n".join(cues).encode() + b"\n" * newline


def vtt(rows: list[int], newline: bool) -> bytes:
    return b"WEBVTT\n\n" + srt(rows, newline).replace(b",", b".")


def parquet(rows: list[int], newline: bool) -> bytes:
    values = [[*TEXTS, None][row % 8] for row in rows]
    out = io.BytesIO()
    group = 3 if newline else 7
    pq.write_table(pa.table({"id": range(len(rows)), "text": pa.array(values, pa.string())}), out, row_group_size=group)
    return out.getvalue()


def zipped(rows: list[int], newline: bool) -> bytes:
    return gzip.compress(jsonl(rows, newline), mtime=0)


FILES: dict[str, Callable[[list[int], bool], bytes]] = {
    "in.jsonl": jsonl,
    "in.jsonl.gz": zipped,
    "in.txt": text,
    "in.tsv": table,
    "in.csv": csv,
    "in.srt": srt,
    "in.vtt": vtt,
    "in.parquet": parquet,
}


def is_partition(manifest: Manifest) -> None:
    """Each file's shards follow each other from its start, and no shard is larger than it may be."""
    for number, source in enumerate(manifest.sources):
        mine = manifest.shards[source.first : source.first + source.shards]
        assert all(shard.file == number for shard in mine)
        assert [shard.start for shard in mine] == [START, *(shard.end for shard in mine)][: len(mine)]
        whole = source.format in ("srt", "vtt")
        assert all(shard.rows >= 0 and (whole or shard.rows <= manifest.rows_per_shard) for shard in mine)
        assert all(shard.rows for shard in mine[1:])
        if whole:
            assert len(mine) <= 1
    assert [shard.number for shard in manifest.shards] == list(range(len(manifest.shards)))


@pytest.mark.parametrize("name", FILES)
@given(
    rows=st.lists(st.integers(0, 1000), max_size=24),
    newline=st.booleans(),
    rows_per_shard=st.integers(1, 9),
    limit=st.none() | st.integers(1, 20),
    on_bad_row=st.sampled_from(["reject", "keep"]),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_merged_shards_are_what_translate_makes(  # noqa: PLR0917
    engine: Prepared,
    name: str,
    rows: list[int],
    newline: bool,
    rows_per_shard: int,
    limit: int | None,
    on_bad_row: str,
    order: random.Random,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sharding = Sharding(engine, Path(folder))
        given_file = Path(folder) / name
        given_file.write_bytes(FILES[name](rows, newline))
        config = dataclasses.replace(CONFIG, limit=limit, on_bad_row=on_bad_row)
        job = f"{folder}/JOB"
        manifest = sharding.cut([str(given_file)], job, rows_per_shard, config)
        is_partition(manifest)
        shards = [shard.number for shard in manifest.shards]
        order.shuffle(shards)
        half = len(shards) // 2
        for mine in (shards[:half], shards[half:]):
            sharding.work(job, mine)
        (Path(folder) / "merged").mkdir()
        merged = sharding.merge(job, f"{folder}/merged/")
        expected = sharding.translated([str(given_file)], config)
        assert files_of(Path(folder) / "merged") == files_of(expected)
        assert merged.records_read == merged.records_written + merged.records_rejected


@pytest.mark.parametrize("name", FILES)
def test_a_walk_finds_the_records_that_reading_finds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where lines are longer than what is read of them."""
    for module in ("jsonl", "text"):
        monkeypatch.setattr(f"koen_batch.formats.{module}.MAX_LINE", 24)
    path = tmp_path / name
    path.write_bytes(FILES[name](list(range(60)), False))
    format = open_format(path, CONFIG)
    read = list(format.read())
    assert list(format.walk()) == [(record.span, record.next.offset) for record in read]
    assert sum(record.span for record in read) == read[-1].next.row


def test_the_manifest_is_a_pure_function_of_inputs_and_settings(sharding: Sharding) -> None:
    (sharding.folder / "in.jsonl").write_bytes(jsonl(list(range(40)), True))
    given_file = str(sharding.folder / "in.jsonl")
    first = sharding.cut([given_file], str(sharding.folder / "A"), 7)
    second = sharding.cut([given_file], str(sharding.folder / "B"), 7)
    assert first == second
    assert files_of(sharding.folder / "A") == files_of(sharding.folder / "B")
