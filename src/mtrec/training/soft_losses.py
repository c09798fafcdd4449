"""How far a student's answers are from its teacher's, by type of task.

Shapes: X examples, V values or classes, N items.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mtrec.config import Binary, MultiLabel, Profile, Regression, Task


def soft_loss(task: Task, mine: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """A scalar, 0 where both give the same raw outputs.

    Numbers: squared error. Yes or no, and each label of several: Kullback–Leibler divergence of the softened
    probability from the teacher's; classes and items: of the softened softmax. Divergences are multiplied by T², so
    that their gradients keep their size (Hinton et al. 2015, arXiv:1503.02531). Profiles: 1 − cosine.

    Args:
        task: says what the outputs mean.
        mine: the student's raw outputs, (X,), (X, V) or (X, N).
        theirs: the teacher's, in the same units and order.
        temperature: T; both sides' logits are divided by it.
    """
    if len(mine) == 0:
        return mine.sum()
    if isinstance(task, Regression):
        return F.mse_loss(mine, theirs)
    if isinstance(task, Profile):
        return (1 - F.cosine_similarity(mine, theirs, dim=-1)).mean()
    mine, theirs = mine / temperature, theirs / temperature
    if isinstance(task, (Binary, MultiLabel)):
        wanted = theirs.sigmoid()
        crossed, least = (F.binary_cross_entropy_with_logits(side, wanted) for side in (mine, theirs))
        return (crossed - least) * temperature**2
    divergence = F.kl_div(
        F.log_softmax(mine, -1), F.log_softmax(theirs, -1), reduction="batchmean", log_target=True
    )
    return divergence * temperature**2
