"""Defines the requests and answers of the service, as the OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from typing_extensions import NotRequired, Self, TypedDict

from recall.core.canonical import LONGEST_ID
from recall.serving.search.filters import Filters

_INT64 = 1 << 63
_COLUMNS = 1024  # of a row


def _id_text(value: Any) -> Any:
    """Write a whole number as text, as ids of the log are read: 12 is "12"."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT64 else value


_IdText = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=LONGEST_ID)]
Id = Annotated[
    _IdText,
    BeforeValidator(_id_text, json_schema_input_type=_IdText | int),
]
Ids = Annotated[
    list[Id], Field(fail_fast=True)
]  # a list ends at its first mistake: a million of them would take seconds to tell


def _no_whole_number(value: Any) -> Any:
    """Refuse what is left of whole numbers, those of more than 64 bits: a float would be another number."""
    if isinstance(value, int):
        raise ValueError("expected a whole number of at most 64 bits")
    return value


Number = (
    Annotated[int, Field(strict=True, ge=-_INT64, lt=_INT64)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False), BeforeValidator(_no_whole_number)]
)
Text = Annotated[str, Field(strict=True)]


def _one_mistake(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Validate a value of a row; report a wrong one once, and not for each type that it might have had."""
    try:
        return validate(value)
    except ValidationError:
        raise ValueError("expected true, false, text, a finite number of at most 64 bits, or a list of numbers or of "
                         "text") from None  # fmt: skip


Value = Annotated[
    StrictBool
    | Number
    | Text
    | Annotated[list[Number], Field(fail_fast=True)]
    | Annotated[list[Text], Field(fail_fast=True)]
    | None,
    WrapValidator(_one_mistake),
]
StrictCount = Annotated[int, Field(strict=True, ge=1, lt=1 << 31)]
Column = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]


def _require_few_columns(row: Any) -> Any:
    """Refuse a row of thousands of columns before each of them is validated."""
    if isinstance(row, dict) and len(row) > _COLUMNS:
        raise ValueError(f"expected at most {_COLUMNS:,} columns, found {len(row):,}")
    return row


Row = Annotated[dict[Column, Value], Field(min_length=1, max_length=_COLUMNS), BeforeValidator(_require_few_columns)]
Moment = Annotated[int, Field(strict=True, ge=-_INT64, lt=_INT64)]
K = Annotated[StrictInt, Field(ge=1, lt=1 << 63, description="candidates per query")]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    k: K = 50
    filters: Annotated[Filters, Field(description="which items may be given")] = Filters()
    exclude: Annotated[Ids, Field(description="items that are not wanted, for every query of the request")] = Field(
        default_factory=list
    )
    caps: Annotated[
        dict[Column, StrictCount], Field(max_length=8, description="by column, items of one value in a list at most")
    ] = Field(default_factory=dict)
    min_cold_share: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="of each list, items without any exposure")
    ] = 0.0
    fallback: Annotated[
        StrictBool | Literal["filtered"],
        Field(
            description="popular and fresh items for whom the model has nothing, and, from the filters' lists of ids "
            "alone, for whom its predicates (where) leave nothing; filtered: never against the predicates"
        ),
    ] = True
    details: Annotated[StrictBool, Field(description="also title, gate share and exposures of every candidate")] = False

    @property
    def queries(self) -> int:
        """Count the queries of the request."""
        raise NotImplementedError

    def shared(self) -> tuple[str, str]:
        """Return the options that are equal in requests that share a call of the model."""
        raise NotImplementedError


class UserRow(BaseModel):
    """Describe a user whom no file knows: values under the column names of the users file, and clicked items."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[Column, Value]

    history: Annotated[Ids, Field(description="clicked items, oldest first")] = Field(default_factory=list)
    history_times_ms: (
        Annotated[list[Moment], Field(fail_fast=True, description="when each was clicked, Unix milliseconds")] | None
    ) = None

    @model_validator(mode="before")
    @classmethod
    def _has_few_columns(cls, row: Any) -> Any:
        return _require_few_columns(row)


class RecallRequest(_Request):
    """Ask for candidates for users, by their ids or described by their features."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["users"]}, {"required": ["features"]}]})

    users: Annotated[Ids, Field(min_length=1, description="ids")] | None = None
    features: (
        Annotated[
            list[UserRow],
            Field(fail_fast=True, min_length=1, description="one row per user"),
        ]
        | None
    ) = None
    histories: Annotated[
        dict[Id, Ids],
        Field(description="per user the clicked items, oldest first, in place of what the log holds"),
    ] = Field(default_factory=dict)
    exclude_seen: Annotated[StrictBool, Field(description="leave out what the user clicked")] = True

    @model_validator(mode="after")
    def _asks_for_somebody(self) -> Self:
        if (self.users is None) == (self.features is None):
            raise ValueError("expected either users or features, found " + ("both" if self.users else "neither"))
        if self.histories and self.users is None:
            raise ValueError("histories belong to users; a row of features has a history of its own")
        return self

    @property
    def queries(self) -> int:
        """Count the queries of the request."""
        return len(self.users or self.features or ())

    def shared(self) -> tuple[str, str]:
        """Return all options but the users; exclusions and histories belong to users, not to rows of features."""
        own = {"users", "features", "histories"} | ({"exclude"} if self.users else set())
        return "users" if self.users else "features", self.model_dump_json(exclude=own, by_alias=True)


class SimilarRequest(_Request):
    """Ask for candidates for items; each has to be in the index."""

    items: Annotated[Ids, Field(min_length=1, description="ids")]

    @property
    def queries(self) -> int:
        """Count the queries of the request."""
        return len(self.items)

    def shared(self) -> tuple[str, str]:
        """Return all options but the items."""
        return "items", self.model_dump_json(exclude={"items"}, by_alias=True)


class AddItemsRequest(BaseModel):
    """Add or change items: raw values under the column names of the items file, with the id."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    items: Annotated[list[Row], Field(fail_fast=True, min_length=1)]


class DeleteItemsRequest(BaseModel):
    """Delete items, so that they are found no more."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    ids: Annotated[Ids, Field(min_length=1)]


class Candidate(TypedDict):
    """Hold a recalled item. Title, gate share and exposures come with `details`, where they are known."""

    id: str
    score: float
    title: NotRequired[str]
    gate_share: NotRequired[Annotated[float, Field(description="behaviour's share in the vector, 0 to 1")]]
    exposures: NotRequired[int]


class Result(TypedDict):
    """Hold the candidates of one query, best first; fewer than k where there are no more.

    Scores of a fallback are smoothed click-through rates. `relaxed` is true where the filters' predicates left nothing
    and were given up: the items fit `allow` and `deny`, but not `where`.
    """

    items: list[Candidate]
    source: Literal["model", "fallback"]
    relaxed: NotRequired[Literal[True]]


class RecallAnswer(TypedDict):
    """Hold one result per query, in their order, all from one version."""

    results: list[Result]
    version: Annotated[str, Field(description="fingerprint of the model / number of the index")]


class WriteAnswer(TypedDict):
    """Confirm a write. The items are durable and can be found, or are gone, when this arrives."""

    items: int
    version: str
    clipped: NotRequired[
        Annotated[
            dict[str, int],
            Field(description="by feature, values outside of what training saw, which count as its nearest end"),
        ]
    ]


class HealthAnswer(TypedDict):
    """Confirm that the process runs."""

    status: Literal["ok"]


class BackgroundAnswer(TypedDict):
    """Describe work in the background: looks at the run for something new, and rebalancing where there are writes."""

    failures: Annotated[int, Field(description="since the last success")]
    last_success: Annotated[float | None, Field(description="Unix seconds; null before the first")]
    age_seconds: Annotated[float, Field(description="since the last success, or since it began")]
    error: Annotated[str | None, Field(description="kind of the last error; the log says more")]


class ReadyAnswer(TypedDict):
    """Confirm that the service answers."""

    status: Literal["ready"]
    version: str
    items: Annotated[int, Field(description="that can be found")]
    background: Annotated[dict[str, BackgroundAnswer], Field(description="by name")]
