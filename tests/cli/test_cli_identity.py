# SPDX-License-Identifier: Apache-2.0
"""The commands a newcomer types to set up a consortium, and what they say when something is wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from junto import cli
from junto.errors import Cancelled, DeadlineExceeded, InvalidInput, JuntoError, Refused, Unavailable
from junto.node import home as homes


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with no party at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.delenv("JUNTO_HOME", raising=False)
    monkeypatch.delenv("JUNTO_TRACEBACK", raising=False)
    return tmp_path


@pytest.fixture
def junto(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that succeeds; what it printed."""

    def run(*arguments: str) -> str:
        code = cli.main(arguments)
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, "")
        return printed.out

    return run


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that fails; the one line it said, checked to be one line."""

    def run(*arguments: str, code: int = 1) -> str:
        assert cli.main(arguments) == code
        said = capsys.readouterr().err
        assert said.startswith("junto: ")
        assert said.count("\n") == 1
        return said.removeprefix("junto: ").rstrip("\n")

    return run


Run = Callable[..., str]


def _parties(junto: Run, *parties: str) -> None:
    for party in parties:
        junto("party", "create", party, "--listen", f"{party}.example:7300", "--home", party)
        junto("party", "card", "--out", f"{party}.card", "--home", party)


def _charter(junto: Run, *parties: str) -> None:
    _parties(junto, *parties)
    junto("charter", "create", *[f"{party}.card" for party in parties], "--name", "sky", "--out", "sky.charter")


def test_two_parties_agree_on_a_charter_and_each_step_names_the_next(junto: Run, failing: Run) -> None:
    _charter(junto, "united", "delta")
    assert "Next: `junto charter sign sky.charter` at delta" in junto(
        "charter", "sign", "sky.charter", "--home", "united"
    )
    assert "delta has not signed" in failing("user", "add", "ann", "--home", "united")
    assert "delta has not signed" in failing("charter", "verify", "sky.charter")
    assert "In force for delta" in junto("charter", "sign", "sky.charter", "--home", "delta")
    assert "In force for united" in junto("charter", "sign", "sky.charter", "--home", "united")
    assert "signed by all 2 parties" in junto("charter", "verify", "sky.charter")
    shown = junto("charter", "show", "sky.charter")
    assert "delta.example:7300" in shown
    assert "not signed" not in shown
    assert "united/user/ann may ask under the rules until" in junto("user", "add", "ann", "--home", "united")


def test_a_party_shows_the_charter_it_keeps_and_what_is_proposed(junto: Run, failing: Run) -> None:
    _charter(junto, "united", "delta")
    assert "united has no charter yet" in failing("charter", "show", "--home", "united")
    junto("charter", "sign", "sky.charter", "--home", "united")
    assert "It is proposed; delta must sign it" in junto("charter", "show", "--home", "united")
    for party in ("delta", "united"):
        junto("charter", "sign", "sky.charter", "--home", party)
    assert junto("charter", "show", "--home", "united") == junto("charter", "show", "sky.charter")


def test_copies_signed_apart_are_merged(junto: Run, folder: Path) -> None:
    _charter(junto, "united", "delta")
    junto("charter", "sign", "sky.charter", "--out", "united.charter", "--home", "united")
    junto("charter", "sign", "sky.charter", "--out", "delta.charter", "--home", "delta")
    said = junto("charter", "sign", "united.charter", "delta.charter", "--out", "all.charter", "--home", "united")
    assert "In force for united" in said
    assert homes.load(folder / "united").charter().consortium == "sky"
    junto("charter", "verify", "all.charter")


def test_users_are_listed_exported_and_removed(junto: Run, failing: Run, folder: Path) -> None:
    _charter(junto, "united", "delta")
    for party in ("united", "delta"):
        junto("charter", "sign", "sky.charter", "--home", party)
    assert "no users yet" in junto("user", "ls", "--home", "delta")
    junto("user", "add", "ann", "--home", "delta", "--lifetime", "12h")
    assert junto("user", "ls", "--home", "delta").startswith("ann  until ")
    junto("user", "export", "ann", "--out", "ann.profile", "--home", "delta")
    assert (folder / "ann.profile").stat().st_mode & 0o777 == 0o600
    junto("user", "rm", "ann", "--home", "delta")
    assert "no user 'ann'" in failing("user", "rm", "ann", "--home", "delta")
    assert "write 500ms, 30s" in failing("user", "add", "ann", "--home", "delta", "--lifetime", "soon")


def test_the_only_party_at_home_need_not_be_named(junto: Run, failing: Run) -> None:
    assert "no party lives under" in failing("party", "show")
    junto("party", "create", "united", "--listen", "united.example:7300")
    assert "united (node node-1)" in junto("party", "show")
    assert '"payloadType"' in junto("party", "card")
    junto("party", "create", "delta", "--listen", "delta.example:7300")
    assert "has delta, united" in failing("party", "show")


def test_a_machine_behind_another_address_advertises_it(junto: Run, failing: Run) -> None:
    arguments = ("party", "create", "united", "--listen", "0.0.0.0:7301")
    assert "--advertise HOST:7301" in failing(*arguments)
    assert "contradict" in failing(*arguments, "--dial-only", "--advertise", "a:1")
    junto(*arguments, "--advertise", "united.example:443", "--advertise", "10.0.0.1:7301")
    assert "united.example:443, 10.0.0.1:7301" in junto("party", "show")
    junto("party", "create", "delta", "--dial-only", "--home", "delta")
    assert "dials out only" in junto("party", "show", "--home", "delta")


def test_a_party_is_never_made_over_another(junto: Run, failing: Run) -> None:
    _parties(junto, "united")
    before = junto("party", "card", "--home", "united")
    assert "exists already" in failing("party", "create", "united", "--listen", "a:1", "--home", "united")
    assert junto("party", "card", "--home", "united") == before


def _spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_bad_files_are_one_line_each(junto: Run, failing: Run, folder: Path) -> None:
    _charter(junto, "united", "delta")
    create = ("charter", "create", "--name", "sky", "--out", "new.charter")
    assert "exists already" in failing("charter", "create", "united.card", "--name", "sky", "--out", "sky.charter")
    assert "2 to 200" in failing(*create, "united.card")
    assert "two parties are called united" in failing(*create, "united.card", "united.card")
    assert "give the card file" in failing(*create, "united.card", "sky.charter")
    assert "give the charter file" in failing("charter", "show", "united.card")
    assert "no such file" in failing("charter", "show", "none.charter")
    assert "is a directory" in failing("charter", "show", str(folder))
    assert "no party's home" in failing("charter", "sign", "sky.charter", "--home", str(folder)).replace("not a", "no")
    (folder / "big.charter").write_bytes(b" " * (2 << 20))
    assert "longer than" in failing("charter", "show", "big.charter")
    for file in ("delta.card", "sky.charter"):
        _spoil(folder / file)
    failing(*create, "united.card", "delta.card")
    failing("charter", "sign", "sky.charter", "--home", "united")
    assert not (folder / "new.charter").exists()
    with pytest.raises(InvalidInput, match="no charter yet"):
        homes.load(folder / "united").charter()


def test_a_party_outside_the_charter_cannot_sign_it(junto: Run, failing: Run) -> None:
    _charter(junto, "united", "delta")
    _parties(junto, "jetblue")
    assert "no party 'jetblue'" in failing("charter", "sign", "sky.charter", "--home", "jetblue")


def test_a_disk_that_cannot_be_written_is_one_line(junto: Run, failing: Run, folder: Path) -> None:
    _parties(junto, "united")
    assert "cannot write" in failing("party", "card", "--out", "none/united.card", "--home", "united")
    (folder / "file").write_bytes(b"")
    assert "cannot create" in failing("party", "create", "ua", "--listen", "a:1", "--home", "file/ua")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("party", "creat"), "Did you mean 'create'?"),
        (("party", "create"), "Missing argument"),
        (("party", "create", "ua", "--nothing"), "No such option: --nothing"),
        (("charter", "create", "a", "--name", "x", "--out", "y", "--version", "z"), "Invalid value for '--version'"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_two(failing: Run, arguments: tuple[str, ...], reason: str) -> None:
    said = failing(*arguments, code=2)
    assert reason in said
    assert said.endswith("--help)")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("what, where,\nthe mend"), 1),
        (Refused("no"), 3),
        (Unavailable("gone"), 4),
        (DeadlineExceeded("late"), 4),
        (Cancelled("stop"), 130),
        (KeyboardInterrupt(), 130),
        (JuntoError("other"), 1),
        (PermissionError(13, "Permission denied", "/x"), 1),
        (RuntimeError("a value of the data"), 1),
    ],
)
def test_every_failure_is_one_line_with_its_exit_code(
    failing: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(homes, "find", fail)
    if isinstance(error, KeyboardInterrupt):
        assert cli.main(["party", "show"]) == code
        return
    assert "a value of the data" not in failing("party", "show", code=code)


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["party"]) == 2
    printed = capsys.readouterr()
    assert "Usage: junto party" in printed.out
    assert printed.err == ""


def test_a_reader_that_goes_away_is_no_failure_to_report() -> None:
    program = "import sys; from junto.cli import main; sys.exit(main(['--help']))"
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_each_command_of_these_groups_explains_itself(junto: Run) -> None:
    for arguments in (
        (), ("party",), ("charter",), ("user",), ("party", "create"), ("party", "card"), ("party", "show"),
        ("charter", "create"), ("charter", "sign"), ("charter", "verify"), ("charter", "show"),
        ("user", "add"), ("user", "ls"), ("user", "rm"), ("user", "export"),
    ):  # fmt: skip
        assert "Usage: junto" in junto(*arguments, "--help")
    assert junto("--version").startswith("junto ")


def test_help_lists_every_group_and_imports_none_of_their_libraries() -> None:
    program = (
        "import sys; from junto.cli import main; main(['--help']);"
        "print([name for name in ('pyarrow', 'duckdb', 'numpy', 'sqlglot', 'cryptography') if name in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.rstrip().endswith("[]")
    for group in ("party", "charter", "user", "node", "dataset", "sql", "task", "journal", "doctor", "demo"):
        assert printed.count(f"│ {group} ") == 1
