"""The tables that are shipped are whole."""

from pathlib import Path

import pytest


@pytest.mark.parametrize(("name", "images"), [("digits", 479), ("mnist-3000", 4000)])
def test_a_shipped_table_is_the_whole_grid_of_the_digits_space(
    name: str, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    from tables import load

    from study.space import file as space_file

    table = load(name)
    options = {p.name: p.options for p in space_file.load("digits").hyperparameters}
    assert {p.name: p.options for p in table.space.hyperparameters} == options
    assert (len(table.configurations), table.repeats, table.epochs) == (243, 8, 12)
    assert table.images == images


@pytest.mark.parametrize(
    ("name", "size", "images", "pool"),
    [
        ("mnist-1000", (72, 8, 10), 2000, 3000),
        ("digits-rates", (42, 8, 12), 479, 1437),
        ("digits-540", (540, 8, 4), 479, 1437),
        ("resnet", (24, 8, 8), 1200, 1800),
    ],
)
def test_a_shipped_table_is_the_whole_grid_of_its_space(
    name: str, size: tuple[int, int, int], images: int, pool: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    from tables import load

    from study.space import file as space_file

    table = load(name)
    space = space_file.load(str(benchmarks / "tables" / f"{name}.toml"))
    options = {p.name: p.options for p in space.hyperparameters}
    assert {p.name: p.options for p in table.space.hyperparameters if p.name in options} == options
    assert (len(table.configurations), table.repeats, table.epochs) == size
    assert (table.images, table.pool) == (images, pool)
