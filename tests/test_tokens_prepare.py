"""Token data: what prepare reads, splits, encodes and refuses. No network: text is made here."""

from __future__ import annotations

import json
import lzma
import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.contract import load
from benchmarks.nanochat import prepare as names
from benchmarks.nanochat.prepare import PrepareError
from benchmarks.nanochat.tokens import encode, splits, texts
from benchmarks.nanochat.tokens import tokenizer as bpe
from benchmarks.nanochat.tokens.prepare import TokenFile, from_folder, needed_tokens, prepare, verify

VOCABULARY, NEEDED = 320, 800
WORDS = [
    "".join(letters) for seed in range(400) for letters in [random.Random(seed).choices("aeioulnrstdé", k=2 + seed % 7)]
]


def silent(line: str) -> None:
    pass


def uncounted(count: int) -> None:
    pass


def story(seed: int, size: int) -> str:
    drawn = random.Random(seed)
    lines = (" ".join(drawn.choices(WORDS, k=12)) + f" {drawn.randrange(10**6)}." for _ in range(size // 70))
    return "\n\n".join(lines) + "\n"


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Sixty files of 4 kB."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for number in range(60):
        (folder / f"page_{number:02d}.txt").write_text(story(number, 4000))
    return folder


def prepared(folder: Path, root: Path, lines: list[str] | None = None) -> tuple[Path, dict[str, TokenFile]]:
    out, manifest = prepare(
        root, from_folder(folder, root), VOCABULARY, NEEDED, silent if lines is None else lines.append
    )
    return out, manifest.files


def documents(folder: Path, name: str) -> list[bytes]:
    """What stands in a token file, as text."""
    tokens = np.fromfile(folder / name, dtype="<u2")
    known = bpe.token_texts(folder)
    return [b"".join(known[token] for token in part) for part in np.split(tokens, np.flatnonzero(tokens == 0))[1:]]


def contents(source: texts.Source) -> list[tuple[str, bytes]]:
    return [(document.text, document.content) for document in source.documents()]


# What files hold


def test_texts_end_at_separators_and_are_cut_at_blank_lines() -> None:
    stream = b"\x1e\none\n\x1e\ntwo a\n\ntwo b\r\n\r\ntwo c\n\x1e\n\x1e\nthree\n"
    found = list(texts.pieces(BytesIO(stream), limit=12))
    assert found == [
        (b"one\n", True), (b"two a\n\n", False), (b"two b\r\n\r\n", False), (b"two c\n", True), (b"three\n", True),
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [5, 64, 1000])
def test_no_byte_is_lost_and_no_character_is_cut(limit: int) -> None:
    text = (story(1, 3000) + "éçüß" * 200 + "\n" + story(2, 500)).encode()
    parts = [part for part, _ in texts.pieces(BytesIO(text), limit)]
    assert b"".join(parts) == text and max(map(len, parts)) <= limit + len(texts.SEPARATOR)
    assert all(part.decode() for part in parts)


def test_all_kinds_of_files_hold_the_same_text(tmp_path: Path) -> None:
    arrow, parquet = pyarrow, pyarrow.parquet
    rows = [story(seed, 700) for seed in range(3)]
    joined = "\x1e\n".join(rows).encode()
    (tmp_path / "a.txt").write_bytes(joined)
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(joined))
    parquet.write_table(arrow.table({"text": [rows[0], None, "", *rows[1:]]}), tmp_path / "c.parquet")
    (tmp_path / "notes.md").write_text("not read")
    (tmp_path / ".hidden.txt").write_text("not read")
    source = texts.of_folder(tmp_path)
    assert source.left_alone == ("notes.md",)
    found = contents(source)
    for name in ("a.txt", "b.txt.xz", "c.parquet"):
        assert [content for text, content in found if text.startswith(name)] == [row.encode() for row in rows]


def test_files_that_cannot_be_read_are_one_clear_line_each(tmp_path: Path) -> None:
    arrow, parquet = pyarrow, pyarrow.parquet
    parquet.write_table(arrow.table({"content": ["x"]}), tmp_path / "other.parquet")
    bad = {
        "latin.txt": (b"caf\xe9 au lait", "latin.txt is not UTF-8 text: look near b'caf.xe9"),
        "cut.txt.xz": (lzma.compress(b"text" * 1000)[:-20], "cut.txt.xz is no whole .xz file"),
        "none.txt.xz": (b"plain", "none.txt.xz is no whole .xz file"),
        "cut.parquet": ((tmp_path / "other.parquet").read_bytes()[:-9], "cut.parquet is no whole parquet file"),
        "other.parquet": ((tmp_path / "other.parquet").read_bytes(), "no column 'text', only content"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PrepareError, match=message) as refusal:
            contents(texts.of_files("bad", {name: tmp_path / name}))
        assert "\n" not in str(refusal.value)
    with pytest.raises(PrepareError, match="is not a folder"):
        texts.of_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError, match=r"no text in .*empty: name a folder of .txt, .txt.xz or .parquet files"):
        texts.of_folder(tmp_path / "empty")


# Who goes where


def planned(folder: Path, needed: int = 4000) -> tuple[splits.Plan, dict[str, list[str]]]:
    found = list(splits.read(texts.of_folder(folder).documents(), 1, uncounted))
    plan = splits.plan(found, needed)
    of: dict[str, list[str]] = {}
    for text in found:
        of.setdefault(plan.split_of(text.name, text.file) or "dropped", []).append(text.name)
    return plan, of


def test_whole_texts_fill_the_sets_and_near_copies_stay_in_train(pages: Path) -> None:
    copy = (pages / "page_07.txt").read_text()
    (pages / "page_07_again.txt").write_text(copy)
    (pages / "page_08_edited.txt").write_text((pages / "page_08.txt").read_text() + "One more line.\n")
    plan, of = planned(pages)
    assert plan.splits == ["train", "val_screen", "val_confirm", "val_confirm_2", "val_confirm_3", "val_confirm_4",
                           "val_final"]  # fmt: skip
    assert of["dropped"] == ["page_07_again.txt#0"]
    assert {"page_08.txt#0", "page_08_edited.txt#0"} <= set(of["train"])
    assert sorted(name for part in of.values() for name in part) == sorted(f"{p.name}#0" for p in pages.iterdir())
    assert all(of[split] for split in plan.splits) and len(of["train"]) > 30


def test_names_decide_where_there_are_any(tmp_path: Path) -> None:
    for name, seeds in {
        "train_00": range(40),
        "val_screen": (50, 51),
        "val_confirm_a": (52,),
        "val_confirm_b": (53,),
    }.items():
        (tmp_path / f"{name}.txt").write_text("\x1e\n".join(story(seed, 4000) for seed in seeds))
    plan, of = planned(tmp_path)
    assert of["val_screen"] == ["val_screen.txt#0", "val_screen.txt#1"]
    assert of["val_confirm"] == ["val_confirm_a.txt#0"] and of["val_confirm_2"] == ["val_confirm_b.txt#0"]
    assert of["val_final"] and all(name.startswith("train_00.txt#") for name in of["val_final"])  # no file is named so
    assert plan.splits == ["train", "val_screen", "val_confirm", "val_confirm_2", "val_final"]


def test_val_and_test_files_fill_all_sets_beside_train_files(tmp_path: Path) -> None:
    for name, seeds in {"train": range(30), "val": range(40, 50), "test": range(60, 70)}.items():
        (tmp_path / f"{name}.txt").write_text("\x1e\n".join(story(seed, 4000) for seed in seeds))
    plan, of = planned(tmp_path)
    assert of["train"] == [f"train.txt#{number}" for number in range(30)]
    held = [name for split in plan.splits[1:] for name in of[split]]
    assert held and all(name.startswith(("val.txt#", "test.txt#")) for name in held)
    (tmp_path / "notes.txt").write_text(story(80, 4000))
    with pytest.raises(PrepareError, match="notes.txt is named for no split, although train.txt is"):
        planned(tmp_path)


def test_text_that_cannot_be_split_is_refused(tmp_path: Path, pages: Path) -> None:
    (pages / "train.txt").write_text(story(100, 4000))
    with pytest.raises(PrepareError, match="page_00.txt is named for no split, although train.txt is"):
        planned(pages)
    for folder, files in {
        "few": {"one.txt": 1000}, "one": {"book.txt": 100_000}, "no_train": {"val_screen.txt": 100_000},
    }.items():  # fmt: skip
        (tmp_path / folder).mkdir()
        for name, size in files.items():
            (tmp_path / folder / name).write_text(story(1, size))
        with pytest.raises(PrepareError, match="Too little text to fill val_screen|No file is named train"):
            planned(tmp_path / folder)


def test_training_notes_are_not_taken_for_a_named_split(tmp_path: Path) -> None:
    assert splits.NAMED.match("train.txt") and splits.NAMED.match("train_00.txt") and splits.NAMED.match("train2.txt")
    assert not splits.NAMED.match("training.txt") and not splits.NAMED.match("val_screening.txt")


# Tokens


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.train((story(seed, 4000) for seed in range(20)), VOCABULARY).save(str(folder / bpe.TOKENIZER))
    return folder


def test_every_text_comes_back_byte_by_byte(tokenizer_folder: Path) -> None:
    known, tokenizer = bpe.token_texts(tokenizer_folder), bpe.load(tokenizer_folder)
    assert len(known) == VOCABULARY and known[bpe.BOS] == b"" and {bytes([byte]) for byte in range(256)} < set(known)
    odd = ["", "a <|bos|> b", "\x1e\x00\r\n \t é 漢字 🙂", "  12345 x's", story(30, 2000)]
    for text, tokens in zip(odd, bpe.encode(tokenizer, odd), strict=True):
        assert tokens[0] == bpe.BOS and (tokens[1:] != bpe.BOS).all()
        assert b"".join(known[token] for token in tokens) == text.encode()
    assert bpe.token_bytes(tokenizer_folder).tolist() == [len(text) for text in known]
    assert [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str("12345")] == ["12", "34", "5"]


def test_the_same_text_makes_the_same_tokenizer_and_too_little_is_refused(tokenizer_folder: Path) -> None:
    again = bpe.train((story(seed, 4000) for seed in range(20)), VOCABULARY)
    assert json.loads(again.to_str()) == json.loads((tokenizer_folder / bpe.TOKENIZER).read_text())
    with pytest.raises(PrepareError, match="Too little text: it makes .* of 5,000 tokens"):
        bpe.train(["a few words only"], 5000)
    with pytest.raises(PrepareError, match="257 to 65,536"):
        bpe.train(["a"], 100)


# The prepared folder


def test_prepared_tokens_are_the_text_and_the_manifest_says_so(pages: Path, tmp_path: Path) -> None:
    out, files = prepared(pages, tmp_path / "data")
    whole = {path.read_bytes() for path in pages.iterdir()}
    found = {name: documents(out, name) for name in files}
    assert sorted(text for part in found.values() for text in part) == sorted(whole)
    sizes = np.load(out / bpe.TOKEN_BYTES)
    assert sizes.dtype == np.uint16 and sizes.shape == (VOCABULARY,) and sizes[0] == 0
    for name, file in files.items():
        tokens = np.fromfile(out / name, dtype="<u2")
        assert (file.tokens, file.documents) == (len(tokens), len(found[name]) or (tokens == 0).sum())
        assert file.bytes == sizes[tokens].sum() == sum(map(len, found[name]))
        assert name == "train.bin" or file.tokens >= NEEDED
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*files, "manifest.json", "token_bytes.npy", "tokenizer.json"]
    )


def test_prepared_data_are_checked_and_not_made_twice(pages: Path, tmp_path: Path) -> None:
    out, _ = prepared(pages, tmp_path / "data")
    identity = verify(out).data_id
    lines: list[str] = []
    assert prepared(pages, tmp_path / "data", lines)[0] == out and "already prepared" in lines[0]
    with (out / "val_final.bin").open("r+b") as file:
        file.write(b"\1\1")
    with pytest.raises(PrepareError, match=r"val_final.bin is damaged.*Delete the folder.*prepare again"):
        prepared(pages, tmp_path / "data")
    assert (
        prepared(pages, tmp_path / "again")[0].name == out.name
        and verify(tmp_path / "again" / out.name).data_id == identity
    )


@pytest.mark.parametrize("stop_at", ["found elsewhere", "training a tokenizer"])
def test_an_interrupted_preparation_goes_on(pages: Path, tmp_path: Path, stop_at: str) -> None:
    whole, _ = prepared(pages, tmp_path / "whole")

    def stop(line: str) -> None:
        if line.startswith(stop_at):
            raise KeyboardInterrupt

    root = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt):
        prepare(root, from_folder(pages, root), VOCABULARY, NEEDED, stop)
    assert not [path for path in root.iterdir() if not path.name.startswith(".")]
    lines: list[str] = []
    out, _ = prepared(pages, root, lines)
    assert any(line.startswith("going on in") for line in lines) == (stop_at == "training a tokenizer")
    assert verify(out) == verify(whole)


def test_encoding_goes_on_behind_the_last_whole_batch(
    pages: Path, tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_BYTES", 20_000)
    source = texts.of_folder(pages)
    plan, tokenizer = planned(pages)[0], bpe.load(tokenizer_folder)

    def made(name: str, broken: int | None = None) -> Path:
        folder, read = tmp_path / name, [0]
        if not folder.is_dir():
            folder.mkdir()
            (folder / bpe.TOKENIZER).write_bytes((tokenizer_folder / bpe.TOKENIZER).read_bytes())

        def count(size: int) -> None:
            read[0] += 1
            if read[0] == broken:
                raise KeyboardInterrupt

        if broken:
            with pytest.raises(KeyboardInterrupt):
                encode.encode(source.documents(), plan, tokenizer, folder, count)
        else:
            encode.encode(source.documents(), plan, tokenizer, folder, count)
        return folder

    whole = made("whole")
    cut = made("cut", broken=31)
    assert 0 < json.loads((cut / encode.PROGRESS).read_text())["read"] < 31
    with (cut / "train.bin").open("ab") as file:
        file.write(b"half a token fi")
    made("cut")
    lost = made("lost", broken=31)
    (lost / encode.PROGRESS).write_text("{")
    made("lost")
    for name in plan.splits:
        file_name = names.file_name(name)
        assert (whole / file_name).read_bytes() == (cut / file_name).read_bytes() == (lost / file_name).read_bytes()


def test_a_set_that_is_too_small_to_score_is_refused(pages: Path, tmp_path: Path) -> None:
    for path in pages.iterdir():
        path.rename(pages / f"train_{path.name}")
    (pages / "val_screen.txt").write_text(story(100, 500))
    with pytest.raises(PrepareError, match=r"val_screen.bin of .* has .* tokens, scoring needs 800"):
        prepared(pages, tmp_path / "data")


def test_data_inside_the_text_are_refused(pages: Path) -> None:
    with pytest.raises(PrepareError, match="lies inside"):
        from_folder(pages, pages / "data")


def test_every_preset_of_the_same_data_can_be_scored() -> None:
    contract = load("nanochat")
    assert needed_tokens(contract, contract.preset("gpu-20s")) == 512 * 2049
    assert needed_tokens(contract, contract.preset("gpu-tiny")) == 64 * 65


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    yield
