"""Small instances of every strategy, for what holds for all of them."""

from torch import nn

from mtrec.config import Model
from mtrec.models.sharing.choice import make_sharing


def build(
    sharing: str, tasks: list[str], *, num_inputs: int = 6, num_outputs: int = 8, **settings: object
) -> nn.Module:
    config = Model.model_validate({"sharing": sharing, "experts": 3, "dropout": 0.0} | settings)
    return make_sharing(config, tasks, 6, 8)
