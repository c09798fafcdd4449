import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mtrec.data import download as module
from mtrec.data.download import PUBLIC_SETS, PublicSet, download
from mtrec.data.sources import movielens
from mtrec.errors import DataError

FILES = {
    "ml-tiny/ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n",
    "ml-tiny/movies.csv": "movieId,title,genres\n1,Toy Story (1995),Comedy\n",
    "ml-tiny/docs/README.txt": "terms\n",
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("cut.zip"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            return
        super().do_GET()


def make_zip(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a real server offers its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def offer(monkeypatch: pytest.MonkeyPatch, url: str, *names: str, md5: bool = True) -> None:
    """Let the data set `tiny` lie at `url`."""
    tiny = PublicSet(files={name: f"{url}/{name}" for name in names}, md5=md5, scenario="video", terms="none")
    monkeypatch.setitem(PUBLIC_SETS, "tiny", tiny)


def test_an_archive_with_the_right_md5_is_unpacked(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    content = make_zip(FILES)
    (folder / "ml-tiny.zip").write_bytes(content)
    (folder / "ml-tiny.zip.md5").write_text(f"MD5 (ml-tiny.zip) = {hashlib.md5(content).hexdigest()}\n")
    offer(monkeypatch, url, "ml-tiny.zip")
    heard: list[tuple[str, int, int | None]] = []
    path = download("tiny", tmp_path / "data", lambda *said: heard.append(said))
    assert path == tmp_path / "data" / "tiny"
    assert sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()) == [
        "docs/README.txt", "movies.csv", "ratings.csv",
    ]  # fmt: skip
    assert movielens.read(path).items["title"].to_list() == ["Toy Story"]
    assert heard[-1] == ("ml-tiny.zip", len(content), len(content))
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["tiny"], "nothing temporary is left"


def test_md5sum_style_and_capitals_are_understood(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    content = make_zip({"ratings.csv": "a\n", "movies.csv": "b\n"})
    (folder / "t.zip").write_bytes(content)
    (folder / "t.zip.md5").write_text(f"{hashlib.md5(content).hexdigest().upper()}  t.zip\n")
    offer(monkeypatch, url, "t.zip")
    assert sorted(p.name for p in download("tiny", tmp_path).iterdir()) == ["movies.csv", "ratings.csv"]


def test_plain_files_keep_their_local_names(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, url = served
    (folder / "data.csv").write_text("a,b\n1,2\n")
    monkeypatch.setitem(
        PUBLIC_SETS, "tiny", PublicSet(files={"log.csv": f"{url}/data.csv"}, scenario="x", terms="none")
    )
    assert (download("tiny", tmp_path) / "log.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("md5", "message"),
    [
        ("0" * 32 + "  t.zip\n", r"t\.zip: md5 is [0-9a-f]{32}, the publisher says 0{32}\. Fetch it again\."),
        ("moved\n", r"t\.zip\.md5: holds no md5 sum"),
        (None, r"t\.zip\.md5: cannot be fetched .*so the file cannot be checked"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_not_kept(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, md5: str | None, message: str
) -> None:
    folder, url = served
    (folder / "t.zip").write_bytes(make_zip(FILES))
    if md5 is not None:
        (folder / "t.zip.md5").write_text(md5)
    offer(monkeypatch, url, "t.zip")
    with pytest.raises(DataError, match=message):
        download("tiny", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize("damage", ["the packed bytes", "the encryption flag"])
def test_a_damaged_archive_is_one_clear_line(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder, url = served
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", "user,item\n" * 5000)
    content = bytearray(packed.getvalue())
    if damage == "the packed bytes":
        content[40] ^= 0xFF
    else:
        content[6] |= 1
        content[content.find(b"PK\x01\x02") + 8] |= 1
    (folder / "t.zip").write_bytes(content)
    offer(monkeypatch, url, "t.zip", md5=False)
    with pytest.raises(DataError, match=r"t\.zip: not a readable zip archive \(.*\)\. Fetch it again\."):
        download("tiny", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"]
)
def test_an_archive_cannot_write_outside(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder, url = served
    (folder / "t.zip").write_bytes(make_zip({"good.txt": "x", name: "evil"}))
    offer(monkeypatch, url, "t.zip", md5=False)
    with pytest.raises(DataError, match="the archive holds an unsafe path"):
        download("tiny", tmp_path / "data")
    assert not list(tmp_path.rglob("evil.txt"))
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.zip", r"absent\.zip: the publisher answered 404"),
        ("cut.zip", r"cut\.zip: broke off after 10 of 1,000 bytes"),
        ("page.zip", r"page\.zip: not a readable zip archive"),
    ],
)
def test_failed_transfers(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    folder, url = served
    (folder / "page.zip").write_text("<html>please log in</html>")
    offer(monkeypatch, url, name, md5=False)
    with pytest.raises(DataError, match=message):
        download("tiny", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_no_connection_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    offer(monkeypatch, f"http://127.0.0.1:{port}", "t.zip")
    with pytest.raises(DataError, match=r"t\.zip: cannot be reached \(.*\)\. Check the connection") as caught:
        download("tiny", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_there_stays(served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "mine.csv").write_text("precious")
    offer(monkeypatch, served[1], "t.zip")
    with pytest.raises(DataError, match=r"tiny: already there\. Remove it"):
        download("tiny", tmp_path)
    assert (tmp_path / "tiny" / "mine.csv").read_text() == "precious"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data set 'movielens': unknown; choose one of movielens-latest-small, "):
        download("movielens", tmp_path)


def test_the_table_of_public_sets(repository: Path) -> None:
    for name, public in PUBLIC_SETS.items():
        assert (repository / "scenarios" / f"{public.scenario}.yaml").is_file(), name
        assert public.terms.startswith("https://"), name
        assert all(url.startswith("https://") for url in public.files.values()), name
        assert public.md5 == name.startswith("movielens"), name
    assert PUBLIC_SETS["movielens-25m"].files == {
        "ml-25m.zip": "https://files.grouplens.org/datasets/movielens/ml-25m.zip"
    }
    assert module._is_md5("d472be332d4daa821edc399621853b57")
