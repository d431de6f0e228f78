"""The tokenizer equals PTBTokenizer of CoreNLP 3.4.1 as pycocoevalcap calls it."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.metrics.ptb import lex
from toolkit.metrics.ptb.abbreviations import (
    BEFORE_NUMBERS,
    CAPITALISED,
    FINAL,
    TITLES,
    UNCAPITALISED_FINAL,
    UNCAPITALISED_TITLES,
)
from toolkit.metrics.tokenizer import tokenize, tokenize_lines

PUNCTUATION = set("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
PIECES = (
    "' ’ . , - -- / 1 12 1/2 a ab The Co. jan. U.S. e.g. No. no. fig. @me #1 & AT&T &amp; $ 5% ( ) [ : = ;) "
    "can't "
    "it's cannot gonna http://a.bc/d www.a.org a.com x.jpg <b> </b> ... ! ?! \" “ ” é O'Brien dogs' 'em 'n' "
    "'till '90s ½ x² A J."
).split()


def test_pairs_of_the_repository(ptb_pairs):
    wrong = [row for row in ptb_pairs if " ".join(tokenize(row["in"])) != row["out"]]
    assert not wrong


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man's bike can't move.", "a man 's bike ca n't move"),
        ("gonna gotta lemme cannot", "gon na got ta lem me can not"),
        ("(red) [white] {blue}", "-lrb- red -rrb- -lsb- white -rsb- -lcb- blue -rcb-"),
        ("£5 €20 3¢ 50% ½", "# 5 $ 20 3 cents 50 % 1/2"),
        ("hello.world yes!no?ok image_001.jpg", "hello.world yes!no?ok image_001 jpg"),
        ("😀 a cat 👍🏽", "a cat"),
        ("I like Mr. Smith of the U.S. etc.", "i like mr. smith of the u.s. etc."),
        ("No. 5, no. way", "no. 5 no way"),
        ("- -- ... ; : ' \" , . ? !", ""),
        # A curly apostrophe splits some words that a straight one leaves whole.
        ("c'mon s'mores nat'l li'l cont'd. x", "c'mon s'mores nat'l li'l cont'd. x"),
        ("c’mon s’mores nat’l li’l cap’n cont’d. x", "c 'm on s 'm ores nat l li l cap’n cont 'd x"),
        # A letter behind an elision hangs on the next word, though no blank is before it.
        ("a'causeb. A", "a 'cause b a"),
        ("a'causeb. x", "a 'cause b. x"),
        ("&APOS;s &Apos; AT&Amp;T &QUOT;", "&apos;s &apos; at&t &quot;"),
        ("", ""),
    ],
)
def test_examples(text, tokens):
    assert tokenize(text) == tokens.split()


def test_a_number_and_its_fraction_are_one_token():
    assert tokenize("1 1/2 cups") == ["1\u00a01/2", "cups"]


def test_only_the_last_token_of_a_line_loses_its_blank():
    assert tokenize("http://a.b/\u00a0") == ["http://a.b/"]
    assert tokenize("http://a.b/\u00a0.") == ["http://a.b/\u00a0"]


def test_a_line_break_is_a_blank():
    assert tokenize("a dog.\nA cat\r\n") == tokenize("a dog. A cat")


def test_lines_of_a_file_see_the_next_line():
    lines = ["12th Ave S.", "A street", "K.", "", "The end", "J."]
    assert tokenize_lines(lines) == [["12th", "ave", "s"], ["a", "street"], ["k"], [], ["the", "end"], ["j."]]
    assert tokenize("12th Ave S.") == ["12th", "ave", "s."]


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_has_tokens_without_blanks(text):
    for token in tokenize(text):
        assert token
        assert token not in PUNCTUATION
        assert not set(token) & set(" \t\n\r")
        assert token == token.lower()


@given(st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join))
@settings(max_examples=500, deadline=None)
def test_the_shortcut_for_plain_stretches_changes_nothing(text):
    lowered = [token.lower() for token in lex(text)]
    assert tokenize(text) == [token for token in lowered if token not in PUNCTUATION]


@given(
    st.lists(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=30), min_size=2, max_size=5)
)
@settings(max_examples=100, deadline=None)
def test_a_caption_does_not_depend_on_those_before_it(captions):
    alone = [tokenize(caption) for caption in captions]
    assert [tokenize(caption) for caption in reversed(captions)] == alone[::-1]


@pytest.mark.parametrize(
    "piece",
    [
        "a,",
        "a-",
        "a@",
        "<a ",
        "1-",
        "'",
        "http://",
        "A&",
        "x=",
        ". ",
        '<a b="',
        "😀",
        "a.&",
        "&www.",
        "日\xa0",
        "a😀",
    ],
)
def test_long_input_takes_no_quadratic_time(piece):
    began_s = time.process_time()
    assert isinstance(tokenize(piece * 4000), list)
    assert time.process_time() - began_s < 3


@pytest.mark.slow
def test_shared_pairs(shared_data: Path):
    with gzip.open(shared_data / "ptb_pairs.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    assert len(rows) == 20_000
    assert [row for row in rows if " ".join(tokenize(row["in"])) != row["out"]] == []


@pytest.mark.java
@pytest.mark.slow
def test_fresh_strings_through_the_original(tmp_path: Path):
    """At least 99.9 % of odd strings; the neutral next line keeps each string alone."""
    jar = (
        Path(pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer").__file__).parent
        / "stanford-corenlp-3.4.1.jar"
    )
    draw = random.Random(20261121)
    printable = "".join(map(chr, range(0x20, 0x7F))) + "éüñ“”’–…½€°日本"
    strings = ["".join(draw.choices(printable, k=draw.randint(1, 9))) for _ in range(4000)]
    strings += [draw.choice(["", " "]).join(draw.choices(PIECES, k=draw.randint(2, 5))) for _ in range(6000)]
    (tmp_path / "in.txt").write_text("".join(f"{text}\nzz\n" for text in strings), encoding="utf-8")
    command = [
        "java",
        "-cp",
        str(jar),
        "edu.stanford.nlp.process.PTBTokenizer",
        "-preserveLines",
        "-lowerCase",
        "in.txt",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=120)
    lines = done.stdout.decode().split("\n")[0:-1:2]
    assert len(lines) == len(strings)
    expected = [[word for word in line.rstrip().split(" ") if word not in PUNCTUATION] for line in lines]
    wrong = [
        (text, want, tokenize(text))
        for text, want in zip(strings, expected, strict=True)
        if tokenize(text) != [word for word in want if word]
    ]
    assert len(wrong) <= len(strings) / 1000, wrong[:5]


@given(st.from_regex(r"[A-Za-z]{2,7}[.,]?", fullmatch=True), st.sampled_from(["", " a", " The", " 5"]))
@settings(max_examples=500, deadline=None)
def test_the_shortcut_for_single_words_changes_nothing(word, following):
    text = word + following
    assert tokenize(text) == [token for token in map(str.lower, lex(text)) if token not in PUNCTUATION]


def test_no_abbreviation_takes_the_shortcut():
    for words in (FINAL, TITLES, CAPITALISED, BEFORE_NUMBERS, UNCAPITALISED_FINAL, UNCAPITALISED_TITLES):
        for word in words:
            for text in (f"{word}.", f"{word.capitalize()}.", f"{word.upper()}.", f"{word}. 5"):
                want = [token for token in map(str.lower, lex(text)) if token not in PUNCTUATION]
                assert tokenize(text) == want, text
