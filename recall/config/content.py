"""Defines the `content` section of the experiment file: how content vectors are trained before any model reads them.

Sub-sections come before the section that holds them: `ContentConfig` is the last class.
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recall.config.features import EmbeddingFeature, FeatureSchema
from recall.config.strict import Strict
from recall.config.values import Fraction, Probability, parse_auto_or_number


def parse_weight(value: Any) -> float | Literal["auto"]:
    """Accept 'auto' or a number of at least 0."""
    try:
        weight = parse_auto_or_number(value)
    except ValueError:
        weight = -1.0
    if weight != "auto" and weight < 0:
        raise ValueError("expected auto or a number of at least 0, e.g. 0.1")
    return weight


Weight = Annotated[Literal["auto"] | float, BeforeValidator(parse_weight)]
"""How much a term of the loss counts: 0 is off, `auto` its default weight where the data has what it needs."""


class ContentLossConfig(Strict):
    """Weigh the terms of the loss of content vectors; `auto` is 0 where the data lacks what the term needs.

    Otherwise `auto` is 1 for the crowd and 0.1 for the others. These keep the vectors from forgetting content; with
    more weight they would leave only what modalities or tags have in common.
    """

    modalities: Weight = Field(default="auto", description="text, image, ... of one item find each other")
    shared_tags: Weight = Field(default="auto", description="items with tags in common are near")
    crowd: Weight = Field(default="auto", description="what a user clicked next is near what he had clicked")
    tags: Weight = Field(default="auto", description="the vector tells the item's tags")


class CrowdConfig(Strict):
    """Set which clicks count as consecutive, and how far popularity may show in the vectors."""

    window: PositiveInt = Field(default=3, description="clicks before the next one that are pulled to it")
    popularity_correction: Probability = Field(
        default=0.0,
        description="share of logQ taken off the logits of in-batch negatives; 1: near is what is clicked next, "
        "popular items near to all; 0: near is what is clicked next more than its popularity explains",
    )


class QueueConfig(Strict):
    """Keep keys of earlier batches as further negatives of `loss.modalities` (MoCo)."""

    size: NonNegativeInt = Field(default=0, description="keys that are kept per modality; 0: in-batch negatives alone")
    momentum: Fraction = Field(default=0.99, description="decay per step of the encoder that makes the keys")


class NoisyPairsConfig(Strict):
    """Set how strongly disagreeing modalities of one item are treated as belonging to different items."""

    strength: Probability = Field(default=0.5, description="1: a pair that is no nearer than strangers does not count")
    warmup_epochs: NonNegativeInt = Field(default=2, description="epochs in which every pair counts in full")


class TagGraphConfig(Strict):
    """Smooth the tag classifier over tags that occur together."""

    layers: NonNegativeInt = Field(default=1, description="graph convolutions; 0: every tag is learned by itself")
    threshold: Probability = Field(
        default=0.1, description="tags are neighbours from this cosine of their columns of items x tags"
    )


class ContentTrainingConfig(Strict):
    """Set how long to train, how fast, and when to stop."""

    epochs: PositiveInt = Field(default=100, description="epochs of epoch_steps steps, at most; see patience")
    epoch_steps: PositiveInt = Field(default=50, description="steps between two looks at the validation clicks")
    batch_size: PositiveInt = Field(default=512, description="items or clicks of a step")
    held_out: float = Field(
        default=0.1, ge=0, lt=1, description="share of items that is not learned from, to tell when new items get worse"
    )
    learning_rate: PositiveFloat = Field(default=0.0003, description="of Adam")
    patience: PositiveInt = Field(default=5, description="epochs without a better last-N AUC before stopping")


class ContentConfig(Strict):
    """Configure `recall content train`: one vector per item from its base vectors, its tags and users' clicks."""

    features: tuple[str, ...] | None = Field(
        default=None, description="embeddings of features.meta to start from; default: all"
    )
    tags: tuple[str, ...] | None = Field(
        default=None, description="tags or categories of features.meta to learn from; default: all of type tags"
    )
    dim: PositiveInt = Field(default=64, description="width of the new vectors")
    hidden: tuple[PositiveInt, ...] = Field(default=(128,), description="hidden layers of the encoder")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="of hidden layers")
    input_dropout: float = Field(
        default=0.5, ge=0, lt=1, description="of base vectors: without it their details name the items"
    )
    loss: ContentLossConfig = Field(default=ContentLossConfig(), description="weights of the terms of the loss")
    temperature: PositiveFloat = Field(default=0.3, description="start value of what cosines are divided by")
    learn_temperature: bool = Field(default=True, description="whether training moves the temperature")
    crowd: CrowdConfig = Field(default=CrowdConfig(), description="which clicks count as consecutive (loss.crowd)")
    queue: QueueConfig = Field(default=QueueConfig(), description="further negatives of loss.modalities")
    noisy_pairs: NoisyPairsConfig = Field(
        default=NoisyPairsConfig(), description="how far modalities that disagree are believed (loss.modalities)"
    )
    tag_graph: TagGraphConfig = Field(default=TagGraphConfig(), description="tags that occur together (loss.tags)")
    clusters: tuple[PositiveInt, ...] = Field(
        default=(32, 512), description="virtual ids of the new vectors: total nodes per level; [] for none"
    )
    training: ContentTrainingConfig = Field(
        default=ContentTrainingConfig(), description="how long, how fast, when to stop"
    )

    @model_validator(mode="after")
    def _levels_refine(self) -> ContentConfig:
        for coarse, fine in itertools.pairwise(self.clusters):
            if fine % coarse:
                raise ValueError(
                    f"clusters {list(self.clusters)}: each level splits the nodes of the one before, so {fine} has to "
                    f"be a multiple of {coarse}"
                )
        return self

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> ContentConfig:
        if 0 < self.queue.size < self.training.batch_size:
            raise ValueError(
                f"queue.size {self.queue.size} is less than training.batch_size {self.training.batch_size}, whose keys "
                "it has to hold; raise it, or set it to 0 for in-batch negatives alone"
            )
        return self

    def embeddings(self, schema: FeatureSchema) -> list[EmbeddingFeature]:
        """Return the base vectors: embeddings of `features.meta` whose vectors the prepared data keeps.

        Raises:
          ValueError: `features` names something else.
        """
        there = {
            feature.name: feature for feature in schema.meta if feature.type == "embedding" and feature.uses_vector
        }
        names = list(there) if self.features is None else self.features
        if unknown := [name for name in names if name not in there]:
            raise ValueError(
                f"content.features: {', '.join(unknown)} is no embedding of features.meta with its vector; "
                f"there {'are' if there else 'is'} {', '.join(there) or 'none'}"
            )
        return [there[name] for name in names]

    def tag_features(self, schema: FeatureSchema) -> list[str]:
        """Return the names of the features whose values are used as tags.

        Raises:
          ValueError: `tags` names something else.
        """
        there = {feature.name: feature.type for feature in schema.meta if feature.type in ("tags", "category")}
        if self.tags is None:
            return [name for name, kind in there.items() if kind == "tags"]
        if unknown := [name for name in self.tags if name not in there]:
            raise ValueError(
                f"content.tags: {', '.join(unknown)} is no feature of type tags or category of features.meta; "
                f"there {'are' if there else 'is'} {', '.join(there) or 'none'}"
            )
        return list(self.tags)

    def check(self, schema: FeatureSchema) -> None:
        """Refuse settings that the features cannot support.

        Raises:
          ValueError: a named feature is not there, or a loss that is asked for by a number has nothing to learn from.
        """
        modalities = {schema.modalities[feature.name] for feature in self.embeddings(schema)}
        if _asked(self.loss.modalities) and len(modalities) < 2:
            raise ValueError(
                f"content.loss.modalities {self.loss.modalities} compares modalities, and the embeddings of "
                f"features.meta are of {len(modalities)}; add another, or set it to 0 or auto"
            )
        tags = self.tag_features(schema)
        for name in ("tags", "shared_tags"):
            if _asked(weight := getattr(self.loss, name)) and not tags:
                raise ValueError(
                    f"content.loss.{name} {weight} needs tags, and features.meta has none; add a feature of type tags, "
                    "name categories in content.tags, or set it to 0 or auto"
                )


def _asked(weight: float | Literal["auto"]) -> bool:
    return weight != "auto" and weight > 0
