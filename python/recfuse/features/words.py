"""Texts by their words: TF-IDF, and bags of word vectors."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from recfuse._base import Estimator, check_fitted
from recfuse._inputs import as_csr, as_int, as_matrix
from recfuse._named import named
from recfuse._named_columns import SetOutput, prefixed
from recfuse.errors import FormatError
from recfuse.features._extras import load_extra
from recfuse.features._lsa import components

__all__ = ["TfidfEncoder", "embedding_bag", "read_word_vectors"]


class TfidfEncoder(SetOutput, Estimator):
    r"""Vectors of texts by TF-IDF, as scikit-learn's ``TfidfVectorizer`` makes them.

    The weight of term t in text d is :math:`tf(d, t) \cdot idf(t)` with
    :math:`idf(t) = \ln\frac{1 + n}{1 + df(t)} + 1`; every row has length one. With `dim`, latent
    semantic analysis [1]_ makes dense vectors of so many columns, which `FusedIndex` takes.

    Needs scikit-learn (extra ``recfuse[features]``).

    Parameters
    ----------
    dim : int, optional
        Reduce to so many dimensions by a truncated singular value decomposition. By default rows
        are sparse, with one column per term.
    analyzer : {'word', 'char', 'char_wb'}, default='word'
        What a term is made of. Chinese, Japanese and Thai have no spaces between words: take
        ``'char_wb'`` with ``ngrams=(1, 2)``, or texts that a segmenter has cut.
    ngrams : tuple of two int, default=(1, 1)
        Shortest and longest run of words or characters that is a term.
    weighting : {'idf', None}, default='idf'
        None leaves counts.
    normalise : bool, default=True
        Rows of length one; False leaves the weights.
    sublinear : bool, default=False
        ``1 + ln(tf)`` in the place of tf.
    min_count : int, default=1
        Terms in fewer texts are left out.
    max_terms : int, optional
        Keep only the terms that are most frequent in all texts.
    stop_words : 'english' or collection of str, optional
        Words to leave out.
    vocabulary : sequence of str, optional
        The terms and their columns, where they are known: those of a table of word vectors.

    Attributes
    ----------
    terms_ : list of str
        In the order of the columns: by code point, or as in `vocabulary`.
    idf_ : ndarray of shape (n_terms,), float64
    components_ : ndarray of shape (n_terms, dim), float64, or None
        The projection; see `AttributeEncoder`.

    References
    ----------
    .. [1] S. Deerwester et al., "Indexing by Latent Semantic Analysis", JASIS 41(6), 1990.

    Examples
    --------
    >>> from recfuse.features import TfidfEncoder
    >>> encoder = TfidfEncoder().fit(["red shoes", "blue shoes", "red hat"])
    >>> encoder.terms_
    ['blue', 'hat', 'red', 'shoes']
    >>> encoder.transform(["red red hat", "socks"]).toarray().round(2)
    array([[0.  , 0.55, 0.84, 0.  ],
           [0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    """

    _input_tags = ("one_d_array", "string")

    terms_: list[str]
    idf_: NDArray[np.float64]
    components_: NDArray[np.float64] | None

    def __init__(
        self,
        dim: int | None = None,
        *,
        analyzer: Literal["word", "char", "char_wb"] = "word",
        ngrams: tuple[int, int] = (1, 1),
        weighting: Literal["idf"] | None = "idf",
        normalise: bool = True,
        sublinear: bool = False,
        min_count: int = 1,
        max_terms: int | None = None,
        stop_words: Literal["english"] | Collection[str] | None = None,
        vocabulary: Sequence[str] | None = None,
    ) -> None:
        self.dim = dim
        self.analyzer = analyzer
        self.ngrams = ngrams
        self.weighting = weighting
        self.normalise = normalise
        self.sublinear = sublinear
        self.min_count = min_count
        self.max_terms = max_terms
        self.stop_words = stop_words
        self.vocabulary = vocabulary

    @named("TfidfEncoder")
    def fit(self, texts: Iterable[str], y: Any = None) -> TfidfEncoder:
        """Learn terms, their frequencies and, with `dim`, the projection.

        Parameters
        ----------
        texts : list of str
            None and blank texts are missing: they have no term.
        y : ignored

        Returns
        -------
        TfidfEncoder
            self.

        Raises
        ------
        ValueError
            If a parameter is out of its range, no text has a term, or `dim` is not below the
            numbers of texts and terms.
        TypeError
            If a text is none.
        ImportError
            Where scikit-learn is missing.
        """
        rows = _texts(texts)
        if self.weighting not in ("idf", None):
            raise ValueError(f"weighting must be 'idf' or None; got {self.weighting!r}")
        if self.dim is not None and as_int(self.dim, "dim") < 1:
            raise ValueError(f"dim must be at least 1; got {self.dim}")
        vectorizer = self._vectorizer(self.vocabulary, use_idf=self.weighting == "idf")
        try:
            matrix = vectorizer.fit_transform(rows)
        except ValueError as error:
            if "empty vocabulary" in str(error) or "no terms remain" in str(error).lower():
                raise ValueError("texts must have a term; got none that is kept") from error
            raise
        projection = None
        if self.dim is not None:
            projection = components(sp.csr_array(matrix), int(self.dim), "TfidfEncoder")
        terms = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
        idf = vectorizer.idf_ if self.weighting == "idf" else np.ones(len(terms))
        # All or nothing: an error above leaves the old fit in place.
        self.terms_, self.idf_, self.components_ = terms, np.asarray(idf, np.float64), projection
        return self

    @named("TfidfEncoder")
    def transform(self, texts: Iterable[str]) -> Any:
        """Return the vectors of texts, which need not be those of `fit`.

        Parameters
        ----------
        texts : list of str

        Returns
        -------
        csr_array of shape (n_texts, n_terms), or ndarray of shape (n_texts, dim), float32
            A text without a known term is a zero row. Or what `set_output` asked for, with `dim`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        TypeError
            If a text is none.
        """
        return self._as_output(texts, self._vectors(texts))

    def _vectors(self, texts: Iterable[str]) -> Any:
        check_fitted(self, "terms_")
        vectorizer = self._vectorizer(self.terms_, use_idf=True)
        vectorizer.idf_ = np.asarray(self.idf_)  # ones for counts
        matrix = sp.csr_array(vectorizer.transform(_texts(texts)))
        if self.components_ is None:
            return matrix.astype(np.float32)
        return np.asarray(matrix @ self.components_, np.float32)

    def fit_transform(self, texts: Iterable[str], y: Any = None) -> Any:
        """Fit, and return the vectors of the same texts."""
        if not isinstance(texts, (str, bytes)) and iter(texts) is texts:  # it is read twice
            texts = list(texts)
        return self.fit(texts).transform(texts)

    @named("TfidfEncoder")
    def encode(self, texts: Iterable[str]) -> Any:
        """Return the vectors as arrays: what encoders have in common, whatever `set_output`."""
        return self._vectors(texts)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the terms, or tfidfencoder0, tfidfencoder1, ... with `dim`."""
        check_fitted(self, "terms_")
        if self.components_ is None:
            return np.array(self.terms_, dtype=object)
        return prefixed(self, self.components_.shape[1])

    def _vectorizer(self, vocabulary: Sequence[str] | None, *, use_idf: bool) -> Any:
        library = load_extra("sklearn.feature_extraction.text", "features", "TfidfEncoder")
        stop_words = self.stop_words
        if stop_words is not None and not isinstance(stop_words, str):
            stop_words = list(stop_words)
        learning = vocabulary is None
        return library.TfidfVectorizer(
            analyzer=self.analyzer,
            ngram_range=tuple(self.ngrams),
            use_idf=use_idf,
            norm="l2" if self.normalise else None,
            sublinear_tf=self.sublinear,
            min_df=self.min_count if learning else 1,
            max_features=self.max_terms if learning else None,
            stop_words=stop_words,
            vocabulary=None if learning else list(vocabulary or ()),
        )


@named("embedding_bag")
def embedding_bag(
    weights: Any,
    word_vectors: ArrayLike,
    *,
    pooling: Literal["mean", "sum"] = "mean",
    normalise: bool = False,
) -> NDArray[np.float32]:
    r"""Return the weighted mean or sum of the word vectors of every text.

    .. math:: E = W V, \qquad e_d = \frac{\sum_t W_{dt} v_t}{\sum_t |W_{dt}|} \text{ for the mean}

    with the counts or TF-IDF weights W of `TfidfEncoder` and one word vector per row of V. (Papers
    that keep a word per column write :math:`W V^T`.)

    Parameters
    ----------
    weights : sparse of shape (n_texts, n_words)
    word_vectors : array-like of shape (n_words, dim)
        May be memory-mapped: only the rows of words that occur are read.
    pooling : {'mean', 'sum'}, default='mean'
    normalise : bool, default=False
        Return vectors of length one.

    Returns
    -------
    ndarray of shape (n_texts, dim), float32
        Computed in float64. A text without a word is a zero row.

    Raises
    ------
    ValueError
        If the numbers of words differ, a value that is read is not finite, or `pooling` is unknown.
    TypeError
        If `weights` is not sparse or `word_vectors` not numeric.

    Examples
    --------
    >>> from recfuse.features import TfidfEncoder, embedding_bag
    >>> words, vectors = ["red", "blue", "shoes"], [[4.0, 0.0], [0.0, 4.0], [1.0, 1.0]]
    >>> counts = TfidfEncoder(vocabulary=words, weighting=None, normalise=False)
    >>> texts = ["red shoes", "blue blue blue", "hat"]
    >>> embedding_bag(counts.fit_transform(texts), vectors)
    array([[2.5, 0.5],
           [0. , 4. ],
           [0. , 0. ]], dtype=float32)
    """
    if pooling not in ("mean", "sum"):
        raise ValueError(f"pooling must be 'mean' or 'sum'; got {pooling!r}")
    bags = as_csr(weights, "weights").astype(np.float64)
    table = np.asarray(word_vectors)
    if table.dtype.kind not in "fiub":
        raise TypeError(f"word_vectors must hold real numbers; got dtype {table.dtype}")
    if table.ndim != 2 or len(table) != bags.shape[1]:
        raise ValueError(
            f"word_vectors must have one row per column of weights ({bags.shape[1]}); "
            f"got shape {table.shape}"
        )
    used, columns = np.unique(bags.indices, return_inverse=True)
    rows = table[used].astype(np.float64)
    if not (np.isfinite(rows).all() and np.isfinite(bags.data).all()):
        raise ValueError("weights and word_vectors must be finite; got NaN or infinity")
    shape = (bags.shape[0], len(used))
    total = sp.csr_array((bags.data, columns, bags.indptr), shape=shape) @ rows
    if normalise:
        mass = np.linalg.norm(total, axis=1)
    elif pooling == "mean":
        mass = np.asarray(abs(bags).sum(axis=1))
    else:
        return np.asarray(total, np.float32)
    mass = mass.reshape(-1, 1)
    bag = np.divide(total, mass, out=np.zeros_like(total), where=mass > 0)
    return np.asarray(bag, np.float32)


@named("read_word_vectors")
def read_word_vectors(
    path: str | os.PathLike[str], *, words: Collection[str] | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    r"""Read a text file of word vectors: GloVe, fastText's ``.vec``, word2vec's text format.

    Parameters
    ----------
    path : str or path-like
        UTF-8; a word and its numbers per line, split by single spaces. A first line of two numbers
        is a header.
    words : collection of str, optional
        Keep these alone, so that a table of millions does not fill the memory.

    Returns
    -------
    words : list of str
        In the order of the file; the first of equal words counts.
    vectors : ndarray of shape (n_words, dim), float32

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If a line has another number of values, or one that is no number.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from recfuse.features import read_word_vectors
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "tiny.vec"
    >>> _ = file.write_text("2 3\nred 1 0 0\nblue 0 1 0\n")
    >>> read_word_vectors(file, words={"blue", "hat"})
    (['blue'], array([[0., 1., 0.]], dtype=float32))
    """
    wanted = None if words is None else frozenset(words)
    found: dict[str, NDArray[np.float32]] = {}
    dim: int | None = None
    with open(path, encoding="utf-8", newline="\n") as file:  # noqa: PTH123  # a path may be text
        first = file.readline()
        header = len(first.split()) == 2
        for number, line in enumerate(file if header else chain([first], file), 1 + header):
            word, *values = line.rstrip().split(" ")
            dim = len(values) if dim is None else dim
            if len(values) != dim or dim == 0:
                raise FormatError(
                    f"read_word_vectors: path must have {dim or 'some'} values per line; "
                    f"got {len(values)} in line {number} of {os.fspath(path)!r}"
                )
            if (wanted is None or word in wanted) and word not in found:
                found[word] = _numbers(values, number, path)
    vectors = np.array(list(found.values()), np.float32).reshape(len(found), dim or 0)
    return list(found), as_matrix(vectors, "path")


def _numbers(values: list[str], number: int, path: Any) -> NDArray[np.float32]:
    try:
        return np.array(values, np.float32)
    except ValueError as error:
        raise FormatError(
            f"read_word_vectors: path must hold numbers behind the words; "
            f"got {error} in line {number} of {os.fspath(path)!r}"
        ) from error


def _texts(texts: Iterable[str]) -> list[str]:
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"texts must be a list of texts; got one {type(texts).__name__}")
    rows = []
    for row, text in enumerate(texts):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"texts must be texts; got {type(text).__name__} in row {row}")
        rows.append(text or "")
    return rows
