"""The training data job in polars: what the library's does, to Parquet instead of TFRecord.

Lazy queries on the streaming engine, as the user guide recommends for logs that may not fit into memory; where two
queries need one result it is collected once. Two clicks of a user in one millisecond are taken in any order.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from benchmarks.speed.peers.job import BUCKET_MS, DELAY_MS, HELD_OUT, HISTORY, MIN_COUNT, STRENGTH, WINDOW_MS

_SPLITS = ("train", "validation", "test")


def prepare(log: Path, out: Path) -> None:
    """Reads log-*.parquet and items.parquet, writes everything below `out`."""
    out.mkdir(parents=True)
    items = pl.scan_parquet(log / "items.parquet").with_row_index("row").with_columns(pl.col("row").cast(pl.Int32))
    catalogue = items.collect(engine="streaming")
    events = _read(log, catalogue.select("item_id", "row"), out)

    times = events["time_ms"].sort()
    validation_ms, test_ms = (times[int(len(times) * (1 - share))] for share in (sum(HELD_OUT), HELD_OUT[1]))
    split = (pl.col("time_ms") >= validation_ms).cast(pl.Int8) + (pl.col("time_ms") >= test_ms).cast(pl.Int8)
    events = events.with_columns(split=split)
    training = events.lazy().filter(pl.col("split") == 0)
    prior = training.select(pl.col("click").mean()).collect(engine="streaming").item()

    _write_tables(events, catalogue, prior, (validation_ms, test_ms, times[-1]), out)
    history = _posterior_history(events)
    history.write_parquet(out / "posterior_buckets.parquet")
    _write_examples(_clicks(events, history, prior), out)


def _read(log: Path, rows: pl.DataFrame, out: Path) -> pl.DataFrame:
    """Usable events, exact duplicates dropped, items as rows of the catalogue; the others are written with a reason."""
    read = pl.scan_parquet(log / "log-*.parquet", row_index_name="number", include_file_paths="file").join(
        rows.lazy(), on="item_id", how="left"
    )
    reason = (
        pl.when(pl.col("user_id").is_null())
        .then(pl.lit("user is missing"))
        .when(pl.col("item_id").is_null())
        .then(pl.lit("item is missing"))
        .when(pl.col("time_ms").is_null())
        .then(pl.lit("time is missing"))
        .when(pl.col("is_click").is_null())
        .then(pl.lit("click is missing"))
        .when(pl.col("row").is_null())
        .then(pl.lit("item is not in the items file"))
    )
    read = read.with_columns(reason=reason)
    usable = read.filter(pl.col("reason").is_null()).select(
        "user_id", "row", "time_ms", click=pl.col("is_click") >= 1
    )  # fmt: skip
    rejected = read.filter(pl.col("reason").is_not_null()).drop("row")
    rejected_rows, events = pl.collect_all([rejected, usable.unique()], engine="streaming")
    rejected_rows.write_parquet(out / "rejected.parquet")
    return events


def _posterior_history(events: pl.DataFrame) -> pl.DataFrame:
    """Running totals per item at the end of each bucket, and when they become known."""
    counts = (
        events.lazy()
        .group_by("row", bucket=pl.col("time_ms") // BUCKET_MS)
        .agg(exposures=pl.len(), clicks=pl.col("click").sum(), first_ms=pl.col("time_ms").min())
        .sort("row", "bucket")
        .collect(engine="streaming")
    )
    return counts.with_columns(
        exposures=pl.col("exposures").cum_sum().over("row"),
        clicks=pl.col("clicks").cum_sum().over("row"),
        first_ms=pl.col("first_ms").min().over("row"),
        known_ms=(pl.col("bucket") + 1) * BUCKET_MS + DELAY_MS,
    )


def _smoothed(exposures: pl.Expr, clicks: pl.Expr, prior: float) -> pl.Expr:
    return ((clicks + prior * STRENGTH) / (exposures + STRENGTH)).cast(pl.Float32)


def _clicks(events: pl.DataFrame, history: pl.DataFrame, prior: float) -> pl.DataFrame:
    """Every click with its history, its trigger and the posterior as of the click, by user and time."""
    clicks = events.filter("click").drop("click").sort("time_ms")
    known = history.sort("known_ms").select("row", "known_ms", "exposures", "clicks", "first_ms")
    clicks = clicks.join_asof(
        known, left_on="time_ms", right_on="known_ms", by="row", strategy="backward", check_sortedness=False
    )
    clicks = clicks.sort("user_id", "time_ms").with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
    lists = clicks.rolling("place", period=f"{HISTORY}i", closed="left", group_by="user_id").agg(
        history=pl.col("row"), history_time_ms=pl.col("time_ms")
    )
    clicks = clicks.with_columns(lists.sort("place").select("history", "history_time_ms"))  # groups come in any order
    earlier_ms = pl.col("time_ms").shift(1).over("user_id")
    is_recent = pl.col("time_ms") - earlier_ms <= WINDOW_MS
    exposures, ctr = pl.col("exposures").fill_null(0), pl.col("clicks").fill_null(0)
    return clicks.with_columns(
        trigger=pl.when(is_recent).then(pl.col("row").shift(1).over("user_id")).otherwise(-1),
        exposures=exposures,
        clicks=ctr,
        smoothed_ctr=_smoothed(exposures, ctr, prior),
        age_hours=((pl.col("time_ms") - pl.col("first_ms")) / 3_600_000).fill_null(0).cast(pl.Float32),
    ).drop("known_ms", "first_ms")


def _write_examples(clicks: pl.DataFrame, out: Path) -> None:
    of_users = clicks.group_by("user_id", maintain_order=True).agg(pl.col("row"), pl.col("time_ms"))
    of_users.select(
        "user_id",
        recent=pl.col("row").list.tail(HISTORY),
        recent_time_ms=pl.col("time_ms").list.tail(HISTORY),
        seen=pl.col("row").list.unique().list.sort(),
    ).write_parquet(out / "histories.parquet")
    clicks = clicks.with_columns(earlier=pl.int_range(pl.len()).over("user_id"))
    for split, name in enumerate(_SPLITS):
        examples = clicks.filter(pl.col("split") == split)
        if split == 0:
            # A shard must not go through its users one after another.
            examples = examples.sample(fraction=1, shuffle=True, seed=1).drop("earlier")
        else:
            seen = pl.col("row_right").list.head(pl.col("earlier")).list.unique().list.sort()
            examples = examples.join(of_users.select("user_id", "row"), on="user_id", how="left", maintain_order="left")
            examples = examples.with_columns(seen=seen).drop("row_right", "earlier")
        examples.drop("split", "place").write_parquet(out / f"{name}.parquet")


def _write_tables(
    events: pl.DataFrame, catalogue: pl.DataFrame, prior: float, moments_ms: tuple[int, int, int], out: Path
) -> None:
    """Encoded items and users, and what is known of every item when each split, and serving, begins."""
    totals = (
        events.lazy()
        .group_by("row", "split")
        .agg(exposures=pl.len(), clicks=pl.col("click").sum(), first_ms=pl.col("time_ms").min())
        .collect(engine="streaming")
    )
    training = totals.filter(pl.col("split") == 0).select("row", "clicks")
    encoded = catalogue.join(training, on="row", how="left").with_columns(pl.col("clicks").fill_null(0))
    for name, count in (("item_id", "clicks"), ("author_id", "clicks"), ("category", None)):
        counted = encoded.group_by(name).agg(count=pl.col(count).sum() if count else pl.len())
        vocabulary = counted.filter(pl.col("count") >= MIN_COUNT).sort(["count", name], descending=[True, False])
        vocabulary.write_parquet(out / f"vocabulary_{name}.parquet")
        codes = vocabulary.select(name, (pl.int_range(pl.len()) + 2).alias(f"{name}_code"))
        encoded = encoded.join(codes, on=name, how="left", maintain_order="left").with_columns(
            pl.col(f"{name}_code").fill_null(1)
        )
    duration = pl.col("duration_s")
    encoded.with_columns(duration=((duration - duration.mean()) / duration.std())).write_parquet(out / "items.parquet")

    users = events.lazy().filter((pl.col("split") == 0) & pl.col("click")).group_by("user_id").len()
    users = users.sort(["len", "user_id"], descending=[True, False]).with_row_index("code", offset=2)
    users.collect(engine="streaming").write_parquet(out / "users.parquet")

    for last, (name, moment_ms) in enumerate(zip(("validation", "test", "serving"), moments_ms, strict=True)):
        known = totals.filter(pl.col("split") <= last).group_by("row").agg(
            pl.col("exposures").sum(), pl.col("clicks").sum(), pl.col("first_ms").min()
        )  # fmt: skip
        snapshot = catalogue.select("item_id", "row").join(known, on="row", how="left", maintain_order="left")
        snapshot = snapshot.with_columns(pl.col("exposures", "clicks").fill_null(0))
        snapshot.with_columns(
            smoothed_ctr=_smoothed(pl.col("exposures"), pl.col("clicks"), prior),
            age_hours=((moment_ms - pl.col("first_ms")) / 3_600_000).fill_null(0).cast(pl.Float32),
        ).write_parquet(out / f"posterior_{name}.parquet")
