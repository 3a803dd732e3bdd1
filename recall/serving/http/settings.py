"""Defines the settings of the service: limits, time-outs, batching, writing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SecretStr, ValidationError, model_validator

from recall.config.strict import Strict
from recall.config.yaml_file import apply_override, describe, plain
from recall.core.errors import ConfigError
from recall.index import RebalancePolicy

Seconds = Annotated[float, Field(gt=0, le=3600)]
Count = Annotated[int, Field(ge=1)]


class ServiceSettings(Strict):
    """Hold the settings of `recall serve`; each is one `--set name=value`."""

    max_k: Count = Field(default=1000, description="candidates per query")
    max_batch: Count = Field(default=256, description="users, items or rows in one request")
    max_list: Count = Field(default=10_000, description="entries of any other list: exclude, a history, a vector")
    max_values: Count = Field(default=200_000, description="values in one body, by its commas and brackets")
    max_body_bytes: Count = Field(default=1 << 20, description="bytes of a request's body")
    max_work: Count = Field(
        default=8_000_000,
        description="looks at candidates that one request may cost, as estimated from users, k, caps, cold share, "
        "exclusions and predicates (about 3 s of a core)",
    )
    call_work: Count = Field(
        default=200_000,
        description="of these in one call of the model: a request of more is cut, and its parts take turns with others",
    )
    timeout_seconds: Seconds = Field(default=10.0, description="from a request's first byte to its answer, else 504")
    shutdown_seconds: Seconds = Field(
        default=30.0, description="from SIGTERM, SIGINT or SIGHUP to the end of the process, whatever is under way"
    )
    max_connections: Count = Field(default=1000, description="at the same time; an idle one makes room for a new one")
    idle_seconds: Seconds = Field(default=10.0, description="for the head of a request, and to read on in an answer")
    hosts: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None,
        description="names in the Host header; default: localhost alone where it listens for its own machine, else any",
    )
    batch_wait_ms: float = Field(default=1.5, ge=0, le=1000, description="that a request waits for others to join it")
    batch_queries: Count = Field(default=256, description="queries in one call of the model, of all joined requests")
    queue_queries: Count = Field(default=2048, description="queries that may wait for the model, else 503")
    model_threads: Count = Field(default=2, description="calls of the model at the same time")
    reload_seconds: Seconds = Field(default=1.0, description="between two looks at the run's published version")
    retry_seconds: Seconds = Field(
        default=60.0, description="at most, until a version that did not load is tried again"
    )
    rebalance_seconds: Seconds = Field(default=60.0, description="between two looks at how far writes moved the index")
    rebalance_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.1, description="of the items, written since the index was built: more is built anew"
    )
    rebalance_changes: Count = Field(default=1000, description="items written since, below which nothing is built anew")
    allow_writes: bool = Field(default=False, description="POST and DELETE /items")
    token: SecretStr | None = Field(default=None, description="that writers must send; not to be given by --set")
    writes_without_token: bool = Field(
        default=False, description="takes writes of everybody, where other machines reach the service, too"
    )

    @property
    def rebalancing(self) -> RebalancePolicy:
        """Return the policy that says when an index with writes is built anew."""
        return RebalancePolicy(
            most_recent_share=self.rebalance_share,
            least_changes=self.rebalance_changes,
            check_every_seconds=self.rebalance_seconds,
        )

    @model_validator(mode="after")
    def _a_full_request_fits(self) -> ServiceSettings:
        if self.queue_queries < self.max_batch:
            raise ValueError(
                f"queue_queries ({self.queue_queries}) is below max_batch ({self.max_batch}), so that a full request "
                "would always be refused; raise the one or lower the other"
            )
        token = None if self.token is None else self.token.get_secret_value()
        if token is not None and (not token or token != token.strip()):
            raise ValueError("the token is empty, or begins or ends with white space, which no HTTP header can carry")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token holds characters that no HTTP header can carry; use printable ASCII")
        return self


def read_settings(
    overrides: Iterable[str] = (),
    *,
    allow_writes: bool = False,
    writes_without_token: bool = False,
    token_file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServiceSettings:
    """Read the settings of the service from the command line.

    Args:
      overrides: `name=value` pairs, the value in YAML notation.
      allow_writes: whether /items takes writes.
      writes_without_token: whether it takes writes of everybody, where other machines reach the service, too.
      token_file: holds the token of writers; white space around it is ignored.
      environment: its RECALL_TOKEN is the token if no file is given.

    Raises:
      ConfigError: names the setting, the value found, and the value to write.
    """
    content: dict[str, Any] = {}
    for override in overrides:
        if override.partition("=")[0].strip() in ("token", "allow_writes", "writes_without_token"):
            # A command line is visible to every user of the machine.
            raise ConfigError(
                "--set: token, allow_writes and writes_without_token have options of their own: --token-file, "
                "--allow-writes, --writes-without-token"
            )
        apply_override(content, override)
    if token_file is not None and not allow_writes:
        raise ConfigError(
            "--token-file: writes are off, so that nobody needs a token; add --allow-writes, or remove it"
        )
    if writes_without_token and not allow_writes:
        raise ConfigError("--writes-without-token: writes are off; add --allow-writes, or remove it")
    token = _token(token_file, environment or {}) if allow_writes else None
    if writes_without_token and token is not None:
        raise ConfigError(
            "--writes-without-token: a token is given (--token-file or RECALL_TOKEN); remove the one or the other"
        )
    try:
        return ServiceSettings.model_validate(
            {
                **plain(content),
                "allow_writes": allow_writes,
                "writes_without_token": writes_without_token,
                "token": token,
            }
        )
    except ValidationError as error:
        problems = (
            str(problem["ctx"]["error"]) if problem["type"] == "value_error" else describe(problem)
            for problem in error.errors()
        )
        raise ConfigError("--set " + "\n  ".join(problems)) from None


def _token(path: Path | None, environment: Mapping[str, str]) -> str | None:
    if path is None:
        token = environment.get("RECALL_TOKEN")
        if token is not None and not token.strip():
            raise ConfigError(
                "RECALL_TOKEN: is empty, so that everybody could write; set it to the token of writers, or unset it"
            )
        return None if token is None else token.strip()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {path}: cannot be read ({error}); give a file with the token in it") from error
    if not token:
        raise ConfigError(f"--token-file {path}: is empty; write the token into it")
    return token
