"""What people keep in a folder survives every command that is told to write there."""

from pathlib import Path

import pytest

from mtrec.errors import InputError
from pipelines import cli
from pipelines.targets import TABLES, checked_folder, new_file, tables_folder

SMALL_SHOP = [
    *("--set", "source.options.num_users=30"),
    *("--set", "source.options.num_items=24"),
    *("--set", "source.options.num_interactions=400"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    output = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), output.out, output.err


def _home(folder: Path) -> Path:
    """A folder that somebody lives in; names chosen among those that the commands use themselves."""
    for name in ("thesis.txt", "users.parquet", "photos/a.jpg", "tables/mine.txt", "quarantine/mine.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    return folder


@pytest.mark.parametrize("command", ["simulate", "ingest", "validate"])
@pytest.mark.parametrize("given", ["home", "link", ".", "..", "home/../home"])
def test_a_folder_that_people_use_survives(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, given: str
) -> None:
    home = _home(here / "home")
    (here / "link").symlink_to(home)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    if given in (".", ".."):
        monkeypatch.chdir(home if given == "." else home / "photos")
    code, output, error = _main(capsys, "data", command, "--out", given, *SMALL_SHOP)
    assert (code, output) == (2, "")
    assert error.startswith(f"mtrec: --out {given}: ")
    assert error.count("\n") == 1
    assert "give a new folder" in error
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_the_message_names_what_is_there(here: Path) -> None:
    for name in ("notes.md", "photos", "thesis.txt", "users.parquet", "zebra"):
        (here / "home" / name).mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        tables_folder(Path("home"), None)
    said = "--out home: holds other files (notes.md, photos, thesis.txt, …); give a new folder"
    assert str(caught.value) == said


def test_the_raw_data_is_never_the_target(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main(capsys, "data", "simulate", "--out", "in/shop", *SMALL_SHOP)[0] == 0
    before = {name: (here / "in" / "shop" / name).read_bytes() for name in TABLES}
    for command in ("ingest", "validate"):
        for out, where in (("in/shop", "is"), ("in", "lies above")):
            code, _, error = _main(capsys, "data", command, "--data", "in/shop", "--out", out)
            assert code == 2
            assert error == f"mtrec: --out {out}: {where} the raw data (--data in/shop); give a new folder\n"
    assert {name: (here / "in" / "shop" / name).read_bytes() for name in TABLES} == before


def test_an_earlier_result_is_replaced_and_a_link_is_followed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "disk").mkdir()
    (here / "shop").symlink_to(here / "disk")
    for seed in ("1", "2"):
        made = _main(
            capsys, "data", "simulate", "--out", "shop", *SMALL_SHOP, "--set", f"source.options.seed={seed}"
        )
        assert made[0] == 0, made[2]
        assert made[1].startswith("shop: 30 users")
    assert (here / "shop").is_symlink()
    assert sorted(path.name for path in (here / "disk").iterdir()) == sorted(TABLES)
    for _ in range(2):
        checked = _main(capsys, "data", "validate", "--data", "shop", "--out", "checked", *SMALL_SHOP)
        assert checked[0] == 0, checked[2]
    (here / "checked" / "data_docs" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(data_docs/thesis.txt\)"):
        checked_folder(Path("checked"), None)


def test_a_file_is_no_folder_and_a_folder_is_no_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "notes.txt").write_text("mine")
    (here / "folder").mkdir()
    for out in ("notes.txt", "notes.txt/deep/er"):
        for command in ("simulate", "ingest", "validate"):
            code, _, error = _main(capsys, "data", command, "--out", out, *SMALL_SHOP)
            assert code == 2
            assert error.startswith(f"mtrec: --out {out}: ")
            assert error.endswith("is a file; give a new folder\n")
    code, _, error = _main(capsys, "compile", "-o", "folder")
    assert code == 2
    example = "folder/training_pipeline.yaml"
    assert error == f"mtrec: --output folder: is a folder; give a file, e.g. --output {example}\n"
    assert (here / "notes.txt").read_text() == "mine"
    assert list((here / "folder").iterdir()) == []
    (here / "link.yaml").symlink_to(here / "folder" / "p.yaml")
    assert new_file(Path("link.yaml"), "--output", "p.yaml") == (here / "folder" / "p.yaml").resolve()


@pytest.mark.parametrize("to", ["home", ".", "notes.txt"])
def test_restore_and_download_leave_what_is_there(here: Path, capsys: pytest.CaptureFixture[str], to: str) -> None:
    _home(here / "home")
    (here / "notes.txt").write_text("mine")
    (here / "drop").mkdir()
    (here / "drop" / "a.csv").write_text("a\n1\n")
    version = _main(capsys, "data", "snapshot", "drop", "--name", "drop")[1].split()[0]
    code, _, error = _main(capsys, "data", "restore", version, "--to", to)
    assert code == 2
    assert error.count("\n") == 1
    assert (here / "home" / "thesis.txt").read_text() == "mine"
    (here / "sets").mkdir()
    (here / "sets" / "online-retail").write_text("mine")
    code, _, error = _main(capsys, "data", "download", "online-retail", "--to", "sets")
    assert code == 2
    assert error == "mtrec: --to sets/online-retail: is a file; give a new folder\n"


def test_a_file_in_place_of_the_state_folder_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / ".mtrec").write_text("mine")
    for arguments in (["run"], ["data", "snapshot", "drop", "--name", "drop"]):
        (here / "drop").mkdir(exist_ok=True)
        (here / "drop" / "a.csv").write_text("a\n")
        code, _, error = _main(capsys, *arguments)
        assert code == 2
        assert error.startswith(f"mtrec: cannot write {here}/.mtrec")
        assert "a file is where a folder has to be" in error
        assert error.count("\n") == 1
    assert (here / ".mtrec").read_text() == "mine"


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys, where nothing can be made")
def test_a_path_that_the_system_refuses_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["data", "simulate", "--out", "/sys/shop", *SMALL_SHOP], ["compile", "-o", "/sys/p.yaml"]):
        code, _, error = _main(capsys, *arguments)
        assert code == 2
        assert error.startswith("mtrec: cannot write /sys/")
        assert ".tmp" not in error
        assert error.count("\n") == 1
