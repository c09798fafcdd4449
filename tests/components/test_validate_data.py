import json
from typing import Any

from components.validate_data import validate_data
from mtrec.data.contract import Tables


def test_good_rows_are_typed_and_everything_is_counted(run_component: Any, made: Any) -> None:
    done = run_component(validate_data, {"tables": made.tables}, data_version="1.dir", code_revision="abc")
    tables = Tables.read(done.path("validated"))
    assert str(tables.interactions.schema["timestamp"]).startswith("Datetime")
    summary = json.loads(done.path("summary").read_text())
    assert summary["success"]
    metrics = json.loads(done.path("metrics").read_text())
    assert metrics == done.metadata("metrics")
    for name, rows in tables.num_rows.items():
        assert metrics[f"{name}.good"] == rows
        assert metrics[f"{name}.input"] == rows + metrics[f"{name}.quarantined"]
    assert done.path("data_docs").joinpath("index.html").is_file()
    assert {path.name for path in done.path("quarantine").iterdir()} >= {
        f"{name}.parquet" for name in tables.num_rows
    }
    assert done.metadata("validated")["data_version"] == "1.dir"
