"""Shards over HTTP from a real server on this machine: it cuts connections, lies about content, changes its files."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from benchmarks.contract import load
from benchmarks.data import data_folder, data_id
from benchmarks.nanochat import __main__ as cli
from benchmarks.nanochat.prepare import PrepareError
from benchmarks.nanochat.tokens import climbmix, fetch
from benchmarks.nanochat.tokens.fetch import Refused
from benchmarks.nanochat.tokens.prepare import Manifest
from tests.test_tokens_prepare import documents, story

CONTENT = bytes(range(256)) * 2000  # half a megabyte


def silent(line: str) -> None:
    pass


@dataclass
class Shelf:
    """What the server has and how it behaves; and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)  # after so many bytes the connection ends, time after time
    codes: list[int] = field(default_factory=list)
    spoiled: int = 0  # so many answers have a wrong byte
    ranges: bool = True
    says_size: bool = True
    linked: bool = True
    asked: list[str] = field(default_factory=list)  # the range of each request for content


class Server(BaseHTTPRequestHandler):
    shelf: Shelf
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        shelf, (_, kind, name) = self.shelf, self.path.split("/", 2)
        content = shelf.files.get(name)
        if content is None:
            self.answer(404, {})
        elif kind == "resolve":  # as the hub does: the sha256 of a large file stands in the redirect alone
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            self.answer(302, {"Location": f"/blob/{name}"} | ({"X-Linked-ETag": tag} if shelf.linked else {}))
        elif shelf.codes:
            self.answer(shelf.codes.pop(0), {})
        else:
            self.send(content)

    def send(self, content: bytes) -> None:
        shelf, tag = self.shelf, f'"{hashlib.md5(content).hexdigest()}"'
        wanted = self.headers.get("Range", "")
        shelf.asked.append(wanted)
        at = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if shelf.ranges else 0
        if self.headers.get("If-Range", tag) != tag:
            at = 0
        if at > len(content):
            self.answer(416, {})
            return
        body = content[at:]
        if shelf.spoiled:
            shelf.spoiled -= 1
            body = body[:-1] + bytes([body[-1] ^ 1])
        headers = {"ETag": tag, "Content-Length": str(len(body))}
        if at:
            headers["Content-Range"] = f"bytes {at}-{len(content) - 1}/{len(content)}"
        if not shelf.says_size:
            del headers["Content-Length"]
        cut = shelf.cuts.pop(0) if shelf.cuts else None
        self.answer(206 if at else 200, headers, body if cut is None else body[:cut], close=True)

    def answer(self, code: int, headers: dict[str, str], body: bytes = b"", close: bool = False) -> None:
        self.send_response(code)
        for key, value in ({"Content-Length": "0"} if not close else {}).items() | headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shelf() -> Shelf:
    return Shelf({"a.bin": CONTENT})


@pytest.fixture
def server(shelf: Shelf) -> Iterator[str]:
    handler = type("Handler", (Server,), {"shelf": shelf})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/resolve"
        http.shutdown()
        thread.join()


def get(server: str, folder: Path, name: str = "a.bin", lines: list[str] | None = None) -> bytes:
    progress = silent if lines is None else lines.append
    return fetch.fetch(f"{server}/{name}", folder / name, progress, pause=0.001).read_bytes()


def test_a_file_is_fetched_once_and_its_checksum_kept(server: str, shelf: Shelf, tmp_path: Path) -> None:
    assert get(server, tmp_path) == CONTENT and get(server, tmp_path) == CONTENT and shelf.asked == [""]
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"a.bin": hashlib.sha256(CONTENT).hexdigest()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "checksums.json"]


@pytest.mark.parametrize("linked", [True, False])
def test_a_cut_connection_goes_on_where_it_stopped(server: str, shelf: Shelf, tmp_path: Path, linked: bool) -> None:
    shelf.cuts, shelf.linked = [150_000, 150_000], linked
    assert get(server, tmp_path) == CONTENT
    assert shelf.asked == ["", "bytes=150000-", "bytes=300000-"]


def test_an_interrupted_fetch_goes_on_in_the_next_run(server: str, shelf: Shelf, tmp_path: Path) -> None:
    def leave(path: Path) -> str:
        raise KeyboardInterrupt

    shelf.cuts = [150_000]
    fetch._receive(f"{server}/a.bin", tmp_path / "a.bin", silent)  # as a killed process leaves it
    assert (tmp_path / "a.bin.part").stat().st_size == 150_000 and not (tmp_path / "a.bin").exists()
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch(f"{server}/a.bin", tmp_path / "a.bin", silent, leave)
    assert get(server, tmp_path) == CONTENT and shelf.asked[1] == "bytes=150000-"


def test_a_server_without_ranges_is_asked_from_the_begin(server: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.cuts, shelf.ranges = [150_000], False
    assert get(server, tmp_path) == CONTENT


def test_a_file_that_changes_in_between_is_never_mixed(server: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.cuts = [150_000]
    fetch._receive(f"{server}/a.bin", tmp_path / "a.bin", silent)
    shelf.files["a.bin"] = CONTENT[::-1]
    assert get(server, tmp_path) == CONTENT[::-1]


def test_damage_on_the_way_is_seen_and_mended_once(server: str, shelf: Shelf, tmp_path: Path) -> None:
    lines: list[str] = []
    shelf.spoiled = 1
    assert get(server, tmp_path, lines=lines) == CONTENT
    assert lines == ["a.bin came damaged (its sha256 is not the server's); fetching it again"]
    shelf.spoiled = 2
    (tmp_path / "a.bin").unlink()
    with pytest.raises(PrepareError, match="a.bin came damaged twice: its sha256 is not the server's. Try again later"):
        get(server, tmp_path)
    assert not (tmp_path / "a.bin").exists() and not (tmp_path / "a.bin.part").exists()


def test_damage_on_the_disk_is_seen_later(server: str, shelf: Shelf, tmp_path: Path) -> None:
    get(server, tmp_path)
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    lines: list[str] = []
    assert get(server, tmp_path, lines=lines) == CONTENT
    assert lines == ["a.bin is not what was fetched; fetching it again"]


def test_a_busy_server_is_asked_again_and_a_refusal_is_said(server: str, shelf: Shelf, tmp_path: Path) -> None:
    shelf.codes = [503, 429]
    assert get(server, tmp_path) == CONTENT
    with pytest.raises(Refused, match=r"/resolve/none.bin: the server says 404 Not Found. Check the address"):
        get(server, tmp_path, "none.bin")
    shelf.files["b.bin"], shelf.says_size = CONTENT, False
    with pytest.raises(Refused, match="does not say how large the file is"):
        get(server, tmp_path, "b.bin")


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        PrepareError, match=r"cannot be fetched: .*refused. Check the network, then prepare again"
    ) as said:
        get("http://127.0.0.1:9", tmp_path)
    assert "\n" not in str(said.value)


def test_a_full_disk_is_said_before_the_download(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SPARE_DISK", 1 << 60)
    with pytest.raises(PrepareError, match="a.bin needs 0 MiB, .* left. Make room, or fetch fewer with --shards"):
        get(server, tmp_path)


def test_shards_are_fetched_validation_among_them(server: str, shelf: Shelf, tmp_path: Path) -> None:
    good = climbmix.MAGIC + b"rows" + climbmix.MAGIC
    shelf.files = {
        climbmix.shard(number): good + bytes([number % 256]) * 9 + climbmix.MAGIC for number in (0, 1, climbmix.LAST)
    }
    lines: list[str] = []
    source = climbmix.read(tmp_path, 2, server, lines.append)
    assert list(source.files) == ["shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"]
    assert lines[-1] == "shard_00001.parquet is whole, 3 of 3"
    shelf.files[climbmix.shard(2)] = b"<html>sign in</html>"
    with pytest.raises(PrepareError, match="shard_00002.parquet came damaged twice: it is no parquet file"):
        climbmix.read(tmp_path, 3, server, silent)
    with pytest.raises(PrepareError, match="--shards must be 1 to 6542"):
        climbmix.read(tmp_path, 0, server, silent)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmarks.nanochat", "prepare", *arguments])
    return cli.main()


def test_the_command_makes_tokens_of_shards_and_of_a_folder(
    server: str, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrow, parquet = pyarrow, pyarrow.parquet
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "lab"))
    preset = load("nanochat").preset("gpu-tiny")
    rows = {0: [story(seed, 3000) for seed in range(20)], climbmix.LAST: [story(seed, 3000) for seed in range(50, 90)]}
    for number, texts in rows.items():
        parquet.write_table(arrow.table({"text": texts}), tmp_path / "shard")
        shelf.files[climbmix.shard(number)] = (tmp_path / "shard").read_bytes()
    shelf.cuts = [20_000]
    assert run(monkeypatch, "--preset", "gpu-tiny", "--shards", "1", "--url", server) == 0
    said = json.loads(capsys.readouterr().out)
    folder = data_folder("nanochat") / data_id("nanochat", preset)[:16]
    assert said["data_id"] == Manifest.read(folder).data_id and said["vocabulary"] == 512
    assert documents(folder, "train.bin") == [text.encode() for text in rows[0]]
    held = [text for name in said["tokens"] if name != "train.bin" for text in documents(folder, name)]
    assert set(held) <= {text.encode() for text in rows[climbmix.LAST]} and len(held) == len(set(held))

    (tmp_path / "texts").mkdir()
    for number in range(60):
        (tmp_path / "texts" / f"{number}.txt").write_text(story(number, 4000))
    assert run(monkeypatch, "--preset", "gpu-tiny", "--data", str(tmp_path / "texts")) == 0
    assert json.loads(capsys.readouterr().out)["data_id"] == data_id("nanochat", preset) != said["data_id"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "official", "--data", "."], "official is measured on ClimbMix alone"),
        (["--preset", "gpu-60s", "--data", "nowhere"], "nowhere is not a folder"),
        (["--preset", "gpu-60s", "--shards", "0"], "--shards must be 1 to 6542"),
        (["--preset", "official", "--url", "http://127.0.0.1:9"], "cannot be fetched"),
        (["--preset", "vast"], "has no preset 'vast'"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "lab"))
    monkeypatch.setattr(fetch, "ATTEMPTS", 1)
    assert run(monkeypatch, *arguments) == 2
    said = capsys.readouterr()
    assert words in said.err and len(said.err.strip().splitlines()) == 1 and not said.out
