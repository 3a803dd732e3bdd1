"""Defines the `model` section of the experiment file: the towers and how they are joined.

Sub-sections come before the section that holds them: start at `ModelConfig`, the last class. `objectives.py` has what
the model is trained for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recall.config.objectives import ColdSimulation, LossConfig, StudentConfig
from recall.config.strict import Strict
from recall.config.tunable import Between, OneOf
from recall.config.values import Probability

WITH_META_TOWER = ("gated", "base", "meta_only")


class TransformerConfig(Strict):
    """Configure the transformer over the ordered history."""

    layers: PositiveInt = Field(default=2, description="layers of self-attention")
    heads: PositiveInt = Field(default=2, description="heads of a layer; `model.dim` is a multiple")
    smoothing: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of smoothed histories beside self-attention; short histories gain the most",
    )


class FusionConfig(Strict):
    """Configure how the meta tower joins modalities; `fusion: lmf` is short for `fusion: {kind: lmf}`."""

    short_form = "kind"

    kind: Literal["concat", "weighted_sum", "lmf", "cross_attention", "transformer"] = Field(
        default="concat",
        description="features side by side; a mean by learned weights; low-rank products; each modality in the light "
        "of the others; a transformer over modalities",
    )
    rank: PositiveInt = Field(default=4, description="lmf: products that are added up")
    heads: PositiveInt = Field(default=2, description="of the attention: cross_attention, transformer")
    layers: PositiveInt = Field(default=2, description="transformer: the last one sums up what the others made")
    modality_dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of modalities hidden in training, never the last of an item; default: 0.1, for concat none",
    )

    @model_validator(mode="after")
    def _concat_hides_nothing(self) -> FusionConfig:
        if self.kind == "concat" and self.modality_dropout:
            raise ValueError(
                f"modality_dropout {self.modality_dropout} hides modalities, but kind: concat knows none that are "
                "missing; use another kind, or remove modality_dropout"
            )
        return self

    @property
    def dropout_rate(self) -> float:
        """Return `modality_dropout` with its default filled in."""
        return 0.1 if self.modality_dropout is None else self.modality_dropout


class InterestsConfig(Strict):
    """Configure several query vectors per user: their number, and how they are made from the history."""

    count: PositiveInt = Field(default=4, description="query vectors per user; 1 is the model without interests")
    extractor: Literal["attention", "routing"] = Field(
        default="attention", description="self-attentive pooling (ComiRec-SA), or dynamic routing (MIND)"
    )
    objective: Literal["served", "chosen"] = Field(
        default="served",
        description="a candidate of the softmax is scored by its own best interest, as in search; or by the one "
        "that scores the clicked item best (ComiRec)",
    )


class CategoryHeadConfig(Strict):
    """Configure a classifier that makes lists keep to a category; short form: `category_head: FEATURE`."""

    short_form = "feature"

    feature: str = Field(description="of features.meta, type category or tags")
    weight: NonNegativeFloat = Field(default=0.1, description="of the loss: an item's category from its meta vector")
    query_weight: NonNegativeFloat = Field(
        default=0.1, description="of the loss: the category of what is clicked from the query vector"
    )


class ItemCodesConfig(Strict):
    """Configure several vectors per item, each made by a learned code; `item_codes: 4` is short for `{count: 4}`."""

    short_form = "count"

    count: PositiveInt = Field(default=4, description="vectors per item; 1 adds what one code reads to the one vector")
    pick: Literal["highest", "attention", "mean"] = Field(
        default="highest",
        description="what a query is trained against: the vector that it scores highest, as in search; their mean by "
        "its own attention (Poly-encoders); or their plain mean",
    )
    index: Literal["all", "mean"] | None = Field(
        default=None,
        description="what is served and judged: all vectors, an item's score being the best one's, or one mean vector "
        "per item; default: all, with pick: mean the mean",
    )

    @model_validator(mode="after")
    def _a_mean_is_served_as_a_mean(self) -> ItemCodesConfig:
        if self.pick == "mean" and self.index == "all":
            raise ValueError(
                "index: all serves each vector by itself, but pick: mean trains their mean alone; use pick: highest "
                "or attention, or index: mean"
            )
        return self

    @property
    def are_trained_apart(self) -> bool:
        """Tell whether queries meet the vectors of an item one by one in training."""
        return self.count > 1 and self.pick != "mean"

    @property
    def are_served_apart(self) -> bool:
        """Tell whether an item has several vectors in the index."""
        return self.are_trained_apart and self.index != "mean"


class ModelConfig(Strict):
    """Configure the towers and how they are joined."""

    query: Literal["user", "trigger", "both"] = Field(
        default="user",
        description="who asks: a user (u2i), the item just clicked (i2i), or both, on one shared item tower",
    )
    structure: Literal["gated", "base", "single", "behaviour_only", "meta_only"] = Field(
        default="gated",
        description="gated: two item towers joined by the gate; base: both trained apart and aligned; single: all "
        "features in one tower; or one of the two towers alone",
    )
    gate: Annotated[
        Literal["sum", "concat", "residual"],
        OneOf(("sum", "concat", "residual"), needs={"model.structure": ("gated",)}),
    ] = Field(
        default="residual",
        description="how behaviour b and content m are joined: sum, g b + (1 - g) m; concat, [b, (1 - g) m], matched "
        "with two halves of the query; residual, b + (1 - g) m",
    )
    gate_shape: Literal["scalar", "per_dimension"] = Field(
        default="scalar", description="one share of behaviour per item, or one per dimension"
    )
    gate_monotone: bool = Field(
        default=False, description="the share of behaviour provably never falls as exposures and clicks grow"
    )
    audience_monotone: bool = Field(
        default=False, description="the audience share never falls, against the content's, as the audience grows"
    )
    gate_blind: bool = Field(
        default=False,
        description="the gate sees nothing of an item and divides all alike, to measure what it is worth that it sees; "
        "nobody should serve it",
    )
    gate_hidden: PositiveInt = Field(default=16, description="units of the gate's hidden layer")
    appeal: bool = Field(
        default=True,
        description="gated: a number per item, learned from the posterior and added to every score, so that vectors "
        "are left to taste",
    )
    base_appeal: bool = Field(
        default=False,
        description="base: the same number, so that a gate can be compared with no gate, and not gate and appeal with "
        "neither; each tower is trained with it",
    )
    dim: Annotated[PositiveInt, OneOf((16, 32, 64, 128), ordered=True)] = Field(
        default=64, description="width of the towers' vectors"
    )
    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="hidden layers of the towers' MLPs")
    dropout: Annotated[float, Between(0.0, 0.5)] = Field(
        default=0.2, ge=0, lt=1, description="share of the towers' units that a training step leaves out"
    )
    fusion: FusionConfig = Field(
        default=FusionConfig(),
        description="how the meta tower joins modalities (text, image, tags, attributes); a kind, or a section. All "
        "but concat weigh them per item, mask missing ones, and write the weights into vectors/ and the report",
    )
    history_encoder: Literal["mean", "attention", "transformer"] = Field(
        default="attention", description="how the clicks of a user become one vector"
    )
    transformer: TransformerConfig = Field(default=TransformerConfig(), description="of history_encoder: transformer")
    interests: InterestsConfig | None = Field(
        default=None,
        description="several query vectors per user, of which an item's score is the best one's; default: one",
    )
    item_codes: ItemCodesConfig | None = Field(
        default=None,
        description="several vectors per item, each what a learned code reads in its modalities, with a `fusion` other "
        "than concat; a count, or a section; default: one",
    )
    history_time: Literal["auto", "none", "gap", "age", "both"] = Field(
        default="none",
        description="what the user tower sees of a click's time: the gap to the next click, its age at the query, both;"
        " auto: both where the log has a clock",
    )
    history_time_hidden: Probability = Field(
        default=0.1, description="share of training histories without times, for users whose times are unknown"
    )
    similarity: Literal["cosine", "dot"] = Field(
        default="dot", description="vectors of unit length, or of a length that is learned and speaks in the score"
    )
    shared_space: bool = Field(
        default=False,
        description="histories, queries and items share one space from the start: id and meta vectors enter a history "
        "unprojected, a query is the history's state plus an MLP that starts at zero, and so is the behaviour vector",
    )
    content_term: NonNegativeInt | Literal["auto"] = Field(
        default="auto",
        description="dimensions of a term of the score: the likeness of an item's content to the content of the user's "
        "clicks, which starts as the cosine and is trained from there; 0: without; auto: 64 where items have "
        "embeddings and the structure a meta tower",
    )
    # It is only where learning starts, so that nothing was measured to depend on it.
    temperature: Annotated[
        PositiveFloat | None, Between(0.02, 2.0, log=True, by_default=False, resolved="start_temperature")
    ] = Field(
        default=None, description="start value of what scores are divided by; default: 1 for dot, 0.08 for cosine"
    )
    learn_temperature: bool = Field(default=True, description="whether training moves the temperature")
    category_head: CategoryHeadConfig | None = Field(
        default=None,
        description="meta vectors and queries also learn to tell a category or tags, so that lists keep to the user's; "
        "a feature's name, or a section; default: not",
    )
    cold_simulation: ColdSimulation = Field(
        default=ColdSimulation(), description="show items in training as they look while they are new"
    )
    loss: LossConfig = Field(default=LossConfig(), description="what the model is trained for")
    student: StudentConfig | None = Field(
        default=None,
        description="a small user tower that learns from the large one without touching it; a kind, or a section; "
        "`recall query --user 42 --student` asks it; default: none",
    )

    @property
    def has_appeal(self) -> bool:
        """Tell whether the last dimension of the vectors is learned; it is 0 otherwise."""
        return {"gated": self.appeal, "base": self.base_appeal}.get(self.structure, False)

    @property
    def alignment(self) -> float:
        """Return `loss.triplet`, or its default for the structure."""
        if self.loss.triplet is not None:
            return self.loss.triplet
        return 0.3 if self.structure == "base" else 0.0

    @property
    def start_temperature(self) -> float:
        """Return `temperature`, or the default of the similarity."""
        return self.temperature or {"dot": 1.0, "cosine": 0.08}[self.similarity]

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> ModelConfig:
        if self.history_encoder == "transformer" and self.dim % self.transformer.heads:
            raise ValueError(f"dim {self.dim} has to be a multiple of transformer.heads {self.transformer.heads}")
        return self

    @model_validator(mode="after")
    def _heads_of_the_fusion_divide_the_width(self) -> ModelConfig:
        if self.fusion.kind in ("cross_attention", "transformer") and self.dim % self.fusion.heads:
            raise ValueError(f"dim {self.dim} has to be a multiple of fusion.heads {self.fusion.heads}")
        return self

    @model_validator(mode="after")
    def _interests_are_of_users(self) -> ModelConfig:
        if self.interest_count > 1 and self.query == "trigger":
            raise ValueError(
                f"interests.count {self.interest_count} makes several vectors of a user's history, but query: trigger "
                "has no user tower; use query: user or both, or remove interests"
            )
        return self

    @model_validator(mode="after")
    def _smoothed_labels_have_one_score(self) -> ModelConfig:
        if self.loss.label_smoothing and (self.interests or self.item_codes):
            raise ValueError(
                f"loss.label_smoothing {self.loss.label_smoothing} is for one vector per user and item, but interests "
                "or item_codes make several; remove one or the other"
            )
        return self

    @model_validator(mode="after")
    def _own_negatives_have_one_score(self) -> ModelConfig:
        for name in ("refused", "hard_negatives"):
            count = getattr(self.loss, name).count
            if count and (self.interest_count > 1 or (self.item_codes and self.item_codes.are_trained_apart)):
                raise ValueError(
                    f"loss.{name}: {count} is for one vector per user and item, but interests or item_codes make "
                    f"several; remove one or the other"
                )
        return self

    @model_validator(mode="after")
    def _category_head_has_vectors(self) -> ModelConfig:
        if self.category_head and self.structure not in WITH_META_TOWER:
            raise ValueError(
                f"category_head reads the meta tower, which structure: {self.structure} does not have; "
                "use structure: gated, base or meta_only, or remove category_head"
            )
        if self.category_head and self.category_head.query_weight and self.interest_count > 1:
            raise ValueError(
                f"category_head.query_weight {self.category_head.query_weight} asks one query vector for the category, "
                f"but interests.count {self.interest_count} makes several; set query_weight: 0, or remove interests"
            )
        return self

    @model_validator(mode="after")
    def _codes_read_modalities(self) -> ModelConfig:
        if self.item_codes and self.structure not in WITH_META_TOWER:
            raise ValueError(
                f"item_codes makes several meta vectors of an item, but structure: {self.structure} has no meta tower; "
                f"use structure: {' or '.join(WITH_META_TOWER)}, or remove item_codes"
            )
        if self.item_codes and self.fusion.kind == "concat":
            raise ValueError(
                "item_codes reads the modalities of an item one by one, but fusion: concat makes one vector of them; "
                "use fusion: weighted_sum, lmf, cross_attention or transformer, or remove item_codes"
            )
        return self

    @model_validator(mode="after")
    def _students_are_of_user_towers(self) -> ModelConfig:
        if self.student and self.query == "trigger":
            raise ValueError(
                "student learns from the user tower, but query: trigger has none; use query: user or both, or remove "
                "student"
            )
        if self.student and self.interest_count > 1:
            raise ValueError(
                f"student gives one vector per user and cannot follow interests.count {self.interest_count}; "
                "remove student, or interests"
            )
        if self.student and self.item_codes and self.item_codes.are_trained_apart:
            raise ValueError(
                "student learns scores of one vector per item, but item_codes makes several; remove one of them, or "
                "use item_codes.pick: mean"
            )
        return self

    @model_validator(mode="after")
    def _one_side_has_several_vectors(self) -> ModelConfig:
        if self.interest_count > 1 and self.item_codes and self.item_codes.are_trained_apart:
            raise ValueError(
                f"interests.count {self.interest_count} and item_codes.count {self.item_codes.count} both ask for "
                "several vectors, but either users or items can have them; remove one, or use item_codes.pick: mean"
            )
        return self

    @model_validator(mode="after")
    def _something_trains_the_query(self) -> ModelConfig:
        loss = self.loss
        towers_do = self.structure == "gated" and loss.towers_move_query and (loss.behaviour or loss.meta)
        if not loss.item and not towers_do:
            raise ValueError(
                "loss.item 0 leaves nothing that trains the query side; raise it, or let both towers of a gated model "
                "do so with loss.towers_move_query: true"
            )
        return self

    @property
    def interest_count(self) -> int:
        """Count the query vectors of a user."""
        return self.interests.count if self.interests else 1
