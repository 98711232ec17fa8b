"""Nested mappings by dotted keys."""

from run_folders.nested import delete, leaves, nodes, value_at

VALUES = {"a": {"b": 1, "c": [{"d": 2}]}, "e": {}, "f": None}


def test_nodes_are_all_values_and_mappings() -> None:
    assert list(nodes(VALUES, "x.")) == [
        ("x.a", VALUES["a"]), ("x.a.b", 1), ("x.a.c", [{"d": 2}]), ("x.e", {}), ("x.f", None),
    ]  # fmt: skip


def test_leaves_are_not_mappings() -> None:
    assert leaves(VALUES) == {"a.b": 1, "a.c": [{"d": 2}], "f": None}


def test_an_entry_is_found_and_deleted_by_its_dotted_key() -> None:
    assert value_at(VALUES, "a.b") == 1
    assert value_at(VALUES, "f") is None
    assert value_at(VALUES, "a.b.c") is value_at(VALUES, "x.b") is None  # no mapping, no entry
    values = {"a": {"b": 1, "c": 2}, "d": 3}
    for path in ("a.b", "d", "d.e", "x.y"):
        delete(values, path)
    assert values == {"a": {"c": 2}}
