"""Fuses an item's modalities (text, image, tags, ...) into the input of the meta tower: `model.fusion`.

Imports `recall.config`, `recall.data.features` and `recall.model.layers`. Start at `contract.py`, the base class of the
fusions; `modalities.py` feeds it columns of features; `codes.py` makes several vectors per item; `concat.py`,
`weighted_sum.py`, `lmf.py`, `cross_attention.py` and `transformer.py` are one fusion each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from recall.config.model import ModelConfig
from recall.data.features.table_encoder import EncodedColumn
from recall.model.fusion.concat import Concat
from recall.model.fusion.contract import ModalityFusion
from recall.model.fusion.cross_attention import CrossAttentionFusion
from recall.model.fusion.lmf import LowRankFusion
from recall.model.fusion.modalities import FusedModalities
from recall.model.fusion.transformer import TransformerFusion
from recall.model.fusion.weighted_sum import WeightedSum

FUSIONS: dict[str, Callable[..., ModalityFusion]] = {
    "weighted_sum": WeightedSum,
    "lmf": LowRankFusion,
    "cross_attention": CrossAttentionFusion,
    "transformer": TransformerFusion,
}
"""Kind -> class of the fusion, for each `model.fusion.kind` but `concat`."""


def content_input(
    columns: Sequence[EncodedColumn], *, modalities: Mapping[str, str], config: ModelConfig
) -> Concat | FusedModalities:
    """Build the input layer of the meta tower, as `model.fusion` asks for, with the name `content`.

    Args:
      columns: columns of the meta features.
      modalities: feature -> modality, as `FeatureSchema.modalities`; a feature that is absent is a modality by itself.
      config: settings of the model, of which the fusion, the width and the codes are read.
    """
    if config.fusion.kind == "concat":
        return Concat(columns, dim=config.dim, name="content")
    groups: dict[str, list[EncodedColumn]] = {}
    for column in columns:
        groups.setdefault(modalities.get(column.feature, column.feature), []).append(column)
    fusion = FUSIONS[config.fusion.kind](tuple(groups), config=config)
    return FusedModalities(groups, fusion=fusion, dim=config.dim, name="content")
