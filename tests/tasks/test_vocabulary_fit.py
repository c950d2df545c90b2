"""Unknown tokens and scripts of texts, counted by hand and by the names of Unicode."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from iwlora.tasks import Task, vocabulary_fit
from iwlora.tasks.kinds.generation.instruction import Instruction
from iwlora.tasks.kinds.token_labels import TokenLabels
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.vocabulary_fit import VocabularyFit, script_shares

pytestmark = pytest.mark.quick

CHINESE = "\u5317\u4eac\u662f\u9996\u90fd"


def fit_of(texts: list[Any], tokenizer: Any, kind: Any = None) -> VocabularyFit:
    """Of texts, each with the label of its kind."""
    labels: Any = {TokenLabels: [0], Instruction: "ok"}.get(type(kind), 0)
    split = dataset_from_rows(["text"], [(text, labels) for text in texts], kind)
    classes = ("x", "y") if labels != "ok" else ()
    more = {} if kind is None else {"kind": kind}
    task = Task("t", ("text",), classes, ("accuracy",), splits={"train": split}, **more)
    return vocabulary_fit.vocabulary_fit(task, split, tokenizer)


@pytest.fixture(scope="module")
def words(tiny_bert: Path) -> Any:
    """A tokenizer that knows the words of the tests only."""
    return AutoTokenizer.from_pretrained(tiny_bert)


@pytest.fixture(scope="module")
def of_bytes() -> Any:
    """A tokenizer of bytes, without an unknown token: a token for each byte of UTF-8."""
    alphabet = {byte: number for number, byte in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_vocabulary_of_another_language(words: Any) -> None:
    fit = fit_of([CHINESE] * 3, words)
    assert (fit.unknown, fit.scripts, fit.rows) == (1.0, {"Han": 1.0}, 3)
    assert fit.is_foreign
    known = fit_of(["the dog sees a cat"] * 3, words)
    assert (known.unknown, known.scripts, known.is_foreign) == (0.0, {"Latin": 1.0}, False)


@pytest.mark.parametrize(("unknown", "foreign"), [(0, False), (2, False), (3, True)])
def test_one_token_in_a_hundred_may_be_unknown(unknown: int, foreign: bool, words: Any) -> None:
    fit = fit_of([*["the dog sees a cat"] * 40, *[CHINESE[0]] * unknown], words)
    assert fit.unknown == pytest.approx(unknown / (200 + unknown), abs=1e-12)
    assert fit.is_foreign is foreign


def test_a_vocabulary_of_bytes_knows_every_text(of_bytes: Any) -> None:
    chinese, english = (fit_of([text], of_bytes) for text in (CHINESE, "Beijing is a capital"))
    assert (chinese.unknown, chinese.per_character) == (0, len(CHINESE.encode()) / len(CHINESE))
    assert (english.unknown, english.per_character) == (0, 1)
    assert (chinese.is_foreign, english.is_foreign) == (True, False)


def test_the_words_of_lists_and_the_contents_of_messages(words: Any) -> None:
    """Names of roles are no words of a chat."""
    tags = fit_of([["the", CHINESE[0]]], words, TokenLabels())
    assert (tags.unknown, tags.scripts) == (0.5, {"Latin": 0.75, "Han": 0.25})
    chat = json.dumps([{"role": "user", "content": CHINESE}, {"role": "assistant", "content": "a"}])
    fit = fit_of([chat], words, Instruction())  # with a label "ok"
    assert fit.scripts == {"Han": 5 / 8, "Latin": 3 / 8}
    no_chat = '[{"role": "", "x": 1}]'
    assert fit_of([no_chat], words).scripts == {"Latin": 1.0}


def test_only_the_first_texts_are_read(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary_fit, "FIRST_CHARACTERS", 1000)
    fit = fit_of([*["the dog"] * 256, *[CHINESE] * 256], words)
    assert (fit.rows, fit.unknown) == (256, 0)


# What the names of letters begin with in Unicode, for a text of each script.
NAMES = {
    name: "CJK" if name == "Han" else name.upper()
    for name in (
        *("Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Devanagari", "Thai", "Hangul", "Han"),
        *("Hiragana", "Katakana", "Georgian", "Armenian", "Ethiopic", "Tamil", "Bengali"),
    )
}


@pytest.mark.parametrize("script", NAMES)
def test_scripts_are_those_of_unicode(script: str) -> None:
    letters = [
        character
        for character in map(chr, range(0x41, 0xFFFF))
        if unicodedata.category(character) in ("Lu", "Ll", "Lo")  # modifiers are of no script
        and unicodedata.name(character, "").startswith(f"{NAMES[script]} ")
    ][:40]
    assert letters
    assert script_shares(Counter(letters)) == {script: 1.0}


def test_what_is_no_letter_has_no_script() -> None:
    assert script_shares(Counter("12 !? \U0001f600\u0301")) == {}
    runes = script_shares(Counter("\u16a0\u16a1a"))
    assert runes == {"other": pytest.approx(2 / 3), "Latin": pytest.approx(1 / 3)}
