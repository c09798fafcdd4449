"""Items and attributes as vectors.

Shapes: N items, E text width, D model width, R rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mtrec.data.features import FeatureArrays, TableFeatures

FEW_VALUES = 128
"""Up to so many, shares of all values are cheaper than a vector per value of a list."""


@dataclass(frozen=True, kw_only=True)
class FeatureTensors:
    """`FeatureArrays` as tensors on the model's device."""

    numeric: Tensor
    categorical: Tensor
    multi: Tensor
    ids: Tensor

    @classmethod
    def of(cls, arrays: FeatureArrays, device: torch.device | str = "cpu") -> FeatureTensors:
        """Copy the arrays to a device."""
        return cls(
            numeric=torch.from_numpy(np.ascontiguousarray(arrays.numeric)).to(device),
            categorical=torch.from_numpy(arrays.categorical).to(device),
            multi=torch.from_numpy(arrays.multi).to(device),
            ids=torch.from_numpy(np.ascontiguousarray(arrays.ids)).to(device),
        )

    def rows(self, index_R: Tensor) -> FeatureTensors:
        """The features of some rows."""
        return FeatureTensors(
            numeric=self.numeric[index_R],
            categorical=self.categorical[index_R],
            multi=self.multi[index_R],
            ids=self.ids[index_R],
        )

    def unknown(self) -> FeatureTensors:
        """The same rows with nothing known about them: every number missing, every id and value unknown."""
        numeric = torch.zeros_like(self.numeric)
        numeric[:, 1::2] = 1
        return FeatureTensors(
            numeric=numeric,
            categorical=torch.zeros_like(self.categorical),
            multi=torch.zeros_like(self.multi),
            ids=torch.zeros_like(self.ids),
        )


class FeatureEmbedding(nn.Module):
    """Numbers through a linear map, categories and value lists through averaged embeddings, summed to width D."""

    def __init__(self, features: TableFeatures, width: int) -> None:
        super().__init__()
        self.numeric = nn.Linear(2 * len(features.numeric), width, bias=False) if features.numeric else None
        self.categorical = nn.ModuleList(_embedding(len(v), width) for v in features.categorical.values())
        self.multi = nn.ModuleList(_embedding(len(v), width) for v in features.multi.values())
        if self.numeric is not None:
            nn.init.normal_(self.numeric.weight, std=0.02)
        self.width = width

    def forward(self, rows: FeatureTensors) -> Tensor:
        """(R, D)."""
        out_RD = rows.numeric.new_zeros(len(rows.ids), self.width)
        if self.numeric is not None:
            out_RD = out_RD + self.numeric(rows.numeric)
        for i, table in enumerate(self.categorical):
            out_RD = out_RD + table(rows.categorical[:, i])
        for i, table in enumerate(self.multi):
            out_RD = out_RD + _mean(table, rows.multi[:, i])
        return out_RD


class ItemTower(nn.Module):
    """Item vector = text + attributes + learned id vector.

    The id vector is dropped at random in training, so that a new item falls back on its text. `text` is the
    part that item tasks may read: it never sees attributes, which are often an item task's label.
    """

    def __init__(self, features: TableFeatures, text_width: int, width: int, use_ids: bool) -> None:
        super().__init__()
        self.project = nn.Linear(text_width, width)
        self.attributes = FeatureEmbedding(features, width)
        self.ids = _embedding(len(features.ids), width) if use_ids else None

    @torch.no_grad()
    def start_from(self, text_NE: Tensor) -> None:
        """Begin as the principal components of the pretrained text vectors, (N, E).

        Similar texts then start as similar items, so that the untrained model already recommends by content.
        Components are scaled to unit average norm.
        """
        mean_E = text_NE.mean(0)
        centred_NE = text_NE - mean_E
        width = self.project.out_features
        _, _, basis_EK = torch.pca_lowrank(centred_NE, q=min(width, *text_NE.shape), center=False)
        scale = 1 / (centred_NE @ basis_EK).norm(dim=1).mean().clamp(min=1e-6)
        self.project.weight.zero_()
        self.project.weight[: basis_EK.shape[1]] = basis_EK.T * scale
        self.project.bias.copy_(-self.project.weight @ mean_E)

    @torch.no_grad()
    def start_ids(self, table_SD: Tensor) -> None:
        """Begin with these vectors of ids, row 0 for the unknown one."""
        assert self.ids is not None
        self.ids.weight.copy_(table_SD)

    def text(self, text_NE: Tensor) -> Tensor:
        """Text alone, (N, D)."""
        projected: Tensor = self.project(text_NE)
        return projected

    def forward(self, text_ND: Tensor, rows: FeatureTensors, keep_ids_N: Tensor | None = None) -> Tensor:
        """Fuse projected text with attributes and ids, (N, D). `keep_ids_N` false drops an item's id."""
        out_ND = text_ND + self.attributes(rows)
        if self.ids is not None:
            out_ND = out_ND + self.ids(kept(rows.ids, keep_ids_N))
        return out_ND


def kept(ids_N: Tensor, keep_N: Tensor | None) -> Tensor:
    """Ids with the dropped ones sent to slot 0, the slot of the unknown."""
    return ids_N if keep_N is None else ids_N * keep_N


def _mean(table: nn.Module, values_RM: Tensor) -> Tensor:
    """Mean vector of each row's values, (R, D); value 0 pads. Gradients add up in the order of the rows."""
    assert isinstance(table, nn.Embedding)
    there_RM = values_RM > 0
    count_R1 = there_RM.sum(1, keepdim=True).clamp(min=1)
    if table.num_embeddings > FEW_VALUES:
        total_RD: Tensor = table(values_RM).sum(1)
        return total_RD / count_R1
    share_RV = table.weight.new_zeros(len(values_RM), table.num_embeddings)
    return share_RV.scatter_add_(1, values_RM, there_RM / count_R1) @ table.weight


def _embedding(num_values: int, width: int) -> nn.Embedding:
    table = nn.Embedding(num_values + 1, width, padding_idx=0)
    nn.init.normal_(table.weight, std=0.02)
    with torch.no_grad():
        table.weight[0].zero_()
    return table
