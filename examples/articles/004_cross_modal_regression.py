"""Two goods with a text and an image each, and one linear model of both: early fusion.

Needs nothing but recfuse itself.
"""

from __future__ import annotations

import warnings

import numpy as np
import oracle

import recfuse
from recfuse.fusion import LinearFusion

GOODS = ["电子产品", "服装"]  # electronics, clothes: labels are kept as they are
IMAGES = np.array([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
BEHAVIOUR = np.array([1.0, 2.0])
WEIGHTS = {"text": 0.5, "image": 0.5}


def embed() -> dict[str, np.ndarray]:
    """Return one vector per good and modality."""
    text = np.array([[0.8, 0.9], [0.7, 0.6]])
    # The original took the mean over axis 0, one vector for both goods, and added lengths 2 and 3.
    return {"text": text, "image": IMAGES}


def fused_features(modalities: dict[str, np.ndarray]) -> np.ndarray:
    """Put the weighted modalities side by side: their lengths may differ, as these do."""
    return np.hstack([np.sqrt(WEIGHTS[name]) * x for name, x in modalities.items()])


def descent_in_closed_form(x: np.ndarray, y: np.ndarray, rate: float, epochs: int) -> np.ndarray:
    """Return where gradient descent is after so many steps, from the eigenvectors of x' x / N."""
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    real = values > 1e-12 * values.max()
    steps = (1 - (1 - rate * values[real]) ** epochs) / values[real]
    return vectors[:, real] @ (steps * (vectors[:, real].T @ (x.T @ y / len(x))))


def main() -> None:
    modalities = embed()
    features = fused_features(modalities)
    # L = 1 / (2N) sum (y - x w)^2 by gradient descent; the original left out 1 / N in its code.
    model = LinearFusion("gd", learning_rate=0.01, epochs=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 100 epochs do not reach the minimum
        model.fit(features, BEHAVIOUR)
    expected = descent_in_closed_form(features, BEHAVIOUR, rate=0.01, epochs=100)
    oracle.assert_close(model.coef_, expected, "100 epochs", tolerance=1e-12)
    print("after 100 epochs ", model.predict(features))

    model = LinearFusion("exact").fit(features, BEHAVIOUR)
    exact = np.linalg.lstsq(features, BEHAVIOUR, rcond=None)[0]
    oracle.assert_close(model.coef_, exact, "converged", tolerance=1e-9)
    print("converged        ", model.predict(features))
    oracle.assert_close(model.predict(features), BEHAVIOUR, "prediction", tolerance=1e-9)

    # The same weights, late: the sum of the modalities' products is the product of the fused rows.
    index = recfuse.FusedIndex(modalities, metric="dot")
    ids, scores = index.topk(modalities, k=2, weights=WEIGHTS)
    oracle.assert_ranking(ids, scores, features @ features.T, "late fusion")

    events = recfuse.Interactions.from_arrays(["顾客"], ["服装"], [2.0], item_labels=GOODS)
    query = {name: x[events.item_index] for name, x in modalities.items()}
    ids, scores = index.topk(query, k=1, weights=WEIGHTS, exclude=events.to_csr())
    print(events.users[0], "→", events.items[ids[0, 0]], scores[0, 0])
    assert events.items[ids[0, 0]] == "电子产品"


if __name__ == "__main__":
    main()
