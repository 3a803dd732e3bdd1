"""Concatenates all meta features, without weights per modality."""

from __future__ import annotations

from recall.model.fusion.contract import Fused
from recall.model.layers.features import FeatureInput, Features


class Concat(FeatureInput):
    """Give `FeatureInput` the interface of `FusedModalities`: nothing is masked, missing values have replacements."""

    modalities: tuple[str, ...] = ()

    def fused(self, features: Features, *, training: bool = False) -> Fused:
        """Concatenate features [items] to float32 [items, sum of their widths], without weights."""
        del training
        return Fused(self(features), None)
