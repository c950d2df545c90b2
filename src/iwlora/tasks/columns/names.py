"""The usual names of text and label columns, and how a column's name is compared with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

# Kinds whose columns have usual names: (kind, text columns, possible names of the label column).
# Without a name for the label, the label is in the text.
KindNames: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...]]


class Names(NamedTuple):
    """Names of columns; in each list, the first one that the file has is taken."""

    kinds: Sequence[KindNames]
    pairs: Sequence[tuple[str, str]]
    texts: Sequence[str]
    labels: Sequence[str]


EXACT = Names(
    kinds=(
        ("instruction", ("messages", "tools"), ()),
        ("instruction", ("messages",), ()),
        ("instruction", ("conversations", "tools"), ()),
        ("instruction", ("conversations",), ()),
        ("instruction", ("prompt", "tools"), ("completion", "response")),
        ("instruction", ("prompt",), ("completion", "response")),
        ("instruction", ("instruction", "input"), ("output", "response")),
        ("instruction", ("instruction",), ("output", "response")),
        ("question-answering", ("question", "context"), ("answers", "answer")),
        ("token-labels", ("tokens",), ("ner_tags", "tags", "labels", "pos_tags")),
        ("token-labels", ("words",), ("ner_tags", "tags", "labels", "pos_tags")),
        ("seq2seq", ("source",), ("target",)),
        ("seq2seq", ("document",), ("summary",)),
        ("seq2seq", ("article",), ("highlights", "summary")),
        ("seq2seq", ("input",), ("output", "target")),
        ("seq2seq", ("text",), ("summary",)),
    ),
    pairs=(
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("question", "passage"),
        ("question", "answer"),
        ("text1", "text2"),
    ),
    texts=("text", "sentence", "review", "content", "comment", "tweet", "question", "document"),
    labels=("label", "labels", "class", "category", "target", "score", "rating", "sentiment"),
)
"""Names that are taken as they are spelled, before all others: so a file that could be read by an
earlier version is read as it was."""

_SUMMARISED = "article document dialogue dialog conversation text content body report news story"
_SUMMARIES = ("summary", "highlights", "abstract", "headline", "headlines", "tldr")
_REPLIES = ("completion", "response", "output", "answer", "reply")
_TAGS = ("ner_tags", "tags", "labels", "ner", "bio", "pos_tags", "upos", "pos")

USUAL = Names(
    kinds=(
        ("instruction", ("instruction", "context"), _REPLIES),
        *EXACT.kinds,
        ("instruction", ("prompt",), _REPLIES),
        ("instruction", ("instruction",), _REPLIES),
        ("instruction", ("question",), _REPLIES),
        ("instruction", ("query",), _REPLIES),
        ("instruction", ("problem",), ("solution", "answer")),
        ("question-answering", ("question", "passage"), ("answers",)),
        ("token-labels", ("tokens",), _TAGS),
        ("token-labels", ("words",), _TAGS),
        ("seq2seq", ("source_text",), ("target_text",)),
        ("seq2seq", ("input_text",), ("target_text", "output_text")),
        ("seq2seq", ("src",), ("tgt", "trg")),
        *(("seq2seq", (name,), _SUMMARIES) for name in _SUMMARISED.split()),
    ),
    pairs=(
        *EXACT.pairs,
        ("sentence_a", "sentence_b"),
        ("text_a", "text_b"),
        ("question_a", "question_b"),
        ("#1 string", "#2 string"),
        ("claim", "evidence"),
        ("query", "passage"),
        ("query", "document"),
        ("headline", "body"),
        ("context", "response"),
    ),
    texts=(
        *EXACT.texts,
        *"review_text review_body comment_text comment_body tweet_text message_text".split(),
        *"full_text news_text text_content message body utterance sms post story".split(),
        *"dialogue dialog transcript article abstract description paragraph passage".split(),
        *"statement claim complaint feedback plot lyrics query prompt".split(),
    ),
    labels=(
        *"label labels gold_label class_label true_label class class_index target".split(),
        "ground_truth",
    ),
)
"""Names that are compared without regard to case, spaces, ``_`` and ``-``."""

WEAK_TEXTS = ("headline", "title", "subject", "summary", "email", "name")
"""Names of texts that are taken only where no other column holds texts."""

SUBJECTS = (
    "category categories class_name intent sentiment sentiments polarity stars star_rating rating "
    "ratings score scores grade topic topics tag tags genre genres emotion emotions mood toxic "
    "toxicity is_toxic hate hate_speech offensive spam is_spam spam_ham is_duplicate duplicate "
    "is_sarcastic sarcasm quality entailment entailment_judgment relatedness relatedness_score "
    "similarity similarity_score stance priority department language domain type verdict"
).split()
"""Names of label columns of which none comes before another: two of them are a choice."""

_IDENTIFIERS = frozenset(
    "id ids idx index uuid guid key hash rowid unnamed0 split fold file filename filepath".split()
)
_IDENTIFYING = re.compile(
    r"(?:.*[\W_])?(?:id|idx|uuid|guid)\d*|.*[a-z](?:Id|ID|Uuid|UUID)\d*|qid\d+"
)
_LANGUAGES = frozenset(
    "ar bg bn ca cs da de el en es et fa fi fr ga gu he hi hr hu id is it ja kk kn ko lt lv mk ml "
    "mr mt nb ne nl no pa pl pt ro ru sk sl sq sr sv sw ta te th tr uk ur vi zh "
    "arabic chinese czech dutch english french german greek hebrew hindi italian japanese korean "
    "persian polish portuguese russian spanish swedish turkish ukrainian vietnamese".split()
)


@lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """A name without what does not count when it is compared.

    >>> plain("Review_Text"), plain("reviewText"), plain("Class Index")
    ('reviewtext', 'reviewtext', 'classindex')
    """
    return "".join(c for c in name.casefold() if c.isalnum())


def spelled(columns: Iterable[str], name: str) -> str | None:
    """The file's own spelling of a usual name.

    >>> spelled(["ID", "Review-Text"], "review_text")
    'Review-Text'
    """
    return next((column for column in columns if plain(column) == plain(name)), None)


def is_identifier(name: str) -> bool:
    """Whether a column numbers or names the rows, or says which split they belong to.

    >>> [is_identifier(name) for name in ("Id", "tweet_id", "qid1", "userId", "", "valid", "paid")]
    [True, True, True, True, True, False, False]
    """
    return plain(name) in _IDENTIFIERS | {""} or bool(_IDENTIFYING.fullmatch(name.strip()))


def last_word(name: str) -> str:
    """The last word of a name, in small letters.

    >>> last_word("airline_sentiment"), last_word("cleanText"), last_word("translation.de")
    ('sentiment', 'text', 'de')
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[^\W\d_]+", name)
    return words[-1].casefold() if words else ""


def numbered_pair(columns: Sequence[str], texts: Sequence[str]) -> tuple[str, str] | None:
    """Two columns of the same usual name with 1 and 2, or a and b, behind it.

    >>> numbered_pair(["id", "Utterance_A", "Utterance_B"], ["utterance"])
    ('Utterance_A', 'Utterance_B')
    """
    ends = {"1": "2", "a": "b"}
    known = {plain(name) for name in texts}
    for column in columns:
        stem, end = plain(column)[:-1], plain(column)[-1:]
        other = spelled(columns, stem + ends[end]) if end in ends and stem in known else None
        if other:
            return column, other
    return None


def language_pair(columns: Sequence[str]) -> tuple[str, str] | None:
    """The two columns that are named by languages, if there are two.

    >>> language_pair(["en", "fr"]), language_pair(["n", "translation.de", "translation.en"])
    (('en', 'fr'), ('translation.de', 'translation.en'))
    """
    # ``id`` is the code of Indonesian, and far more often the number of a row.
    named = [
        name
        for name in columns
        if name.rpartition(".")[2].casefold() in _LANGUAGES and plain(name) != "id"
    ]
    return (named[0], named[1]) if len(named) == 2 else None
