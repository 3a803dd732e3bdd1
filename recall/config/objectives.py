"""Defines the training part of the `model` section: `loss`, `student` and `cold_simulation`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recall.config.strict import Strict
from recall.config.tunable import Between, OneOf
from recall.config.values import Probability

_TWO_TOWERS = {"model.structure": ("gated", "base")}


class ColdSimulation(Strict):
    """Show candidates in training as they would look if they were new.

    The id is replaced by the out-of-vocabulary row with probability max / (1 + exposures / half), and also with
    probability `unseen` whatever the exposures: an item published after the training is served without a trained id,
    but soon has a posterior. `brand_new` removes the posterior, too, and the audience; `younger` gives both as of the
    item's first, third or tenth click.
    """

    enabled: bool = Field(default=True, description="whether ids are hidden in training")
    # Validation does not show what the next three are worth: there the models without them are ahead, and in the test
    # period behind (benchmarks/quality/README.md). So tuning leaves them alone where nobody asks for it.
    max_probability: Annotated[Probability, Between(0.0, 1.0, by_default=False)] = Field(
        default=0.8, description="probability with which an item without exposures is shown without id"
    )
    half_exposures: Annotated[PositiveFloat, Between(1.0, 30.0, log=True, by_default=False)] = Field(
        default=5.0, description="exposures at which the probability has halved"
    )
    unseen: Annotated[Probability, Between(0.0, 0.4, by_default=False)] = Field(
        default=0.15, description="share of candidates shown without id, but with posterior"
    )
    brand_new: Probability = Field(default=0.0, description="share of candidates shown without id and posterior")
    younger: Probability = Field(
        default=0.0,
        description="share of clicks whose item is shown without id as it was known after its first, third or tenth "
        "click; on a log with a clock, with loss.softmax: sampled",
    )
    own_share: bool = Field(
        default=True,
        description="with an id hide its author (or another feature beside it), as often as that learned from it alone",
    )


class RefusedLoss(Strict):
    """Rank a click above what was shown beside it and not clicked; `refused: 4` is short for `{count: 4}`."""

    short_form = "count"

    count: NonNegativeInt = Field(default=0, description="refused items of a click, of those that data.refused keeps")
    weight: PositiveFloat = Field(default=0.1, description="of the loss")
    logq: bool = Field(default=True, description="subtract the log of an item's exposures as of the click")


class HardNegativesLoss(Strict):
    """Rank a click above the uniform negatives that score highest; `hard_negatives: 8` is short for `{count: 8}`."""

    short_form = "count"

    count: NonNegativeInt = Field(default=0, description="uniform negatives of a batch that a query meets once more")
    skip: NonNegativeInt = Field(default=0, description="leave out so many that score even higher")
    weight: PositiveFloat = Field(default=0.1, description="of the loss")


class LossConfig(Strict):
    """Configure the training objective: weights of its terms, and where negatives come from."""

    item: NonNegativeFloat = Field(default=1.0, description="query against the item vector that is served")
    behaviour: Annotated[NonNegativeFloat, Between(0.0, 1.0, needs=_TWO_TOWERS)] = Field(
        default=0.3, description="query against the behaviour tower alone"
    )
    meta: Annotated[NonNegativeFloat, Between(0.0, 1.0, needs=_TWO_TOWERS)] = Field(
        default=0.3, description="query against the meta tower alone"
    )
    audience: NonNegativeFloat = Field(
        default=0.3, description="query against the audience tower alone, if there is one"
    )
    towers_move_query: Annotated[bool, OneOf((False, True), needs=_TWO_TOWERS)] = Field(
        default=False, description="whether the two losses above also train the query side, or the item towers alone"
    )
    triplet: NonNegativeFloat | None = Field(
        default=None,
        description="alignment of both towers of the same item; default: 0.3 for structure: base, where nothing else "
        "aligns them; 0 for gated, which it does not help",
    )
    margin: NonNegativeFloat = Field(default=0.2, description="margin of the triplets, in cosine")
    triplet_negatives: Literal["all", "hard"] = Field(
        default="all",
        description="other items of the batch that an item's own tower is held against: all, or the nearest",
    )
    softmax: Literal["sampled", "full"] = Field(
        default="sampled",
        description="against drawn negatives, or against the whole catalogue (`negatives` says which part of it)",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of the target that all items have alike, with softmax: full; against overfitting",
    )
    mask_seen: bool = Field(
        default=False,
        description="leave what the user clicked before out of the softmax, as evaluation.exclude_seen does in ranking",
    )
    logq: bool = Field(default=True, description="subtract the log of how often a candidate is drawn")
    negatives: Literal["none", "exposed", "catalogue"] = Field(
        default="exposed", description="what uniform negatives are drawn from, beside the in-batch ones"
    )
    uniform_negatives: Annotated[
        NonNegativeInt,
        OneOf(
            (128, 512, 2048),
            ordered=True,
            needs={"model.loss.softmax": ("sampled",), "model.loss.negatives": ("exposed", "catalogue")},
        ),
    ] = Field(default=512, description="uniform negatives per batch")
    shown_again: bool = Field(
        default=True,
        description="the clicked items of a batch are negatives as they were at another example's moment, too, and not "
        "only as they were when they were clicked; with softmax: sampled",
    )
    exposure_power: NonNegativeFloat = Field(
        default=0.0,
        description="a click weighs (1 + exposures)^-power, of the exposures of its item as of the click: new and rare "
        "items gain what known ones lose; try 0.1 where new items matter most; 0: all alike",
    )
    refused: RefusedLoss = Field(
        default=RefusedLoss(),
        description="rank a click above what was shown in its session and not clicked (data.refused), e.g. 4; a count, "
        "or a section; it does not help on our data",
    )
    hard_negatives: HardNegativesLoss = Field(
        default=HardNegativesLoss(),
        description="uniform negatives that a query scores highest count once more, e.g. 8; a count, or a section; it "
        "does not help on our data",
    )

    @model_validator(mode="after")
    def _full_softmax_has_negatives(self) -> LossConfig:
        if self.softmax == "full" and self.negatives == "none":
            raise ValueError(
                "softmax: full ranks against the catalogue, but negatives: none leaves nothing of it; "
                "use negatives: exposed or negatives: catalogue"
            )
        return self

    @model_validator(mode="after")
    def _own_negatives_are_beside_drawn_ones(self) -> LossConfig:
        for name in ("refused", "hard_negatives"):
            count = getattr(self, name).count
            if count and self.softmax == "full":
                raise ValueError(
                    f"{name}: {count} adds negatives to the drawn ones, but softmax: full draws none; use softmax: "
                    f"sampled, or {name}: 0"
                )
        hard, drawn = self.hard_negatives, self.uniform_negatives if self.negatives != "none" else 0
        if hard.count and hard.count + hard.skip > drawn:
            raise ValueError(
                f"hard_negatives: {hard.count} (and {hard.skip} left out) are chosen from the uniform negatives, of "
                f"which there are {drawn}; raise uniform_negatives (with negatives: exposed), or use hard_negatives: 0"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_smoothed_over_all_items(self) -> LossConfig:
        if self.label_smoothing and self.softmax != "full":
            raise ValueError(
                f"label_smoothing {self.label_smoothing} spreads targets over all items, but softmax: sampled meets a "
                "few of them; use softmax: full, or remove label_smoothing"
            )
        return self


class StudentLoss(Strict):
    """Weigh the terms of the student's objective."""

    item: NonNegativeFloat = Field(default=1.0, description="its query against the item vectors that are served")
    query: NonNegativeFloat = Field(default=1.0, description="its query towards that of the large tower")
    scores: NonNegativeFloat = Field(default=1.0, description="its scores of the candidates towards the large tower's")

    @model_validator(mode="after")
    def _something_is_taught(self) -> StudentLoss:
        if not (self.item or self.query or self.scores):
            raise ValueError("item, query and scores are all 0, so the student learns nothing; raise one of them")
        return self


class StudentConfig(Strict):
    """Configure a cheap second user tower: last clicks pooled, profile, one MLP; `mean` is `{kind: mean}`."""

    short_form = "kind"

    # Validation recall@50 that is lost on the simulated community and on MovieLens, one seed: by attention 1.2% and
    # 0.1% (joint), 0.3% and 0.6% (frozen); by the mean 2.0% and 6.0% (joint), 1.2% and 4.9% (frozen), 3.6% and 5.5%
    # (frozen, with loss.item alone).
    kind: Literal["mean", "attention"] = Field(
        default="attention", description="how clicks are pooled: their mean, or attention pooling with recency"
    )
    hidden: tuple[PositiveInt, ...] = Field(default=(64,), description="hidden layers of its MLP")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="of its hidden layers")
    loss: StudentLoss = Field(default=StudentLoss(), description="what it learns from")
    temperature: PositiveFloat = Field(
        default=2.0, description="loss.scores: what the logits of both are divided by; above 1 the rear counts more"
    )
    stage: Literal["joint", "frozen"] = Field(
        default="joint", description="trained beside the large tower; or after it, with the best of it as it is"
    )
