"""Cleaning of texts, with examples of what real tweets contain."""

import emoji
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.texts.cleaning import (
    Cleaning,
    clean,
    collapse_repeats,
    demojize,
    strip_hashes,
    strip_html,
    strip_punctuation,
    strip_urls,
    strip_usernames,
)

OFF = Cleaning(
    html=False,
    url=False,
    username=False,
    hashtag=False,
    rep=False,
    punctuation=False,
    demojize=False,
)
PERSIAN = "می‌خواهم بدانم"  # with a zero-width non-joiner inside the first word
ARABIC = "كوفيد-١٩ خطير؟"
FAMILY = "👨‍👩‍👧"  # three emoji and two zero-width joiners, one picture


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("<b>bold</b> claim", "bold claim"),
        ("<div><p>a <i>nested</i> tag</p></div>", "a nested tag"),
        ("<<b>b>twice", "twice"),
        ("<a href='x>y'>link</a>", "y'>link"),
        ("line<br/>break", "linebreak"),
        ("a < b and c > d", "a < b and c > d"),
        ("cases <5 and deaths >3", "cases <5 and deaths >3"),
        ("I <3 masks", "I <3 masks"),
        ("before <!-- a\ncomment --> after", "before after"),
        ("<SCRIPT>x</SCRIPT>", "x"),
    ],
)
def test_html(text: str, cleaned: str) -> None:
    assert strip_html(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("see https://t.co/YASGRTT4ux now", "see now"),
        ("https://t.co/a https://t.co/b", ""),
        ("WWW.cdc.gov/x?y=1#z end", "end"),
        ("HTTP://A.B", ""),
        ("no link: http is a protocol", "no link: http is a protocol"),
        (f"{ARABIC} https://t.co/x", ARABIC),
    ],
)
def test_urls(text: str, cleaned: str) -> None:
    assert strip_urls(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("@CDCgov says", "says"),
        ("thanks @a_b_1, @c!", "thanks , !"),
        ("mail me@example.org or a.b+c@example.org", "mail me@example.org or a.b+c@example.org"),
        ("RT @CDCemergency: #DYK?", "RT : #DYK?"),
        ("at 5 @ noon", "at 5 @ noon"),
        ("(@who)", "()"),
    ],
)
def test_usernames(text: str, cleaned: str) -> None:
    assert strip_usernames(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("#StaySafe #2020", "StaySafe 2020"),
        ("# 1 and ##x", "# 1 and #x"),
        ("#کرونا", "کرونا"),
        ("C# code", "C# code"),
    ],
)
def test_hashtags(text: str, cleaned: str) -> None:
    assert strip_hashes(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("sooooo goood", "so god"),
        ("good book", "good book"),
        ("10000 cases!!!", "10000 cases!!!"),
        ("AAAaaa", "Aa"),
        ("سلاااام", "سلام"),
        ("www", "w"),
        ("😷😷😷", "😷😷😷"),
    ],
)
def test_repeats(text: str, cleaned: str) -> None:
    assert collapse_repeats(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Don't panic! (really)...", "Dont panic really"),
        ("“quoted” – dash…", "quoted dash"),
        (ARABIC, "كوفيد١٩ خطير"),
        (PERSIAN, PERSIAN),
        (f"family {FAMILY}!", f"family {FAMILY}"),
        ("$5 + 3 = 8", "5 3 8"),
    ],
)
def test_punctuation(text: str, cleaned: str) -> None:
    assert strip_punctuation(text) == cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("wear 😷", "wear :face_with_medical_mask:"),
        ("👍🏽", ":thumbs_up_medium_skin_tone:"),
        ("🇮🇳 and 🇺🇸", ":India: and :United_States:"),
        (FAMILY, ":family_man_woman_girl:"),
        ("❤️", ":red_heart:"),
        ("plain ascii :)", "plain ascii :)"),
        (PERSIAN, PERSIAN),
        ("1️⃣", ":keycap_1:"),
        ("©", ":copyright:"),
    ],
)
def test_demojize(text: str, cleaned: str) -> None:
    assert demojize(text) == cleaned


def test_all_off_changes_nothing() -> None:
    text = f"  <b>@me</b> #x  sooo https://t.co/x 😷\n{PERSIAN} "
    assert clean(text, OFF) == text


@pytest.mark.parametrize("switch", sorted(OFF))
def test_each_switch_enables_only_its_own_step(switch: str) -> None:
    expected = {
        "html": "@me #x sooo! https://t.co/x 😷",
        "url": "<b>@me</b> #x sooo! 😷",
        "username": "<b></b> #x sooo! https://t.co/x 😷",
        "hashtag": "<b>@me</b> x sooo! https://t.co/x 😷",
        "rep": "<b>@me</b> #x so! https://t.co/x 😷",
        "punctuation": "bmeb x sooo httpstcox 😷",
        "demojize": "<b>@me</b> #x sooo! https://t.co/x :face_with_medical_mask:",
    }
    assert (
        clean("<b>@me</b> #x sooo! https://t.co/x 😷", Cleaning(**{**OFF, switch: True}))
        == expected[switch]
    )


def test_emoji_names_survive_punctuation() -> None:
    assert (
        clean("wow!! 👍🏽", Cleaning(**{**OFF, "punctuation": True, "demojize": True}))
        == "wow :thumbs_up_medium_skin_tone:"
    )


def test_every_emoji_is_found() -> None:
    for sequence in emoji.EMOJI_DATA:
        for text in (f"é {sequence} x", f"1{sequence}2"):
            assert demojize(text) == emoji.demojize(text)


@settings(max_examples=300, deadline=None, database=None)
@given(st.text("a1#* é’…\u200d\ufe0f\ufe0e\u20e3👍🏽👩❤™©🇩🇪🏴\U000e0067\U000e007f🔬"))
def test_parts_of_a_text_have_the_emoji_of_the_whole(text: str) -> None:
    assert demojize(text) == emoji.demojize(text)
