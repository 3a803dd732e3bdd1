"""Simulates a community: an exposure log in which content matters, and also traits that content does not show.

`community.py` draws who likes what; `feed.py` decides what is shown and clicked. Here both become tables as a real
service would log them, which reveal the truth only through content and clicks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recall.core.arrays import Float32s, Float64s, Int64s
from recall.core.errors import ConfigError
from recall.data.datasets.community import TAGS_PER_TOPIC, TOPICS, Community, make_community, unit
from recall.data.datasets.feed import HOUR_MS, START_MS, Feed, Log, run_feed, with_bias
from recall.data.datasets.files import Dataset

_VECTOR_DIM = 32

_AGES = ("under 18", "18-24", "25-34", "35-44", "45+")
_REGIONS = ("north", "east", "south", "west")
_FIRST_NAMES = ("Ana", "Ben", "Chen", "Dora", "Emre", "Fay", "Goran", "Hana", "Ivo", "Jun", "Kaya", "Leo", "Mira",
                "Noor", "Omar", "Pia", "Quinn", "Rosa", "Sven", "Tala")  # fmt: skip
_LAST_NAMES = ("Adler", "Brook", "Costa", "Diaz", "Ekman", "Fuchs", "Grau", "Holm", "Ito", "Jansen", "Kim", "Lund",
               "Moreau", "Nagy", "Okoye", "Park", "Rossi", "Silva", "Tran", "Weiss")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SimulatedDataset(Dataset):
    """Hold a data set whose truth is known.

    Attributes:
      truth: users and items as they truly are; its rows are those of the tables.
      activity: float64 [users], how often each user comes, relative to the others.
    """

    truth: Community
    activity: Float64s


def simulate(
    *,
    users: int = 2_000,
    items: int = 3_000,
    days: int = 14,
    log_days: int | None = None,
    authors: int = 300,
    topics: int = 20,
    exposures: int = 300_000,
    ctr: float = 0.2,
    content_weight: float = 4.0,
    taste_weight: float = 3.0,
    quality_spread: float = 0.9,
    published_before: float = 0.4,
    text_missing: float = 0.05,
    image_missing: float = 0.15,
    seed: int = 1,
) -> SimulatedDataset:
    """Simulate a community and its feed.

    Time goes in steps of an hour, each vectorised over its users and all items; memory is users x items bytes.

    Args:
      users: number of users.
      items: number of items; `published_before` of them exist when the log starts, the others appear evenly in time.
      days: length of the log.
      log_days: ends the log after so many of the days; items are published to the end of `days`. Default: all.
      authors: number of authors.
      topics: number of topics, at most 20.
      exposures: approximate number of rows of the log.
      ctr: approximate share of clicked exposures.
      content_weight: influence of traits that content shows on a click.
      taste_weight: influence of traits that only behaviour shows on a click.
      quality_spread: standard deviation of an item's quality, which only behaviour shows.
      published_before: share of the items that is older than the log.
      text_missing: share of items without a text vector.
      image_missing: share of items without an image vector.
      seed: equal arguments give equal data (with the same version of NumPy on the same kind of machine).

    Returns:
      events: user_id, item_id, time_ms int64 (Unix ms), is_click int8, in order of time.
      items: item_id, title, author_id, category, tags list<string>, duration_s int32, published_ms int64, text and
        image list<float> [32] or null; in order of publication.
      users: user_id, age_band and region (both say a little about taste and interests), activity.
      truth: the community behind it.

    Raises:
      ConfigError: a size or share is out of range.

    Example:
      >>> community = recall.simulate(users=50, items=80, days=2, authors=10, topics=4, exposures=2_000)
      >>> community.items.num_rows, community.users.num_rows
      (80, 50)
      >>> [path.name for path in community.write("community")]
      ['events.parquet', 'items.parquet', 'users.parquet']
    """
    log_days = days if log_days is None else log_days
    counts = {"users": users, "items": items, "days": days, "log_days": log_days, "authors": authors}
    counts["exposures"] = exposures
    shares = {"published_before": published_before, "text_missing": text_missing, "image_missing": image_missing}
    _check(counts=counts, shares=shares, topics=topics, ctr=ctr)
    rng = np.random.default_rng(seed)
    community = make_community(
        rng,
        users=users,
        items=items,
        authors=authors,
        topics=topics,
        content_weight=content_weight,
        taste_weight=taste_weight,
        quality_spread=quality_spread,
    )
    feed = Feed(rng, community)
    community = with_bias(rng, community, feed, ctr=ctr)
    published_ms = _publication_times(rng, items, days=days, before=published_before)
    activity = rng.lognormal(sigma=0.8, size=users)
    log = run_feed(rng, community, feed, published_ms, activity, days=log_days, exposures=exposures)
    user_ids, item_ids = _ids("u", users), _ids("i", items)
    return SimulatedDataset(
        events=_event_table(log, user_ids, item_ids),
        items=_item_table(rng, community, item_ids, published_ms, missing=(text_missing, image_missing)),
        users=_user_table(rng, community, user_ids, activity),
        truth=community,
        activity=activity,
    )


def _check(*, counts: dict[str, int], shares: dict[str, float], topics: int, ctr: float) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"simulate: {name} is {count}; expected at least 1")
    if counts["log_days"] > counts["days"]:
        raise ConfigError(f"simulate: log_days is {counts['log_days']}; expected at most days ({counts['days']})")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ConfigError(f"simulate: {name} is {share}; expected a share between 0 and 1")
    if not 1 <= topics <= len(TOPICS):
        raise ConfigError(f"simulate: topics is {topics}; expected 1 to {len(TOPICS)}")
    if not 0 < ctr < 1:
        raise ConfigError(f"simulate: ctr is {ctr}; expected a share between 0 and 1, both excluded")


def _publication_times(rng: np.random.Generator, items: int, *, days: int, before: float) -> Int64s:
    """Draw sorted Unix ms: a share of the items in the two weeks before the log, the others evenly during it."""
    old = round(items * before)
    offsets = np.concatenate([-14 * rng.random(old), days * rng.random(items - old)])
    return np.sort(START_MS + (offsets * 24 * HOUR_MS).astype(np.int64))


def _event_table(log: Log, user_ids: pa.StringArray, item_ids: pa.StringArray) -> pa.Table:
    return pa.table(
        {
            "user_id": user_ids.take(pa.array(log.user)),
            "item_id": item_ids.take(pa.array(log.item)),
            "time_ms": pa.array(log.time_ms),
            "is_click": pa.array(log.click.astype(np.int8)),
        }
    )


def _item_table(
    rng: np.random.Generator,
    community: Community,
    ids: pa.StringArray,
    published_ms: Int64s,
    *,
    missing: tuple[float, float],
) -> pa.Table:
    topics = np.array(list(TOPICS))
    words = [word for tags in TOPICS.values() for word in tags]
    tags = [[words[tag] for tag in np.flatnonzero(row)] for row in community.tags]
    names = [f"{first} {last}" for last in _LAST_NAMES for first in _FIRST_NAMES]
    own_tag = community.topic * TAGS_PER_TOPIC  # [items], first tag of the item's topic
    first_word = [
        words[own + np.argmax(row[own : own + TAGS_PER_TOPIC])]
        for own, row in zip(own_tag, community.tags, strict=True)
    ]
    titles = [
        f"{topics[topic]}: {word} #{number} by {names[author % len(names)]}"
        for number, (topic, word, author) in enumerate(
            zip(community.topic, first_word, community.author, strict=True), start=1
        )
    ]
    seconds = rng.lognormal(mean=3.5 + 0.1 * (community.topic % 8), sigma=0.5)
    # Text sees the first dimensions of content, image the last ones; both are needed for the whole of it.
    text = _modality(rng, community.content[:, :12], noise=0.4, missing=missing[0])
    image = _modality(rng, community.content[:, 6:], noise=0.5, missing=missing[1])
    return pa.table(
        {
            "item_id": ids,
            "title": titles,
            "author_id": _ids("a", int(community.author.max()) + 1).take(pa.array(community.author)),
            "category": pa.array(topics[community.topic].tolist()),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "duration_s": pa.array(np.ceil(seconds), pa.int32()),
            "published_ms": pa.array(published_ms),
            "text": text,
            "image": image,
        }
    )


def _modality(rng: np.random.Generator, content: Float32s, *, noise: float, missing: float) -> pa.ListArray:
    """Show content in a rotated, wider space with noise of the given length; null where missing."""
    rotation, _ = np.linalg.qr(rng.normal(size=(_VECTOR_DIM, content.shape[1])))  # [32, content], orthonormal columns
    vectors = content @ rotation.T + noise * unit(rng.normal(size=(len(content), _VECTOR_DIM)))  # [items, 32]
    present = rng.random(len(content)) >= missing
    offsets = np.concatenate([[0], np.cumsum(present * _VECTOR_DIM)])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32(), mask=np.append(~present, False)),
        pa.array(vectors[present].astype(np.float32).ravel()),
    )


def _user_table(rng: np.random.Generator, community: Community, ids: pa.StringArray, activity: Float64s) -> pa.Table:
    levels = np.searchsorted(np.quantile(activity, [0.5, 0.9]), activity)
    return pa.table(
        {
            "user_id": ids,
            "age_band": _hint(rng, community.taste_group, _AGES),
            "region": _hint(rng, community.favourite, _REGIONS),
            "activity": pa.array(np.array(["low", "medium", "high"])[levels].tolist()),
        }
    )


def _hint(rng: np.random.Generator, truth: Int64s, values: tuple[str, ...]) -> pa.StringArray:
    """Draw a profile value that follows from the truth for half of the users and is random for the others."""
    random = rng.integers(len(values), size=len(truth))
    codes = np.where(rng.random(len(truth)) < 0.5, truth % len(values), random)
    return pa.array(np.array(values)[codes].tolist())


def _ids(prefix: str, count: int) -> pa.StringArray:
    width = len(str(count))
    return pa.array([f"{prefix}{number:0{width}d}" for number in range(1, count + 1)])
