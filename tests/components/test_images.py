"""The images' definitions, and the script that builds them, without an engine."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from components.images import IMAGE, TRAINER_IMAGE
from mtrec.data.versioning import snapshot

DIGEST = re.compile(r"^[\w./:-]+@sha256:[0-9a-f]{64}$")
FILES = ("components/Dockerfile", "mlflow/Dockerfile")


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Instruction and argument, with continued lines joined and comments left out."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line.strip() for line in text.replace("\\\n", "").splitlines()]
    return [tuple(line.split(maxsplit=1)) for line in lines if line]  # type: ignore[misc]


def _stages(path: Path) -> dict[str, list[tuple[str, str]]]:
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, given in _instructions(path):
        if word == "FROM":
            current = stages.setdefault(given.split(" AS ")[-1], [])
        elif stages:
            current.append((word, given))
    return stages


@pytest.mark.parametrize("file", FILES)
def test_every_base_is_pinned_by_digest(file: str, repository: Path) -> None:
    instructions = _instructions(repository / file)
    (base,) = [given.removeprefix("BASE=") for word, given in instructions if word == "ARG" and "BASE=" in given]
    assert DIGEST.match(base), base
    known = {"${BASE}"}
    for given in (given for word, given in instructions if word == "FROM"):
        source, _, name = given.partition(" AS ")
        assert source in known, f"FROM {given}"
        known.add(name)


def test_both_images_stand_on_the_same_base(repository: Path) -> None:
    bases = {re.findall(r"^ARG BASE=(\S+)$", (repository / file).read_text(), re.M)[0] for file in FILES}
    assert len(bases) == 1


@pytest.mark.parametrize("file", FILES)
def test_what_runs_is_no_root_and_fetches_nothing_unchecked(file: str, repository: Path) -> None:
    stages = _stages(repository / file)
    final = ["slim", "cuda", "serving"] if len(stages) > 1 else list(stages)
    for name in final:
        users = [given for word, given in stages[name] if word == "USER"]
        assert users == ["10001:10001"], f"{name}: {users}"
        words = [word for word, _ in stages[name]]
        assert "RUN" not in words[words.index("USER") :], f"{name}: something is made after USER"
    for word, given in _instructions(repository / file):
        assert word != "ADD", f"ADD {given}: COPY takes what is here, and pip checks what it fetches"
        assert "latest" not in given
        assert not re.search(r"curl|wget", given), given


def test_every_install_keeps_to_the_tested_versions(repository: Path) -> None:
    for file in FILES:
        for word, given in _instructions(repository / file):
            for install in re.findall(r"pip install [^&]*", given) if word == "RUN" else []:
                assert "-c " in install or "--no-deps" in install, install


def test_no_pin_contradicts_the_tested_versions(repository: Path) -> None:
    """With `-c constraints.txt` pip refuses two versions of one package, and the image could not be built."""
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (repository / "constraints.txt").read_text(), re.M))
    for file in FILES:
        for name, version in re.findall(r"\b([\w-]+)(?:\[\w+\])?==([\w.]+)", (repository / file).read_text()):
            assert tested.get(name, version) == version, f"{file}: {name}=={version}"


def test_only_what_is_needed_is_sent_to_the_engine(repository: Path) -> None:
    lines = (repository / ".dockerignore").read_text().split("\n")
    assert "*" in lines
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert {"src", "components", "pipelines", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= kept
    assert all((repository / name).exists() for name in kept)
    assert not kept & {".mtrec", ".git", "data", "tests"}


# --- the script, with engines that only say what they were asked


Build = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(tmp_path: Path, repository: Path) -> Build:
    """Run the script with these engines; each is told by name, `docker:deaf` is a client without its daemon."""

    def call(*engines: str, **environment: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for tool in ("bash", "git", "sed", "head", "mktemp", "cat", "rm", "dirname", "env"):
            found = subprocess.run(["which", tool], capture_output=True, text=True, check=True).stdout.strip()
            (folder / tool).symlink_to(found)
        for engine in engines:
            name, _, mood = engine.partition(":")
            script = folder / name
            digest = "sha256:" + "a" * 64
            script.write_text(
                "#!/usr/bin/env bash\n"
                f"if [[ $1 == info || $1 == version ]]; then exit {int(mood == 'deaf')}; fi\n"
                f'echo "{name} $*"\n'
                f"if [[ $1 == build ]]; then exit {int(mood == 'failing')}; fi\n"
                f'if [[ $2 == --digestfile ]]; then echo {digest} > "$3"; fi\n'
                if name != "docker"
                else "#!/usr/bin/env bash\n"
                f"if [[ $1 == info ]]; then exit {int(mood == 'deaf')}; fi\n"
                f'if [[ $1 == inspect ]]; then echo "${{!#%:*}}@{digest}"; else echo "docker $*"; fi\n'
            )
            script.chmod(0o755)
        given = {key: value for key, value in os.environ.items() if key not in ("ENGINE", "TARGETS", "REGISTRY")}
        return subprocess.run(
            ["bash", str(repository / "components" / "build_images.sh")],
            env=given | {"PATH": str(folder)} | environment,
            capture_output=True,
            text=True,
        )

    return call


def _revision(repository: Path) -> str:
    done = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip()


def test_the_first_engine_that_answers_builds_every_image(build: Build, repository: Path) -> None:
    if not (revision := _revision(repository)):
        pytest.skip("no git checkout: the images carry its commit")
    done = build("docker:deaf", "podman", "buildah")
    assert done.returncode == 0, done.stderr
    asked = [line.split() for line in done.stdout.splitlines() if line.startswith("podman build")]
    assert [line[line.index("-t") + 1] for line in asked] == [IMAGE, TRAINER_IMAGE, "mtrec/mlflow:3.17.2"]
    stages = _stages(repository / "components" / "Dockerfile")
    for line in asked[:2]:
        assert line[line.index("--target") + 1] in stages
        assert any(word.startswith(f"REVISION={revision}") for word in line)
    for line in asked:
        assert any(word.startswith(f"org.opencontainers.image.revision={revision}") for word in line)


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_what_is_pushed_is_told_for_the_overlay(build: Build, repository: Path, engine: str) -> None:
    if not _revision(repository):
        pytest.skip("no git checkout: the images carry its commit")
    done = build(engine, TARGETS="slim mlflow", REGISTRY="registry.example.com:5000/team")
    assert done.returncode == 0, done.stderr
    assert f"{engine} push" in done.stdout
    shown = done.stdout[done.stdout.index("images:") :]
    for name in ("mtrec/python", "mtrec/mlflow"):
        assert (
            f"  - {{name: registry.invalid/{name}, newName: registry.example.com:5000/team/{name}, "
            f'digest: "sha256:{"a" * 64}"}}\n'
        ) in shown


@pytest.mark.parametrize(
    ("engines", "settings", "code", "said"),
    [
        (("docker:deaf",), {}, 3, "none of docker, podman and buildah answers"),
        ((), {}, 3, "none of docker, podman and buildah answers"),
        (("docker:deaf",), {"ENGINE": "docker"}, 3, "docker does not answer"),
        (("podman",), {"ENGINE": "rm"}, 2, "ENGINE=rm: choose docker, podman or buildah"),
        (("podman",), {"TARGETS": "big"}, 2, "TARGETS: big is none of slim, cuda, mlflow"),
        (("podman:failing",), {}, 1, f"{IMAGE} was not built, see above"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    build: Build, repository: Path, engines: tuple[str, ...], settings: dict[str, str], code: int, said: str
) -> None:
    if not _revision(repository):
        pytest.skip("no git checkout: the images carry its commit")
    done = build(*engines, **settings)
    assert done.returncode == code, done.stdout
    assert re.fullmatch(f"mtrec: {re.escape(said)}.*\n", done.stderr), done.stderr


def test_dvc_keeps_its_own_files_where_a_step_may_write(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself it takes /var/tmp, which a read-only root file system refuses."""
    (place,) = re.findall(r"DVC_SITE_CACHE_DIR=(\S+)", (repository / "components" / "Dockerfile").read_text())
    assert place.startswith("/tmp/")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    (tmp_path / "drop").mkdir()
    (tmp_path / "drop" / "items.csv").write_text("item_id\n1\n")
    snapshot(tmp_path / "drop", "shop", tmp_path / "dvc")
    assert (tmp_path / "site").is_dir()


def test_the_script_is_sound(repository: Path) -> None:
    script = repository / "components" / "build_images.sh"
    assert script.stat().st_mode & 0o100
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
