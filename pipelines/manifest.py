"""Describes published training data: the entries of DIR/data/manifest.json beside the checksums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.exchange import Scratch
from pipelines.further_histories import described, rejected_entries
from pipelines.notes import notes_of
from pipelines.summaries import EncodedTables, OrderedLog
from recall.config.experiment import Config
from recall.data.content_prior.prior import ContentPrior
from recall.data.examples import example_schema
from recall.data.features.vocabulary import Vocabulary
from recall.data.item_totals import ItemTotals
from recall.data.prepared_files import REFIT
from recall.data.splits import SPLITS


def describe(
    config: Config,
    scratch: Scratch,
    log: OrderedLog,
    *,
    totals: ItemTotals,
    content_prior: ContentPrior | None,
    vocabularies: dict[str, Vocabulary],
    encoded: EncodedTables,
) -> dict[str, Any]:
    """Return the entries of the manifest: layout, counts, split, posterior, columns.

    Args:
      config: the experiment.
      scratch: all tables of the workers.
      log: summary of the log and its split.
      totals: events per item and split.
      content_prior: the fitted prior, where the experiment asks for one.
      vocabularies: history -> vocabulary of its items, where these are not in the catalogue.
      encoded: items and users as they were encoded.
    """
    data = config.data
    boundaries, prior = log.held_out.boundaries, log.held_out.prior
    return {
        "layout": data.layout,
        "time_unit": data.events.time_unit,
        "time_zone": data.events.time_zone,
        "shards": data.shards,
        "counts": _counts(scratch, log, totals),
        "notes": notes_of(data, scratch, log, clipped=encoded.clipped),
        "split": {"by": data.split.by, **(boundaries._asdict() if boundaries else {})},
        "posterior": {
            "bucket_ms": data.posterior.bucket,
            "delay_ms": data.posterior.delay,
            "prior_ctr": prior.ctr,
            "prior_strength": prior.strength,
            "half_lives_ms": list(data.half_lives_ms),
            **({"audience": data.audience} if data.audience else {}),
            **({"content_prior": content_prior.about} if content_prior else {}),
        },
        "trigger_window_ms": data.trigger.window,
        "history": data.history,
        "first_time_ms": log.summary.first_time_ms,
        "last_time_ms": log.summary.end_ms,
        "columns": {"items": list(log.items.columns)},
        "item_id_feature": _item_id_feature(config),
        "user_id_column": encoded.user_id_column,
        "clipped": encoded.clipped,
        **({"judged": encoded.judged} if encoded.judged else {}),
        "examples": {name: _columns(config, split) for split, name in enumerate(SPLITS)},
        **({"histories": _histories(config, scratch, vocabularies)} if data.histories else {}),
    }


def _counts(scratch: Scratch, log: OrderedLog, totals: ItemTotals) -> dict[str, Any]:
    """Count rows, items, examples and records."""
    written = pa.concat_tables(scratch.read_all("written"))

    def by_split(what: str) -> dict[str, int]:
        return {name: sum(written[f"{name}_{what}"].to_pylist()) for name in SPLITS}

    refit = f"{REFIT}_records"
    of_refit = {REFIT: sum(written[refit].to_pylist())} if refit in written.column_names else {}
    return {
        **log.summary.counts(log.rejected),
        "items": len(log.items),
        "items_exposed": int(np.count_nonzero(totals.exposures.sum(axis=1))),
        "examples": by_split("examples"),
        "records": by_split("records") | of_refit,
    }


def _columns(config: Config, split: int) -> dict[str, str]:
    """Name the columns of a split's examples and their types."""
    data = config.data
    schema = example_schema(
        data.layout,
        split,
        weighted=data.events.weight is not None,
        histories=data.histories,
        refused=data.refused.count > 0,
    )
    return {field.name: str(field.type) for field in schema}


def _histories(config: Config, scratch: Scratch, vocabularies: dict[str, Vocabulary]) -> dict[str, Any]:
    """Describe the further histories by name."""
    return dict(described(scratch, config.data, vocabularies, rejected_entries(scratch, config.data)))


def _item_id_feature(config: Config) -> str | None:
    """Find the feature that is the item's own id."""
    features = (feature for feature in config.features.item if feature.type == "id")
    return next((feature.name for feature in features if feature.source == config.data.items.id), None)
