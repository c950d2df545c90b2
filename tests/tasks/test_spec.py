"""What a recipe may say about its task."""

import re

import pytest
from pydantic import ValidationError

from iwlora.tasks import TaskSpec, names

pytestmark = pytest.mark.quick

FILES = {"train": "a.csv", "text": "sentence", "label": "mood"}


def messages(**fields):
    with pytest.raises(ValidationError) as caught:
        TaskSpec(**fields)
    return str(caught.value)


@pytest.mark.parametrize("name", names())
def test_a_name_is_enough(name):
    assert TaskSpec(name=name).name == name


def test_files_are_enough():
    assert TaskSpec(**FILES).text == ["sentence"]
    assert TaskSpec(**{**FILES, "text": ["a", "b"]}).text == ["a", "b"]


def test_a_dump_reads_back():
    for spec in (TaskSpec(**FILES), TaskSpec(name="glue/rte", data_dir="glue", max_validation=3)):
        assert TaskSpec(**spec.model_dump()) == spec


def test_an_unknown_name_comes_with_near_ones():
    assert "unknown task 'glue/rt'; did you mean 'glue/rte'" in messages(name="glue/rt")


def test_every_wrong_type_is_reported_at_once():
    message = messages(name=3, max_train="many", max_validation=True, text=[1], color="red")
    for field in ("name", "max_train", "max_validation", "text.0", "color"):
        assert re.search(rf"^{re.escape(field)}$", message, re.MULTILINE), field


@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_positive(value):
    assert "greater than 0" in messages(name="glue/rte", max_train=value)


def test_a_name_and_files_exclude_each_other():
    message = messages(name="glue/rte", **FILES)
    assert all(f"task.{field} is for your own files" in message for field in FILES)


def test_files_need_train_all_at_once():
    message = messages(validation="b.csv", data_dir="glue")
    assert "task.train is missing" in message
    assert "task.data_dir is for tasks with a name" in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "no task: give task.name"),
        ({"name": "builtin/entailment", "data_dir": "x"}, "reads no files"),
        ({**FILES, "train": ""}, "at least 1 character"),
        ({**FILES, "text": []}, "names 0 columns"),
        ({**FILES, "text": ["a", "b", "c"]}, "names 3 columns"),
        ({**FILES, "text": ["a", "a"]}, "a column twice"),
        ({**FILES, "label": "sentence"}, "is a text column too"),
        ({**FILES, "text": ["label"]}, "reserved for the class"),
    ],
)
def test_what_does_not_go_together(fields, message):
    assert message in messages(**fields)
