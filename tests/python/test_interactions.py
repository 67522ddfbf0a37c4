from __future__ import annotations

from recfuse.interactions import Interactions


def test_labels_count_first_appearances():
    events = Interactions.from_arrays(["b", "a", "b", "c"], [7, 3, 3, 7])
    assert events.users.tolist() == ["b", "a", "c"]
    assert events.items.tolist() == [7, 3]
    assert events.user_index.tolist() == [0, 1, 0, 2]
    assert events.item_index.tolist() == [0, 1, 1, 0]
    assert events.values.tolist() == [1, 1, 1, 1]
    assert events.timestamps is None
