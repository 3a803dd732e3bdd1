"""The `model.student` section of the experiment file: a small query tower that learns from the large one."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from recall.config.features import Strict


class StudentLoss(Strict):
    """Weights of what the student is trained for."""

    item: NonNegativeFloat = Field(default=1.0, description="its query against the item vectors that are served")
    query: NonNegativeFloat = Field(default=1.0, description="its query towards that of the large tower")
    scores: NonNegativeFloat = Field(default=1.0, description="its scores of the candidates towards the large tower's")

    @model_validator(mode="after")
    def _something_is_taught(self) -> StudentLoss:
        if not (self.item or self.query or self.scores):
            raise ValueError("item, query and scores are all 0, so the student learns nothing; raise one of them")
        return self


class StudentConfig(Strict):
    """A second user tower that costs little to ask: last clicks pooled, profile, one MLP; `mean` is `{kind: mean}`."""

    # Validation recall@50 that is lost on the simulated community and on MovieLens, one seed: by attention 1.2% and
    # 0.1% (joint), 0.3% and 0.6% (frozen); by the mean 2.0% and 6.0% (joint), 1.2% and 4.9% (frozen), 3.6% and 5.5%
    # (frozen, with loss.item alone).
    kind: Literal["mean", "attention"] = Field(
        default="attention", description="how clicks are pooled: their mean, or attention pooling with recency"
    )
    hidden: tuple[PositiveInt, ...] = (64,)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    loss: StudentLoss = StudentLoss()
    temperature: PositiveFloat = Field(
        default=2.0, description="loss.scores: what the logits of both are divided by; above 1 the rear counts more"
    )
    stage: Literal["joint", "frozen"] = Field(
        default="joint", description="trained beside the large tower; or after it, with the best of it as it is"
    )

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, content: Any) -> Any:
        return {"kind": content} if isinstance(content, str) else content
