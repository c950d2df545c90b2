"""CORe50 by its folders: sessions of the test, objects and their categories."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.kinds.contract import IMAGE

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def core50(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("core50")
    for session in range(1, 12):
        for number in range(1, 51):
            place = folder / f"s{session}" / f"o{number}"
            place.mkdir(parents=True)
            color = (session, number, 0)
            Image.new("RGB", (2, 2), color).save(place / f"C_{session:02}_{number:02}_000.bmp")
    (folder / "s1" / "o1" / "C_01_01_001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


@pytest.mark.parametrize(("name", "of_class"), [("core50/objects", 1), ("core50/categories", 5)])
def test_sessions_and_classes(name: str, of_class: int, core50: Path) -> None:
    task = load(TaskSpec(name=name, data_dir=str(core50), on_bad="skip"), seed=0)
    assert {split: len(rows) for split, rows in task.splits.items()} == {"train": 400, "test": 150}
    assert [str(row.file) for row in task.bad_rows] == [str(core50)]
    assert len(task.labels) == 50 // of_class
    for split, sessions in (("train", {1, 2, 4, 5, 6, 8, 9, 11}), ("test", {3, 7, 10})):
        found = set()
        for row in task.splits[split]:
            session, number = (int(part[1:]) for part in row[IMAGE]["name"].split("/")[:2])
            found.add(session)
            assert row["label"] == (number - 1) // of_class
        assert found == sessions


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(IwloraError, match=r"s1.o1 is missing"):
        load(TaskSpec(name="core50/objects", data_dir=str(tmp_path)), seed=0)
    with pytest.raises(IwloraError, match=r"give task.data_dir=FOLDER"):
        load(TaskSpec(name="core50/objects"), seed=0)
