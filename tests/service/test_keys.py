"""Keys at rest: the file, and the command that adds to it."""

import hashlib
import re
import stat
import tomllib
from pathlib import Path

import pytest

from service.__main__ import main
from service.errors import KeysInvalid
from service.keys import MAX_FILE_BYTES, hash_key, make_key, parse_keys, read_key_file

HASH = hash_key("a key")


def table(**fields: str) -> str:
    written = {"name": '"a"', "sha256": f'"{HASH}"', "scopes": '["restore"]', "created": "2026-11-24"} | fields
    return "\n[[keys]]\n" + "".join(f"{name} = {value}\n" for name, value in written.items())


@pytest.fixture
def keys_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.toml"
    monkeypatch.setenv("RESTORE_API_KEYS_FILE", str(path))
    return path


def test_a_key_cannot_be_guessed_and_is_never_made_twice() -> None:
    keys = {make_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"rk_[A-Za-z0-9_-]{43}", key) for key in keys)  # 256 bits, 6 to a character


def test_the_command_prints_the_key_once_and_keeps_its_hash_only(
    keys_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "add", "archive"]) == 0
    key = capsys.readouterr().out.strip()
    content = keys_file.read_text()
    (stored,) = tomllib.loads(content)["keys"]
    assert stored["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert (stored["name"], stored["scopes"]) == ("archive", ["restore"])
    assert key not in content
    assert key.removeprefix("rk_") not in content


def test_a_new_file_of_keys_is_its_owner_s_alone(keys_file: Path) -> None:
    assert main(["keys", "add", "archive"]) == 0
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600


def test_the_command_writes_scopes_and_quotas(keys_file: Path) -> None:
    arguments = ["--scope", "admin", "--scope", "restore", "--requests-per-minute", "60", "--burst-requests", "10"]
    assert main(["keys", "add", "operator", *arguments, "--megapixels-per-minute", "0.5"]) == 0
    (key,) = parse_keys(keys_file.read_bytes(), keys_file)
    assert key.scopes == {"restore", "admin"}
    assert (key.requests_per_minute, key.burst_requests) == (60, 10)
    assert (key.megapixels_per_minute, key.burst_megapixels) == (0.5, None)


def test_a_key_is_added_behind_what_is_there(keys_file: Path) -> None:
    keys_file.write_text("# asked for by the reading room" + table(name='"first"'))
    assert main(["keys", "add", "second"]) == 0
    assert keys_file.read_text().startswith("# asked for by the reading room")
    assert [key.name for key in parse_keys(keys_file.read_bytes(), keys_file)] == ["first", "second"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["taken"], "two keys have the same name"),
        (["with space"], "name: String should match pattern"),
        (["b", "--requests-per-minute", "0"], "requests_per_minute: Input should be greater than or equal to 0.001"),
        (
            ["b", "--requests-per-minute", "1e-320"],
            "requests_per_minute: Input should be greater than or equal to 0.001",
        ),
        (["rk_abc"], "name: Value error, a name that begins with rk_ would be taken for a key"),
        (["b", "--requests-per-minute", "inf"], "requests_per_minute: Input should be a finite number"),
        (["b", "--burst-requests", "5"], "burst_requests means nothing without requests_per_minute"),
    ],
)
def test_a_wrong_key_is_not_added(
    keys_file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    keys_file.write_text(table(name='"taken"'))
    before = keys_file.read_bytes()
    assert main(["keys", "add", *arguments]) == 1
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""
    assert keys_file.read_bytes() == before


def test_a_key_is_not_added_where_nothing_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "a", "--file", str(tmp_path / "missing" / "keys.toml")]) == 1
    printed = capsys.readouterr()
    assert "No such file or directory" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize("arguments", [["keys"], ["keys", "add"], ["keys", "add", "a", "--scope", "everything"]])
def test_wrong_arguments_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, *(["--file", "keys.toml"] if "add" in arguments else [])])
    assert "usage" in capsys.readouterr().err


def test_the_command_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "python -m service keys add NAME" in capsys.readouterr().out


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kyes"]) == 2
    assert "unknown argument kyes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("keys =", "is no TOML file"),
        ("\udcff", "is no TOML file"),
        ("[[key]]\nname = 'a'", "key: Extra inputs are not permitted"),
        (table(name='""'), "keys.0.name"),
        (table(name='"a\\nb"'), "keys.0.name"),
        (table(sha256=f'"{HASH[:-1]}"'), "keys.0.sha256"),
        (table(scopes="[]"), "keys.0.scopes"),
        (table(scopes='["restore", "root"]'), "keys.0.scopes"),
        (table(requests_per_minut="5"), "keys.0.requests_per_minut"),
        (table(requests_per_minute="-5"), "keys.0.requests_per_minute"),
        (table(burst_megapixels="5"), "burst_megapixels means nothing without megapixels_per_minute"),
        (table() + table(name='"b"'), "two keys have the same sha256"),
        (table() + table(sha256=f'"{hash_key("b")}"'), "two keys have the same name"),
        ("keys = " + "[" * 5000, "is no TOML file"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place_named(content: str, complaint: str) -> None:
    with pytest.raises(KeysInvalid, match=re.escape(complaint)):
        parse_keys(content.encode(errors="surrogateescape"), Path("keys.toml"))


def test_a_key_pasted_where_its_hash_belongs_is_not_repeated() -> None:
    key = make_key()
    with pytest.raises(KeysInvalid) as complaint:
        parse_keys(table(sha256=f'"{key}"').encode(), Path("keys.toml"))
    assert key not in str(complaint.value)
    assert complaint.value.__cause__ is None


@pytest.mark.parametrize(
    "content",
    [
        "{key} = 1",
        "[{key}]\n[{key}]",
        "[[keys]]\n{key} = 'archive'",
        "[{key}.{key}]",
        '[[keys]]\nname = "{key}"',
        "{key}",
    ],
)
def test_a_key_pasted_where_a_name_belongs_is_not_repeated(content: str) -> None:
    key = make_key()
    with pytest.raises(KeysInvalid) as complaint:
        parse_keys(content.format(key=key).encode(), Path("keys.toml"))
    assert key.removeprefix("rk_") not in str(complaint.value)
    assert complaint.value.__cause__ is None


def test_a_file_may_begin_with_a_mark_of_its_encoding() -> None:
    assert [key.name for key in parse_keys(b"\xef\xbb\xbf" + table().encode(), Path("keys.toml"))] == ["a"]


def test_a_file_of_any_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(KeysInvalid, match="more than 262,144 bytes"):
        read_key_file(path)
