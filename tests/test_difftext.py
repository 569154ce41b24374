"""Diffs as HTML: what git says is parsed right, shown safely, and fast enough for a review."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import pytest
from django.template.loader import render_to_string
from django.utils.html import strip_tags
from pygments.lexers import get_lexer_by_name

from research.repository import Repository
from research.views.difftext import LARGE, FileDiff, files_of

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
BESIDE_PYGMENTS = 2.0  # times its seconds may a file take to be there; measured: 1.3
OVERRIDE = "\N{RIGHT-TO-LEFT OVERRIDE}"


def diff(tmp_path: Path, before: dict[str, bytes], after: dict[str, bytes]) -> list[FileDiff]:
    """The parsed diff of two real commits."""
    repository = Repository.create(tmp_path / "r" / "r.git", before, "before", WHEN)
    commit = repository.commit_files(after, None, "after", WHEN)
    return files_of(repository.diff(repository.root_commit(), commit).patch)


def html(file: FileDiff) -> str:
    return "".join(hunk.html for hunk in file.hunks)


def rows(file: FileDiff, kind: str) -> list[str]:
    """The text of the lines of one kind, without their signs."""
    parts = html(file).split("<tr ")[1:]
    mine = [part.split('<td class="c">', 1)[1] for part in parts if part.startswith(f'class="{kind}"')]
    return [unescape(strip_tags(part)) for part in mine]


def test_lines_come_with_the_numbers_of_both_sides(tmp_path: Path) -> None:
    before = "".join(f"line {n}\n" for n in range(1, 41))
    after = before.replace("line 20\n", "line twenty\nand more\n")
    (file,) = diff(tmp_path, {"a.txt": before.encode()}, {"a.txt": after.encode()})
    assert (file.path, file.added, file.removed, file.change) == ("a.txt", 2, 1, "changed")
    (hunk,) = file.hunks
    assert (hunk.old, hunk.new, hunk.skipped) == (17, 17, 16)
    assert rows(file, "removed") == ["line 20"] and rows(file, "added") == ["line twenty", "and more"]
    assert 'data-n="23"></td><td class="n" data-n="24"' in hunk.html  # the last line of context


def test_the_words_that_changed_are_marked(tmp_path: Path) -> None:
    (file,) = diff(tmp_path, {"a.py": b"RATE = 0.3  # of the budget\n"}, {"a.py": b"RATE = 0.4  # of the budget\n"})
    text = html(file)
    assert '<span class="t-m w">0.3</span>' in text and '<span class="t-m w">0.4</span>' in text
    assert text.count(' w"') == 2
    assert '<span class="t-c"># of the budget</span>' in text


def test_a_string_over_many_lines_keeps_its_colour(tmp_path: Path) -> None:
    (file,) = diff(tmp_path, {"a.py": b'x = """one\nif two\n"""\n'}, {"a.py": b'x = """one\nif two\nfor\n"""\n'})
    assert '<span class="t-s">for</span>' in html(file)


@pytest.mark.parametrize(
    ("text", "shown", "hidden"),
    [
        ('x = "<script>alert(1)</script>"', "&lt;script&gt;", "<script"),
        (f"# {OVERRIDE}evil", "⟨U+202E⟩", OVERRIDE),
        ("# zero\N{ZERO WIDTH SPACE}width", "⟨U+200B⟩", "\N{ZERO WIDTH SPACE}"),
        ("x = 1\r", "⟨CR⟩", "\r"),
        ("x = '\x1b[31m'", "⟨U+001B⟩", "\x1b"),
    ],
)
def test_what_a_candidate_wrote_is_shown_and_never_obeyed(tmp_path: Path, text: str, shown: str, hidden: str) -> None:
    (file,) = diff(tmp_path, {"a.py": b"x = 0\n"}, {"a.py": f"{text}\n".encode()})
    page = render_to_string("review/_hunks.html", {"file": file})
    assert shown in page and hidden not in page.replace("\r\n", "")


def test_a_path_is_data_too(tmp_path: Path) -> None:
    odd = '<b onclick="x">\t.py'
    (file,) = diff(tmp_path, {"a.py": b""}, {"a.py": b"", odd: b"x = 1\n"})
    assert file.path == odd and file.change == "new"
    page = render_to_string("review/_hunks.html", {"file": file})
    assert "<b" not in page and "&lt;b onclick" in page and file.shown_path in page


def test_new_deleted_binary_and_unended_files_are_told(tmp_path: Path) -> None:
    before = {"gone.py": b"a\nb\n", "same.py": b"same\n", "raw.bin": b"\0\1"}
    after = {"new.py": b"no newline", "same.py": b"same\n", "raw.bin": b"\0\2", "empty.py": b""}
    files = {file.path: file for file in diff(tmp_path, before, after)}
    assert {path: file.change for path, file in files.items()} == {
        "gone.py": "deleted", "new.py": "new", "raw.bin": "changed", "empty.py": "new",
    }  # fmt: skip
    assert files["raw.bin"].binary and not files["raw.bin"].is_text and not files["empty.py"].is_text
    assert (files["gone.py"].removed, rows(files["gone.py"], "removed")) == (2, ["a", "b"])
    assert "no newline at the end" in html(files["new.py"])
    assert "binary file" in render_to_string("review/_hunks.html", {"file": files["raw.bin"]})


def test_bytes_that_are_no_utf_8_are_shown_as_bytes(tmp_path: Path) -> None:
    (file,) = diff(tmp_path, {"a.py": b"x = 1\n"}, {"a.py": b"x = '\xff'\n"})
    assert "⟨0xFF⟩" in html(file)
    html(file).encode()  # nothing is left that cannot be sent


def test_lines_that_look_like_headers_are_content(tmp_path: Path) -> None:
    (file,) = diff(tmp_path, {"a.txt": b"-- x\n"}, {"a.txt": b"++ y\n@@ -1 +1 @@\ndiff --git a/b b/b\n"})
    assert rows(file, "removed") == ["-- x"]
    assert rows(file, "added") == ["++ y", "@@ -1 +1 @@", "diff --git a/b b/b"]
    assert (file.added, file.removed) == (3, 1)


def test_a_huge_line_is_cut(tmp_path: Path) -> None:
    (file,) = diff(tmp_path, {"a.py": b"x = 1\n"}, {"a.py": b"x = '" + b"y" * 1_000_000 + b"'\n"})
    assert len(html(file)) < 4_000 and "more characters" in html(file)


def test_a_large_file_is_shown_on_demand(tmp_path: Path) -> None:
    after = "".join(f"x{n} = {n}\n" for n in range(LARGE + 1))
    (file,) = diff(tmp_path, {"a.py": b""}, {"a.py": after.encode()})
    page = render_to_string("review/_hunks.html", {"file": file, "url": "/d/0/"})
    assert f"{LARGE + 1} changed lines" in page and 'href="/d/0/?whole=1"' in page and "x7" not in page
    assert page.count("<tr") == 0
    assert render_to_string("review/_hunks.html", {"file": file, "whole": True}).count('class="added"') == LARGE + 1


def test_the_first_file_of_5000_lines_is_there_at_once() -> None:
    patch = "".join(big_file(number, 500) for number in range(10))
    ours, pygments = [], []
    for attempt in range(8):
        lines = patch.replace("self.layer", f"self.layer_{attempt}")  # not the cached one
        ours.append(rendering(lines))
        pygments.append(colouring(lines))
    shown = f"{1000 * min(ours):.0f} ms, Pygments alone {1000 * min(pygments):.0f}"
    assert min(ours) < BESIDE_PYGMENTS * min(pygments), shown


def big_file(number: int, lines: int) -> str:
    head = f"diff --git a/m{number}.py b/m{number}.py\n--- a/m{number}.py\n+++ b/m{number}.py\n"
    body = "".join(
        f"-    x_{n} = self.layer(tokens, width={n})  # [B, T, C]\n+    y_{n} = self.layer(tokens, width={n + 1})\n"
        for n in range(lines // 4)
    )
    context = "".join(f"     keep_{n} = torch.zeros({n}, dtype=torch.float32)\n" for n in range(lines // 2))
    return f"{head}@@ -1,{lines} +1,{lines} @@ def forward(self):\n{body}{context}"


def rendering(patch: str) -> float:
    """CPU seconds of the first file of a patch, from its text to its page."""
    start = time.process_time()
    render_to_string("review/_hunks.html", {"file": files_of(patch)[0]})
    return time.process_time() - start


def colouring(patch: str) -> float:
    """CPU seconds that Pygments alone needs for both sides of the first file."""
    first = patch.partition("\ndiff --git ")[0].split("\n")[4:]
    sides = ["\n".join(line[1:] for line in first if line[:1] in f" {sign}") for sign in "-+"]
    lexer = get_lexer_by_name("python", stripnl=False, ensurenl=False)
    start = time.process_time()
    for side in sides:
        for _ in lexer.get_tokens_unprocessed(side):
            pass
    return time.process_time() - start
