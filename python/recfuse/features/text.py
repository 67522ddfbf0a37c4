"""Item text: joined from fields, and encoded by a sentence encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from recfuse.features._table import columns, is_missing, items_of
from recfuse.serving import OnnxEncoder

__all__ = ["join_fields", "minilm"]


def join_fields(
    items: Any,
    fields: Sequence[str] | Mapping[str, str],
    *,
    separator: str = ". ",
    list_separator: str = ", ",
) -> list[str]:
    """Join text fields into one text per item.

    Parameters
    ----------
    items : mapping of str to column, data frame or Arrow table
        A column has one cell per item: a text, a number, or a list of them.
    fields : sequence of str, or mapping of str to str
        Fields in the order of the text. A mapping gives each a format with one pair of braces,
        as in ``{"title": "{}", "cast": "Cast: {}"}``.
    separator, list_separator : str
        What stands between fields, and between the elements of a cell that is a list.

    Returns
    -------
    list of str
        One per item. A missing cell (None, NaN, blank, an empty list) leaves no trace; an item
        with nothing gets an empty string.

    Raises
    ------
    ValueError
        If `items` lacks a field, columns differ in length, or `fields` is empty.
    TypeError
        If a column is no column.

    Examples
    --------
    >>> from recfuse.features import join_fields
    >>> films = {"title": ["Solaris", "千と千尋"], "cast": [["Banionis", "Bondarchuk"], None]}
    >>> join_fields(films, {"title": "{}", "cast": "Cast: {}"})
    ['Solaris. Cast: Banionis, Bondarchuk', '千と千尋']
    """
    if not fields or isinstance(fields, str):
        raise ValueError(f"join_fields: fields must be a list of names; got {fields!r}")
    formats = fields if isinstance(fields, Mapping) else dict.fromkeys(fields, "{}")
    table = columns(items, formats, "join_fields")
    return [
        separator.join(
            form.format(text)
            for form, cell in zip(formats.values(), row, strict=True)
            if (text := _text(cell, list_separator))
        )
        for row in zip(*table.values(), strict=True)
    ]


def minilm(
    model: str | PathLike[str] | bytes,
    tokenizer: Any,
    *,
    batch_size: int = 64,
    max_length: int = 256,
    **options: Any,
) -> OnnxEncoder:
    """Return an encoder of texts by a MiniLM or another sentence transformer in ONNX.

    The pipeline is that of the ``all-MiniLM`` models [1]_: at most 256 tokens, mean over the tokens
    that are no padding, vectors of length one.

    Parameters
    ----------
    model : str, path-like or bytes
        The ONNX model, with the outputs of its last layer.
    tokenizer : str, path-like, bytes or tokenizers.Tokenizer
        Its ``tokenizer.json``.
    batch_size : int, default=64
        Texts per run; the fastest of 1 to 1000 for short texts on two cores.
    max_length : int, default=256
        Tokens per text.
    **options
        Other arguments of `OnnxEncoder`: device, dtype, num_threads, cache.

    Returns
    -------
    OnnxEncoder
        `encode` takes a list of texts and returns (n, dim), 384 columns for MiniLM.

    Raises
    ------
    ImportError, FileNotFoundError, FormatError, DeviceError, ValueError, TypeError
        As `OnnxEncoder` does.

    References
    ----------
    .. [1] N. Reimers, I. Gurevych, "Sentence-BERT: Sentence Embeddings using Siamese
       BERT-Networks", EMNLP 2019.
    """
    return OnnxEncoder(
        model,
        tokenizer=tokenizer,
        pooling="mean",
        normalise=True,
        batch_size=batch_size,
        max_length=max_length,
        **options,
    )


def _text(cell: Any, list_separator: str) -> str:
    parts = items_of(cell)
    if parts is not None:
        return list_separator.join(text for part in parts if (text := _text(part, list_separator)))
    return "" if is_missing(cell) else str(cell).strip()
