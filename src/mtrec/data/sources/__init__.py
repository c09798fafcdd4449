"""Sources: any input becomes the three tables of the contract. One file per source."""

from __future__ import annotations

from pathlib import Path

from mtrec.config import Scenario
from mtrec.data.contract import REQUIRED, Tables, is_contract
from mtrec.data.reading import require_columns
from mtrec.data.sources import amazon, movielens, movietweetings, simulated, tables
from mtrec.errors import DataError

_LAYOUTS = (
    "contract tables (users.parquet, items.parquet, interactions.parquet)",
    "MovieLens (ratings.csv + movies.csv, u.data + u.item, ratings.dat + movies.dat)",
    "MovieTweetings (ratings.dat + movies.dat or items.dat)",
    "Amazon reviews (meta_X.json[l][.gz] with the reviews X beside it)",
)


def read_source(scenario: Scenario, data: Path | None) -> Tables:
    """Read what the scenario names, or what the folder is recognised as.

    A folder that holds the three contract tables is read as it is, whatever the scenario says. The type
    `simulated` gives way to `data` when there is one.

    Args:
        scenario: its `source` says how to read.
        data: the folder of the input; None only for simulated data.

    Raises:
        DataError: no folder, no known layout (the message lists what was looked for), or broken files.
        ConfigError: wrong dials or mappings.
    """
    kind = recognise_source(scenario, data)
    if kind == "simulated":
        return simulated.simulate(simulated.Dials.parse(scenario.source.options))[0]
    assert data is not None
    if kind == "contract":
        return _read_contract(data)
    if kind == "tables":
        return tables.read(scenario.source, data, scenario.name)
    if kind.startswith("movielens"):
        return movielens.read(data)
    if kind.startswith("amazon"):
        return amazon.read(data)
    return movietweetings.read(data)


def recognise_source(scenario: Scenario, data: Path | None) -> str:
    """Name the source: simulated, contract, tables, movietweetings, `movielens …` or `amazon …` with its layout.

    Raises:
        DataError: as `read_source`.
    """
    declared = scenario.source.type
    if data is None:
        if declared == "simulated":
            return "simulated"
        raise DataError(f"scenario '{scenario.name}' needs data (source type '{declared}'): give --data FOLDER")
    _check_folder(data)
    if is_contract(data):
        return "contract"
    if declared in ("auto", "simulated"):
        return _recognise_folder(data, scenario.name)
    if declared == "movielens":
        return f"movielens {movielens.layout(data) or ''}".strip()
    if declared == "amazon":
        return f"amazon {amazon.layout(data) or ''}".strip()
    return declared


def _recognise_folder(folder: Path, scenario: str) -> str:
    found = _layout(folder)
    if found:
        return found
    inner = [child for child in sorted(folder.iterdir()) if child.is_dir() and _layout(child)]
    if inner:
        raise DataError(f"{folder}: the data lies one level down. Give --data {inner[0]}")
    names = sorted(path.name for path in folder.iterdir())
    holds = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise DataError(
        f"{folder}: no known layout; looked for {'; '.join(_LAYOUTS)}; the folder holds: {holds or 'nothing'}. "
        f"Map other files in the scenario '{scenario}' with source type 'tables'."
    )


def _layout(folder: Path) -> str | None:
    if is_contract(folder):
        return "contract"
    if films := movielens.layout(folder):
        return f"movielens {films}"
    if movietweetings.is_movietweetings(folder):
        return "movietweetings"
    if reviews := amazon.layout(folder):
        return f"amazon {reviews}"
    return None


def _check_folder(data: Path) -> None:
    if data.is_file():
        mend = "Unpack it and give the folder." if data.suffix in (".zip", ".gz", ".tar") else "Give its folder."
        raise DataError(f"{data}: --data takes a folder, this is a file. {mend}")
    if not data.is_dir():
        raise DataError(f"{data}: no such folder. Check --data.")


def _read_contract(folder: Path) -> Tables:
    found = Tables.read(folder)
    for name, required in REQUIRED.items():
        frame, path = getattr(found, name), folder / f"{name}.parquet"
        require_columns(frame, path, required, "The data contract needs it.")
        if name != "users" and frame.height == 0:
            raise DataError(f"{path}: the table has no rows")
    return found
