"""The specification of alternating least squares: dense, slow, obvious NumPy in float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Objective:
    objective: str = "implicit"
    regularization: float = 0.1
    alpha: float = 1.0
    frequency_scaling: float = 0.0
    biases: bool = False
    base_confidence: float = 1.0

    def penalty(self, n_entries: int, n_others: int) -> float:
        n = n_entries
        if self.objective == "implicit":
            n = (self.alpha + self.base_confidence - 1) * n_entries + n_others
        return self.regularization * n**self.frequency_scaling

    def mean(self, matrix: sp.csr_array) -> float:
        return matrix.data.mean(dtype=np.float64) if self.biases and matrix.nnz else 0.0

    def system(
        self, ids: np.ndarray, values: np.ndarray, others: np.ndarray, other_biases: np.ndarray,
        mean: float,
    ) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
        """Matrix and right-hand side of the row that has `values` at `ids`.

        The third is the size of what the right-hand side sums up, before anything cancels.
        """
        others, values = others.astype(np.float64), values.astype(np.float64)
        size = others.shape[1] + self.biases
        penalty = self.penalty(len(ids), len(others)) * np.eye(size)
        if self.objective == "implicit":
            confidence, preference = np.ones(len(others)), np.zeros(len(others))
            confidence[ids] = self.base_confidence + self.alpha * np.abs(values)
            preference[ids] = values > 0
            weighted = others * confidence[:, None]
            size_of_b = np.linalg.norm(np.abs(weighted).T @ preference)
            return weighted.T @ others + penalty, weighted.T @ preference, size_of_b
        features, targets = others[ids], values - mean
        if self.biases:
            features = np.column_stack([features, np.ones(len(ids))])
            targets = targets - other_biases.astype(np.float64)[ids]
        size_of_b = np.linalg.norm(np.abs(features).T @ np.abs(targets))
        return features.T @ features + penalty, features.T @ targets, size_of_b

    def half_step(
        self, matrix: sp.csr_array, others: np.ndarray, other_biases: np.ndarray, mean: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Factors and biases of all rows of `matrix`; zeros where a row has no entries."""
        n_factors = others.shape[1]
        factors, biases = np.zeros((matrix.shape[0], n_factors)), np.zeros(matrix.shape[0])
        for row, (ids, values) in enumerate(rows_of(matrix)):
            if len(ids) == 0:
                continue
            a, b, _ = self.system(ids, values, others, other_biases, mean)
            solution = np.linalg.solve(a, b)
            factors[row] = solution[:n_factors]
            if self.biases:
                biases[row] = solution[n_factors]
        return factors, biases

    def loss(
        self, matrix: sp.csr_array, users: np.ndarray, items: np.ndarray,
        user_biases: np.ndarray, item_biases: np.ndarray, mean: float,
    ) -> float:  # fmt: skip
        users, items = users.astype(np.float64), items.astype(np.float64)
        user_biases, item_biases = user_biases.astype(np.float64), item_biases.astype(np.float64)
        predicted = users @ items.T + mean + user_biases[:, None] + item_biases[None, :]
        implicit = self.objective == "implicit"
        loss = (predicted**2).sum() if implicit else 0.0
        for user, (ids, values) in enumerate(rows_of(matrix)):
            if implicit:
                error = (values > 0) - predicted[user, ids]
                confidence = self.base_confidence + self.alpha * np.abs(values.astype(np.float64))
                loss += (confidence * error**2 - predicted[user, ids] ** 2).sum()
            else:
                loss += ((values - predicted[user, ids]) ** 2).sum()
        for side, factors, biases in (
            (matrix, users, user_biases),
            (transposed(matrix), items, item_biases),
        ):
            for row, (ids, _) in enumerate(rows_of(side)):
                norm = (factors[row] ** 2).sum() + biases[row] ** 2
                loss += self.penalty(len(ids), side.shape[1]) * norm
        return float(loss)


def rows_of(matrix: sp.csr_array) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stored columns and values of every row, stored zeros included."""
    bounds = matrix.indptr
    return [(matrix.indices[a:b], matrix.data[a:b]) for a, b in pairwise(bounds)]


def transposed(matrix: sp.csr_array) -> sp.csr_array:
    return sp.csr_array(matrix.T)
