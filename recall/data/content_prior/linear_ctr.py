"""Models a CTR that is linear, in log-odds, in an item's encoded content: design matrix, fit, file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse
from scipy.special import expit

from recall.core.arrays import AnyInts, Float64s
from recall.data.features.embeddings import vectors_of
from recall.data.features.table_encoder import EncodedColumn, Rows, TableEncoder

_FARTHEST = 5.0  # standard deviations; a number beyond says no more
_OFF_THE_ENDS = 1e-6  # as `Prior.of_training`


def design_width(column: EncodedColumn) -> int:
    """Count the columns of the design matrix that an encoded column makes."""
    return {"number": 2, "vector": column.size + 1}.get(column.kind, column.size)


def design_matrix(columns: Sequence[EncodedColumn], table: pa.Table) -> sparse.csr_matrix:
    """Build the matrix in which the log-odds are linear, float64 [rows, width].

    A code is one-hot, codes are one-hot each; a number and a vector stand as they are, followed by 1 where they are
    missing.

    Args:
      columns: descriptions of the table's columns, in order.
      table: a result of `TableEncoder.encode`.
    """
    blocks = [_block(column, table[column.name].combine_chunks()) for column in columns]
    return sparse.hstack([*blocks, sparse.csr_matrix((len(table), 0))]).tocsr()


def design_scale(columns: Sequence[EncodedColumn], design: sparse.csr_matrix) -> Float64s:
    """Compute factors of the design's columns, float64 [width], so that one penalty suits all features.

    Vectors get a root mean square length of 1, as a one-hot code and a standardised number have.
    """
    scale, start = np.ones(design.shape[1]), 0
    for column in columns:
        width = design_width(column)
        if column.kind == "vector":
            numbers, missing = design[:, start : start + width - 1], design[:, start + width - 1].sum()
            length = np.sqrt(numbers.multiply(numbers).sum() / max(design.shape[0] - missing, 1))
            scale[start : start + width - 1] = 1 / length if length > 0 else 1.0
        start += width
    return scale


@dataclass(frozen=True)
class LogOdds:
    """Predict log-odds as intercept + design @ weights.

    Attributes:
      intercept: scalar.
      weights: float64 [width].
    """

    intercept: float
    weights: Float64s

    @classmethod
    def fit(
        cls,
        design: sparse.csr_matrix,
        exposures: Float64s,
        clicks: Float64s,
        *,
        strength: float,
        inverse_penalty: float,
    ) -> LogOdds:
        """Fit a logistic regression on binomial counts.

        An item with n exposures weighs n (strength + 1) / (strength + n): under a Beta prior of `strength`
        pseudo-exposures its observed CTR varies that much less than a single click (beta-binomial variance), so that
        more exposures of one item soon say nothing about other items. By these weights the mean is one over items; the
        intercept is moved at the end so that the predicted clicks of these exposures sum to the observed ones.

        Args:
          design: [items, width], scaled.
          exposures: float64 [items].
          clicks: float64 [items].
          strength: strength of the posterior's prior.
          inverse_penalty: inverse penalty of the squared weights, `C` of scikit-learn.
        """
        # Imported here: it takes a second, which a serving process would wait for.
        from sklearn.linear_model import LogisticRegression

        count = len(exposures)
        share = (strength + 1) / (strength + exposures)
        model = LogisticRegression(C=inverse_penalty, max_iter=500)
        model.fit(
            sparse.vstack([design, design]),
            np.r_[np.ones(count), np.zeros(count)],
            sample_weight=np.r_[clicks * share, (exposures - clicks) * share],
        )
        fitted = cls(float(model.intercept_[0]), model.coef_[0])
        return cls(_balanced(design @ fitted.weights, exposures, clicks, start=fitted.intercept), fitted.weights)

    def ctr(self, design: sparse.csr_matrix) -> Float64s:
        """Predict CTRs, float64 [items], kept off 0 and 1 so that a smoothed CTR has a logarithm."""
        return _off_the_ends(expit(design @ self.weights + self.intercept))

    def loss(self, design: sparse.csr_matrix, exposures: Float64s, clicks: Float64s) -> float:
        """Compute the negative log-likelihood of the counts."""
        odds = design @ self.weights + self.intercept
        return float(np.sum(exposures * np.logaddexp(0, odds) - clicks * odds))


def _balanced(odds: Float64s, exposures: Float64s, clicks: Float64s, *, start: float) -> float:
    """Find the intercept with which predicted clicks sum to observed ones: Newton's method on a convex loss."""
    intercept, total = start, clicks.sum()
    for _ in range(50):
        ctr = expit(odds + intercept)
        step = (total - exposures @ ctr) / max(float(exposures @ (ctr * (1 - ctr))), 1e-12)
        intercept += float(np.clip(step, -1, 1))
        if abs(step) < 1e-10:
            break
    return intercept


def _off_the_ends(ctr: Float64s) -> Float64s:
    return np.clip(ctr, _OFF_THE_ENDS, 1 - _OFF_THE_ENDS)


@dataclass(frozen=True)
class ContentCtr:
    """Predict the CTR of items from raw rows, of the catalogue or new.

    Attributes:
      encoder: encoder of the features in use.
      log_odds: model on the unscaled design.
    """

    encoder: TableEncoder
    log_odds: LogOdds

    def ctr(self, rows: Rows) -> Float64s:
        """Predict CTRs in (0, 1), float64 [rows], from rows as `TableEncoder.encode` takes them."""
        return self.log_odds.ctr(design_matrix(self.encoder.columns, self.encoder.encode(rows, strict=False)))

    def save(self, directory: Path) -> None:
        """Write encoder/ and log_odds.npz, which holds plain arrays."""
        self.encoder.save(directory / "encoder")
        np.savez(directory / "log_odds.npz", intercept=self.log_odds.intercept, weights=self.log_odds.weights)

    @classmethod
    def load(cls, directory: Path) -> ContentCtr:
        """Read the files of `save`."""
        with np.load(directory / "log_odds.npz") as arrays:
            log_odds = LogOdds(float(arrays["intercept"]), arrays["weights"])
        return cls(TableEncoder.load(directory / "encoder"), log_odds)


def _block(column: EncodedColumn, values: pa.Array) -> sparse.csr_matrix:
    count = len(values)
    if column.kind == "code":
        return _ones(np.arange(count), np.asarray(values), shape=(count, column.size))
    if column.kind == "codes":
        lengths = np.diff(np.asarray(values.offsets))
        return _ones(np.repeat(np.arange(count), lengths), np.asarray(values.flatten()), shape=(count, column.size))
    if column.kind == "number":
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
        missing = np.isnan(numbers)
        shown = np.where(missing, 0.0, np.clip(numbers, -_FARTHEST, _FARTHEST))
        return sparse.csr_matrix(np.stack([shown, missing], axis=1))
    vectors, present = vectors_of(values)
    dense = np.zeros((count, column.size + 1))
    dense[:, : vectors.shape[1]] = vectors  # where all are missing they have no dimension
    dense[:, -1] = ~present
    return sparse.csr_matrix(dense)


def _ones(rows: AnyInts, codes: AnyInts, *, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(codes)), (rows, codes)), shape=shape)
