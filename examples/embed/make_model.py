"""Fit a model of who drinks which tea, and write the file that the other programs open.

python make_model.py model.recfuse
"""

from __future__ import annotations

import sys

import numpy as np

import recfuse
from recfuse.serving import Retriever

TEAS = ["龙井", "碧螺春", "铁观音", "大红袍", "普洱", "白毫银针", "sencha", "gyokuro"]
TEAS += ["assam", "darjeeling", "ceylon", "earl grey", "mate", "rooibos", "camomile", "mint"]
GUESTS = ["ann", "bob", "王芳", *(f"guest {number}" for number in range(4, 41))]


def main(path: str) -> None:
    rng = np.random.default_rng(7)
    drank = rng.random((len(GUESTS), len(TEAS))) < 0.3
    events = recfuse.Interactions.from_arrays(
        [GUESTS[row] for row in drank.nonzero()[0]], [TEAS[column] for column in drank.nonzero()[1]]
    )
    model = recfuse.MultimodalRecommender(
        {"taste": recfuse.AlternatingLeastSquares(factors=6, random_state=0)},
        weights={"taste": 0.7, "text": 0.3},
        popularity=False,
    )
    text = rng.standard_normal((events.n_items, 5)).astype(np.float32)  # what an encoder would say
    fitted = recfuse.LabelledModel(model).fit(events, items={"text": text})
    Retriever.from_model(fitted).save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
