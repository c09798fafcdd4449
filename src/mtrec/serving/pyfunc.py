"""The code of a registered model (MLflow models-from-code): rows in, recommendations out.

MLflow stores this file beside the model folder and runs it when `mlflow.pyfunc.load_model` loads the model; nothing
is pickled. It imports mlflow because MLflow demands it, and it is the only file outside mtrec.tracking that does.
The types below are the model's signature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel

_NUM_ITEMS = 10


class Request(BaseModel):
    """Whom to recommend to. With neither field the answer is what a new user gets."""

    user_id: str | None = None
    history: list[str] | None = None
    """Item ids that the user took, oldest first; they replace the history that the model remembers."""
    num_items: int | None = None
    """How many items at most; 10 when absent."""


class Recommendation(BaseModel):
    """Items for one request, best first."""

    item_ids: list[str]
    scores: list[float]


class Recommender(PythonModel):
    """Delegates to `mtrec.serving.predictor.Predictor`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model folder."""
        from mtrec.serving.predictor import Predictor

        self._predictor = Predictor.load(Path(context.artifacts["model"]))

    def predict(  # type: ignore[override]  # MLflow takes the signature from these hints
        self, model_input: list[Request], params: dict[str, Any] | None = None
    ) -> list[Recommendation]:
        """Recommend for each request."""
        answers = []
        for request in model_input:
            ranked = self._predictor.recommend(
                user_id=request.user_id,
                history=request.history,
                num_items=_NUM_ITEMS if request.num_items is None else request.num_items,
            )
            answers.append(
                Recommendation(item_ids=[item for item, _ in ranked], scores=[float(score) for _, score in ranked])
            )
        return answers


set_model(Recommender())
