"""The data of the nanochat benchmark: what prepare writes, trusts and refuses. No network: text is made here."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from benchmarks.nanochat import overlap
from benchmarks.nanochat import prepare as nanochat
from benchmarks.nanochat.prepare import Manifest

NAMES = ["train.bin", "val_screen.bin", "val_confirm.bin", "val_final.bin"]


def silent(line: str) -> None:
    pass


def write_pages(folder: Path, pages: int = 150, size: int = 12_000) -> Path:
    words = [f"word{number}" for number in range(500)]
    for page in range(pages):
        path = folder / f"part{page % 3}" / f"page{page:03d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(random.Random(page).choices(words, k=size // 8)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pages(tmp_path_factory.mktemp("text") / "pages", pages=200)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "data" / "nanochat"


@pytest.fixture(scope="module")
def made(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """The pages, prepared once."""
    folder = tmp_path_factory.mktemp("made") / "nanochat"
    return folder, nanochat.prepare(folder, pages, silent)


@pytest.fixture
def prepared(made: tuple[Path, Manifest], out: Path) -> Manifest:
    """A copy of them in `out`, for a test to damage."""
    shutil.copytree(made[0], out)
    return made[1]


def test_every_text_is_in_exactly_one_set_whole(pages: Path, out: Path) -> None:
    manifest = nanochat.prepare(out, pages, silent)

    placed = [name for part in manifest.files.values() for name in part.texts]
    assert sorted(placed) == sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.txt"))
    for name, part in manifest.files.items():
        texts = (out / name).read_bytes().split(nanochat.SEPARATOR)
        assert texts == [(pages / path).read_bytes() for path in part.texts]
    for name in NAMES[1:]:
        assert manifest.files[name].bytes >= nanochat.MINIMUM_VALIDATION_BYTES
    parts = [f"val_confirm_{number}.bin" for number in (2, 3, 4)]
    assert sorted(path.name for path in out.iterdir()) == sorted([*NAMES, *parts, "manifest.json"])
    assert [path.name for path in out.parent.iterdir()] == ["nanochat"]  # no temporary folder stays


def test_the_split_depends_on_the_text_alone(pages: Path, made: tuple[Path, Manifest], tmp_path: Path) -> None:
    copy = shutil.copytree(pages, tmp_path / "another name")
    first = made[1]
    second = nanochat.prepare(tmp_path / "second", copy, silent)
    assert first.data_id == second.data_id

    changed = copy / "part0" / "page000.txt"
    changed.write_text(changed.read_text() + " more", encoding="utf-8")
    third = nanochat.prepare(tmp_path / "third", copy, silent)
    assert third.data_id != first.data_id


def test_a_second_prepare_checks_and_writes_nothing(pages: Path, out: Path, prepared: Manifest) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    lines: list[str] = []
    assert nanochat.prepare(out, pages, lines.append) == prepared
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert "already prepared" in lines[0]


def test_a_prepared_folder_is_refused_for_other_text(prepared: Manifest, out: Path, tmp_path: Path) -> None:
    with pytest.raises(nanochat.PrepareError, match="prepared from other text"):
        nanochat.prepare(out, None, silent)
    other = write_pages(tmp_path / "other", pages=3)
    with pytest.raises(nanochat.PrepareError, match="prepared from other text"):
        nanochat.prepare(out, other, silent)


@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_is_one_error_that_names_it(pages: Path, out: Path, prepared: Manifest, name: str) -> None:
    content = bytearray((out / name).read_bytes())
    content[1000] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(nanochat.PrepareError, match=rf"{name} is damaged.*Delete the folder.*prepare again"):
        nanochat.prepare(out, pages, silent)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 3}',
        '{"format": 2, "files": {}}',
        '{"format": 1, "files": {"train.bin": 3}}',
    ],
)
def test_an_unreadable_manifest_is_one_error(prepared: Manifest, out: Path, manifest: str) -> None:
    (out / "manifest.json").write_text(manifest)
    with pytest.raises(nanochat.PrepareError, match="cannot be read"):
        nanochat.verify(out)


def test_a_forged_data_id_is_found(prepared: Manifest, out: Path) -> None:
    row = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**row, "data_id": "0" * 64}))
    with pytest.raises(nanochat.PrepareError, match="data id does not fit"):
        nanochat.verify(out)


def test_missing_pieces_are_named(pages: Path, out: Path, prepared: Manifest) -> None:
    (out / "val_final.bin").unlink()
    with pytest.raises(nanochat.PrepareError, match="val_final.bin is missing"):
        nanochat.prepare(out, pages, silent)
    (out / "manifest.json").unlink()
    with pytest.raises(nanochat.PrepareError, match="has no manifest.json"):
        nanochat.prepare(out, pages, silent)


def test_what_a_killed_prepare_left_does_not_stand_in_the_way(pages: Path, out: Path) -> None:
    old, young = (out.parent / f".nanochat.{pid}.partial" for pid in (1, 2))
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "train.bin").write_bytes(b"half")
    os.utime(old, (time.time() - 2 * nanochat.STALE_PARTIAL_AGE,) * 2)
    out.mkdir()  # an empty folder is welcome

    nanochat.prepare(out, pages, silent)

    assert nanochat.verify(out)
    assert not old.exists()
    assert young.exists()  # it may belong to a process at work


def test_copies_of_a_file_are_dropped(pages: Path, made: tuple[Path, Manifest], out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pages, tmp_path / "with copies")
    shutil.copy(folder / "part0" / "page000.txt", folder / "zz copy.txt")
    (folder / "empty.txt").touch()
    (folder / ".hidden").write_bytes(b"\xff\xfe")
    manifest = nanochat.prepare(out, folder, silent)
    assert manifest.duplicates == ["zz copy.txt"]
    assert manifest.data_id == made[1].data_id


def test_files_that_are_not_utf8_are_named_in_one_error(pages: Path, out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pages, tmp_path / "mixed")
    for number in range(12):
        (folder / f"image{number:02d}.png").write_bytes(b"\x89PNG\xff")
    with pytest.raises(nanochat.PrepareError, match=r"image00.png, .*image09.png and 2 more"):
        nanochat.prepare(out, folder, silent)
    assert not out.exists()


def test_unusable_text_and_unusable_places_are_refused(out: Path, tmp_path: Path) -> None:
    few = write_pages(tmp_path / "few", pages=5)
    with pytest.raises(nanochat.PrepareError, match="Too little text"):
        nanochat.prepare(out, few, silent)
    long = write_pages(tmp_path / "long", pages=3, size=1_000_000)
    with pytest.raises(nanochat.PrepareError, match="Cut long files"):
        nanochat.prepare(out, long, silent)
    with pytest.raises(nanochat.PrepareError, match="is not a folder"):
        nanochat.prepare(out, tmp_path / "nowhere", silent)
    with pytest.raises(nanochat.PrepareError, match="lies inside"):
        nanochat.prepare(few / "out", few, silent)
    (tmp_path / "file").touch()
    with pytest.raises(nanochat.PrepareError, match="is a file"):
        nanochat.prepare(tmp_path / "file", long, silent)


def test_a_download_that_fails_says_what_to_do(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip itself runs and finds nothing
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(nanochat.PrepareError, match="--data FOLDER"):
        nanochat.prepare(out, None, silent)
    assert not out.exists()


def test_a_small_text_has_fewer_parts_to_confirm_on(tmp_path: Path) -> None:
    few = write_pages(tmp_path / "pages", pages=150)
    manifest = nanochat.prepare(tmp_path / "few", few, silent)
    assert [name for name in manifest.files if "confirm" in name] == ["val_confirm.bin"]


def test_a_near_copy_never_leaves_train_and_the_overlap_is_reported(
    pages: Path, made: tuple[Path, Manifest], tmp_path: Path
) -> None:
    """Every validation page gets a twin that differs in one word: by bytes they are no copies."""
    folder = shutil.copytree(pages, tmp_path / "twins")
    first = made[1]
    assert set(first.overlap.values()) == {0.0}
    held_out = {path for name, part in first.files.items() if name != "train.bin" for path in part.texts}
    for path in sorted(held_out)[::4]:
        words = (folder / path).read_text(encoding="utf-8").split()
        words[len(words) // 2] = "another"
        (folder / f"{path}.twin.txt").write_text(" ".join(words), encoding="utf-8")
    lines: list[str] = []
    second = nanochat.prepare(tmp_path / "second", folder, lines.append)
    twins = {path for path in folder.rglob("*.twin.txt")}
    wanted = {path.relative_to(folder).as_posix() for path in twins}
    wanted |= {path.removesuffix(".twin.txt") for path in wanted}
    assert len(wanted) > 20 and wanted <= set(second.files["train.bin"].texts)
    assert all(share < 0.001 for name, share in second.overlap.items() if name != "train.bin")
    assert any("of val_confirm.bin" in line and "found elsewhere" in line for line in lines)


def test_what_two_files_share_is_counted_by_windows() -> None:
    random_ = random.Random(3)
    mine, other, both = (random_.randbytes(size) for size in (3000, 3000, 1000 + overlap.WINDOW - 1))
    shares = overlap.share_elsewhere([overlap.windows(mine + both), overlap.windows(both + other)])
    assert shares == pytest.approx([1000 / 4000, 1000 / 4000], abs=1e-9)
    assert overlap.share_elsewhere([overlap.windows(b"short"), overlap.windows(mine)]) == [0.0, 0.0]
    assert overlap.share_elsewhere([]) == []
    sampled = overlap.share_elsewhere([overlap.windows(mine + both, 5), overlap.windows(both + other, 5)])
    assert sampled == pytest.approx([0.25, 0.25], abs=0.05)


def test_data_of_an_older_format_keep_working_and_are_made_anew_without_a_download(
    pages: Path, made: tuple[Path, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One val_confirm, no figure of overlap: what the first format had. Its texts are in its own files."""
    folder, whole = made
    parts = {"train": [], "val_screen": [], "val_confirm": [], "val_final": []}  # type: dict[str, list[nanochat.Text]]
    for name, part in whole.files.items():
        contents = (folder / name).read_bytes().split(nanochat.SEPARATOR)
        into = name.removesuffix(".bin").rstrip("_234")
        parts[into] += [nanochat.Text(path, text) for path, text in zip(part.texts, contents, strict=True)]
    monkeypatch.setattr(nanochat, "MANIFEST_FORMAT", 1)
    source = nanochat.read_folder(pages)
    old = nanochat.write(tmp_path / "old", source, parts, [], {})
    row = json.loads((tmp_path / "old" / "manifest.json").read_text())
    del row["overlap"]
    (tmp_path / "old" / "manifest.json").write_text(json.dumps(row))
    monkeypatch.undo()
    assert nanochat.verify(tmp_path / "old").data_id == old.data_id
    monkeypatch.setattr(nanochat, "DJANGO_SHA256", source.sha256)  # so that no text would be fetched but the pinned one
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    again = nanochat.prepare(tmp_path / "new", None, silent, older=tmp_path / "old")
    assert again.data_id == whole.data_id != old.data_id


def test_the_default_text_lies_in_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tokens at tiny size; where it is there, nothing is fetched."""
    folder = tmp_path / "docs"
    (folder / "ref").mkdir(parents=True)
    (folder / "ref" / "models.txt").write_text("a field\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    assert nanochat.docs_folder(folder, silent) == folder
    with pytest.raises(nanochat.PrepareError, match="pip could not download"):
        nanochat.docs_folder(tmp_path / "other", silent)
    assert not (tmp_path / "other").exists()
