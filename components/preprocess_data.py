"""Component: validated tables → a dataset split without leakage."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from components.images import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess_data(
    scenario: str,
    data_version: str,
    code_revision: str,
    tables: Input[Dataset],
    dataset: Output[Dataset],
) -> None:
    """Clean, split into training, validation and test, and encode with what the training rows know.

    Args:
        scenario: The whole scenario as JSON text.
        data_version: DVC's hash of the tables. Part of the cache key.
        code_revision: Revision of the code. Part of the cache key.
        tables: Validated contract tables.
        dataset: Folder with the encoded dataset and its card.
    """
    from mtrec.stages.execution import run_component

    result = run_component(
        "preprocess",
        inputs={"tables": tables.path},
        outputs={"dataset": dataset.path},
        scenario=scenario,
    )
    dataset.metadata["data_version"] = data_version
    for key in ("num_train", "num_valid", "num_test"):
        dataset.metadata[key] = result[key]
