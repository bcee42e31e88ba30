"""Ranking and the files of a leaderboard."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from koen_batch import pages
from koen_batch.errors import InputError
from koen_batch.evaluation import leaderboard, lines, ranking, run, scoring
from koen_batch.evaluation.run import Texts, Timing
from koen_batch.languages import Direction

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation"
FILES = ["leaderboard.csv", "leaderboard.html", "leaderboard.json", "leaderboard.md", "leaderboard.tex"]
EVIL = '</script><script>alert("1")</script><!-- & \u2028 | \\textbf{%$#_}'


def make_runs(folder: Path, target: str = "ko", systems: tuple[str, ...] = ("river", "brook", "stone")) -> Path:
    source = {"ko": "en", "en": "ko"}[target]
    scoring.score(
        [GOLDEN / f"{system}.{target}" for system in systems],
        [GOLDEN / f"text.{target}"],
        direction=Direction.to(target),
        src=GOLDEN / f"text.{source}",
        output=folder,
        resamples=50,
        date="2026-01-02",
        data_name="eighteen",
    )
    return folder


def build(runs: Path, output: Path, **options: object) -> leaderboard.Board:
    return leaderboard.build([runs], output, trials=200, **options)  # type: ignore[arg-type]


def embedded(output: Path) -> list[dict[str, dict]]:
    """The data inside the page, by the rule a browser has: up to the first ``</script``."""
    text = (output / "leaderboard.html").read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL | re.IGNORECASE)
    assert found
    return json.loads(found[1])


def test_ranks_by_chrf_and_parts_the_bad_system(tmp_path: Path) -> None:
    board = build(make_runs(tmp_path / "runs"), tmp_path / "out")
    (table,) = board.tables
    assert [(entry.name, entry.cluster, entry.ranks) for entry in table.entries] == [
        ("river", 1, (1, 2)),
        ("brook", 1, (1, 2)),
        ("stone", 2, (3, 3)),
    ]
    assert table.direction == "en-ko"
    assert set(table.tests) == {"chrF++", "BLEU-ko-mecab"}
    assert [(p.first, p.second, p.significant) for p in table.tests["chrF++"]] == [
        ("river", "brook", False),
        ("river", "stone", True),
        ("brook", "stone", True),
    ]
    assert table.entries[2].flags and table.entries[2].flags["empty"] == pytest.approx(1 / 18, abs=1e-4)


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_runs(tmp_path / name / "runs")
        build(tmp_path / name / "runs", tmp_path / name / "out")
    assert sorted(path.name for path in (tmp_path / "one" / "out").iterdir()) == FILES
    for name in FILES:
        assert (tmp_path / "one" / "out" / name).read_bytes() == (tmp_path / "two" / "out" / name).read_bytes()


def test_the_order_in_which_runs_are_named_does_not_matter(tmp_path: Path) -> None:
    folders = sorted(make_runs(tmp_path / "runs").iterdir())
    for name, order in (("one", folders), ("two", folders[::-1])):
        leaderboard.build(order, tmp_path / name, trials=100)
    assert (tmp_path / "one/leaderboard.json").read_bytes() == (tmp_path / "two/leaderboard.json").read_bytes()


def test_directions_have_tables_of_their_own(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs" / "ko")
    make_runs(tmp_path / "runs" / "en", "en", ("river", "stone"))
    tables = build(tmp_path / "runs", tmp_path / "out").tables
    assert [(table.direction, len(table.entries)) for table in tables] == [("en-ko", 3), ("ko-en", 2)]
    assert tables[1].metrics == ("chrF++", "chrF", "BLEU-13a")


def test_a_partial_run_is_never_ranked_with_full_ones(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs")
    scoring.score(
        [GOLDEN / "river.ko"],
        [GOLDEN / "text.ko"],
        direction=Direction.to("ko"),
        names=["river"],
        output=tmp_path / "runs" / "quick",
        limit=5,
        resamples=0,
    )
    tables = build(tmp_path / "runs", tmp_path / "out", quoted=_quoted(tmp_path, 18)).tables
    assert [(table.partial, len(table.measured)) for table in tables] == [(False, 3), (True, 1)]
    assert [entry.quoted for entry in tables[1].entries] == [False]
    assert "partial: first 5 of 18 segments" in (tmp_path / "out" / "leaderboard.md").read_text()


def _quoted(tmp_path: Path, segments: int) -> Path:
    path = tmp_path / "quoted.toml"
    rows = '[[table.row]]\nname = "Half"\nnote = "no BLEU"\nscores = { "chrF++" = 50.0 }\n'
    rows += '[[table.row]]\nname = "None"\nscores = {}\ncite = "nllb"\n'
    path.write_text(f'[[table]]\ndirection = "en-ko"\ndata = "x"\nsegments = {segments}\n{rows}')
    return path


def test_quoted_rows_are_marked_untested_and_a_missing_figure_is_missing(tmp_path: Path) -> None:
    board = build(make_runs(tmp_path / "runs"), tmp_path / "out", quoted=_quoted(tmp_path, 18))
    (table,) = board.tables
    assert [entry.name for entry in table.entries] == ["river", "brook", "Half", "stone", "None"]
    half = table.entries[2]
    assert (half.quoted, half.cluster, half.ranks, half.score("BLEU-13a")) == (True, None, None, None)
    assert not {"Half", "None"} & {name for pair in table.tests["chrF++"] for name in (pair.first, pair.second)}
    markdown = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "| quoted |  | Half | 50.00 | – | – | – | – |" in markdown
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "leaderboard.csv").read_text())))
    missing = [row["score"] for row in rows if row["system"] == "Half" and row["metric"] == "BLEU-13a"]
    assert missing == [""]
    assert "\\textit{Half} & 50.00 & -- & --" in (tmp_path / "out" / "leaderboard.tex").read_text()
    assert "@article{nllb" in (tmp_path / "out" / "leaderboard.bib").read_text()


def test_quoted_rows_of_another_test_set_stay_out(tmp_path: Path) -> None:
    board = build(make_runs(tmp_path / "runs"), tmp_path / "out", quoted=_quoted(tmp_path, 1012))
    assert not any(entry.quoted for entry in board.tables[0].entries)


def test_the_shipped_reference_leaderboard() -> None:
    (table,) = ranking.load_quoted(leaderboard.QUOTED)
    assert (table.direction, table.segments, len(table.row)) == ("en-ko", 1012, 12)
    rows = {row.name: row for row in table.row}
    assert rows["Google Translate"].scores == {"chrF++": 39.27, "BLEU-13a": 18.18}
    assert rows["Qwen3-1.7B-GGUF"].scores == {"chrF++": 21.19}
    known = set(re.findall(r"@\w+\{([\w-]+),", leaderboard.CITATIONS.read_text()))
    assert {row.cite for row in table.row if row.cite} == known


@pytest.mark.parametrize("text", ["[[table]\n", "[[table]]\nname = 1\n", "row = []\n"])
def test_a_bad_file_of_quoted_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "quoted.toml"
    path.write_text(text)
    with pytest.raises(InputError, match="not a file of quoted rows"):
        ranking.load_quoted(path)
    with pytest.raises(InputError, match="cannot be read"):
        ranking.load_quoted(tmp_path / "missing.toml")


def test_two_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    make_runs(tmp_path / "a")
    make_runs(tmp_path / "b")
    with pytest.raises(InputError, match="two runs are named 'brook'"):
        leaderboard.build([tmp_path / "a", tmp_path / "b"], tmp_path / "out", trials=10)


def test_an_edited_figure_is_refused(tmp_path: Path) -> None:
    folder = make_runs(tmp_path / "runs") / "stone.en-ko" / "run.json"
    record = json.loads(folder.read_text())
    record["scores"][0]["score"] = 99.0
    folder.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"records chrF\+\+ 99.00, its hypotheses give 15.78"):
        build(tmp_path / "runs", tmp_path / "out")


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    texts = Texts([EVIL, "둘"], [[EVIL, "둘"]], [EVIL, "two"])
    done, files = scoring.record(EVIL, Direction.to("ko"), EVIL, texts, resamples=0, date="2026-01-02")
    run.save(tmp_path / "runs" / "evil", done, files)
    board = build(tmp_path / "runs", tmp_path / "out")
    (data,) = embedded(tmp_path / "out")
    assert data["browser"]["systems"][0]["hypotheses"] == [EVIL, "둘"]
    assert data["table"]["entries"][0]["name"] == EVIL
    html = (tmp_path / "out" / "leaderboard.html").read_text(encoding="utf-8")
    assert html.count("</script>") == 2
    assert "\u2028" not in html
    assert "\\textbackslash{}textbf\\{\\%\\$\\#\\_\\}" in leaderboard.latex(board)
    rows = [line for line in leaderboard.markdown(board).split("\n") if line.startswith("|")]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {13}
    assert "<" not in rows[2]


def test_the_page_needs_nothing_else(tmp_path: Path) -> None:
    build(make_runs(tmp_path / "runs"), tmp_path / "out")
    template = pages.render("leaderboard.html", data="")
    assert not re.search(r"https?://(?!www\.w3\.org/)", template)
    assert not re.search(r"\b(?:fetch|XMLHttpRequest|import\(|innerHTML|document\.write|eval)\b", template)
    assert "default-src 'none'" in template
    (data,) = embedded(tmp_path / "out")
    assert [system["name"] for system in data["browser"]["systems"]] == ["river", "brook", "stone"]
    assert data["browser"]["references"] == [lines.read(GOLDEN / "text.ko")]
    assert data["browser"]["systems"][2]["verdicts"][9] == "empty"


def test_speed_and_note_reach_every_form(tmp_path: Path) -> None:
    runs = make_runs(tmp_path / "runs")
    folder = runs / "river.en-ko"
    done = msgspec.structs.replace(run.load(folder), timing=Timing(seconds=4.0, sentences=18, tokens=400, window=8))
    (folder / "run.json").write_bytes(msgspec.json.encode(done))
    board = build(runs, tmp_path / "out")
    assert board.tables[0].entries[0].sentences_per_second == 4.5
    assert board.tables[0].entries[0].tokens_per_second == 100.0
    assert "| 4.50 |" in (tmp_path / "out" / "leaderboard.md").read_text()
