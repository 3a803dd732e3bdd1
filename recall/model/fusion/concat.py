"""Concatenation: all meta features side by side, for the meta tower to make of them what it can."""

from __future__ import annotations

from recall.model.fusion.contract import Fused
from recall.model.layers.features import FeatureInput, Features


class Concat(FeatureInput):
    """`FeatureInput` under the fusions' interface: nothing is masked, a missing value is read as its stand-in."""

    modalities: tuple[str, ...] = ()

    def fused(self, features: Features, *, training: bool = False) -> Fused:
        """Features [items] -> float32 [items, sum of their widths], and no weights."""
        del training
        return Fused(self(features), None)
