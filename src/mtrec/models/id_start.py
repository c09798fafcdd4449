"""Item ids that begin with what the training interactions say of them: factors of the who-took-what matrix.

The matrix is 1 where a user took an item, each row and column divided by the root of its sum, so that neither busy
users nor popular items rule it. Its factors place items near each other that the same users took; a rarely taken
item stays near zero. Users get no start: theirs would hold the very item that a training step asks for, and their
state is made from the items of their history anyway.

Shapes: U users, S item slots (0 unknown), D model width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import sparse

DAMPING = 5.0
"""Added to counts under the roots."""
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
    took = sparse.csr_matrix((np.ones(len(user_R)), (user_R, slot_R)), shape=sizes)
    took.data[:] = 1.0
    took = took[:, 1:]
    roots = [np.sqrt(np.asarray(took.sum(axis)).ravel() + DAMPING) for axis in (1, 0)]
    scaled = sparse.diags(1 / roots[0]) @ took @ sparse.diags(1 / roots[1])
    count = min(width, min(scaled.shape) - 1)
    factors_SD = np.zeros((sizes[1], width), dtype=np.float32)
    if count < 1 or scaled.nnz == 0:
        return factors_SD
    found = _svd(scaled, count) if kind == "svd" else _nmf(scaled, count)
    factors_SD[1:, :count] = found / max(np.linalg.norm(found, axis=1).mean(), 1e-9)
    return factors_SD


def _svd(matrix_US: sparse.csr_matrix, count: int) -> np.ndarray:
    """Right vectors times their singular values: inner products are those of the items' columns."""
    from scipy.sparse.linalg import svds

    _, strength, right = svds(matrix_US, k=count, v0=np.ones(min(matrix_US.shape)))
    return np.asarray((right * strength[:, None]).T[:, ::-1])


def _nmf(matrix_US: sparse.csr_matrix, count: int) -> np.ndarray:
    import warnings

    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a start need not be the optimum
        model = NMF(count, init="nndsvda", random_state=0, max_iter=NMF_SWEEPS).fit(matrix_US)
    parts = model.components_ * np.linalg.norm(model.transform(matrix_US), axis=0)[:, None]
    return np.asarray((parts - parts.mean(1, keepdims=True)).T)
