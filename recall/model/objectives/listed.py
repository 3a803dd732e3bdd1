"""Lists the objectives of a model: retrieval, and the others that plug in beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recall.config.model import ModelConfig
from recall.model.objectives.alignment import Alignment
from recall.model.objectives.category import CategoryHead
from recall.model.objectives.objective import Asking, EncodedBatch, Objective, Terms
from recall.model.objectives.own_negatives import HardNegatives, RefusedItems
from recall.model.objectives.retrieval import Retrieval
from recall.model.objectives.student import Distillation


@dataclass(frozen=True)
class Objectives:
    """Hold objectives that are trained together.

    Attributes:
      parts: the objectives, in the order in which their terms are added up.
    """

    parts: Sequence[Objective]

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        *,
        towers: Sequence[Asking],
        head: CategoryHead | None = None,
        student: Distillation | None = None,
    ) -> Objectives:
        """List the objectives that a configuration asks for.

        Args:
          config: weights and structure.
          towers: the towers that ask queries.
          head: the category head of the model.
          student: the distillation of the model's student, if it is trained beside the rest.
        """
        parts: list[Objective] = [Retrieval(config, asking=asking) for asking in towers]
        if config.loss.refused.count:
            parts += [RefusedItems(config, asking=asking) for asking in towers]
        if config.loss.hard_negatives.count:
            parts += [HardNegatives(config, asking=asking) for asking in towers]
        if config.alignment:
            parts.append(Alignment(config.loss, weight=config.alignment))
        parts += [part for part in (head, student) if part is not None]
        return cls(parts)

    @property
    def needs(self) -> frozenset[Asking]:
        """Return the towers whose queries are read."""
        return frozenset().union(*(part.needs for part in self.parts))

    def terms(self, encoded: EncodedBatch) -> Terms:
        """Return the terms of all objectives by name; terms of one name are added."""
        terms: Terms = {}
        for part in self.parts:
            for name, term in part.terms(encoded).items():
                terms[name] = terms[name] + term if name in terms else term
        return terms
