from typing import Any

from components.preprocess_data import preprocess_data
from mtrec.data.dataset import Dataset


def test_the_dataset_can_be_read_and_its_card_is_on_the_artifact(run_component: Any, made: Any) -> None:
    done = run_component(
        preprocess_data, {"tables": made.validate("validated")}, data_version="1.dir", code_revision="abc"
    )
    dataset = Dataset.read(done.path("dataset"))
    card = done.metadata("dataset")
    assert card["data_version"] == "1.dir"
    assert card["num_train"] + card["num_valid"] + card["num_test"] == dataset.interactions.height
    assert card["num_test"] > 0
