"""What the adapters share: a host that is missing or of another version, versions and names."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import nn

import noisynet
from noisynet.integrations.host import check_host, follow, takes_rows, to_device

ROOT = Path(__file__).resolve().parents[2]


def test_a_missing_host_names_its_extra() -> None:
    expected = r"^noisynet\.integrations\.x needs no-such-host: pip install '.*\[x\]'$"
    with pytest.raises(ModuleNotFoundError, match=expected):
        check_host("noisynet.integrations.x", extra="x", tested={"no-such-host": "1.0"})
    with pytest.raises(ModuleNotFoundError, match=expected):
        check_host("noisynet.integrations.x", extra="x", tested={}, needs=["no-such-host"])


def test_another_version_of_the_host_is_named_beside_the_tested() -> None:
    installed = version("pytest")
    check_host("noisynet.integrations.x", extra="x", tested={"pytest": installed})
    with pytest.warns(UserWarning, match=rf"was tested with pytest 0\.1, and {installed} is"):
        check_host("noisynet.integrations.x", extra="x", tested={"pytest": "0.1"})


@pytest.mark.parametrize("rows", [None, 3])
def test_a_draw_follows_its_layers(rows: int | None) -> None:
    net = noisynet.noisify(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)))
    held = noisynet.draw(net, rows=rows)
    x = torch.randn(3, 4)
    with noisynet.using(net, held):
        before = net(x)
    net[1].double()  # layers of two dtypes
    parted = follow(held, net)
    assert parted.rows == rows
    with noisynet.using(net, parted), torch.no_grad():
        assert torch.allclose(net[1](net[0](x).double()), before.double(), atol=1e-5)
    net.to("meta")
    nowhere = follow(parted, net)
    assert all(flat.is_meta for flat in nowhere.flats)
    net.to_empty(device="cpu")
    assert follow(nowhere, net).flats[0].std() > 0


class TwoQueries(nn.Module):
    """A layer that sees two learned vectors, however many rows the batch has."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.layer = nn.Parameter(torch.ones(2, 4)), noisynet.NoisyLinear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(self.queries).mean(0)


def test_rows_that_are_two_by_chance_are_not_the_batch_s() -> None:
    assert not takes_rows(net := TwoQueries(), net, torch.ones(5, 4))
    assert takes_rows(net.layer, net.layer, torch.ones(5, 4))


def test_a_batch_is_moved_with_all_its_parts() -> None:
    one = torch.ones(2, 3)
    moved = to_device(({"seen": one, "more": (one,)}, None), torch.device("meta"))
    assert moved[0]["seen"].is_meta
    assert moved[0]["more"][0].is_meta
    assert moved[1] is None
    assert to_device(one, one.device) is one


def adapter_files() -> list[Path]:
    """List the files that the adapters are imported from, which no host is needed to read."""
    folder = ROOT / "src" / "noisynet" / "integrations"
    found = (*folder.glob("*.py"), *folder.glob("*/__init__.py"))
    return [file for file in found if re.search("^TESTED = ", file.read_text(), re.MULTILINE)]


def module_of(file: Path) -> str:
    return file.parent.name if file.stem == "__init__" else file.stem


@pytest.mark.parametrize("file", adapter_files(), ids=module_of)
def test_the_tested_versions_are_those_of_the_extra_and_of_the_page(file: Path) -> None:
    found = re.search(r"^TESTED = (.*)", file.read_text(), re.MULTILINE)
    assert found is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"][module_of(file)]
    page = (ROOT / "docs" / f"{module_of(file)}.md").read_text()
    for package, tested in ast.literal_eval(found[1]).items():
        assert f"{package}=={tested}" in [re.sub(r"\[.*?\]", "", one) for one in extra]
        assert re.search(rf"^Tested with .*\b{tested}\b", page, re.MULTILINE)


def test_every_name_of_an_adapter_stands_on_the_page_of_names() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    sections = dict(
        re.findall(r"currentmodule:: (noisynet\S*)\n(.*?)(?=\.\. current|\Z)", page, re.S)
    )
    assert len(adapter_files()) == 5
    for file in adapter_files():
        names = re.search(r"^__all__ = (\[.*?\])", file.read_text(), re.M | re.S)
        assert names is not None
        promised = {one for one in ast.literal_eval(names[1]) if not one.isupper()}
        section = sections[f"noisynet.integrations.{module_of(file)}"]
        assert promised == set(re.findall(r"auto(?:class|function):: (\w+)", section)), file
