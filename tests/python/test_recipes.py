"""Every recipe, briefly: its network answers in ONNX Runtime as in PyTorch, and learns."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="no torch: pip install 'recfuse[train]'")
pytest.importorskip("onnxscript", reason="no onnxscript: pip install 'recfuse[train]'")
pytest.importorskip("onnxruntime", reason="no onnxruntime: pip install 'recfuse[onnx]'")
pytest.importorskip("sklearn", reason="no scikit-learn: pip install 'recfuse[features]'")

from recfuse.serving import OnnxEncoder, export_onnx  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipes():
    """Return a function that imports a recipe by name."""
    sys.path.insert(0, str(ROOT))
    yield lambda name: importlib.import_module(f"recipes.{name}")
    sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def data(recipes):
    return recipes("shared").load(generated=True)


@pytest.fixture(scope="module")
def towers(recipes, data):
    """Two towers and what they are served as, after a short training."""
    two_tower = recipes("two_tower")
    network, _ = two_tower.train(data, epochs=3)
    return network, two_tower.export(network, data)


def torch_answer(network, inputs):
    with torch.no_grad():
        return network(*(torch.tensor(array) for array in inputs.values()))


def assert_parity(encoder, inputs, expected):
    """Any batch size gives what PyTorch gives, to 1e-5 of the largest value."""
    wanted = expected.numpy()
    for rows in (slice(1), slice(7), slice(None)):
        got = encoder.encode({name: array[rows] for name, array in inputs.items()})
        assert got.shape == wanted[rows].shape
        assert np.abs(got - wanted[rows]).max() <= 1e-5 * max(1.0, np.abs(wanted).max())


def test_towers_answer_as_in_pytorch(recipes, data, towers):
    network, models = towers
    for name, inputs in recipes("two_tower").examples(data, slice(None)).items():
        expected = torch_answer(getattr(network, name), inputs)
        assert_parity(OnnxEncoder(models[name], batch_size=64), inputs, expected)


def test_retrieval_is_the_sum_of_the_towers(recipes, data, towers):
    two_tower = recipes("two_tower")
    network, models = towers
    retrieval = two_tower.Retrieval(models, data)
    users = np.array([5, 0, 17])
    seen = data.split.train.to_csr()[users]
    ids, scores = retrieval.recommend(users, 10, user_items=seen)
    inputs = two_tower.examples(data, slice(None))
    user, product, content = (
        torch_answer(getattr(network, name), inputs[name]).numpy().astype(np.float64)
        for name in ("user", "product", "content")
    )
    expected = user[users] @ np.hstack([product, content]).T
    expected[seen.toarray() > 0] = -np.inf
    best = np.sort(expected, axis=1)[:, ::-1][:, :10]
    np.testing.assert_allclose(scores, best, rtol=0, atol=1e-5 * np.abs(best).max())
    np.testing.assert_allclose(
        np.take_along_axis(expected, ids.astype(int), axis=1),
        scores,
        atol=1e-5 * np.abs(best).max(),
        rtol=0,
    )


def test_towers_learn(recipes, data, towers):
    from recfuse.evaluation import evaluate

    likes = data.liked()
    two_tower = recipes("two_tower")
    torch.manual_seed(0)
    untrained = two_tower.export(two_tower.TwoTower(data), data)
    recall = [
        evaluate(two_tower.Retrieval(models, data), likes.train, likes.test)["recall@20"]
        for models in (untrained, towers[1])
    ]
    assert recall[1] > 1.2 * recall[0]


def test_quantised_tower_is_smaller_and_lists_nearly_the_same(recipes, data, towers):
    pytest.importorskip("onnx")
    compression = recipes("compression")
    (_, whole_kb, _, whole, same), (_, small_kb, _, small, nearly) = compression.encoders(
        towers[1], data
    )
    assert float(small_kb) < 0.4 * float(whole_kb)
    assert same == 1.0 and nearly > 0.8
    assert abs(small - whole) < 0.05


def test_items_in_fewer_bytes(recipes):
    rows = recipes("compression").catalogue(2000)
    assert [row[0] for row in rows] == ["float32", "float16", "int8, a scale per item"]
    stored = [float(row[1]) for row in rows]
    assert stored[1] == pytest.approx(stored[0] / 2, abs=0.1) and stored[2] < 0.6 * stored[1] + 0.1
    assert rows[0][-1] == 1.0 and rows[1][-1] > 0.99 and rows[2][-1] > 0.9


def test_two_tasks(recipes, data):
    hybrid = recipes("hybrid_two_tasks")
    network, _ = hybrid.train(data, epochs=2)
    inputs = hybrid.pairs(data, np.arange(40), np.arange(40)[::-1].copy())
    model = export_onnx(network, {name: x[:2] for name, x in inputs.items()}, outputs=hybrid.HEADS)
    answers = torch_answer(network, inputs)
    rankers = hybrid.rankers(model, data)
    for head, expected in zip(hybrid.HEADS, answers, strict=True):
        assert_parity(OnnxEncoder(model, output=head), inputs, expected)
        served = rankers[head].score(np.arange(40), np.arange(40)[::-1].copy())
        np.testing.assert_allclose(served, expected.numpy()[:, 0], rtol=1e-5, atol=1e-5)


def test_area_under_the_curve(recipes, rng):
    from sklearn.metrics import roc_auc_score

    truth = rng.random(200) < 0.3
    scores = rng.integers(0, 20, 200) + 3.0 * truth  # with ties
    assert recipes("hybrid_two_tasks").auc(scores, truth) == pytest.approx(
        roc_auc_score(truth, scores)
    )


@pytest.mark.parametrize("kind", ["CnnLstm", "Lstm"])
def test_pictures(recipes, kind):
    cnn_lstm = recipes("cnn_lstm")
    image, digit = cnn_lstm.digits()
    torch.manual_seed(0)
    network = getattr(cnn_lstm, kind)(side=8)
    cnn_lstm.train(network, image[:320], digit[:320] % 2 == 0, epochs=1)
    model = export_onnx(network, {"image": image[:2]}, outputs=cnn_lstm.HEADS)
    answers = torch_answer(network, {"image": image[:50]})
    for head, expected in zip(cnn_lstm.HEADS, answers, strict=True):
        assert_parity(OnnxEncoder(model, output=head), {"image": image[:50]}, expected)


def test_picture_and_text(recipes):
    image_text = recipes("image_text")
    image, text, bought = (x[:320] for x in image_text.products())
    network, _ = image_text.train(image, text, bought, epochs=1)
    inputs = {"image": image[:50], "text": text[:50]}
    model = export_onnx(network, {name: x[:2] for name, x in inputs.items()})
    assert_parity(OnnxEncoder(model), inputs, torch_answer(network, inputs))


def test_items_are_dropped_at_the_share_asked_for(recipes):
    shared = recipes("shared")
    histories = torch.ones(200, 100)
    kept = shared.drop_items(histories, 0.3, torch.Generator().manual_seed(0))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert kept.mean().item() == pytest.approx(0.7, abs=0.02)
    again = shared.drop_items(histories, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(kept, again)
    assert torch.equal(shared.drop_items(histories, 0.0, torch.Generator()), histories)


def test_a_row_loses_one_modality_at_most(recipes):
    shared = recipes("shared")
    modalities = [torch.ones(1000, 4), torch.ones(1000, 3)]
    left = shared.drop_modalities(modalities, 0.5, torch.Generator().manual_seed(0))
    gone = [(x == 0).all(dim=1) for x in left]
    assert all(((x == 0).any(dim=1) == g).all() for x, g in zip(left, gone, strict=True))
    assert not (gone[0] & gone[1]).any()
    assert [g.float().mean().item() for g in gone] == pytest.approx([0.25, 0.25], abs=0.04)


def test_in_batch_softmax_by_hand(recipes, rng):
    items = np.array([3, 1, 3, 0])  # item 3 twice: for no row a wrong answer
    scores, logq = rng.normal(size=(4, 4)), np.log([0.1, 0.2, 0.3, 0.4])
    loss = 0.0
    for row in range(4):
        columns = [c for c in range(4) if c == row or items[c] != items[row]]
        logits = scores[row] - logq[items]
        loss -= logits[row] - np.log(np.exp(logits[columns]).sum())
    got = recipes("shared").in_batch_softmax(*(torch.tensor(x) for x in (scores, items, logq)))
    assert got.item() == pytest.approx(loss / 4)


class Doubled(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class Batchwise(torch.nn.Module):
    """Says something else at every call, which no file can."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.calls


def test_export_refuses():
    two = {"x": np.ones((2, 3), np.float32)}
    with pytest.raises(ValueError, match="export_onnx: examples must have the same number of rows"):
        export_onnx(Doubled(), {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(ValueError, match="export_onnx: examples must"):
        export_onnx(Doubled(), {})
    with pytest.raises(ValueError, match="export_onnx: examples must"):
        export_onnx(Doubled(), {**two, "y": np.ones((3, 3), np.float32)})
    with pytest.raises(RuntimeError, match="export_onnx: output 'output' must be that of the net"):
        export_onnx(Batchwise(), two)


def test_export_puts_the_mode_back():
    network = torch.nn.Sequential(torch.nn.Dropout(0.5), Doubled())
    network.train()
    model = export_onnx(network, {"x": np.ones((2, 3), np.float32)})
    assert network.training
    assert (OnnxEncoder(model).encode(np.ones((5, 3))) == 2).all()


def test_export_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"recfuse\[train\]"):
        export_onnx(Doubled(), {"x": np.ones((2, 3), np.float32)})


def test_short_histories_are_the_last_likes(recipes, data):
    augmentation = recipes("augmentation")
    fields = {name: getattr(data, name) for name in data.__dataclass_fields__}
    few = augmentation.ShortHistories(**fields).histories()
    likes = data.liked().train
    for user in range(len(data.profile)):
        mine = likes.user_index == user
        times, items = likes.timestamps[mine], likes.item_index[mine]
        got = np.flatnonzero(few[user])
        assert len(got) == min(augmentation.SHORT, len(items))
        assert sorted(times[np.isin(items, got)]) == sorted(times)[-augmentation.SHORT :]
