"""Item ids that begin with what the training interactions say of them: factors of the who-took-what matrix.

Factors of the scaled matrix (`mtrec.models.took`) place items near each other that the same users took; a rarely
taken item stays near zero. Users get no start: theirs would hold the very item that a training step asks for, and
their state is made from the items of their history anyway.

Shapes: U users, S item slots (0 unknown), D model width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import sparse

from mtrec.models.took import right_directions, scaled_took

NMF_SWEEPS = 50


def item_factors(
    kind: Literal["svd", "nmf"], user_R: np.ndarray, slot_R: np.ndarray, sizes: tuple[int, int], width: int
) -> np.ndarray:
    """Factors of items, (S, D), of mean norm 1; 0 for the unknown item and in directions that the matrix lacks.

    Args:
        kind: svd: truncated singular value decomposition; nmf: non-negative factorisation (Lee & Seung 1999,
            doi:10.1038/44565), its columns brought to mean 0.
        user_R: user of each training interaction.
        slot_R: its item's slot.
        sizes: U and S.
        width: D.
    """
    scaled = scaled_took(user_R, slot_R, sizes)[0][:, 1:]
    factors_SD = np.zeros((sizes[1], width), dtype=np.float32)
    count = min(width, min(scaled.shape) - 1)
    if count < 1 or scaled.nnz == 0:
        return factors_SD
    if kind == "svd":  # inner products are those of the items' columns
        strength, right_SM = right_directions(scaled, count)
        found = right_SM * strength
    else:
        found = _nmf(scaled, count)
    factors_SD[1:, :count] = found / max(np.linalg.norm(found, axis=1).mean(), 1e-9)
    return factors_SD


def _nmf(matrix_US: sparse.csr_matrix, count: int) -> np.ndarray:
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not be the optimum
        model = NMF(count, init="nndsvda", random_state=0, max_iter=NMF_SWEEPS).fit(matrix_US)
    parts = model.components_ * np.linalg.norm(model.transform(matrix_US), axis=0)[:, None]
    return np.asarray((parts - parts.mean(1, keepdims=True)).T)
