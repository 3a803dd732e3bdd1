"""Writes tiny made-up files under the published names of public data sets, enough to prepare training data of each."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

USERS, ITEMS, DAY_S = 12, 40, 86_400
Array = npt.NDArray[Any]


def log(days: int, *, rows: int = 600, seed: int = 1) -> tuple[Array, Array, Array, Array]:
    """Draw users, items (from 1), moments (seconds, rising) and clicks (0 or 1) of a log."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, days * DAY_S, rows))
    return rng.integers(1, USERS + 1, rows), rng.integers(1, ITEMS + 1, rows), seconds, rng.integers(0, 2, rows)


def vectors(rows: int, dim: int = 4) -> Array:
    return np.random.default_rng(2).normal(size=(rows, dim)).astype(np.float32)


def publish_kuairand(folder: Path) -> None:
    """Write KuaiRand-27K, whose standard logs come in two parts each."""
    data = folder / "data"
    data.mkdir(parents=True)
    header = "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_rand,tab\n"
    user, item, seconds, click = log(8)
    rows = [
        f"{u},{i},20220408,100,{1649376000000 + 1000 * s},{c},0,0,1\n"
        for u, i, s, c in zip(user, item, seconds, click, strict=True)
    ]
    names = [
        f"log_standard_{period}_27k_part{part}.csv" for period in ("4_08_to_4_21", "4_22_to_5_08") for part in (1, 2)
    ]
    for name, part in zip(names, np.array_split(rows, 4), strict=True):
        (data / name).write_text(header + "".join(part))
    (data / "log_random_4_22_to_5_08_27k.csv").write_text(header + "1,1,20220416,2,1650067200000,1,0,1,1\n")
    (data / "video_features_basic_27k.csv").write_text(
        "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_height,"
        "music_id,music_type,tag\n"
        + "".join(f'{i},{i % 5},NORMAL,2022-04-08,LongImport,1,{900 * i},720,1280,{i % 7},9,"{i % 3},9"\n'
                  for i in range(1, ITEMS + 1))
    )  # fmt: skip
    (data / "video_features_statistic_27k_part1.csv").write_text("video_id,counts\n0,1\n")
    profile = ["user_active_degree", "is_live_streamer", "is_video_author", "follow_user_num_range",
               "fans_user_num_range", "friend_user_num_range", "register_days_range"]  # fmt: skip
    profile += [f"onehot_feat{n}" for n in range(18)]
    (data / "user_features_27k.csv").write_text(
        ",".join(["user_id", *profile]) + "\n"
        + "".join(",".join([str(u), *["1"] * len(profile)]) + "\n" for u in range(1, USERS + 1))
    )  # fmt: skip


def publish_ebnerd(folder: Path) -> None:
    """Write a bundle: two weeks of impressions with three articles in view each, and the histories before them.

    Lists are large ones, as polars writes them.
    """
    start = datetime.datetime(2023, 5, 18, 7)
    user, _, seconds, _ = log(14, rows=400)
    shown = [np.random.default_rng(n).choice(ITEMS, 3, replace=False) + 9_700_000 for n in range(len(user))]
    table = pa.table(
        {
            "impression_id": pa.array(range(len(user)), pa.uint32()),
            "article_id": pa.nulls(len(user), pa.int32()),
            "impression_time": pa.array(
                [start + datetime.timedelta(seconds=int(s)) for s in seconds], pa.timestamp("us")
            ),
            "read_time": pa.array(np.ones(len(user)), pa.float32()),
            "scroll_percentage": pa.nulls(len(user), pa.float32()),
            "device_type": pa.array(user % 3, pa.int8()),
            "article_ids_inview": pa.array(shown, pa.large_list(pa.int32())),
            "article_ids_clicked": pa.array([articles[:1] for articles in shown], pa.large_list(pa.int32())),
            "user_id": pa.array(user, pa.uint32()),
            "is_sso_user": pa.array(user % 2 == 0),
            "gender": pa.nulls(len(user), pa.int8()),
            "postcode": pa.array(user % 5, pa.int8()),
            "age": pa.array(user % 6 * 10, pa.int8()),
            "is_subscriber": pa.array(user % 4 == 0),
            "session_id": pa.array(range(len(user)), pa.uint32()),
            "next_read_time": pa.array(seconds % 90, pa.float32()),
            "next_scroll_percentage": pa.nulls(len(user), pa.float32()),
        }
    )
    first = int(np.searchsorted(seconds, 7 * DAY_S))
    for name, part, end in (("train", table.slice(0, first), start), ("validation", table.slice(first), None)):
        (folder / name).mkdir(parents=True)
        pq.write_table(part, folder / name / "behaviors.parquet")
        end = end or start + datetime.timedelta(days=7)
        times = [[end - datetime.timedelta(days=2), end - datetime.timedelta(days=1)]] * USERS
        history = {
            "user_id": pa.array(range(1, USERS + 1), pa.uint32()),
            "impression_time_fixed": pa.array(times, pa.large_list(pa.timestamp("us"))),
            "scroll_percentage_fixed": pa.array([[1.0, None]] * USERS, pa.large_list(pa.float32())),
            "article_id_fixed": pa.array([[9_700_001, 9_700_002]] * USERS, pa.large_list(pa.int32())),
            "read_time_fixed": pa.array([[1.0, 2.0]] * USERS, pa.large_list(pa.float32())),
        }
        pq.write_table(pa.table(history), folder / name / "history.parquet")
    ids = np.arange(9_700_000, 9_700_000 + ITEMS)
    articles = {
        "article_id": pa.array(ids, pa.int32()),
        "title": [f"Title {n}" for n in ids],
        "subtitle": [None] * ITEMS,
        "last_modified_time": pa.array([start] * ITEMS, pa.timestamp("us")),
        "premium": pa.array(ids % 2 == 0),
        "body": ["..."] * ITEMS,
        "published_time": pa.array([start - datetime.timedelta(hours=int(n % 9)) for n in ids], pa.timestamp("us")),
        "article_type": ["article_default"] * ITEMS,
        "ner_clusters": pa.array([[f"name {n % 4}"] for n in ids], pa.large_list(pa.string())),
        "topics": pa.array([["Sport", "Kendt"][: n % 3] for n in ids], pa.large_list(pa.string())),
        "category": pa.array(ids % 3, pa.int16()),
        "subcategory": pa.array([[n % 5] for n in ids], pa.large_list(pa.int16())),
        "category_str": [["nyheder", "sport", "auto"][n % 3] for n in ids],
        "total_inviews": pa.nulls(ITEMS, pa.int32()),
        "total_pageviews": pa.nulls(ITEMS, pa.int32()),
        "total_read_time": pa.nulls(ITEMS, pa.float32()),
        "sentiment_score": pa.array(np.ones(ITEMS), pa.float32()),
        "sentiment_label": ["Neutral"] * ITEMS,
    }
    pq.write_table(pa.table(articles), folder / "articles.parquet")
    place = folder / "Ekstra_Bladet_contrastive_vector"
    place.mkdir()
    found = pa.table(
        {"article_id": pa.array(ids[::-1][:-1], pa.int32()), "contrastive_vector": list(vectors(ITEMS)[:-1])}
    )
    pq.write_table(found, place / "contrastive_vector.parquet")


def publish_mind(folder: Path) -> None:
    """Write the small train and dev sets, and the test set beside them, which has no clicks."""
    start = datetime.datetime(2019, 11, 9)
    user, _, seconds, _ = log(7, rows=400)
    lines: dict[str, list[str]] = {"MINDsmall_train": [], "MINDsmall_dev": [], "MINDlarge_test": []}
    for number, (u, s) in enumerate(zip(user, seconds, strict=True), start=1):
        shown = np.random.default_rng(number).choice(ITEMS, 3, replace=False) + 1
        impressions = " ".join(f"N{item}-{int(place == 0)}" for place, item in enumerate(shown))
        time = (start + datetime.timedelta(seconds=int(s))).strftime("%m/%d/%Y %I:%M:%S %p")
        lines["MINDsmall_dev" if s >= 6 * DAY_S else "MINDsmall_train"].append(
            f"{number}\tU{u}\t{time}\tN1 N2\t{impressions}"
        )
    lines["MINDlarge_test"] = ["1\tU1\t11/16/2019 1:00:00 AM\tN1\tN1 N2", "2\tU2\t11/16/2019 1:00:00 AM\t\tN3"]
    entity = '[{{"WikidataId": "Q{}"}}]'
    for name, log_lines in lines.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "behaviors.tsv").write_text("".join(line + "\n" for line in log_lines))
        (folder / name / "news.tsv").write_text(
            "".join(
                f"N{n}\tnews\tus{n % 3}\tTitle of {n}\tText\thttps://x\t{entity.format(n % 4)}\t[]\n"
                for n in range(1, ITEMS + 1)
            )
        )


def publish_microlens(folder: Path) -> None:
    """Write MicroLens-100k with its vectors."""
    folder.mkdir(parents=True)
    user, item, seconds, _ = log(30)
    rows = zip(user, item, seconds, strict=True)
    (folder / "MicroLens-100k_pairs.csv").write_text(
        "user,item,timestamp\n" + "".join(f"{u},{i},{1_660_000_000_000 + 1000 * s}\n" for u, i, s in rows)
    )
    (folder / "MicroLens-100k_title_en.csv").write_text(
        "".join(f"{i},{'' if i == 3 else f'A title, of {i}'}\n" for i in range(1, ITEMS + 1))
    )
    (folder / "tags_to_summary.csv").write_text("".join(f"{i},Topic {i % 4}\n" for i in range(1, ITEMS + 1)))
    (folder / "MicroLens-100k_likes_and_views.txt").write_text("1\t5\t10\n")
    features = folder / "extracted_modality_features"
    features.mkdir()
    for name in ("image_features_CLIPRN50", "title_en_text_features_BgeM3", "video_features_VideoMAE"):
        np.save(features / f"MicroLens-100k_{name}.npy", vectors(ITEMS))


def publish_yambda(folder: Path) -> None:
    """Write the 50m size of the flat form, the mappings and the embeddings."""
    place = folder / "flat" / "50m"
    place.mkdir(parents=True)
    user, item, seconds, click = log(9)
    kind = np.where(seconds % 25 == 0, "like", "listen")
    order = np.lexsort((seconds, user))
    events = pa.table(
        {
            "uid": pa.array(user * 100, pa.uint32()),
            "timestamp": pa.array(seconds // 5 * 5, pa.uint32()),
            "item_id": pa.array(item, pa.uint32()),
            "is_organic": pa.array(seconds % 2, pa.uint8()),
            "played_ratio_pct": pa.array(np.where(click, 100, 20), pa.uint16(), mask=kind == "like"),
            "track_length_seconds": pa.array(item * 5, pa.uint32(), mask=kind == "like"),
            "event_type": pa.array(kind).dictionary_encode(),
        }
    ).take(pa.array(order))
    pq.write_table(events, place / "multi_event.parquet", row_group_size=100)
    ids = np.arange(1, ITEMS + 1)
    for name in ("artist", "album"):
        mapping = {
            f"{name}_id": pa.array(np.append(ids % 6, 9), pa.uint32()),
            "item_id": pa.array(np.append(ids, 1), pa.uint32()),
        }
        pq.write_table(pa.table(mapping), folder / f"{name}_item_mapping.parquet")
    embeddings = {"item_id": pa.array(ids[::-1][:-1], pa.uint32())}
    embeddings |= {name: list(vectors(ITEMS)[:-1]) for name in ("embed", "normalized_embed")}
    pq.write_table(pa.table(embeddings), folder / "embeddings.parquet")


def publish_vk_lsvd(folder: Path) -> None:
    """Write a subsample of five weeks, the last two for validation and test, and the metadata of more videos."""
    user, item, _, click = log(1)
    table = pa.table(
        {
            "user_id": pa.array(user, pa.uint32()),
            "item_id": pa.array(item, pa.uint32()),
            "place": pa.array(user % 4, pa.uint8()),
            "platform": pa.array(user % 3, pa.uint8()),
            "agent": pa.array(user % 2, pa.uint8()),
            "timespent": pa.array(np.where(click, 30, 2), pa.uint8()),
            **{name: pa.array(click * (item % 3 == 0) == 1, mask=user == 1) for name in
               ("like", "dislike", "share", "bookmark", "click_on_author", "open_comments")},
        }
    )  # fmt: skip
    for week, rows in enumerate(np.array_split(np.arange(len(table)), 5)):
        part = ("train", "train", "train", "validation", "test")[week]
        place = folder / "subsamples" / "ur0.01" / part
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(pa.array(rows)), place / f"week_{week:02}.parquet", row_group_size=50)
    metadata = folder / "metadata"
    metadata.mkdir()
    ids = np.arange(ITEMS + 5, 0, -1)
    kinds = {
        "item_id": pa.uint32(),
        "author_id": pa.uint32(),
        "duration": pa.uint8(),
        "train_interactions_rank": pa.uint32(),
    }
    values = dict(zip(kinds, (ids, ids % 6, ids % 60, ids), strict=True))
    items = {name: pa.array(values[name], kind) for name, kind in kinds.items()}
    pq.write_table(pa.table(items), metadata / "items_metadata.parquet")
    users = np.arange(1, USERS + 3)
    profile = {name: pa.array(users % 3 + 20, pa.uint8()) for name in ("age", "gender", "geo")}
    pq.write_table(pa.table({"user_id": pa.array(users, pa.uint32()), **profile}), metadata / "users_metadata.parquet")
    np.savez(
        metadata / "item_embeddings.npz",
        item_id=ids[:-1].astype(np.uint32),
        embedding=vectors(len(ids) - 1).astype(np.float16),
    )


PUBLISH: dict[str, Callable[[Path], None]] = {
    "ebnerd": publish_ebnerd,
    "kuairand": publish_kuairand,
    "microlens": publish_microlens,
    "mind": publish_mind,
    "vk_lsvd": publish_vk_lsvd,
    "yambda": publish_yambda,
}
