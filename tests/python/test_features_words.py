from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import recfuse
from recfuse.errors import FormatError, NotFittedError
from recfuse.features import AttributeEncoder, TfidfEncoder, embedding_bag, read_word_vectors

text = pytest.importorskip("sklearn.feature_extraction.text")

TEXTS = [
    "A toy cowboy is afraid of a new toy",
    "An alien hunts the crew of a ship",
    "The crew of a ship hunts a whale",
    "",
    "千与千寻 的 神隐",
    "toy toy toy ship",
]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"ngrams": (1, 2), "min_count": 2}, {"ngram_range": (1, 2), "min_df": 2}),
        ({"analyzer": "char_wb", "ngrams": (2, 3)}, {"analyzer": "char_wb", "ngram_range": (2, 3)}),
        ({"weighting": None, "normalise": False}, {"use_idf": False, "norm": None}),
        ({"sublinear": True}, {"sublinear_tf": True}),
        ({"stop_words": "english"}, {"stop_words": "english"}),
        ({"max_terms": 4, "stop_words": ["toy"]}, {"max_features": 4, "stop_words": ["toy"]}),
        ({"vocabulary": ["ship", "alien"]}, {"vocabulary": ["ship", "alien"]}),
    ],
)
def test_weights_are_those_of_scikit_learn(ours, theirs):
    vectorizer = text.TfidfVectorizer(**theirs)
    expected = vectorizer.fit_transform(TEXTS)
    encoder = TfidfEncoder(**ours)
    got = encoder.fit_transform(TEXTS)
    assert isinstance(got, sp.csr_array) and got.dtype == np.float32
    assert encoder.terms_ == vectorizer.get_feature_names_out().tolist()
    np.testing.assert_allclose(got.toarray(), expected.toarray(), rtol=1e-6)
    new = ["a whale of a toy", "nothing known here?"]
    np.testing.assert_allclose(
        encoder.transform(new).toarray(), vectorizer.transform(new).toarray(), rtol=1e-6
    )


def test_the_formula_by_hand():
    got = TfidfEncoder().fit_transform(["x1 y1 y1", "y1"]).toarray()
    x, y = np.log(3 / 2) + 1, 2 * (np.log(3 / 3) + 1)
    np.testing.assert_allclose(got, [[x / np.hypot(x, y), y / np.hypot(x, y)], [0, 1]], rtol=1e-6)


def test_dense_vectors_keep_the_products_of_the_best_approximation():
    sparse = TfidfEncoder().fit_transform(TEXTS).toarray().astype(np.float64)
    dense = TfidfEncoder(dim=3).fit_transform(TEXTS)
    assert (dense.shape, dense.dtype) == ((6, 3), np.float32)
    u, s, _ = np.linalg.svd(sparse, full_matrices=False)
    best = (u[:, :3] * s[:3]) @ (u[:, :3] * s[:3]).T
    np.testing.assert_allclose(dense @ dense.T, best, atol=1e-5)
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.TruncatedSVD(3, algorithm="arpack").fit_transform(sparse)
    np.testing.assert_allclose(np.abs(dense), np.abs(theirs), atol=1e-5)


@pytest.mark.parametrize("dim", [None, 2])
def test_a_saved_encoder_gives_the_same_bytes(tmp_path, dim):
    encoder = TfidfEncoder(dim, ngrams=(1, 2)).fit(TEXTS)
    encoder.save(tmp_path / "words")
    loaded = recfuse.load(tmp_path / "words")
    before, after = encoder.transform(TEXTS), loaded.transform(TEXTS)
    if dim is None:
        before, after = before.toarray(), after.toarray()
    np.testing.assert_array_equal(before, after)


def test_people_are_saved_alike(tmp_path):
    people = {"gender": ["F", "M", None], "job": ["医生", "writer", ""], "age": [25, 61, None]}
    kinds = {"gender": "categorical", "job": "categorical", "age": "numeric"}
    encoder = AttributeEncoder(kinds).fit(people)
    encoder.save(tmp_path / "people")
    loaded = recfuse.load(tmp_path / "people")
    np.testing.assert_array_equal(loaded.transform(people), encoder.transform(people))


def test_wrong_texts():
    with pytest.raises(NotFittedError):
        TfidfEncoder().transform(["a"])
    with pytest.raises(TypeError, match="TfidfEncoder: texts must be a list of texts; got one str"):
        TfidfEncoder().fit("one text")
    with pytest.raises(TypeError, match="texts must be texts; got int in row 1"):
        TfidfEncoder().fit(["word", 3])
    with pytest.raises(ValueError, match="TfidfEncoder: texts must have a term; got none"):
        TfidfEncoder().fit(["", None])
    with pytest.raises(ValueError, match="TfidfEncoder: dim must be below the number of items"):
        TfidfEncoder(99).fit(TEXTS)
    with pytest.raises(ValueError, match="TfidfEncoder: dim must be at least 1; got 0"):
        TfidfEncoder(0).fit(TEXTS)
    with pytest.raises(ValueError, match="weighting must be 'idf' or None; got 'bm25'"):
        TfidfEncoder(weighting="bm25").fit(TEXTS)


def test_a_failed_fit_leaves_the_old_one():
    encoder = TfidfEncoder().fit(TEXTS)
    before = encoder.terms_
    with pytest.raises(ValueError):
        encoder.fit([""])
    assert encoder.terms_ is before


@pytest.mark.parametrize("pooling", ["mean", "sum"])
@pytest.mark.parametrize("normalise", [False, True])
def test_bags_are_products(rng, pooling, normalise):
    weights = (rng.random((8, 20)) < 0.3) * rng.standard_normal((8, 20)).astype(np.float32)
    weights[3] = 0
    table = rng.standard_normal((20, 5)).astype(np.float32)
    table[~weights.any(axis=0)] = np.nan  # of words that no text has
    got = embedding_bag(sp.csr_array(weights), table, pooling=pooling, normalise=normalise)
    expected = np.zeros((8, 5))
    for d, t in zip(*np.nonzero(weights), strict=True):
        expected[d] += float(weights[d, t]) * table[t].astype(np.float64)
    if normalise:
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-300)
    elif pooling == "mean":
        expected /= np.maximum(np.abs(weights.astype(np.float64)).sum(1, keepdims=True), 1e-300)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-12)


def test_word_vectors_from_a_file_meet_their_texts(tmp_path):
    file = tmp_path / "glove.txt"
    file.write_text("toy 1 0\nship 0 1\n千与千寻 2 2\ntoy 9 9\n", encoding="utf-8")
    words, vectors = read_word_vectors(file)
    assert words == ["toy", "ship", "千与千寻"]
    np.testing.assert_array_equal(vectors, [[1, 0], [0, 1], [2, 2]])
    counts = TfidfEncoder(vocabulary=words, weighting=None, normalise=False).fit_transform(TEXTS)
    bags = embedding_bag(counts, vectors)
    np.testing.assert_array_equal(bags[[0, 4, 5]], [[1, 0], [2, 2], [0.75, 0.25]])
    assert read_word_vectors(file, words=["ship"])[0] == ["ship"]


def test_wrong_tables(tmp_path):
    with pytest.raises(ValueError, match=r"embedding_bag: word_vectors must have .*2, 2"):
        embedding_bag(sp.csr_array(np.ones((2, 3))), np.ones((2, 2)))
    with pytest.raises(ValueError, match="pooling must be 'mean' or 'sum'; got 'max'"):
        embedding_bag(sp.csr_array(np.ones((2, 3))), np.ones((3, 2)), pooling="max")
    with pytest.raises(ValueError, match="must be finite"):
        embedding_bag(sp.csr_array(np.ones((2, 3))), np.full((3, 2), np.inf))
    file = tmp_path / "bad.vec"
    file.write_text("2 2\na 1 2\nb 1\n")
    with pytest.raises(FormatError, match="must have 2 values per line; got 1 in line 3"):
        read_word_vectors(file)
    file.write_text("a 1 2\nb 1 x\n")
    with pytest.raises(FormatError, match=r"must hold numbers behind the words; .* in line 2"):
        read_word_vectors(file)
    with pytest.raises(FileNotFoundError):
        read_word_vectors(tmp_path / "none")
