"""Damaged files of every kind are read or refused in one line; 10,000 of each in make torture."""

import pytest
from mutations import Kind, kinds, outcome

NAMES = [
    *("npz", "csv", "list", "idx", "gz"),
    *("png", "jpg", "bmp", "gif", "webp", "tif", "toml", "keras", "db", "cell"),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return kinds(tmp_path_factory.mktemp("good"))


def test_every_kind_is_mutated(good: dict[str, Kind]) -> None:
    assert [*good] == NAMES
    for name, kind in good.items():
        kind.path.write_bytes(kind.good)
        kind.read(kind.path)
        made, again = ([kind.mutated(name, number) for number in range(9)] for _ in range(2))
        assert made == again
        assert len({*made}) > 5


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_is_read_or_refused_in_one_line(good: dict[str, Kind], name: str) -> None:
    number_of = {"db": 60, "cell": 100}.get(name, 200)  # a database takes longer to read
    found = {outcome(good[name], name, number) for number in range(number_of)}
    assert "refused" in found


@pytest.mark.parametrize("number", [909, 4004], ids=["a huge value", "a huge number of a trial"])
def test_a_mutated_database_that_was_read_once_is_refused(
    good: dict[str, Kind], number: int
) -> None:
    assert outcome(good["cell"], "cell", number) == "refused"
