"""A sentinel switches no feature off, and a value of another unit is no vector of another length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from recall.config.features import FeatureSchema
from recall.core.errors import DataError
from recall.data.features.number_scale import NumberScale, far_out
from recall.data.features.table_encoder import TableEncoder

Floats = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)
COLUMNS: dict[str, Floats] = {
    "ages": RNG.normal(35, 10, 5_000).round().clip(18, 90),
    "lengths": RNG.lognormal(3, 1, 5_000),
    "views": RNG.lognormal(5, 2, 5_000).round(),
    "prices, most of them zero": np.where(RNG.random(5_000) < 0.9, 0, RNG.uniform(1, 100, 5_000)),
    "moments": 1.7e12 - RNG.exponential(1e10, 5_000),
    "counts from 0": RNG.poisson(2, 5_000).astype(float),
    "two values": RNG.integers(0, 2, 5_000).astype(float),
    "a rank": np.arange(5_000.0),
}
SENTINELS = [999_999_999.0, -999_999_999.0, 1e18, 1e308, -1.7976931348623157e308, 3.4028234663852886e38]


def encoder_of(column: Any, **feature: Any) -> TableEncoder:
    schema = FeatureSchema.model_validate({"meta": [{"name": "x", "type": "number", **feature}]})
    return TableEncoder.fit({"meta": schema.meta}, pa.table({"x": column}))


def encoded(encoder: TableEncoder, column: Any) -> Floats:
    return np.asarray(encoder.encode(pa.table({"x": column}))["x"].to_numpy(), np.float64)


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_without_outliers_have_their_mean_and_deviation(name: str) -> None:
    values = COLUMNS[name]
    assert not far_out(values).any()
    found = encoded(encoder_of(values), values)
    np.testing.assert_allclose(found, (values - values.mean()) / values.std(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [0.0002, 0.01, 0.2])
@pytest.mark.parametrize("sentinel", SENTINELS)
@pytest.mark.parametrize("name", [name for name in COLUMNS if name not in ("two values", "moments")])
def test_a_sentinel_switches_no_feature_off(name: str, sentinel: float, share: float) -> None:
    values = COLUMNS[name].copy()
    is_sentinel = np.arange(len(values)) < share * len(values)
    values[is_sentinel] = sentinel
    found = encoded(encoder_of(values), values)
    rest = values[~is_sentinel]
    np.testing.assert_allclose(found[~is_sentinel], (rest - rest.mean()) / rest.std(), rtol=1e-3, atol=1e-3)
    assert np.isfinite(found).all()
    ends = (found[~is_sentinel].min(), found[~is_sentinel].max())
    assert np.abs(found[is_sentinel]).max() <= 1.5 * (ends[1] - ends[0]), "no further than half a range beyond"


@pytest.mark.parametrize("sentinel", [-1.0, 0.0, -62_135_596_800_000.0])
def test_a_moment_that_stands_for_none_is_far_from_all_others(sentinel: float) -> None:
    values = COLUMNS["moments"].copy()
    values[:50] = sentinel
    assert far_out(values).tolist() == [True] * 50 + [False] * (len(values) - 50)


@pytest.mark.parametrize("log", [False, True])
def test_a_later_value_counts_as_the_end_of_the_range(log: bool) -> None:
    encoder = encoder_of(COLUMNS["lengths"], log=log)
    inside, far = encoded(encoder, COLUMNS["lengths"]), encoded(encoder, [1e5, 1e39, -1e39, None])
    assert np.isnan(far[3])
    assert far[0] <= far[1] <= inside.max() + (inside.max() - inside.min()) / 2 + 1e-6
    assert far[2] >= inside.min() - (inside.max() - inside.min()) / 2 - 1e-6


def test_clipped_values_are_counted_by_feature() -> None:
    column = np.append(COLUMNS["lengths"], [1e308, 999_999_999])
    encoder = encoder_of(column)
    assert encoder.clipped(pa.table({"x": column})) == {"x": 2}
    assert encoder.clipped([{"x": 5.0}, {"x": None}, {}]) == {}


@pytest.mark.parametrize("value", [12_000.0, 1e308, -1e5])
def test_a_new_value_of_another_unit_is_refused_with_the_range(value: float) -> None:
    encoder = encoder_of(np.arange(30) + 0.5)
    encoder.require_plausible([{"x": 12.0}, {"x": 100.0}, {"x": None}])
    with pytest.raises(DataError, match=r"feature x: numbers of 1 of 2 rows lie far outside .* in row 1 .*-14 to 44"):
        encoder.require_plausible([{"x": 12.0}, {"x": value}])


@pytest.mark.parametrize("values", [[1e308] * 3, [1e308, -1e308], [None, None], [1e308, 5.0, 5.0]])
def test_columns_of_sentinels_alone_stay_finite(values: list[float | None]) -> None:
    encoder = encoder_of(pa.array(values, pa.float64()))
    found = encoded(encoder, pa.array([*values, 1e308, -1e308, 7.0], pa.float64()))
    assert np.abs(found[~np.isnan(found)]).max() <= 10


def test_the_range_is_saved_and_encoders_from_before_there_was_one_still_load(tmp_path: Path) -> None:
    encoder = encoder_of(COLUMNS["lengths"])
    encoder.save(tmp_path)
    again = TableEncoder.load(tmp_path)
    column = [1.0, 1e9, None]
    np.testing.assert_array_equal(encoded(again, column), encoded(encoder, column))
    path = tmp_path / "encoder.json"
    content = json.loads(path.read_text())
    content["features"][0]["state"] = {"mean": 10.0, "std": 2.0}
    path.write_text(json.dumps(content))
    old = TableEncoder.load(tmp_path)
    assert encoded(old, [14.0, 1_010.0]).tolist() == [2.0, 500.0]
    assert old.clipped([{"x": 1e9}]) == {}
    assert NumberScale.from_json({"mean": 10.0, "std": 2.0}).json() == {"mean": 10.0, "std": 2.0}


class TestVectors:
    VECTORS = np.random.default_rng(3).normal(size=(80, 6)).astype(np.float32)

    def encoder(self, vectors: Any) -> TableEncoder:
        schema = FeatureSchema.model_validate({"meta": [{"name": "v", "type": "embedding"}]})
        return TableEncoder.fit({"meta": schema.meta}, pa.table({"v": list(vectors)}))

    def test_a_longer_vector_keeps_its_direction_and_not_its_length(self) -> None:
        encoder, longest = self.encoder(self.VECTORS), np.linalg.norm(self.VECTORS, axis=1).max()
        rows = [{"v": (vector * scale).tolist()} for vector, scale in zip(self.VECTORS, [1, 50, 1e30], strict=False)]
        found = np.array(encoder.encode(rows)["v"].to_pylist())
        np.testing.assert_array_equal(found[0], self.VECTORS[0])
        for row in (1, 2):
            np.testing.assert_allclose(np.linalg.norm(found[row]), longest, rtol=1e-5)
            cosine = found[row] @ self.VECTORS[row] / longest / np.linalg.norm(self.VECTORS[row])
            np.testing.assert_allclose(cosine, 1, rtol=1e-5)
        assert encoder.clipped(rows) == {"v": 2}

    def test_a_new_vector_of_another_scale_is_refused(self) -> None:
        encoder = self.encoder(self.VECTORS)
        encoder.require_plausible([{"v": self.VECTORS[0].tolist()}, {"v": None}])
        with pytest.raises(DataError, match=r"feature v: 1 of 2 vectors are far longer .* in row 1"):
            encoder.require_plausible([{"v": [1.0] * 6}, {"v": [1e30] * 6}])

    def test_vectors_far_longer_than_the_others_of_a_file_are_refused_by_row(self) -> None:
        vectors = self.VECTORS.copy()
        vectors[[3, 7]] *= np.float32(1e30)
        with pytest.raises(DataError, match=r"feature v: vectors of 2 rows \(counted from 0: 3, 7\) have norms up to"):
            self.encoder(vectors)
