"""The end of a log is shown as text, whatever a candidate wrote into it."""

from pathlib import Path

from research.logtext import LINE_CHARACTERS, TAIL_LINES, clean, tail


def test_terminal_codes_go_and_control_characters_show() -> None:
    assert clean(b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07bell\x07 nul\x00 \x7f") == ["red bell␇ nul␀ ␡"]


def test_characters_that_turn_the_text_around_are_named() -> None:
    assert clean("safe\u202egnp.exe".encode()) == ["safe<U+202E>gnp.exe"]


def test_a_progress_bar_shows_its_last_state() -> None:
    assert clean(b"1 %\r50 %\r100 %\r\ndone\n") == ["100 %", "done"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert clean(b"\xff\xfe ok") == ["\ufffd\ufffd ok"]


def test_a_line_of_a_megabyte_is_cut_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"first\n" + b"x" * 1_000_000)
    lines, more = tail(log)
    assert more and len(lines) == 1
    assert lines[0].startswith("… cut x") and len(lines[0]) < LINE_CHARACTERS + 60
    assert lines[0].endswith("characters")


def test_only_the_last_lines_are_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(5_000)))
    lines, more = tail(log)
    assert more and len(lines) == TAIL_LINES and lines[-1] == "line 4999"


def test_escape_sequences_without_an_end_take_no_time() -> None:
    assert clean(b"\x1b]" * 200_000)[0] == ""
    assert clean(b"\x1b[" + b"1" * 1_000)[0].startswith("\N{SYMBOL FOR ESCAPE}[111")
