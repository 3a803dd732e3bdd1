"""Index -> candidates: who asks, what they clicked, what they get."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import tensorflow as tf

from recall.artifacts import read_manifest
from recall.cold_bias import with_cold_bias
from recall.content.linear_ctr import ContentCtr
from recall.content.search import ContentSearch
from recall.dataset import POSTERIOR
from recall.encoding import TableEncoder
from recall.errors import ArtifactError, DataError
from recall.further_ids import FurtherIds
from recall.index import Index, load_index
from recall.prepared import PreparedData, ServingHistories
from recall.query_model import UserQuery, load_query_model
from recall.recalled import Candidates
from recall.tables import id_strings
from recall.times import MS_PER_HOUR
from recall.towers.features import FeatureTable
from recall.user_arrays import USER_ARRAYS, UserArrays

Matrix = npt.NDArray[np.float32]
Ids = Iterable[str | int]
By = Literal["model", "content"]
_T = TypeVar("_T")

_NEEDED = {"data/manifest.json": "prepare", "model/manifest.json": "train", "index/CURRENT": "index"}


class Recaller:
    """Serves a finished run: users or items in, candidates out.

    Loads the query SavedModel, the index, and what users clicked until the end of the log.
    """

    def __init__(
        self,
        *,
        index: Index,
        query: Any,
        item: Any,
        encoder: TableEncoder,
        histories: ServingHistories,
        item_ids: Sequence[str],
        titles: Mapping[str, str],
        id_column: str | None,
        now_ms: int = 0,
        further: Mapping[str, FurtherIds] | None = None,
        content: ContentSearch | None = None,
        user_query: UserQuery = "user",
        content_prior: ContentCtr | None = None,
        user_arrays: UserArrays | None = None,
    ) -> None:
        self.index, self._content, self._user_query = index, content, user_query
        self._content_prior = content_prior
        self._user_arrays = user_arrays if user_query == "user" else None
        self._query, self._item, self._encoder, self._id_column = query, item, encoder, id_column
        self._histories, self._titles, self._now_ms = histories, titles, now_ms
        self._item_ids = np.asarray(item_ids, dtype=object)
        self._further = dict(further or {})

    @classmethod
    def load(cls, run: str | Path, *, query: UserQuery = "user") -> Recaller:
        """Opens a run directory.

        Args:
          run: the directory.
          query: what makes vectors of users: the user tower, or its student, which sees no times and further histories.

        Raises:
          ArtifactError: a step has not been run, its files are damaged, the index belongs to another model, or the
            model has no student.
        """
        run = Path(run)
        for part, step in _NEEDED.items():
            if not (run / part).exists():
                nothing = not any((run / other).exists() for other in _NEEDED)
                command = f"recall run CONFIG.yaml --out {run}" if nothing else f"recall {step} --run {run}"
                raise ArtifactError(f"{run / part}: not there yet; run `{command}` first")
        manifest = read_manifest(run / "model", made_by=f"recall train --run {run}", verify=True)
        index = load_index(run / "index", fingerprint=manifest["fingerprint"])
        prepared = PreparedData.load(run / "data")
        query_model = load_query_model(run, query=query)
        item = tf.saved_model.load(str(run / "model" / "item"))
        encoder = TableEncoder.load(run / "model" / "encoder")
        item_ids = prepared.item_ids.to_pylist()
        ids = (known.feature.source for _, known in encoder.features if known.feature.name == prepared.item_id_feature)
        return cls(
            index=index,
            query=query_model,
            item=item,
            encoder=encoder,
            user_query=query,
            histories=prepared.histories,
            item_ids=item_ids,
            titles=_titles(prepared),
            id_column=next(ids, None),
            now_ms=prepared.manifest["last_time_ms"],
            further=FurtherIds.all_of(prepared),
            content=ContentSearch(item, encoder=encoder, prepared=prepared, structure=manifest["structure"]),
            content_prior=prepared.content_prior,
            user_arrays=UserArrays.load(
                run / "model" / USER_ARRAYS, users=prepared.user_ids.to_pylist(), items=item_ids
            ),
        )

    def recall(
        self,
        users: Ids,
        *,
        k: int = 100,
        histories: Mapping[str, Ids] | Mapping[int, Ids] | None = None,
        history_times_ms: Mapping[str, Sequence[int]] | Mapping[int, Sequence[int]] | None = None,
        now_ms: int | None = None,
        further_histories: Mapping[str, Mapping[str, Ids] | Mapping[int, Ids]] | None = None,
        exclude_seen: bool = True,
        by: By = "model",
        last: int = 5,
    ) -> Candidates:
        """Candidates for users (u2i): by the model, or by the content of what they clicked last.

        Args:
          users: ids. A user that the log does not hold is served by profile, if the users file has one, and by the
            learned answer to an empty history.
          k: candidates per user.
          histories: clicked item ids per user, oldest first, that take the place of what the log holds of the user;
            items that the catalogue lacks are passed over.
          history_times_ms: per user of `histories`, when each was clicked (Unix milliseconds); unknown without. Only a
            model with `model.history_time` reads times.
          now_ms: the moment of the query (Unix milliseconds); default: the end of the log. Clicks that come later
            happened at an unknown time.
          further_histories: by name of `data.histories`, item ids per user that take the place of what the log holds.
          exclude_seen: leave out what the user clicked, in the log or in the history given here.
          by: `content` looks for the items nearest to each of the last clicks by meta vectors alone; a score is the
            cosine to the nearest click. Times and further histories have no say, and who clicked nothing gets nothing.
          last: how many of the last clicks `content` starts from.

        Raises:
          ArtifactError: the model has no user tower (`model.query: trigger`), or by content no meta tower.
          DataError: an id is missing, times do not belong to a history given here, the model has no history of such
            a name, `by` is neither, or k or last is below 1.
        """
        content = self._content_if(by)
        if last < 1:
            raise DataError(f"last: expected at least 1, found {last}")
        names = _ids(users, "users")
        given, times = _by_id(histories, "histories"), _by_id(history_times_ms, "history_times_ms")
        fresh = {name: _ids(given[name], f"histories[{name!r}]") for name in names if name in given}
        for name, own in times.items():
            if len(own) != (wanted := len(fresh.get(name, ()))):
                raise DataError(
                    f"history_times_ms[{name!r}]: expected one time for each of the {wanted:,} items that histories "
                    f"gives this user, found {len(own):,}"
                )
        history = [fresh[name] if name in fresh else self._clicked(name) for name in names]
        seen = [set(items) | self._seen(name) for name, items in zip(names, history, strict=True)]
        excluded = seen if exclude_seen else [set()] * len(names)
        if content:
            vectors, has_clicks = content.interests(history, last=last)
            found = self._search(names, vectors, k=k, excluded=excluded, index=content.index)
            found.ids[~has_clicks], found.scores[~has_clicks] = None, -np.inf
            return found
        clicked_ms = [times.get(name) if name in fresh else self._histories.recent_times_ms(name) for name in names]
        ages_hours = self._ages(history, clicked_ms, now_ms)
        further = self._further_of(names, further_histories or {})
        vectors = self.user_vectors(names, history, ages_hours=ages_hours, further=further)
        return self._search(names, vectors, k=k, excluded=excluded)

    def similar(self, items: Ids, *, k: int = 100, by: By = "model") -> Candidates:
        """Candidates for items (i2i).

        Args:
          items: ids.
          k: candidates per item.
          by: `model` asks the trigger tower if the model has one, else the items' own vectors; `content` compares meta
            vectors alone by cosine, so that an item without any exposure is asked for, and found, as others are.

        Raises:
          ArtifactError: by content, and the model has no meta tower.
          DataError: an item that the index does not hold, a missing id, `by` is neither, or k below 1.
        """
        names, content = _ids(items, "items"), self._content_if(by)
        vectors = self.vectors(names)  # refuses unknown items
        if content:
            own = content.index.vectors(names)
            return self._search(names, own, k=k, excluded=[{name} for name in names], index=content.index)
        vectors[..., -1] = 0  # what is like an item is not what everybody likes
        if "trigger" in self._query.signatures:
            vectors = self._query.signatures["trigger"](item_id=tf.constant(names, tf.string))["vector"].numpy()
        return self._search(names, vectors, k=k, excluded=[{name} for name in names])

    def similar_to_new(self, rows: Sequence[Mapping[str, Any]] | pd.DataFrame, *, k: int = 100) -> Candidates:
        """Items of the catalogue whose content is most like that of items it lacks, by cosine of meta vectors.

        Args:
          rows: as of `new_item_vectors`; the queries of the result are their positions from "0".
          k: candidates per row.

        Raises:
          ArtifactError: the model has no meta tower.
          DataError: a value is not of its feature's type, or k below 1.
        """
        content = self._content_if("content")
        assert content is not None
        vectors = content.vectors(self._encoder.encode(self._without_behaviour(rows)))
        names = [str(position) for position in range(len(rows))]
        return self._search(names, vectors, k=k, excluded=[set()] * len(names), index=content.index)

    def vectors(self, items: Ids) -> Matrix:
        """Served vectors of items of the index, float32 [items, width], or [items, codes, width] with several each.

        Raises:
          DataError: an item that the index does not hold, or a missing id.
        """
        try:
            return self.index.vectors(_ids(items, "items"))
        except DataError as error:
            raise DataError(
                f"{error}; give ids of the items file, or ask new_item_vectors for items that came later"
            ) from error

    def user_vectors(
        self,
        users: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        ages_hours: Sequence[Sequence[float]] | None = None,
        further: Mapping[str, Sequence[Sequence[str]]] | None = None,
    ) -> Matrix:
        """Query vectors of users.

        Args:
          users: ids.
          histories: per user the clicked item ids, oldest first.
          ages_hours: per user how long ago each was clicked; negative, NaN, or None is unknown.
          further: by name of a further history, item ids per user, oldest first; without, they are empty.

        Returns:
          float32 [users, width], or [users, interests, width] of a model with several interests.

        Raises:
          ArtifactError: the model has no user tower.
        """
        if "user" not in self._query.signatures:
            raise ArtifactError("the model has no user tower (model.query: trigger); ask with similar(items=...)")
        if self._user_arrays is not None:
            return self._user_arrays.vectors(users, histories, ages_hours)
        inputs = {"user_id": tf.constant(users, tf.string), "history": _padded(histories, "", tf.string)}
        if self._user_query == "student" or "user_in_full" not in self._query.signatures:
            return self._query.signatures[self._user_query](**inputs)["vector"].numpy()
        signature = self._query.signatures["user_in_full"]
        if "history_age_hours" in signature.structured_input_signature[1]:
            ages = ages_hours or [[-1.0] * len(history) for history in histories]
            inputs["history_age_hours"] = _padded(ages, -1.0, tf.float32)
        for name in self._further:
            own = (further or {}).get(name) or [[]] * len(users)
            inputs[f"history_{name}"] = _padded(own, "", tf.string)
        return signature(**inputs)["vector"].numpy()

    def new_item_vectors(self, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> Matrix:
        """Vectors of items that the log has never seen, from their content alone.

        Args:
          rows: raw values under the column names of the items file; what is absent counts as missing, and the item id
            as unknown, whatever it is. Vectors are lists under the feature's column (or its name, where the
            experiment reads a .npy).

        Returns:
          As `vectors`, of the posterior of an item without exposures (with its content prior, where the data has one),
          with the index's cold bias.

        Raises:
          DataError: a value is not of its feature's type.
        """
        raw = self._without_behaviour(rows)
        features = FeatureTable(self._encoder.columns, self._encoder.encode(raw)).variables
        posterior = np.tile(self._item.new_posterior.numpy(), (len(rows), 1))
        if self._content_prior is not None:
            posterior[:, POSTERIOR.index("smoothed_ctr")] = self._content_prior.ctr(raw)
        inputs = {name: variable.value() for name, variable in features.items()}
        vectors = self._item.vectors(inputs, tf.constant(posterior))["vector"].numpy()
        return with_cold_bias(vectors, np.zeros(len(rows), np.int64), self.index.report.get("cold_bias", 0.0))

    def _without_behaviour(self, rows: Sequence[Mapping[str, Any]] | pd.DataFrame) -> pa.Table | list[dict[str, Any]]:
        # No id holds NUL, so this one is out of vocabulary, as new items are in training. A missing one is not.
        new = {self._id_column: "\0"} if self._id_column else {}
        if not isinstance(rows, pd.DataFrame):
            return [{**row, **new} for row in rows]
        try:
            return pa.Table.from_pandas(rows.assign(**new), preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"new items: values of a column differ in type ({error}); use one type") from error

    def _further_of(
        self, users: Sequence[str], given: Mapping[str, Mapping[str, Ids] | Mapping[int, Ids]]
    ) -> dict[str, list[list[str]]]:
        """Further histories of users by name: those given, else those of the log."""
        if unknown := sorted(given.keys() - self._further.keys()):
            there = ", ".join(sorted(self._further)) or "none"
            raise DataError(f"further_histories: the model has no {', '.join(unknown)}; it has {there}")
        found = {}
        for name, known in self._further.items():
            what = f"further_histories[{name!r}]"
            own = _by_id(given.get(name), what)
            found[name] = [_ids(own[user], f"{what}[{user!r}]") if user in own else known.of(user) for user in users]
        return found

    def _ages(
        self, histories: Sequence[Sequence[str]], clicked_ms: Sequence[Iterable[int] | None], now_ms: int | None
    ) -> list[list[float]]:
        """Hours from each click to the query; -1 where no time is given."""
        now = self._now_ms if now_ms is None else now_ms
        return [
            [-1.0] * len(history) if times is None else [(now - int(time)) / MS_PER_HOUR for time in times]
            for history, times in zip(histories, clicked_ms, strict=True)
        ]

    def _clicked(self, user: str) -> list[str]:
        return list(self._item_ids[self._histories.recent(user)])

    def _seen(self, user: str) -> set[str]:
        return set(self._item_ids[self._histories.seen(user)])

    def _content_if(self, by: str) -> ContentSearch | None:
        if by not in ("model", "content"):
            raise DataError(f"by: expected model or content, found {by}")
        if by == "content" and self._content is None:
            raise ArtifactError("by content: this recaller has no content to search; open the run with Recaller.load")
        return self._content if by == "content" else None

    def _search(
        self,
        names: Sequence[str],
        vectors: Matrix,
        *,
        k: int,
        excluded: Sequence[set[str]],
        index: Index | None = None,
    ) -> Candidates:
        index = index or self.index
        if k < 1:
            raise DataError(f"k: expected at least 1, found {k}")
        longest = max((len(items) for items in excluded), default=0)
        asked = min(k + longest, len(index))
        if vectors.ndim == 3:  # [users, interests, width] or [items, codes, width]
            found = index.search(vectors.reshape(-1, vectors.shape[-1]), asked).merged(vectors.shape[1])
        else:
            found = index.search(vectors, asked)
        ids = np.full((len(names), k), None, dtype=object)
        scores = np.full((len(names), k), -np.inf, dtype=np.float32)
        for row, seen in enumerate(excluded):
            kept = [column for column, item in enumerate(found.ids[row]) if item is not None and item not in seen][:k]
            ids[row, : len(kept)] = found.ids[row, kept]
            scores[row, : len(kept)] = found.scores[row, kept]
        return Candidates(names, ids, scores, self._titles)


def _ids(values: Iterable[Any], what: str) -> list[str]:
    """Ids as the log's are read: 12 and 12.0 are "12", text is stripped."""
    if isinstance(values, str | bytes):
        raise DataError(f"{what}: expected a list of ids, found the text {values!r}; write [{values!r}]")
    values = list(values)
    if all(type(value) is str and value and not value[0].isspace() and not value[-1].isspace() for value in values):
        return values  # as they come from who has read ids before; Arrow takes 95 us for one
    try:
        ids = id_strings(pa.array(values, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{what}: expected ids of one type, all text or all whole numbers ({error})") from None
    if ids.null_count:
        raise DataError(f"{what}: {ids.null_count:,} of {len(ids):,} ids are missing or empty; remove them")
    return list(ids.to_pylist())


def _by_id(values: Mapping[Any, Any] | None, what: str) -> dict[str, Any]:
    return dict(zip(_ids(values or (), what), (values or {}).values(), strict=True))


def _padded(lists: Sequence[Sequence[_T]], padding: _T, dtype: tf.DType) -> tf.Tensor:
    width = max([1, *map(len, lists)])
    rows = [[*values, *[padding] * (width - len(values))] for values in lists]
    return tf.reshape(tf.constant(rows, dtype), [len(lists), width])  # no list at all has a width too


def _titles(prepared: PreparedData) -> dict[str, str]:
    if prepared.titles is None:
        return {}
    pairs = zip(prepared.item_ids.to_pylist(), prepared.titles.to_pylist(), strict=True)
    return {item: title for item, title in pairs if title is not None}
