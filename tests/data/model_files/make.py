"""Write the golden model files of the present format into a folder of their own, once.

A release keeps the files of every format before it, and `test_golden_files.py` loads them all.
Run it when `recfuse.storage.VERSION` has risen, or when a kind of model has been added; what is
there stays as it is:

    python tests/data/model_files/make.py
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

import recfuse
from recfuse import preprocess, serving, storage
from recfuse.features import AttributeEncoder, TfidfEncoder
from recfuse.serving import Retriever

HERE = Path(__file__).parent
N_USERS, N_ITEMS = 12, 10


def arrays() -> dict[str, Any]:
    """One array of every type, an empty one, a scalar, and strings."""
    codes = ["?", "u1", "i1", "<u2", "<i2", "<f2", "<u4", "<i4", "<f4", "<u8", "<i8", "<f8"]
    made: dict[str, Any] = {f"of {code}": np.arange(6).reshape(2, 3).astype(code) for code in codes}
    made["empty"] = np.zeros((0, 4), np.float32)
    made["scalar"] = np.array(7, np.int8)
    made["strings"] = np.array(["a", "二", "", "emoji 🎬"], object)
    return made


def models() -> dict[str, Any]:
    """Fitted models by the names of their files."""
    rng = np.random.default_rng(7)
    likes = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32))
    rows, columns = likes.nonzero()
    als = {"factors": 3, "iterations": 2, "random_state": 1, "num_threads": 1}
    events = recfuse.Interactions.from_arrays(
        [f"用户{row}" for row in rows], [100 - column for column in columns]
    )
    odd = recfuse.Interactions.from_arrays(
        [uuid.UUID(int=int(row)) for row in rows], [("shop", int(c)) for c in columns]
    )
    text = rng.standard_normal((N_ITEMS, 3)).astype(np.float32)
    text[4] = 0
    behaviour = {
        "als": recfuse.AlternatingLeastSquares(**als),
        "neighbours": recfuse.ItemNeighbours(k=3, num_threads=1),
    }
    weights = {"als": 0.4, "neighbours": 0.2, "text": 0.3, "popularity": 0.1}
    return {
        "als": recfuse.AlternatingLeastSquares(**als).fit(likes),
        "biases": recfuse.AlternatingLeastSquares(
            objective="explicit", biases=True, regularization=1.0, **als
        ).fit(likes),
        "labelled": recfuse.LabelledModel(recfuse.AlternatingLeastSquares(**als)).fit(events),
        "labels": recfuse.LabelledModel(recfuse.ItemNeighbours(k=3)).fit(odd),
        "multimodal": recfuse.MultimodalRecommender(behaviour, weights=weights).fit(
            likes, {"text": text}
        ),
        "popularity": recfuse.Popularity().fit(likes),
    }


def retrievers() -> dict[str, Any]:
    """Searches that formats from the second on have, by the names of their files."""
    rng = np.random.default_rng(8)
    likes = sp.csr_array((rng.random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32))
    text = rng.standard_normal((N_ITEMS, 3)).astype(np.float32)
    image = rng.standard_normal((N_ITEMS, 2)).astype(np.float32)
    image[::3] = 0
    als = recfuse.AlternatingLeastSquares(factors=3, iterations=2, random_state=1, num_threads=1)
    fused = recfuse.MultimodalRecommender(
        {"als": als}, weights={"als": 0.4, "text": 0.3, "image": 0.2, "popularity": 0.1}
    ).fit(likes, {"text": text, "image": image})
    rows, columns = likes.nonzero()
    events = recfuse.Interactions.from_arrays(
        [f"用户{row}" for row in rows], columns, item_labels=range(N_ITEMS, -1, -1)
    )
    index = recfuse.FusedIndex({"text": text, "image": image}, present={"image": image.any(axis=1)})
    return {
        "retriever": Retriever.from_model(fused),
        "index": Retriever.from_model(index),
        "toplist": recfuse.LabelledModel(recfuse.Popularity()).fit(events),
    }


LOG: dict[str, list[Any]] = {
    "who": ["王", "王", "ann", "ann", "bo", "bo", "bo", None, "eve", "eve"],
    "what": [7, 3, 3, 9, 7, 9, 3, 3, 11, 3],
    "did": ["view", "buy", "view", "cart", "view", "view", "buy", "view", "view", "buy"],
    "price": [None, 30.0, None, None, None, None, 9.5, None, None, 2.0],
}
VISITS: dict[str, list[Any]] = {
    "who": ["zoe", "zoe", "ann"],
    "what": [9, 7, 11],
    "did": ["cart", "view", "buy"],
    "price": [None, None, 4.0],
}
TITLES = ["green tea", "red tea pot", "a cup of tea", None]
PRICES = [[3.0], [40.0], [np.nan], [8.0]]
GENRES = {"genre": ["tea", "pot", "tea", None], "price": [3.0, 40.0, 5.0, 8.0]}


def pipelines() -> dict[str, Any]:
    """What makes data into vectors, and the model that takes them, in one file."""
    als = {"factors": 2, "iterations": 2, "random_state": 1, "num_threads": 1}
    reader = preprocess.EventReader(
        user="who",
        item="what",
        event="did",
        weights={"view": 1, "cart": 3, "buy": 10},
        amount="price",
        missing="drop",
        item_labels=[7, 3, 9, 11],
    )
    cleaner = preprocess.Cleaner(above=0, duplicates="sum")
    fused = recfuse.MultimodalRecommender(
        {"als": recfuse.AlternatingLeastSquares(**als)},
        weights={"als": 0.4, "text": 0.3, "price": 0.2, "popularity": 0.1},
    )
    scales = preprocess.Pipeline([preprocess.MissingValues("mean"), preprocess.MinMax(0.1, 1.0)])
    encoders = {"text": TfidfEncoder(dim=2), "price": scales}
    genres = AttributeEncoder({"genre": "categorical", "price": "numeric"}).fit(GENRES)
    return {
        "events": preprocess.Pipeline(
            [reader, cleaner, recfuse.LabelledModel(recfuse.AlternatingLeastSquares(**als))]
        ).fit(LOG),
        "shop": preprocess.Pipeline(
            [reader, cleaner, recfuse.LabelledModel(fused)], encoders=encoders
        ).fit(LOG, items={"text": TITLES, "price": PRICES}),
        "requests": serving.Pipeline(
            {"about": genres.transform(GENRES), "place": np.eye(4, 3, dtype=np.float32)},
            {"about": genres},
            weights={"about": 0.75, "place": 0.25},
            present={"place": [True, True, True, False]},
        ),
    }


def asked_raw(pipeline: Any) -> tuple[Any, Any]:
    """Return the answers of a pipeline to data as it comes: ids as text, and scores."""
    if isinstance(pipeline, serving.Pipeline):
        first = {name: column[:2] for name, column in GENRES.items()}
        lists = [pipeline.topk({"about": first, "place": [[1, 0, 0.5], None]}, 3)]
    else:
        lists = [pipeline.recommend(["ann", "eve"], 3)]
        lists.append(pipeline.recommend_new_users(VISITS, 3)[1:])
        if pipeline.encoders_:
            new = {"text": ["tea for two", None], "price": [[30.0], [1.0]]}
            lists.append(pipeline.recommend_new_items(["eve"], new, 3))
    ids = [[str(i) for i in row] for found, _ in lists for row in found]
    return ids, [row.tolist() for _, scores in lists for row in scores]


def asked(model: Any) -> tuple[Any, Any]:
    """Return what a golden model must answer for ever: ids as text, and scores."""
    if isinstance(model, (preprocess.Pipeline, serving.Pipeline)):
        return asked_raw(model)
    if isinstance(model, Retriever) and model.n_users is None:
        ids, scores = model.search({name: np.eye(dim)[:2] for name, dim in model.dims.items()}, 4)
        return [[str(i) for i in row] for row in ids], scores.tolist()
    users = model.users_ if hasattr(model, "users_") else np.arange(N_USERS)
    ids, scores = model.recommend(users, k=4)[:2]
    return [[str(i) for i in row] for row in ids], scores.tolist()


def asked_rows(retriever: Retriever) -> tuple[Any, Any]:
    """Return the same of a `Retriever`, whose users are all that it has, in their order."""
    rows = np.arange(retriever.n_users or 0)
    table = retriever._parts.user_ids
    ids, scores = retriever.recommend(rows if table is None else list(table.labels(rows)), k=4)
    return [[str(i) for i in row] for row in ids], scores.tolist()


def main() -> None:
    folder = HERE / f"v{storage.VERSION}"
    folder.mkdir(exist_ok=True)
    if not (path := folder / "arrays.recfuse").exists():
        storage.write(path, arrays(), {"name": "金", "list": [1, 2.5, None, True]})
    answers = {}
    if (text := folder / "answers.json").exists():
        answers = json.loads(text.read_text(encoding="utf-8"))
    for name, model in {**models(), **retrievers(), **pipelines()}.items():
        if not (path := folder / f"{name}.recfuse").exists():
            model.save(path)
            answers[name] = asked(model)
    text.write_text(json.dumps(answers, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
