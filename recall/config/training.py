"""Defines the `training` section of the experiment file: how long, how fast, when to stop, and in which stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from recall.config.strict import Strict
from recall.config.tunable import Between, OneOf
from recall.config.values import Decay, DurationMs

StageName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]


class InitialiseConfig(Strict):
    """Configure a stage without clicks: the meta tower learns to tell items apart as given vectors do."""

    path: Path = Field(description="one vector per item, of any width: .npy by line of the items file, or Parquet")
    temperature: PositiveFloat = Field(default=0.07, description="what cosines are divided by in the softmax")


class StageData(Strict):
    """Choose the training clicks that a stage learns from. The other clicks stay candidates and negatives."""

    weights: Literal["given", "equal"] = Field(
        default="given", description="what clicks count: data.events.weight, or all alike"
    )
    min_weight: NonNegativeFloat = Field(default=0.0, description="clicks that weigh less are no targets")
    recent: DurationMs | None = Field(
        default=None, ge=1, description="only clicks of the last so much time before validation, e.g. 7d"
    )

    @property
    def is_everything(self) -> bool:
        """Tell whether the stage sees the clicks as they are."""
        return self == StageData()


class StageConfig(Strict):
    """Configure one of several trainings in a row.

    Each starts from the best weights of the stage before. Settings that it leaves out are those of `training`.
    """

    name: StageName = Field(description="name in the report and in the training history")
    initialise: InitialiseConfig | None = Field(
        default=None, description="teach the meta tower given vectors, without clicks; the first stage only"
    )
    data: StageData = Field(default=StageData(), description="the clicks that this stage learns from")
    loss: dict[str, Any] = Field(default={}, description="settings of model.loss that differ in this stage")
    epochs: PositiveInt | None = Field(default=None, description="as of `training`")
    batch_size: PositiveInt | None = Field(default=None, description="as of `training`")
    learning_rate: PositiveFloat | None = Field(default=None, description="as of `training`")
    table_learning_rate: PositiveFloat | None = Field(default=None, description="as of `training`")
    patience: PositiveInt | None = Field(default=None, description="as of `training`")

    @model_validator(mode="after")
    def _initialising_reads_no_clicks(self) -> StageConfig:
        unread = [
            name
            for name, given in (("data", not self.data.is_everything), ("loss", self.loss), ("patience", self.patience))
            if given
        ]
        if self.initialise and unread:
            raise ValueError(
                f"stage {self.name} initialises the meta tower from vectors and reads no clicks, so that "
                f"{' and '.join(unread)} would do nothing; remove it, or put it into a stage of its own"
            )
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """Return the settings of `training` that differ in this stage."""
        names = ("epochs", "batch_size", "learning_rate", "table_learning_rate", "patience")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


class TrainingConfig(Strict):
    """Set how long to train, how fast, and when to stop."""

    epochs: PositiveInt = Field(default=20, description="passes over the training data, at most; see patience")
    min_epoch_steps: NonNegativeInt = Field(
        default=0,
        description="an epoch goes over the data until it has as many steps, so that on small data, too, there is "
        "something to judge after each",
    )
    batch_size: Annotated[PositiveInt, OneOf((256, 512, 1024, 2048, 4096), ordered=True)] = Field(
        default=1024, description="examples of a step (of data.layout user: users), on several workers of all together"
    )
    learning_rate: Annotated[PositiveFloat, Between(0.0005, 0.01, log=True)] = Field(
        default=0.002, description="of Adam, for all weights but the embedding tables"
    )
    table_optimizer: Literal["adagrad", "lazy_adam"] = Field(
        default="lazy_adam",
        description="optimizer of the embedding tables; adagrad: row-wise, its state is 1/dim of the table; lazy_adam: "
        "Adam on the rows of the batch alone",
    )
    table_learning_rate: PositiveFloat | None = Field(
        default=None, description="default: 0.1 for adagrad, the dense learning rate for lazy_adam"
    )
    ema: Decay = Field(
        default="auto",
        description="decay per step of the moving average of the weights, which is then what is judged and kept; "
        "auto: 0.99 while the tables are small, as each step touches all their rows",
    )
    patience: PositiveInt = Field(default=3, description="epochs without a better validation metric before stopping")
    metric: Literal["recall", "ndcg"] = Field(
        default="recall", description="validation metric that chooses the epoch and ends the training"
    )
    metric_k: PositiveInt = Field(default=50, description="cut-off of that metric")
    shuffle_buffer: PositiveInt = Field(default=200_000, description="examples that are shuffled at a time")
    refit: Literal["continue", "scratch", "none"] = Field(
        default="none",
        description="whether what is served learns from the held-out clicks, too, after the judged model was trained "
        "without them; continue: from its weights; scratch: anew from the whole log, for as many epochs; none: the "
        "judged model is served",
    )
    refit_epochs: PositiveInt = Field(default=1, description="passes of refit: continue")
    replay: Annotated[NonNegativeFloat, Field(le=1)] = Field(
        default=0.25,
        description="refit: continue goes over the held-out clicks and over this share of those that were learned "
        "before (data.layout: user: over all)",
    )
    stages: tuple[StageConfig, ...] = Field(
        default=(),
        description="several trainings in a row, each from where the one before was best, e.g. first the meta tower on "
        "given vectors, then all clicks, then the last week's; default: one",
    )

    @model_validator(mode="after")
    def _stages_follow_each_other(self) -> TrainingConfig:
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"stages: {', '.join(twice)} is there twice; give each stage a name of its own")
        if late := [stage.name for stage in self.stages[1:] if stage.initialise]:
            raise ValueError(
                f"stages: {', '.join(late)} initialises the meta tower, which would undo the stages before it; put "
                "it first"
            )
        if self.stages and self.refit == "scratch":
            raise ValueError(
                "refit: scratch goes through one training, and stages names several; use refit: continue, which goes "
                "on from the last stage"
            )
        if self.stages and all(stage.initialise for stage in self.stages):
            raise ValueError("stages: none reads clicks; add one that does, e.g. {name: clicks}")
        return self
