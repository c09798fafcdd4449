"""docs/operations.md names what exists: commands, options, targets, files, secrets."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mtrec.data.dvc_remote import open_remote
from mtrec.data.versioning import push, restore, snapshot
from mtrec.errors import RunError, Unavailable
from pipelines.cli import app
from pipelines.cluster_config import load_cluster
from tests.s3 import Store, s3  # noqa: F401


@pytest.fixture(scope="module")
def guide(repository: Path) -> str:
    return (repository / "docs" / "operations.md").read_text(encoding="utf-8")


def _commands(guide: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", guide, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    said = [line for line in lines if line.strip()]
    said += re.findall(r"`(mtrec (?:models|data) [^`]*)`", guide)
    parts: list[list[str]] = []
    for line in said:
        parts.append([])
        for word in shlex.split(line, comments=True):
            if word in ("|", "&&", "&"):
                parts.append([])
            else:
                parts[-1].append(word)
    return list(filter(None, parts))


def test_every_mtrec_command_and_its_options_exist(guide: str) -> None:
    said = [words[words.index("--") + 1 :] if "--" in words else words for words in _commands(guide)]  # in a pod
    named = [words[1:] for words in said if words[0] == "mtrec"]
    assert len(named) > 8
    for words in named:
        left = list(words)
        command: Any = typer.main.get_command(app)
        while left and left[0] in getattr(command, "commands", {}):
            command = command.commands[left.pop(0)]
        assert not hasattr(command, "commands"), f"no such command: mtrec {' '.join(words)}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in left if word.startswith("--")} <= known, words


def test_make_targets_and_files_exist(guide: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for words in _commands(guide):
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE), words
        for word in words:
            if word.startswith("k8s/"):
                assert (repository / word).exists(), word
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", guide):
        if "://" in target:
            continue
        assert (repository / "docs" / target).exists(), target


def test_links_within_pages_lead_to_a_heading(guide: str, repository: Path) -> None:
    for file, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", guide):
        page = guide if not file else (repository / "docs" / file).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w -]", "", line).strip() for line in re.findall(r"^#+ (.*)$", page, flags=re.M)]
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, anchor


def test_the_secrets_are_made_with_the_keys_that_the_manifests_want(guide: str, repository: Path) -> None:
    made = {
        f"{words[2]}/{words[6]}": {re.split("[=]", w)[1] for w in words[7:] if w.startswith("--from-")}
        for words in _commands(guide)
        if words[0] == "kubectl" and words[3:6] == ["create", "secret", "generic"]
    }
    rows = re.findall(r"^\| `(m\w+/[\w-]+)` \| ([\w, -]+) \|", (repository / "k8s" / "README.md").read_text(), re.M)
    wanted = {name: set(keys.split(", ")) for name, keys in rows}
    assert made == wanted


def test_sizes_are_those_of_the_manifests(guide: str, repository: Path) -> None:
    server = (repository / "k8s" / "base" / "mlflow" / "server.yaml").read_text()
    assert "requests: {cpu: 250m, memory: 1Gi" in server
    assert 'limits: {cpu: "2", memory: 2Gi' in server
    assert "| MLflow, each of 2 | 0.25, at most 2 | 1, at most 2 GiB |" in guide
    file = repository / "k8s" / "cluster" / "cluster.yaml"
    node = json.loads(load_cluster(file, train_job={"nodes": 2, "runtime": "mtrec-torch"}).trainer())
    runtime = (repository / "k8s" / "base" / "runs" / "trainingruntime.yaml").read_text()
    (disk,) = re.findall(
        r"limits: {.*ephemeral-storage: (\d+)Gi}", runtime
    )  # the limits that a TrainJob leaves alone
    asked = f"| {node['cpu']} | {node['memory'].removesuffix('Gi')} GiB | {disk} GiB, of the node |"
    assert f"| a node of a distributed training, with `k8s/cluster/cluster.yaml` {asked}" in guide


def _in_the_pod(guide: str, start: str, folder: Path) -> None:
    """Run a line of the guide here, with a folder for the volume and another for one's own machine."""
    shell = "kubectl -n mtrec exec (?:-i )?mtrec-shell -- "
    (found,) = re.findall(rf"^(.*){shell}({start}.*)$", guide, flags=re.MULTILINE)
    line = "".join(found)
    here = folder / "here"
    here.mkdir(exist_ok=True)
    subprocess.run(line.replace("/mtrec", str(folder / "mtrec")), shell=True, check=True, cwd=here)


def test_data_versions_come_back_from_the_backup(guide: str, tmp_path: Path) -> None:
    volume = tmp_path / "mtrec"
    tables = volume / "tables"
    tables.mkdir(parents=True)
    (tables / "items.csv").write_text("item_id,title\n1,chair\n")
    version = push(tables, volume / "dvc")  # as a run's ingest does
    (volume / "dvc" / "data").mkdir()
    (volume / "dvc" / "data" / "forgotten.key").write_bytes(b"k" * 32)
    both = guide.replace(" -cf - dvc ", " -cf - dvc dvc-remote ")
    assert both != guide, "the guide says to name the remote's folder too"
    _in_the_pod(both, "tar .* -cf", tmp_path)
    _in_the_pod(both, "cat .*forgotten.key", tmp_path)
    kept = tmp_path / "here" / "forgotten.key"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"k" * 32, 0o600)
    for folder in ("dvc", "dvc-remote"):
        shutil.rmtree(volume / folder)
    _in_the_pod(both, "tar .* -xf", tmp_path)
    assert not (volume / "dvc" / "data" / "forgotten.key").exists(), "the key is kept apart from the list"
    _in_the_pod(both, "sh -c .*forgotten.key", tmp_path)
    assert (volume / "dvc" / "data" / "forgotten.key").read_bytes() == b"k" * 32
    restore(version, tmp_path / "restored", volume / "dvc")
    assert (tmp_path / "restored" / "items.csv").read_text() == "item_id,title\n1,chair\n"
    (volume / "dvc" / "data" / "forgotten.key").unlink()
    _in_the_pod(both, "cat .*forgotten.key", tmp_path)
    assert not kept.exists(), "nobody was forgotten"
    _in_the_pod(both, "sh -c .*forgotten.key", tmp_path)
    assert not (volume / "dvc" / "data" / "forgotten.key").exists()


def test_the_file_that_makes_a_bucket_of_the_remote_takes_data_versions(
    guide: str,
    tmp_path: Path,
    s3: Store,  # noqa: F811
) -> None:
    """As the guide has it, with the line for a bucket that is not Amazon's; a folder's files are the same ones."""
    (config,) = re.findall(r"```ini\n(.*?)```", guide, flags=re.DOTALL)
    assert "a line `endpointurl = https://…` goes below `url`" in guide
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "dvc-config").write_text(f"{config.rstrip()}\n    endpointurl = {s3.url}\n")
    _in_the_pod(guide, "sh -c .*dvc-config", tmp_path)
    repository = tmp_path / "mtrec" / "dvc"
    assert open_remote(repository).path == "my-dvc-bucket/dvc/files/md5"
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "items.csv").write_text("item_id,title\n1,chair\n")
    with pytest.raises(RunError, match="The specified bucket does not exist"):
        push(tmp_path / "drop", repository)  # there is no bucket
    away = (repository / ".dvc" / "config").read_text().replace(s3.url, "http://127.0.0.1:9")
    shutil.copytree(repository, tmp_path / "away")
    (tmp_path / "away" / ".dvc" / "config").write_text(away)
    with pytest.raises(Unavailable, match=r"DVC remote of .*/away: Could not connect to the endpoint URL"):
        push(tmp_path / "drop", tmp_path / "away")
    s3.bucket("my-dvc-bucket")
    version = snapshot(tmp_path / "drop", "my-shop", repository).version
    push(tmp_path / "drop", tmp_path / "other")
    folder = tmp_path / "other-remote"
    files = sorted(f"dvc/{path.relative_to(folder)}" for path in (folder / "files").rglob("*") if path.is_file())
    assert sorted(s3.keys("my-dvc-bucket")) == files
    restore(version[:6], tmp_path / "restored", repository)
    assert (tmp_path / "restored" / "items.csv").read_text() == "item_id,title\n1,chair\n"
