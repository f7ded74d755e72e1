# SPDX-License-Identifier: Apache-2.0
"""Over the network only files in the listed folders can be published, whatever links and patterns say."""

from pathlib import Path

import pytest

from junto.errors import Refused
from junto.node.folders import PROOF, Folders
from junto.node.settings import read_settings


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "data"
    (folder / "inner").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "keys.csv").write_text("a\n1\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret" / "keys.csv")
    (folder / "way").symlink_to(tmp_path / "secret")
    return folder


@pytest.mark.parametrize(
    "name", ["a.csv", "inner/b.parquet", "inner", "*.csv", "inner/**/*.csv", "inner/../a.csv", "."]
)
def test_what_lies_in_a_folder_may_be_published(data: Path, name: str) -> None:
    Folders((), data).check([data / name])


@pytest.mark.parametrize(
    "name",
    [
        "../../secret/keys.csv",
        "inner/../../../secret/*.csv",
        "link.csv",
        "way/keys.csv",
        "way/*.csv",
        "way",
        "*/../../../secret/*.csv",
        "/etc/passwd",
        "../data-of-others/a.csv",
        "..",
    ],
)
def test_what_lies_elsewhere_may_not_by_any_way(data: Path, name: str) -> None:
    with pytest.raises(Refused, match="lies outside the folders"):
        Folders((), data).check([data / name])


def test_other_folders_are_those_of_the_settings(data: Path, tmp_path: Path) -> None:
    (data.parent / "node.toml").write_text('data_folders = ["lake", "/srv/acme"]\n')
    settings = read_settings(data.parent / "node.toml")
    assert settings.data_folders == (data.parent / "lake", Path("/srv/acme"))
    listed = Folders(settings.data_folders, data)
    listed.check([data.parent / "lake" / "x.csv", "/srv/acme/y.parquet"])
    with pytest.raises(Refused):
        listed.check([data / "a.csv"])


def test_a_link_that_is_a_folder_of_the_settings_leads_where_it_leads(data: Path, tmp_path: Path) -> None:
    Folders((data / "way",), data).check([tmp_path / "secret" / "keys.csv"])


def test_a_proof_is_a_file_in_the_home_and_serves_once(data: Path) -> None:
    folders = Folders((), data)
    digits = "0123456789abcdef" * 2
    assert not folders.proves(digits)
    (data / (PROOF + digits)).touch()
    assert folders.proves(digits)
    assert not folders.proves(digits)


@pytest.mark.parametrize("proof", ["", "../data/a", "0" * 31, "0" * 33, "G" * 32, "0" * 32 + "\n", "*" * 32])
def test_what_is_no_proof_removes_nothing(data: Path, proof: str) -> None:
    (data / (PROOF + "a")).touch()
    assert not Folders((), data).proves(proof)
    assert (data / (PROOF + "a")).exists()
