"""A table of the page as CSV (for programs: numbers in full), LaTeX and Markdown (for people: as the page shows it)."""

from __future__ import annotations

import csv
import io
import re

from pipeline.report.tables import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "κ": r"$\kappa$",
    "τ": r"$\tau$",
    "ρ": r"$\rho$",
    "Δ": r"$\Delta$",
    "→": r"$\rightarrow$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "²": r"$^2$",
    "³": r"$^3$",
    "°": r"$^\circ$",
    "\N{NO-BREAK SPACE}": "~",
    "\N{NARROW NO-BREAK SPACE}": r"\,",
    "\n": " ",
    "\r": " ",
}


def as_csv(table: Table) -> str:
    """Write one record a row: the group it stands in, its heading, then each column's value, interval or detail."""
    rows = _grouped(table)
    columns = [[row[at] for _, row in rows] for at in range(len(table.head))]
    intervals = [any(cell.low is not None for cell in column) for column in columns]
    details = [any(cell.sub for cell in column) and not ends for column, ends in zip(columns, intervals, strict=True)]
    has_groups, has_detail = any(group for group, _ in rows), details[0]
    head = ["group"] * has_groups + [table.head[0] or "row"] + ["detail"] * has_detail
    for title, interval, detail in zip(table.head[1:], intervals[1:], details[1:], strict=True):
        head += [title or "value", *([f"{title} low", f"{title} high"] if interval else [])]
        head += [f"{title} detail"] if detail else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for group, row in rows:
        record = [group] * has_groups + [row[0].text] + [row[0].sub] * has_detail
        for cell, interval, detail in zip(row[1:], intervals[1:], details[1:], strict=True):
            record.append(_plain(cell))
            if interval:
                record += ["" if end is None else repr(float(end)) for end in (cell.low, cell.high)]
            record += [cell.sub] if detail else []
        writer.writerow(record)
    return stream.getvalue()


def _plain(cell: Cell) -> str:
    if cell.value is not None:
        return repr(round(float(cell.value), 12))
    return "" if cell.kind == "none" else cell.text


def _grouped(table: Table) -> list[tuple[str, tuple[Cell, ...]]]:
    """Return the rows with the heading they stand below."""
    group, rows = "", []
    for row in table.rows:
        if len(row) == 1 and len(table.head) > 1:
            group = row[0].text
        else:
            rows.append((group, row))
    return rows


def as_latex(table: Table) -> str:
    """Write a ``tabular`` in booktabs' style; the caption and the note stand above it as comments."""
    columns = len(table.head)
    lines = [f"% {_comment(table.caption)}"]
    lines += [f"% {_comment(table.note)}"] if table.note else []
    lines += ["% \\usepackage{booktabs}", f"\\begin{{tabular}}{{l{('r' if table.numeric else 'l') * (columns - 1)}}}"]
    lines.append("\\toprule")
    if any(table.head):
        lines += [" & ".join(escape_latex(title) for title in table.head) + r" \\", "\\midrule"]
    for index, row in enumerate(table.rows):
        if len(row) == 1 and columns > 1:
            lines += ["\\addlinespace"] if index else []
            lines.append(rf"\multicolumn{{{columns}}}{{l}}{{\textit{{{_latex_cell(row[0])}}}}} \\")
        else:
            lines.append(" & ".join(_latex_cell(cell) for cell in row) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _latex_cell(cell: Cell) -> str:
    text = escape_latex(cell.text)
    if cell.kind == "sure":
        text = rf"\textbf{{{text}}}"
    text = f"{text} {{\\footnotesize {escape_latex(cell.sub)}}}" if cell.sub else text
    return f"{{}}{text}" if text.startswith(("[", "*")) else text  # else `\\` takes it for its argument


def escape_latex(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def _comment(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def as_markdown(table: Table) -> str:
    """Write a pipe table, its caption above and its note below."""
    lines = [f"**{_markdown(table.caption)}**", ""] if table.caption else []
    lines.append(_piped([_markdown(title) for title in table.head]))
    lines.append(_piped([":--", *(["--:" if table.numeric else ":--"] * (len(table.head) - 1))]))
    for row in table.rows:
        cells = [_markdown_cell(cell) for cell in row]
        lines.append(_piped(cells + [""] * (len(table.head) - len(cells))))
    lines += ["", _markdown(table.note)] if table.note else []
    return "\n".join([*lines, ""])


def _piped(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown(cell.text)
    if cell.kind in ("sure", "primary") and text:
        text = f"**{text}**"
    return f"{text} {_markdown(cell.sub)}" if cell.sub else text


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", re.sub(r"\s+", " ", text)).strip()
