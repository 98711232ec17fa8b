"""Nested mappings by dotted keys."""

from run_folders.nested import leaves, nodes

VALUES = {"a": {"b": 1, "c": [{"d": 2}]}, "e": {}, "f": None}


def test_nodes_are_all_values_and_mappings() -> None:
    assert list(nodes(VALUES, "x.")) == [
        ("x.a", VALUES["a"]), ("x.a.b", 1), ("x.a.c", [{"d": 2}]), ("x.e", {}), ("x.f", None),
    ]  # fmt: skip


def test_leaves_are_not_mappings() -> None:
    assert leaves(VALUES) == {"a.b": 1, "a.c": [{"d": 2}], "f": None}
