"""Three ways to fuse what several modalities say: a weighted sum, stacking, and a network.

Needs recfuse[features] for scikit-learn; the network needs recfuse[train].
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import oracle
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.svm import SVR

import recfuse
from recfuse.fusion import StackingFusion


def weighted_sum() -> None:
    """R = sum_m w_m M_m over two tables of 2 users x 3 items."""
    behaviour = np.array([[1, 2, 3], [4, 5, 6]])
    content = np.array([[7, 8, 9], [10, 11, 12]])
    # The original took np.dot(weights, M): that weighs users, not modalities, and adds them up.
    weights = {"behaviour": 0.5, "content": 0.5}

    # A table of scores is a modality, too: its rows are the queries, and item i is column i.
    columns = np.eye(3)
    ids, scores = recfuse.fuse_topk(
        {"behaviour": behaviour, "content": content},
        {"behaviour": columns, "content": columns},
        weights,
        k=3,
        metric="dot",
    )
    fused = np.empty((2, 3))
    np.put_along_axis(fused, ids.astype(np.intp), scores, axis=1)
    print("weighted sum\n", fused)
    assert fused.tolist() == [[4, 5, 6], [7, 8, 9]]
    assert fused.tolist() == (0.5 * behaviour + 0.5 * content).tolist()
    assert ids.tolist() == [[2, 1, 0], [2, 1, 0]]


X_TRAIN, Y_TRAIN = np.array([[1.0, 2], [3, 4], [5, 6]]), np.array([7.0, 8, 9])
X_TEST = np.array([[1.0, 3], [5, 7]])


def stacking() -> None:
    """Let a model learn how much to believe the models below it."""
    # The original stacked side by side what has one dimension, and learned from predictions of
    # rows that the base models had seen; here they are columns, and out of fold.
    bases = {f"forest {seed}": RandomForestRegressor(random_state=seed) for seed in (0, 1)}
    stack = StackingFusion(bases, SVR(), folds=3).fit(dict.fromkeys(bases, X_TRAIN), Y_TRAIN)
    predicted, held_out = stack.predict(dict.fromkeys(bases, X_TEST)), stack.out_of_fold_
    print("stacking", predicted)

    unseen = [cross_val_predict(b, X_TRAIN, Y_TRAIN, cv=LeaveOneOut()) for b in bases.values()]
    oracle.assert_close(held_out, np.column_stack(unseen), "out of fold", tolerance=1e-12)
    forests, meta = stack.base_models_.values(), stack.meta_model_
    by_hand = np.column_stack(
        [np.mean([tree.predict(X_TEST) for tree in base.estimators_], axis=0) for base in forests]
    )
    gamma = 1 / (held_out.shape[1] * held_out.var())  # what SVR calls 'scale'
    distances = ((by_hand[:, None] - meta.support_vectors_[None]) ** 2).sum(axis=2)
    expected = np.exp(-gamma * distances) @ meta.dual_coef_[0] + meta.intercept_
    oracle.assert_close(predicted, expected, "stacking", tolerance=1e-9)
    low, high = Y_TRAIN.min(), Y_TRAIN.max()
    assert ((held_out >= low) & (held_out <= high)).all(), "a forest predicts means of targets"


def deep() -> None:
    """Train Dense(64) - Dense(32) - Dense(1) outside, and serve it."""
    import torch
    from torch import nn

    from recfuse.serving import export_onnx

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
    )
    x = torch.tensor(X_TRAIN, dtype=torch.float32)
    y = torch.tensor(Y_TRAIN, dtype=torch.float32)[:, None]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(100):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(network(x), y)
        loss.backward()
        optimiser.step()
    model = export_onnx(network, {"features": x.numpy()}, outputs=["score"])
    served = recfuse.OnnxEncoder(model).encode(X_TEST)
    print(f"network {served.ravel()}, loss {loss.item():.4f}")

    w = oracle.parameters(network)
    hidden = X_TEST
    for layer in ("0", "2"):
        hidden = oracle.relu(oracle.dense(hidden, w[f"{layer}.weight"], w[f"{layer}.bias"]))
    oracle.assert_close(served, oracle.dense(hidden, w["4.weight"], w["4.bias"]), "network")
    assert loss.item() < 2 / 3, "it must predict better than the mean of 7, 8 and 9 does"


if __name__ == "__main__":
    weighted_sum()
    stacking()
    if find_spec("torch"):
        deep()
    else:
        print("the network is left out: pip install 'recfuse[train]'")
