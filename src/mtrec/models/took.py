"""The who-took-what matrix, of which item factors and implicit directions are made.

Shapes: U users, S item slots (0 unknown), M directions.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

DAMPING = 5.0
"""Added to counts under the roots, so that what was taken once or twice stays near zero."""


def scaled_took(
    user_R: np.ndarray, slot_R: np.ndarray, sizes: tuple[int, int]
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """1 where a user took an item, over √(items of the user + DAMPING) · √(users of the item + DAMPING).

    So neither busy users nor popular items rule what is made of it.

    Args:
        user_R: user of each training interaction.
        slot_R: its item's slot.
        sizes: U and S.

    Returns:
        The matrix (U, S), and the root of each item (S,).
    """
    took = sparse.csr_matrix((np.ones(len(user_R)), (user_R, slot_R)), shape=sizes)
    took.data[:] = 1.0
    root_U, root_S = (np.sqrt(np.asarray(took.sum(axis)).ravel() + DAMPING) for axis in (1, 0))
    return sparse.diags(1 / root_U) @ took @ sparse.diags(1 / root_S), root_S


def right_directions(matrix_US: sparse.csr_matrix, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The strongest singular values, highest first, and the items' directions that belong to them, (S, M).

    Args:
        matrix_US: sparse.
        count: M at most; a small matrix has fewer, an empty one none.
    """
    count = min(count, min(matrix_US.shape) - 1)
    if count < 1 or matrix_US.nnz == 0:
        return np.zeros(0), np.zeros((matrix_US.shape[1], 0))
    _, strength, right = svds(matrix_US, k=count, v0=np.ones(min(matrix_US.shape)))
    return strength[::-1], right[::-1].T
