"""Parquet: columns that are not translated come out equal in value and type; damage is told in one line."""

from __future__ import annotations

import base64
import os
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from koen_batch.errors import InputError
from koen_batch.formats import parquet, parquet_parts
from koen_batch.formats.base import Layout
from koen_batch.formats.parquet import Parquet
from koen_batch.languages import Direction
from koen_batch.records import Position, Record, Rejected, Translation

KO = Direction.to("ko")
TEXT = Layout(KO)


def of_fields(*fields: str, **more: Any) -> Layout:
    return Layout(KO, fields=fields, **more)


def parquet_of(folder: Path, table: pa.Table, layout: Layout = TEXT, **options: Any) -> Parquet:
    path = folder / "in.parquet"
    pq.write_table(table, path, **options)
    return Parquet(path, layout)


def upper(format: Parquet, folder: Path, part_rows: int = 3) -> Path:
    """Run ``format`` over a fake engine, ``part_rows`` records a part; the path of the output."""
    format.inspect()
    parts: list[Path] = []
    part = None
    for n, found in enumerate(format.read()):
        if n % part_rows == 0:
            if part:
                part.close()
            parts.append(folder / f"part{len(parts)}")
            part = format.part(parts[-1])
        assert part
        if isinstance(found, Rejected):
            if format.layout.on_bad_row == "keep":
                part.keep(found)
        else:
            verdicts = [("nothing_to_translate",) if text is None else ("ok",) for text in found.texts]
            texts = [None if text is None else text.upper() for text in found.texts]
            part.write(found, [Translation(t, v, -0.5) for t, v in zip(texts, verdicts, strict=True)])
    if part:
        part.close()
    format.assemble(parts, folder / "out.parquet")
    return folder / "out.parquet"


def invalid(values: list[bytes], type_: pa.DataType) -> pa.Array:
    """Strings that Arrow does not check."""
    return pa.array(values, pa.binary() if type_ == pa.string() else pa.large_binary()).view(type_)


def awkward(rows: int = 10) -> pa.Table:
    """Every kind of column that is to pass through untouched."""
    n = range(rows)
    texts = [None if i % 7 == 3 else f"text {i}" for i in n]
    strings = pa.array([None if i % 4 == 1 else f"s{i % 3}" for i in n])
    table = pa.table(
        {
            "text": texts,
            "int": pa.array([2**63 - 1 - i for i in n], pa.int64()),
            "unsigned": pa.array([2**64 - 1 - i for i in n], pa.uint64()),
            "decimal": pa.array([Decimal(f"{i}123456789012345678901.25") for i in n], pa.decimal128(30, 2)),
            "half": pa.array([float(i) for i in n], pa.float16()),
            "nan": pa.array([float("nan") if i % 2 else -0.0 for i in n]),
            "time": pa.array(list(n), pa.timestamp("ns", "Asia/Seoul")),
            "milli": pa.array(list(n), pa.timestamp("ms")),
            "span": pa.array(list(n), pa.duration("us")),
            "bytes": pa.array([bytes([i, 255]) for i in n], pa.binary()),
            "fixed": pa.array([bytes([i] * 4) for i in n], pa.binary(4)),
            "null": pa.nulls(rows),
            "dictionary": strings.dictionary_encode(),
            "view": strings.cast(pa.string_view()),
            "large": strings.cast(pa.large_string()),
            "list": pa.array([None if i % 5 == 2 else ["a"] * (i % 3) for i in n], pa.list_(pa.string())),
            "large_list": pa.array([[i] * (i % 3) for i in n], pa.large_list(pa.int8())),
            "fixed_list": pa.array([None if i == 4 else [i, i] for i in n], pa.list_(pa.int16(), 2)),
            "nested_dictionary": pa.ListArray.from_arrays(
                pa.array(list(range(rows + 1)), pa.int32()), strings.dictionary_encode()
            ),
            "struct": pa.array([None if i % 6 == 0 else {"a": i, "b": [{"c": "x"}, None]} for i in n]),
            "map": pa.array([[("k", i)] * (i % 3) for i in n], pa.map_(pa.string(), pa.int32())),
            "invalid_utf8": invalid([b"\xff%d" % i for i in n], pa.string()),
        }
    )
    fields = [field.with_metadata({"about": field.name}) for field in table.schema]
    fields[1] = fields[1].with_nullable(False)
    return table.cast(pa.schema(fields, metadata={"huggingface": '{"info": {}}', "한국어": "값"}))


@pytest.mark.parametrize("row_group_size", [1, 4, 10])
@pytest.mark.parametrize("part_rows", [1, 3, 100])
def test_untouched_columns_are_equal_in_value_and_type(tmp_path: Path, row_group_size: int, part_rows: int) -> None:
    table = awkward()
    format = parquet_of(tmp_path, table, row_group_size=row_group_size)
    source = pq.ParquetFile(format.path)
    out = pq.ParquetFile(upper(format, tmp_path, part_rows))
    names = table.schema.names
    assert out.schema_arrow.names == [*names, "translation", "translation_verdict"]
    kept = pa.schema([out.schema_arrow.field(name) for name in names], metadata=out.schema_arrow.metadata)
    assert kept.equals(source.schema_arrow, check_metadata=True)
    read, before = out.read(), pq.read_table(format.path)
    assert repr(read.select(["nan"]).to_pylist()) == repr(before.select(["nan"]).to_pylist())
    for name in set(names) - {"nan"}:
        assert read.column(name).combine_chunks().equals(before.column(name).combine_chunks()), name
    texts = table.column("text").to_pylist()
    assert read.column("translation").to_pylist() == [text and text.upper() for text in texts]
    assert read.column("translation_verdict").to_pylist() == [
        "ok" if text is not None else "nothing_to_translate" for text in texts
    ]
    assert read.schema.field("translation").type == pa.string()


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"], pa.string()),
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.array(["a", None, "b"], pa.large_string()).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_every_string_type_is_translated(tmp_path: Path, column: pa.Array) -> None:
    out = pq.read_table(upper(parquet_of(tmp_path, pa.table({"text": column})), tmp_path))
    assert out.column("translation").to_pylist() == ["A", None, "B"]
    assert out.schema.field("text").type == pq.read_schema(tmp_path / "in.parquet").field("text").type


def test_a_column_of_nulls_has_nothing_to_translate(tmp_path: Path) -> None:
    out = pq.read_table(upper(parquet_of(tmp_path, pa.table({"text": pa.nulls(2)})), tmp_path))
    assert out.column("translation").to_pylist() == [None, None]
    assert out.schema.field("translation").type == pa.string()


MESSAGES = [
    {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": None}], "meta": {"title": "t"}},
    {"messages": [], "meta": None},
    {"messages": None, "meta": {"title": None}},
    {"messages": [None, {"role": "user", "content": "b"}], "meta": {"title": "u"}},
]


@pytest.mark.parametrize("row_group_size", [1, 3, 4])
def test_paths_lead_through_structs_and_lists(tmp_path: Path, row_group_size: int) -> None:
    table = pa.Table.from_pylist(MESSAGES)
    layout = of_fields("messages.*.content", "meta.title", output_field="ko", with_confidence=True)
    out = pq.read_table(upper(parquet_of(tmp_path, table, layout, row_group_size=row_group_size), tmp_path, 2))
    assert out.select(["messages", "meta"]).to_pylist() == MESSAGES
    ok, nothing = "ok", "nothing_to_translate"
    assert out.column("ko").to_pylist() == [
        {"messages.*.content": ["A", None], "meta.title": "T"},
        {"messages.*.content": [], "meta.title": None},
        {"messages.*.content": None, "meta.title": None},
        {"messages.*.content": [None, "B"], "meta.title": "U"},
    ]
    assert out.column("ko_verdict").to_pylist()[3] == {"messages.*.content": [nothing, ok], "meta.title": ok}
    assert out.column("ko_confidence").to_pylist()[1] == {"messages.*.content": [], "meta.title": -0.5}
    string, single = pa.string(), pa.float32()
    assert [out.schema.field(name).type for name in ("ko", "ko_verdict", "ko_confidence")] == [
        pa.struct([("messages.*.content", pa.list_(type_)), ("meta.title", type_)])
        for type_ in (string, string, single)
    ]


def test_one_field_with_a_wildcard_gives_a_list(tmp_path: Path) -> None:
    nested = [[["a", None], None, []], None, [["b"]]]
    for type_ in (pa.list_(pa.list_(pa.string())), pa.large_list(pa.list_(pa.string_view()))):
        format = parquet_of(tmp_path, pa.table({"x": pa.array(nested, type_)}), of_fields("x.*.*"))
        out = pq.read_table(upper(format, tmp_path))
        assert out.column("translation").to_pylist() == [[["A", None], None, []], None, [["B"]]]


def test_a_list_of_fixed_size_and_a_dotted_column_name(tmp_path: Path) -> None:
    table = pa.table({"a.b": pa.array([["x", "y"], None, ["z", None]], pa.list_(pa.string(), 2)), "c.d": ["q"] * 3})
    out = pq.read_table(upper(parquet_of(tmp_path, table, of_fields("c.d")), tmp_path))
    assert out.column("translation").to_pylist() == ["Q", "Q", "Q"]
    table = table.rename_columns(["list", "c.d"])
    out = pq.read_table(upper(parquet_of(tmp_path, table, of_fields("list.*")), tmp_path))
    assert out.column("translation").to_pylist() == [["X", "Y"], None, ["Z", None]]


def test_no_rows_and_empty_row_groups(tmp_path: Path) -> None:
    schema = awkward().schema
    path = tmp_path / "in.parquet"
    pq.ParquetWriter(path, schema).close()
    out = pq.ParquetFile(upper(Parquet(path, TEXT), tmp_path))
    assert out.metadata.num_rows == 0
    assert out.schema_arrow.names[-2:] == ["translation", "translation_verdict"]
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for texts in ([], ["a"], [], ["b", "c"], []):
            writer.write_table(pa.table({"text": pa.array(texts, pa.string())}))
    assert pq.ParquetFile(path).num_row_groups == 5
    format = Parquet(path, TEXT)
    assert pq.read_table(upper(format, tmp_path)).column("translation").to_pylist() == ["A", "B", "C"]
    assert [found.row for found in format.read(Position(1))] == [1, 2]


def test_a_cell_that_is_not_utf8_is_rejected_alone(tmp_path: Path) -> None:
    cells = invalid([b"ok", b"b\xff", b"fine"], pa.string())
    for column in (cells, invalid([b"ok", b"b\xff", b"fine"], pa.large_string()), cells.dictionary_encode()):
        table = pa.table({"text": column, "id": [1, 2, 3]})
        _, bad, fine = parquet_of(tmp_path, table).read()
        assert isinstance(bad, Rejected)
        assert (bad.reason, bad.raw, bad.row, bad.offset) == ("invalid_utf8: byte 1", b"b\xff", 1, 0)
        assert isinstance(fine, Record)
        assert (fine.texts, fine.row) == (["fine"], 2)
        assert pq.read_table(upper(parquet_of(tmp_path, table), tmp_path)).column("id").to_pylist() == [1, 3]
        kept = pq.read_table(upper(parquet_of(tmp_path, table, of_fields("text", on_bad_row="keep")), tmp_path))
        assert kept.column("translation").to_pylist() == ["OK", None, "FINE"]
        assert kept.column("translation_verdict").to_pylist() == ["ok", "invalid_utf8", "ok"]


def test_a_kept_row_of_several_fields_has_its_reason_in_each(tmp_path: Path) -> None:
    table = pa.table({"a": invalid([b"\xff"], pa.string()), "b": [["x", "y"]]})
    format = parquet_of(tmp_path, table, of_fields("a", "b.*", on_bad_row="keep", with_confidence=True))
    (found,) = format.read()
    assert isinstance(found, Rejected)
    assert found.raw == b"\xff\nx\ny"
    out = pq.read_table(upper(format, tmp_path)).select(["translation", "translation_verdict"]).to_pylist()
    assert out == [{"translation": None, "translation_verdict": {"a": "invalid_utf8", "b.*": ["invalid_utf8"]}}]


def test_rejected_rows_leave_every_type_of_column_in_step(tmp_path: Path) -> None:
    table = awkward(40).set_column(
        0, "text", invalid([b"\xff" if i % 3 == 1 else b"a" for i in range(40)], pa.string())
    )
    out = pq.read_table(upper(parquet_of(tmp_path, table, row_group_size=15), tmp_path, 100))
    kept = [i for i in range(40) if i % 3 != 1]
    assert out.column("unsigned").to_pylist() == [2**64 - 1 - i for i in kept]
    assert out.column("view").to_pylist() == [None if i % 4 == 1 else f"s{i % 3}" for i in kept]
    assert out.column("nested_dictionary").to_pylist() == [[None if i % 4 == 1 else f"s{i % 3}"] for i in kept]


def test_reading_goes_on_from_any_row(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 4)
    format = parquet_of(tmp_path, pa.table({"text": [str(i) for i in range(25)]}), row_group_size=10)
    whole = list(format.read())
    assert [one.row for one in whole] == list(range(25))
    for k, one in enumerate(whole):
        rest = list(format.read(one.next))
        assert [(r.row, r.texts) for r in rest if isinstance(r, Record)] == [
            (r.row, r.texts) for r in whole[k + 1 :] if isinstance(r, Record)
        ]


def test_row_groups_before_the_start_are_not_decoded(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 50 + str(i) for i in range(20)]})
    format = parquet_of(tmp_path, table, row_group_size=10, use_dictionary=False, compression="none")
    data = bytearray(format.path.read_bytes())
    data[4:40] = b"\xff" * 36
    format.path.write_bytes(data)
    assert [one.row for one in format.read(Position(10))] == list(range(10, 20))
    with pytest.raises(InputError, match="row group 1 of 2"):
        list(format.read())


@pytest.mark.parametrize("codec", ["snappy", "gzip", "brotli", "zstd", "lz4", "none"])
def test_the_codec_of_the_source_is_kept(tmp_path: Path, codec: str) -> None:
    format = parquet_of(tmp_path, pa.table({"text": ["a"], "n": [1]}), compression=codec)
    about = pq.ParquetFile(upper(format, tmp_path)).metadata.row_group(0)
    expected = pq.ParquetFile(format.path).metadata.row_group(0).column(0).compression
    assert {about.column(i).compression for i in range(4)} == {expected}


def test_the_output_has_row_groups_of_the_size_set(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parquet_parts, "ROW_GROUP_BYTES", 1000)
    format = parquet_of(tmp_path, pa.table({"text": [f"{i:0100}" for i in range(100)]}), row_group_size=100)
    about = pq.ParquetFile(upper(format, tmp_path, part_rows=2)).metadata
    sizes = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    assert set(sizes) == {6, 4}, "a row is some 210 bytes, so five rows fill a group, and a batch has two"


def test_the_same_parts_give_the_same_file(tmp_path: Path) -> None:
    format = parquet_of(tmp_path, awkward(), row_group_size=4)
    first = upper(format, tmp_path).read_bytes()
    assert upper(format, tmp_path).read_bytes() == first


def corrupt(path: Path, how: str) -> None:
    data = path.read_bytes()
    damaged = {
        "empty": b"",
        "four bytes": b"PAR1",
        "text": b'{"text": "a"}\n' * 9,
        "cut off": data[: len(data) * 2 // 3],
        "last byte missing": data[:-1],
        "length of footer": data[:-8] + b"\xff\xff\xff\x7fPAR1",
        "footer": data[:-60] + b"\xff" * 52 + data[-8:],
        "page": data[:4] + b"\xff" * 60 + data[64:],
    }
    path.write_bytes(damaged[how])


@pytest.mark.parametrize(
    "how", ["empty", "four bytes", "text", "cut off", "last byte missing", "length of footer", "footer", "page"]
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    format = parquet_of(tmp_path, pa.table({"text": [f"text {i}" for i in range(100)]}))
    corrupt(format.path, how)
    with pytest.raises(InputError, match="no whole Parquet file") as error:
        format.inspect()
        list(format.read())
    assert str(error.value).startswith(str(format.path))
    assert "\n" not in str(error.value)


def test_no_single_byte_makes_rows_go_unnoticed(tmp_path: Path) -> None:
    """The fuzzer found a byte with which pyarrow reads a row group as an empty one, without a word."""
    table = pa.table({"text": ["one", None, "two", "three"], "n": [1, 2, 3, 4], "tags": [["a"], [], None, ["b"]]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2, store_schema=False)
    whole = (tmp_path / "in.parquet").read_bytes()
    refused = 0
    for at, byte in product(range(4, len(whole) - 8), (1, 200)):
        (tmp_path / "in.parquet").write_bytes(whole[:at] + bytes([(whole[at] + byte) % 256]) + whole[at + 1 :])
        format = Parquet(tmp_path / "in.parquet", TEXT)
        try:
            format.inspect()
            assert len(list(format.read())) == 4, (at, byte)
        except InputError:
            refused += 1
    assert refused > len(whole) / 2


def test_a_column_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    format = parquet_of(tmp_path, pa.table({"text": ["a"], "other": [1]}), store_schema=False)
    format.path.write_bytes(format.path.read_bytes().replace(b"other", b"oth\xffr"))
    with pytest.raises(InputError, match="no whole Parquet file"):
        format.inspect()


def test_an_index_beyond_its_dictionary_is_damage(tmp_path: Path, monkeypatch) -> None:
    # Bytes that do this come out of a fuzzer only: the batch is made as the damaged file would give it.
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 9, None], pa.int32()), pa.array(["a"]), safe=False)
    batch = pa.RecordBatch.from_arrays([dictionary], ["text"])
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: iter([batch]))
    format = parquet_of(tmp_path, pa.table({"text": ["a", "b", "c"]}))
    with pytest.raises(InputError, match="an index of 9 into a dictionary of 1 values"):
        format.inspect()


@pytest.mark.skipif("KOEN_DATA" not in os.environ, reason="KOEN_DATA is not set")
@pytest.mark.parametrize("name", ["nemotron_cc_example", "opensource_guide_md"])
def test_documents_of_others_come_out_equal(tmp_path: Path, name: str) -> None:
    path = Path(os.environ["KOEN_DATA"]) / "docs" / f"{name}.parquet"
    (tmp_path / "in.parquet").write_bytes(path.read_bytes())
    before, out = pq.read_table(path), pq.read_table(upper(Parquet(tmp_path / "in.parquet", TEXT), tmp_path))
    assert out.select(before.schema.names).equals(before, check_metadata=True)
    assert out.column("translation").to_pylist() == [text.upper() for text in before.column("text").to_pylist()]


def test_a_codec_that_nobody_has_is_refused(tmp_path: Path) -> None:
    format = parquet_of(tmp_path, pa.table({"text": ["a"]}), compression="snappy", use_dictionary=False)
    data = format.path.read_bytes()
    # The footer's ColumnMetaData (Thrift, compact): the path, then the codec as a zigzag i32; LZO is 3.
    snappy, lzo = b"\x18\x04text\x15\x02", b"\x18\x04text\x15\x06"
    assert data.count(snappy) == 1
    format.path.write_bytes(data.replace(snappy, lzo))
    with pytest.raises(InputError, match="cannot be read"):
        format.inspect()


class _Kms(pe.KmsClient):
    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return base64.b64encode(key_bytes)

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return base64.b64decode(wrapped_key)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_refused(tmp_path: Path, plaintext_footer: bool) -> None:
    table = pa.table({"text": ["a"], "n": [1]})
    properties = pe.CryptoFactory(_Kms).file_encryption_properties(
        pe.KmsConnectionConfig(),
        pe.EncryptionConfiguration(footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plaintext_footer),
    )
    path = tmp_path / "in.parquet"
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(InputError, match="encrypted; decrypt it first"):
        Parquet(path, TEXT).inspect()


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        (TEXT, r"no field text: --field names one of a, b\.c, b\.d\.\*\.e$"),
        (of_fields("b.x"), r"no field b\.x: --field names one of a,"),
        (of_fields("b.*"), r"no field b\.\*: "),
        (of_fields("a.b"), r"no field a\.b: "),
        (of_fields("n"), r"n holds int64, not strings: --field names one of a,"),
        (of_fields("raw"), r"raw holds binary, not strings"),
        (of_fields("b.d"), r"b\.d holds list<"),
        (of_fields("twice"), r"more than one column is called twice"),
        (of_fields("a", output_field="n"), r"column n already: --output-field"),
        (of_fields("a", output_field="ko"), r"column ko_verdict already"),
    ],
)
def test_fields_that_do_not_do_are_refused(tmp_path: Path, layout: Layout, told: str) -> None:
    nested = pa.array([{"c": "x", "d": [{"e": "y", "f": 1}]}])
    columns = [pa.array(["x"]), nested, pa.array([1]), pa.array([b"x"]), pa.array([1]), pa.array([2]), pa.array([3])]
    table = pa.Table.from_arrays(columns, ["a", "b", "n", "raw", "twice", "twice", "ko_verdict"])
    with pytest.raises(InputError, match=told):
        parquet_of(tmp_path, table, layout).inspect()


def test_columns_of_one_name_pass_through(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["a", "b"]), pa.array([3, 4])], ["n", "text", "n"])
    out = pq.ParquetFile(upper(parquet_of(tmp_path, table), tmp_path)).read()
    assert [out.column(i).to_pylist() for i in range(4)] == [[1, 2], ["a", "b"], [3, 4], ["A", "B"]]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.parquet: cannot be read"):
        Parquet(tmp_path / "nowhere.parquet", TEXT).inspect()
