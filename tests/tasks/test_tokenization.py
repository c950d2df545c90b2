"""Encoding with a small WordPiece tokenizer made here."""

import datasets
import pytest
import torch
from transformers import BertTokenizerFast

from iwlora.errors import IwloraError
from iwlora.tasks import Task
from iwlora.tasks import tokenization as module
from iwlora.tasks.collators import PaddingCollator
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.tokenization import tokenize

pytestmark = pytest.mark.quick

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "rains", "is", "wet", "##ter", "."]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    return BertTokenizerFast(vocab=vocabulary, do_lower_case=True, model_max_length=64)


def task(text, rows):
    split = dataset_from_rows(text, rows)
    return Task(
        "demo", text, ("no", "yes"), ("accuracy",), splits={"train": split, "validation": split}
    )


def ids(words):
    return [WORDS.index(word) for word in words.split()]


def test_a_pair_becomes_two_segments(tokenizer):
    pair = task(("premise", "hypothesis"), [("It rains.", "It is wetter.", 1)])
    encoded = pair.encode(tokenizer, max_length=16)
    assert list(encoded) == ["train", "validation"]
    assert encoded["train"][0] == {
        "input_ids": ids("[CLS] it rains . [SEP] it is wet ##ter . [SEP]"),
        "token_type_ids": [0] * 5 + [1] * 6,
        "attention_mask": [1] * 11,
        "length": 11,
        "labels": 1,
    }


def test_long_texts_are_cut_and_length_says_so(tokenizer):
    encoded = task(("sentence",), [("it " * 30, 0), ("it", 1)]).encode(tokenizer, max_length=8)
    assert list(encoded["train"]["length"]) == [8, 3]
    assert list(encoded["train"]["labels"]) == [0, 1]
    assert encoded["train"][0]["input_ids"] == ids("[CLS] it it it it it it [SEP]")


def test_of_a_pair_the_longer_text_is_cut(tokenizer):
    texts = ["it " * 30, "wet"], ["wet", "it " * 30]
    first, second = tokenize(texts, tokenizer, max_length=8)["input_ids"]
    assert first == ids("[CLS] it it it it [SEP] wet [SEP]")
    assert second == ids("[CLS] wet [SEP] it it it it [SEP]")


def test_chunks_join_in_order(tokenizer, monkeypatch):
    texts = ["it " * (1 + i % 5) for i in range(11)]
    whole = tokenize([texts], tokenizer, max_length=16)
    monkeypatch.setattr(module, "CHUNK_ROWS", 3)
    assert list(tokenize([texts], tokenizer, max_length=16)) == list(whole)
    assert list(whole["length"]) == [3 + i % 5 for i in range(11)]


def test_limited_splits_keep_their_order(tokenizer):
    rows = [("it " * (1 + i), i % 2) for i in range(6)]
    split = dataset_from_rows(("sentence",), rows).select([4, 1])
    limited = Task("demo", ("sentence",), ("no", "yes"), ("accuracy",), splits={"train": split})
    encoded = limited.encode(tokenizer, max_length=16)["train"]
    assert (list(encoded["length"]), list(encoded["labels"])) == ([7, 4], [0, 1])


def test_nothing_is_written_or_shown(tokenizer, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [("it", i % 2) for i in range(50)]
    encoded = task(("sentence",), rows).encode(tokenizer, max_length=8)
    assert not any(split.cache_files for split in encoded.values())
    assert not (tmp_path / "cache").exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("has_gpu", "length"), [(False, 9), (True, 16)])
def test_batches_are_padded_to_the_longest_row_and_on_a_gpu_to_a_multiple_of_eight(
    tokenizer, has_gpu, length, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    encoded = task(("sentence",), [("it " * 7, 0), ("wet", 1)]).encode(tokenizer, max_length=16)
    batch = PaddingCollator.from_tokenizer(tokenizer)([encoded["train"][0], encoded["train"][1]])
    assert batch["input_ids"].shape == (2, length)
    assert batch["attention_mask"].sum(dim=1).tolist() == [9, 3]
    assert batch["input_ids"][1].tolist() == ids("[CLS] wet [SEP]") + [0] * (length - 3)
    assert "length" not in batch
    assert torch.equal(batch["labels"], torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("length", "message"), [(4, "at least 5 tokens are needed"), (65, "reads at most 64 tokens")]
)
def test_a_length_that_cannot_be_kept(tokenizer, length, message):
    with pytest.raises(IwloraError, match=f"train.max_length={length}: .*{message}"):
        tokenize([["it"], ["wet"]], tokenizer, max_length=length)
    assert tokenize([["it"], ["wet"]], tokenizer, max_length=5)[0]["length"] == 5


def test_a_tokenizer_that_fails_on_the_texts(tokenizer):
    damaged = BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}, unk_token="[GONE]")
    damaged.backend_tokenizer.model.unk_token = "[GONE]"
    with pytest.raises(IwloraError, match=r"cannot encode rows 1 to 2: .*tokenizer\.json"):
        tokenize([["it rains", "it snows"]], damaged, max_length=8)
    assert len(tokenize([["it rains", "it snows"]], tokenizer, max_length=8)) == 2


def test_a_mistake_of_ours_stays_an_exception():
    with pytest.raises(KeyError):
        module.encode_in_chunks(1, lambda start, stop: {}["ids"])
