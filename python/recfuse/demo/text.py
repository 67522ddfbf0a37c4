"""The result of the demo for a terminal."""

from __future__ import annotations

from recfuse.demo.pipeline import K, Person, Result

__all__ = ["as_text"]


def as_text(result: Result) -> str:
    """Return tables of the metrics, the weights, the lists and the times."""
    sections = [
        result.comparison.to_text(metrics=["recall", "ndcg", "coverage"]),
        _verdict(result),
        "Weights, fitted on the validation slice\n" + _weights(result),
        *(_list(person, result.modalities) for person in result.people),
        f"{result.n_cold} films that nobody had touched before the test; by content alone\n"
        + _list(result.cold, result.modalities),
        _races(result),
    ]
    return "\n\n".join(sections)


def _verdict(result: Result) -> str:
    ndcg = {row["model"]: row["ndcg"] for row in result.comparison.rows}
    fusion = ndcg.pop("fusion")
    best = max(ndcg, key=lambda name: ndcg[name])
    return (
        f"NDCG@{K} on the test: fusion {fusion:.4f}, "
        f"best single modality ({best}) {ndcg[best]:.4f}, {fusion / ndcg[best] - 1:+.1%}"
    )


def _weights(result: Result) -> str:
    return "\n".join(
        f"  {name:12}{weight:6.3f}  {'#' * round(40 * weight)}"
        for name, weight in result.weights.items()
    )


def _list(person: Person, modalities: list[str]) -> str:
    width = max((len(item.film) for item in person.items), default=0)
    header = f"  {'':{width}}    score  " + "  ".join(f"{m:>10}" for m in modalities)
    lines = [f"{person.label} liked {'; '.join(person.favourites)}", header]
    for item in person.items:
        mark = "*" if item.liked_later else " "
        parts = "  ".join(f"{part:+10.2f}" for part in item.parts)
        lines.append(f"{mark} {item.film:{width}}  {item.score:+7.2f}  {parts}")
    return "\n".join(lines) + "\n  * liked later, in the test"


def _races(result: Result) -> str:
    lines = [f"Fused top-{K} beside the same in NumPy, seen films left out, scores equal"]
    for race in result.races:
        seconds = f"recfuse {race.recfuse * 1e3:.1f} ms, NumPy {race.numpy * 1e3:.1f} ms"
        lines += [f"  {race.workload}", f"    {seconds}, {race.speed:.1f}x"]
    return "\n".join(lines)
