"""Defines the `features` section of the experiment file: what a feature is, and which tower may see it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from recall.config.strict import Strict
from recall.config.values import LocalPath

ATTRIBUTES = "attributes"
"""The modality of categories and numbers."""


class _Feature(Strict):
    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="name of the feature and of its column")
    column: str | None = Field(default=None, description="column in the file, where it differs from the name")
    modality: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=32,
        description="meta: features of one modality are joined before `model.fusion` joins modalities; default: an "
        "embedding (with its clusters) and tags are each their own, all others together are `attributes`",
    )

    @property
    def source(self) -> str:
        """Return the column of the input file that the feature is read from."""
        return self.column or self.name


class _Vocabulary(_Feature):
    min_count: PositiveInt = Field(default=1, description="values seen less often share the out-of-vocabulary row")


class IdFeature(_Vocabulary):
    """Describe an identifier that carries behaviour, not content: item id, author id, user id.

    The vocabulary holds values with at least `min_count` training clicks; others share the out-of-vocabulary row.
    """

    type: Literal["id"] = Field(description="the type of the feature")


class CategoryFeature(_Vocabulary):
    """Describe one value out of a small set. The vocabulary is counted over the rows of the items or users file."""

    type: Literal["category"] = Field(description="the type of the feature; a missing value has a code of its own")


class TagsFeature(_Vocabulary):
    """Describe a set of values: text joined by `separator`, or a list column in Parquet and JSON lines."""

    type: Literal["tags"] = Field(description="the type of the feature; missing is the empty set")
    separator: str = Field(default=",", min_length=1, description="between two tags in a text column")
    max_tags: PositiveInt = Field(default=32, description="tags of one row beyond this many are cut off")


class NumberFeature(_Feature):
    """Describe a number, standardised over the rows of its file (missing becomes the mean) or put into buckets."""

    type: Literal["number"] = Field(description="the type of the feature; missing is the mean, and a flag says so")
    transform: Literal["standardise", "bucketise"] = Field(
        default="standardise", description="mean 0 and deviation 1, or a category of quantile buckets"
    )
    log: bool = Field(default=False, description="take sign(x) log(1 + |x|) first")
    buckets: PositiveInt = Field(default=10, description="how many quantile buckets `bucketise` makes")


class EmbeddingFeature(_Feature):
    """Describe a dense vector per row: a `.npy` file aligned with the items file, or a list column of it."""

    type: Literal["embedding"] = Field(description="the type of the feature; missing is a learned stand-in")
    path: LocalPath | None = Field(default=None, description=".npy [rows, dim]; row i belongs to line i of the file")
    clusters: tuple[PositiveInt, ...] = Field(
        default=(), description="virtual cluster ids: total nodes per level, e.g. [32, 512]"
    )
    use: Literal["vector", "clusters", "both"] = Field(
        default="both", description="what the tower reads: the vector, its virtual cluster ids, or both"
    )

    @model_validator(mode="after")
    def _levels_refine(self) -> EmbeddingFeature:
        for coarse, fine in zip(self.clusters, self.clusters[1:], strict=False):
            if fine % coarse:
                raise ValueError(
                    f"clusters {list(self.clusters)}: each level splits the nodes of the one before, "
                    f"so {fine} has to be a multiple of {coarse}"
                )
        if self.use == "clusters" and not self.clusters:
            raise ValueError("use: clusters needs `clusters`, e.g. clusters: [32, 512]")
        return self

    @property
    def uses_vector(self) -> bool:
        """Tell whether the tower sees the vector itself."""
        return self.use != "clusters"

    @property
    def cluster_names(self) -> list[str]:
        """Name the category features, one per level, that the clusters give to the tower."""
        if self.use == "vector":
            return []
        return [f"{self.name}_cluster_{level}" for level in range(len(self.clusters))]


Feature = Annotated[
    IdFeature | CategoryFeature | TagsFeature | NumberFeature | EmbeddingFeature, Field(discriminator="type")
]


class FeatureSchema(Strict):
    """Assign features to towers.

    Raises:
      ValueError: a name is used twice in one table, `behaviour` holds content or `meta` holds an id (unless
        `allow_mixed`), or neither item tower sees anything.
    """

    user: tuple[Feature, ...] = Field(default=(), description="what the user tower reads of the profile")
    behaviour: tuple[Feature, ...] = Field(
        default=(), description="ids alone: what behaviour says of an item, its author, its music"
    )
    meta: tuple[Feature, ...] = Field(
        default=(), description="content alone: what is known of an item that was published a minute ago"
    )
    allow_mixed: bool = Field(
        default=False,
        description="let ids into `meta` and content into `behaviour`, which is refused otherwise: the towers only "
        "work while they are kept apart",
    )

    @model_validator(mode="after")
    def _towers_stay_apart(self) -> FeatureSchema:
        for feature in (*self.user, *self.behaviour):
            if feature.modality is not None:
                raise ValueError(
                    f"{feature.name} has modality {feature.modality}, but modalities are of content; remove the key, "
                    "or move the feature to `meta`"
                )
        if not self.behaviour and not self.meta:
            raise ValueError("no item features: list the item id under `behaviour` and its content under `meta`")
        for table, features in (("user", self.user), ("behaviour and meta", self.item)):
            names = [feature.name for feature in features]
            names += [name for feature in features if feature.type == "embedding" for name in feature.cluster_names]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{table}: {', '.join(twice)} is listed twice; give each feature its own name")
        if self.allow_mixed:
            return self
        ids = {feature.source for feature in self.behaviour if feature.type == "id"}
        for feature in self.behaviour:
            if feature.type != "id":
                raise ValueError(
                    f"behaviour: {feature.name} is content ({feature.type}); the behaviour tower sees ids only. "
                    "Move it to `meta`, or set allow_mixed: true"
                )
        for feature in self.meta:
            if feature.type == "id" or feature.source in ids:
                raise ValueError(
                    f"meta: {feature.name} is an id; the meta tower must work for items without behaviour. "
                    "Move it to `behaviour`, or set allow_mixed: true"
                )
        return self

    @property
    def modalities(self) -> dict[str, str]:
        """Map each meta feature to its modality, in the order of the features."""
        return {
            feature.name: feature.modality or (feature.name if _is_own_modality(feature) else ATTRIBUTES)
            for feature in self.meta
        }

    @property
    def ambiguous_modality(self) -> bool:
        """Tell whether `attributes` is both a feature's own modality and the default of others."""
        unnamed = [feature for feature in self.meta if feature.modality is None]
        own = [feature.name for feature in unnamed if _is_own_modality(feature)]
        return ATTRIBUTES in own and len(own) < len(unnamed)

    @property
    def item(self) -> tuple[Feature, ...]:
        """Return the features of the items file, behaviour first."""
        return self.behaviour + self.meta


def _is_own_modality(feature: Feature) -> bool:
    return feature.type in ("embedding", "tags")
