"""Figures and tables as files beside the page."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import report
from pipeline.report import exports, inputs, page, style
from pipeline.report.exports import slug
from pipeline.report.table_text import as_csv, as_latex, as_markdown, escape_latex
from pipeline.report.tables import Cell, Table
from pipeline.run_folder import RunFolder

WILD = r"a&b_50% #1 {x} ~^\ $ <|> − µ ≤ ×"
TABLE = Table(
    "Some 100 % of it",
    ("row", "a_b", "c & d"),
    (
        (Cell("group 1", "of 3"),),
        (Cell(WILD, "%"), Cell("+1.50", "[−1.00, +4.00]", "sure", 1.5, -1.0, 4.0), Cell("n/a", "", "none")),
        (Cell("second"), Cell("2.00", "", "", 2.0), Cell("plain [text] | more")),
        (Cell("group 2"),),
        (Cell("[third]"), Cell("1,234", "", "", 1234), Cell("x")),
    ),
    "A note on 5 %.",
)


def test_csv_holds_numbers_groups_and_intervals() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert list(rows[0]) == ["group", "row", "detail", "a_b", "a_b low", "a_b high", "c & d"]
    assert [row["group"] for row in rows] == ["group 1", "group 1", "group 2"]
    assert [float(row["a_b"]) for row in rows] == [1.5, 2.0, 1234.0]
    assert rows[0]["row"] == WILD and (rows[0]["a_b low"], rows[0]["a_b high"]) == ("-1.0", "4.0")
    assert rows[0]["c & d"] == "" and rows[1]["a_b low"] == "" and rows[1]["c & d"] == "plain [text] | more"


def latex_is_balanced(text: str) -> bool:
    """Whether braces close, specials stand behind a backslash, math comes in pairs and no unusual letter is left.

    ``~`` may stand: it is a space.
    """
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    bare = re.sub(r"\\[&%$#_{}\\]", "", body)
    return (
        bare.count("{") == bare.count("}")
        and bare.count("$") % 2 == 0
        and not re.search(r"[%#_^]|[^\x00-\x7f]", re.sub(r"\\text\w+\{\}|\$[^$]*\$", "", bare))
    )


def test_latex_escapes_what_it_would_obey() -> None:
    text = as_latex(TABLE)
    lines = text.splitlines()
    assert lines[0] == "% Some 100 % of it" and "\\toprule" in lines and lines[-1] == "\\end{tabular}"
    assert "\\begin{tabular}{lrr}" in lines and text.count("\\multicolumn{3}{l}") == 2
    assert latex_is_balanced(text)
    body = [line for line in lines if line.endswith(r"\\") and not line.startswith("\\multicolumn")]
    assert len(body) == 4
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in body)
    assert r"a\&b\_50\% \#1 \{x\}" in text and r"$-$ $\mu$ $\leq$ $\times$" in text
    assert r"\textbf{+1.50} {\footnotesize [$-$1.00, +4.00]}" in text
    assert body[3].startswith("{}[third]")  # a row must not begin as the argument of the `\\` before it
    assert escape_latex("\\") == r"\textbackslash{}"


def test_markdown_keeps_its_columns() -> None:
    lines = [line for line in as_markdown(TABLE).splitlines() if line.startswith("|")]
    assert len(lines) == 7
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {4}
    assert r"plain \[text\] \| more" in lines[4] and "**+1.50**" in lines[3]


def test_every_figure_and_table_of_the_page_has_its_files(plain_page: Path) -> None:
    text = re.sub(r"<script\b.*?</script>", "", plain_page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r'href="(report/[^"]+)"', text)
    assert len(links) == len(set(links)) > 80
    lying = {str(path.relative_to(plain_page.parent)) for path in (plain_page.parent / "report").rglob("*.*")}
    assert lying == {*links, "report/contents.json", "report/answer.json"}
    (said,) = report.read_answer(RunFolder(plain_page.parent))
    assert set(said) == {"setting", "sentences", "reasons", "scale"} and said["sentences"]
    assert text.count('<figure class="table">') == sum(link.endswith(".csv") for link in links)
    assert text.count("<svg ") == sum(link.endswith(".svg") for link in links)
    for name in ("figures/ap-by-arm.png", "figures/success-over-k-mu-0.8.svg", "tables/differences-in-utility.tex"):
        assert f"report/{name}" in links


def test_tables_of_a_run_are_well_formed(plain_page: Path) -> None:
    for path in (plain_page.parent / "report" / "tables").glob("*.tex"):
        assert latex_is_balanced(path.read_text()), path
    for path in (plain_page.parent / "report" / "tables").glob("*.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len(rows) > 1 and len({len(row) for row in rows}) == 1 and len(set(rows[0])) == len(rows[0]), path


def test_figures_stand_alone(plain_page: Path) -> None:
    light = {tuple(style.rgb(colour)) for colour in style.light_colours().values()}
    for path in (plain_page.parent / "report" / "figures").glob("*.svg"):
        text = path.read_text()
        root = ET.fromstring(text)
        assert root.tag.endswith("svg") and root[0].tag.endswith("title") and root.attrib["viewBox"]
        assert "var(--" not in text and "#0a0b" not in text and "#0a0c" not in text and "#0a0d" not in text
        assert "<!DOCTYPE" not in text and "metadata" not in text
        pixels = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))
        assert pixels.shape[1] > 900 and (pixels[:3] > 250).all()
        codes = pixels.reshape(-1, 3).astype(np.int32) @ (65536, 256, 1)
        common = [
            (code >> 16, code >> 8 & 255, code & 255) for code in np.flatnonzero(np.bincount(codes) > 60).tolist()
        ]
        assert len(set(common) & light) >= 3, path  # text, grid and what is drawn, in the light colours
        assert not [colour for colour in common if colour[:2] == (10, 11)]


def test_legends_move_into_the_files(plain_page: Path) -> None:
    text = (plain_page.parent / "report/figures/success-over-k-mu-0.4.svg").read_text()
    assert all(arm in text for arm in ("partial", "pcn-cd", "pcn-qal", "oracle"))


@pytest.mark.slow
def test_the_page_is_current_only_with_its_files(make_run, recipe, tmp_path: Path) -> None:
    made = make_run(tmp_path, recipe(arms=["partial", "oracle"], scenes={"test_seen": [100]}, views=(0,)))
    report.run(made.experiment, made.folder)
    beside = made.folder.root / "report"
    assert report.is_current(made.folder)
    (beside / "figures" / "ap-by-arm.png").unlink()
    assert not report.is_current(made.folder)
    (beside / "tables" / "mine.txt").write_text("not the report's")
    files = exports.Exports()
    page.render(inputs.read(made.experiment, made.folder), files)
    gone = next(iter(files.files))
    del files.files[gone]
    assert (beside / gone).exists() or gone.endswith("ap-by-arm.png")
    files.write(beside, "other")
    assert not (beside / gone).exists() and (beside / "tables" / "mine.txt").exists()
    report.run(made.experiment, made.folder)
    assert (beside / gone).exists() and report.is_current(made.folder)


def test_a_list_that_leads_out_of_its_folder_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / exports.CONTENTS).write_text('{"files": ["../precious", "figures/../../precious", 3]}')
    exports.Exports().write(folder, "now")
    assert (tmp_path / "precious").exists()


def test_names_are_plain_and_unique() -> None:
    assert slug("Success over k, µ ≤ 0.4") == "success-over-k-mu-0.4" and slug("…") == "exhibit"
    assert slug("../../etc/Pass wd") == "etc-pass-wd"
    files, twin = exports.Exports(), Table("Some 100 % of it", ("a",), ())
    first = [link.href for link in files.links(TABLE)]
    assert first == [f"report/tables/some-100-percent-of-it.{ending}" for ending in ("csv", "tex", "md")]
    assert [link.href for link in files.links(TABLE)] == first
    assert files.links(twin)[0].href == "report/tables/some-100-percent-of-it-2.csv"
    assert files.links(Table("x", ("a",), ()), "kinect · b")[0].href == "report/tables/kinect-b-x.csv"
