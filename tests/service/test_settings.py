from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from service.__main__ import main
from service.cluster_settings import CLUSTER_PREFIX, ClusterSettings
from service.settings import ENV_PREFIX, REPOSITORY_MODEL_STORE, Settings, is_loopback, unknown_settings

CONFIGURATION_PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def default_as_shown(default: object) -> str:
    if default == REPOSITORY_MODEL_STORE:
        return "the repository's `model_store/`"
    if default in (None, ()):
        return "unset"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def settings_table(prefix: str, settings: type[Settings] | type[ClusterSettings]) -> str:
    rows = [
        f"| `{prefix}{name.upper()}` | {default_as_shown(field.default)} | {field.description} |"
        for name, field in settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | what it sets |", "|---|---|---|", *rows])


@pytest.mark.parametrize(("prefix", "settings"), [(ENV_PREFIX, Settings), (CLUSTER_PREFIX, ClusterSettings)])
def test_the_configuration_page_lists_every_setting_with_its_default(
    prefix: str, settings: type[Settings] | type[ClusterSettings]
) -> None:
    table = settings_table(prefix, settings)
    assert table in CONFIGURATION_PAGE.read_text(), f"put this into {CONFIGURATION_PAGE}:\n{table}"


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ValidationError, match="RESTORE_CLUSTER_MAX_REPLICAS=1 is less than"):
        ClusterSettings(min_replicas=2)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_MAX_PIXELS", "1000")
    assert Settings().max_pixels == 1000


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_PORT", "")
    assert Settings().port == 8000


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_is_open_to_callers_without_a_key(host: str) -> None:
    assert is_loopback(host)
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_any_other_address_needs_a_word(host: str) -> None:
    with pytest.raises(ValidationError, match=r"RESTORE_API_KEYS_FILE, .*RESTORE_ALLOW_ANONYMOUS=true"):
        Settings(host=host)
    assert Settings(host=host, allow_anonymous=True).host == host
    assert Settings(host=host, api_keys_file="keys.toml").host == host


@pytest.mark.parametrize("separator", [",", ", ", " "])
def test_sites_come_with_commas_or_spaces_between_them(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_CORS_ORIGINS", separator.join(["https://a.example", "http://localhost:5173"]))
    assert Settings().cors_origins == ("https://a.example", "http://localhost:5173")


@pytest.mark.parametrize(
    "origin", ["*", "null", "a.example", "https://*.example", "https://a.example/", "ftp://a.example"]
)
def test_a_site_must_be_named_in_full(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=(origin,))


def test_the_upload_budget_must_hold_one_upload() -> None:
    with pytest.raises(ValidationError, match="RESTORE_MAX_BUFFERED_BYTES=10 is less"):
        Settings(max_buffered_bytes=10)


def test_a_store_in_somebodys_home_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESTORE_MODEL_STORE", "~/releases")
    assert Settings().model_store == tmp_path / "releases"


def test_a_url_and_a_folder_named_like_one_are_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:bucket").mkdir()
    assert Settings(model_store="s3:bucket").model_store == Path("s3:bucket")
    assert Settings(model_store="s3://bucket/releases").model_store == "s3://bucket/releases"


def test_a_log_level_may_be_in_upper_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_LOG_LEVEL", "INFO")
    assert Settings().log_level == "info"


def test_misspelt_variables_are_named() -> None:
    environment = {"RESTORE_PROT": "1", "RESTORE_PORT": "1", "restore_host": "localhost", "PATH": "/bin"}
    assert unknown_settings(environment) == ["RESTORE_PROT"]


def test_a_precision_that_cannot_be_had_is_named_by_its_own_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    monkeypatch.setenv("RESTORE_DEVICE", "cpu")
    monkeypatch.setenv("RESTORE_PRECISION", "int8")
    assert main() == 2
    assert "RESTORE_PRECISION: precision is int8, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("RESTORE_PORT", "eighty", "RESTORE_PORT=eighty: Input should be a valid integer"),
        (
            "RESTORE_DECODE_TIMEOUT_SECONDS",
            "inf",
            "RESTORE_DECODE_TIMEOUT_SECONDS=inf: Input should be a finite number",
        ),
        ("RESTORE_DECODE_TIMEOUT_SECONDS", "1e12", "Input should be less than or equal to 86400"),
        ("RESTORE_STORE_POLL_SECONDS", "nan", "RESTORE_STORE_POLL_SECONDS=nan: Input should be a finite number"),
        ("RESTORE_DEADLINE_SECONDS", "inf", "RESTORE_DEADLINE_SECONDS=inf: Input should be a finite number"),
        ("RESTORE_MIN_UPLOAD_BYTES_PER_SECOND", "inf", "Input should be a finite number"),
        ("RESTORE_KEEP_ALIVE_SECONDS", "100000", "Input should be less than or equal to 86400"),
        ("RESTORE_CODEC_MEMORY_BYTES", "1" + 21 * "0", "Input should be less than or equal to 1125899906842624"),
        ("RESTORE_DEADLINE_SECONDS", "0", "RESTORE_DEADLINE_SECONDS=0: Input should be greater than 0"),
        ("RESTORE_MAX_PAGES", "4097", "RESTORE_MAX_PAGES=4097: Input should be less than or equal to 4096"),
        ("RESTORE_HOST", "0.0.0.0", "RESTORE_HOST=0.0.0.0 can be reached from other machines"),
        ("RESTORE_API_KEYS_FILE", "/nowhere/keys.toml", "RESTORE_API_KEYS_FILE: /nowhere/keys.toml cannot be read"),
        ("RESTORE_CORS_ORIGINS", "*", "RESTORE_CORS_ORIGINS=*: Value error, * is no origin"),
        ("RESTORE_MODEL_STORE", __file__, "test_settings.py is no folder; name the folder that the releases are in"),
        ("RESTORE_MODEL_STORE", "s3:bucket/releases", "a URL begins as s3://bucket/releases does"),
        ("RESTORE_MODEL_STORE", "~nobody-of-that-name/releases", "write the path in full"),
        ("RESTORE_MODEL_VERSION", "11", "write its number with four digits, such as 0010"),
        ("RESTORE_LOG_LEVEL", "loud", "RESTORE_LOG_LEVEL=loud: Input should be 'debug', 'info', 'warning' or 'error'"),
        ("RESTORE_DEVICE", "cuda:99", "RESTORE_DEVICE: device cuda:99 is not here"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_word(
    name: str, value: str, complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    assert main() == 2
    assert complaint in capsys.readouterr().err
