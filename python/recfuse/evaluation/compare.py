"""Evaluate several models on one split, and measure what they cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from recfuse.evaluation._checks import cutoffs, positive_int
from recfuse.evaluation._costs import Costs, Measured, Timed, latencies
from recfuse.evaluation._evaluate import evaluate, recommender
from recfuse.evaluation._split import Split
from recfuse.evaluation.comparison import Comparison

__all__ = ["compare"]


def compare(
    models: Mapping[str, Any] | Sequence[Any],
    split: Split,
    *,
    k: int | Iterable[int] = 20,
    exclude_seen: bool = True,
    user_ids: Any = None,
    item_values: Any = None,
    item_vectors: Any = None,
    auc: bool = False,
    batch_size: int = 1024,
    fit: bool = False,
    fit_params: Mapping[str, Mapping[str, Any]] | None = None,
    costs: bool = False,
    n_requests: int = 200,
    show_progress: bool = False,
) -> Comparison:
    """Evaluate several models on the same users: quality and, if asked for, what it costs.

    Parameters
    ----------
    models : mapping of str to model, or sequence of models
        As in `evaluate`, by the name to show; those of a sequence are shown as they print. They
        were fitted on `split.train`, or are with `fit`.
    split : Split
    fit : bool, default=False
        Call ``model.fit(split.train)`` first.
    fit_params : mapping of str to mapping, optional
        Further arguments of `fit` by name of the model, such as ``{"hybrid": {"items": vectors}}``.
    costs : bool, default=False
        Measure seconds and bytes, too: see `Costs`.
    n_requests : int, default=200
        Requests for a single user that the latencies are taken from, with `costs`.
    k, exclude_seen, user_ids, item_values, item_vectors, auc, batch_size, show_progress
        As in `evaluate`.

    Returns
    -------
    Comparison

    Raises
    ------
    TypeError
        If `models` is neither mapping nor sequence, `split` no Split, or a model cannot be fitted
        with `fit`; and as `evaluate`.
    ValueError
        If `models` is empty, or `fit_params` names none of them; and as `evaluate`.

    Examples
    --------
    >>> import numpy as np
    >>> from recfuse.evaluation import compare, user_time_split
    >>> from recfuse.interactions import Interactions
    >>> events = Interactions.from_arrays([1, 1, 2, 2], [7, 8, 8, 7], timestamps=[1, 2, 3, 4])
    >>> split = user_time_split(events, n_test=1)
    >>> def same_for_all(user_ids, k, *, user_items):
    ...     return np.tile([1, 0], (len(user_ids), 1))[:, :k], np.ones((len(user_ids), k))
    >>> table = compare({"8 first": same_for_all}, split, k=1)
    >>> print(table.to_text(["recall", "ndcg", "coverage"]))
    split: by time (per user), last event of each user
    2 users, 0 without test items skipped
    model    k  recall    ndcg  coverage
    8 first  1  0.5000  0.5000    0.5000
    """
    by_name = _named_models(models)
    if not isinstance(split, Split):
        raise TypeError(f"compare: split must be a Split; got {type(split).__name__}")
    unknown = set(fit_params or {}) - set(by_name)
    if unknown:
        raise ValueError(
            f"compare: fit_params must name models, {list(by_name)}; got {sorted(unknown)[0]!r}"
        )
    at = cutoffs(k, "compare")  # an iterator would be used up by the first model
    n_requests = positive_int(n_requests, "n_requests", "compare")
    results, measured = {}, {}
    for name, model in by_name.items():
        fitting = Measured()
        if fit:
            if not hasattr(model, "fit"):
                raise TypeError(
                    f"compare: models[{name!r}] must have a method fit; got {type(model).__name__}"
                )
            with fitting if costs else nullcontext():
                model.fit(split.train, **dict((fit_params or {}).get(name, {})))
        recommend = recommender(model, "compare")
        timed = Timed(recommend)
        asking = Measured()
        with asking if costs else nullcontext():
            results[name] = evaluate(
                timed,
                split.train,
                split.test,
                k=at,
                exclude_seen=exclude_seen,
                user_ids=user_ids,
                item_values=item_values,
                item_vectors=item_vectors,
                auc=auc,
                batch_size=batch_size,
                split=split.name,
                show_progress=show_progress,
            )
        if costs:
            users = np.resize(results[name].user_ids, n_requests)
            history = split.train.to_csr() if exclude_seen else None
            p50, p99 = latencies(recommend, users, min(at[-1], split.train.n_items), history)
            measured[name] = Costs(
                fit_seconds=fitting.seconds if fit else None,
                fit_peak_bytes=fitting.peak_bytes if fit else None,
                recommend_seconds=timed.seconds,
                recommend_peak_bytes=asking.peak_bytes,
                users_per_second=timed.n_users / timed.seconds,
                latency_p50=p50,
                latency_p99=p99,
            )
    return Comparison(split.name, results, measured)


def _named_models(models: Any) -> dict[str, Any]:
    if isinstance(models, Mapping):
        by_name = dict(models)
    elif isinstance(models, Sequence) and not isinstance(models, str):
        by_name = {}
        for model in models:
            name, n = repr(model), 2
            while name in by_name:
                name, n = f"{model!r} ({n})", n + 1
            by_name[name] = model
    else:
        raise TypeError(
            "compare: models must be a mapping name -> model, or a sequence of models; "
            f"got {type(models).__name__}"
        )
    if not by_name:
        raise ValueError(f"compare: models must not be empty; got {models!r}")
    return by_name
