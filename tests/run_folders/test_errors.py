"""Suggestions of names, and short texts, in error messages."""

import pickle

from run_folders.errors import UserError, brief, near_names, nearest


def test_nearest_name_is_suggested_first() -> None:
    assert nearest("htlm", ["html", "url", "html5"]) == "did you mean html or html5?"


def test_key_with_the_same_last_part_is_near() -> None:
    assert (
        nearest("max_epochs", ["trainer.max_epochs", "seed"]) == "did you mean trainer.max_epochs?"
    )
    assert nearest("a.very.long.way.to.lr", ["model.lr", "seed"]) == "did you mean model.lr?"


def test_a_name_is_suggested_once() -> None:
    assert nearest("dta", ["data", "data", "seed"]) == "did you mean data?"


def test_known_names_are_listed_if_none_is_near() -> None:
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", [f"a{n:02}" for n in range(13)]).endswith("a11, ...")


def test_cutoff_and_count() -> None:
    assert near_names("labl", ["label", "table"], count=1) == ["label"]
    assert near_names("labl", ["label", "table"], cutoff=0.99) == []


def test_brief_is_one_line_of_limited_length() -> None:
    assert brief(ValueError("a\n  b")) == "a b"
    assert brief(ValueError()) == "ValueError"
    assert brief(ValueError("x" * 300)) == "x" * 200 + " ..."
    assert brief(ValueError("many words " * 30)) == "many words " * 18 + "..."
    assert brief(ValueError("s" * 150 + ". Then " + "y" * 100)) == "s" * 150
    assert len(brief(ValueError("x" * 300), max_chars=None)) == 300


def test_each_fault_of_a_user_error_is_one_line() -> None:
    name = "a\nerror: forged\n  row 2\x1b[31m\u202e\u200b.csv"
    shown = "a\\nerror: forged\\n  row 2\\x1b[31m\\u202e\\u200b.csv"
    assert str(UserError(f"{name}: no such file")) == f"{shown}: no such file"
    error = UserError(f"2 bad rows of {name}", name, "row 3")
    assert str(error).split("\n") == [f"2 bad rows of {shown}", f"  {shown}", "  row 3"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(UserError.from_text(f"job 0: {error}")) == f"job 0: {error}"
