"""Every sentence of SECURITY.md that promises something is held by a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from command import Command
from fine_tuning_simulator import ScriptedWorld, Simulator
from histories import add_history
from repository import ROOT, kept_files
from test_secrets import AUDIT

HERE = Path(__file__).parent

HELD = {
    # The key
    "The key is sent to the configured base URL": (
        "test_secrets::test_no_other_host_is_connected_to",
        "test_secrets::test_no_other_host_is_connected_to_below_python_either",
    ),
    "A redirect is followed only where": (
        "test_secrets::test_a_redirect_to_another_host_is_not_followed",
        "test_secrets::test_a_redirect_within_the_host_is_followed_and_one_in_a_circle_ends",
        "test_download::test_a_redirect_elsewhere_is_not_followed",
        "test_redirects::test_a_redirect_elsewhere_or_to_a_malformed_address_is_an_error_in_a_line_and_nothing_is_sent",
    ),
    "A new file that a command writes": ("test_private_files::test_only_their_owner_may_read_new_files",),
    "A file that exists keeps its mode": (
        "test_private_files::test_a_umask_that_is_asked_for_counts_and_files_keep_their_rights",
    ),
    "In Python, the umask of the process": (
        "test_process::test_a_sync_in_python_leaves_the_process_as_it_was_and_sends_no_telemetry",
    ),
    "A sync works in a directory of its own": (
        "test_private_files::test_a_prepared_directory_is_not_worked_in",
        "test_private_files::test_a_link_in_place_of_the_lock_is_not_followed",
    ),
    "The key refuses to be attached": (
        "test_redirects::test_the_credential_refuses_to_be_attached_to_a_request_of_another_origin",
    ),
    "Connections use https, and certificates": (
        "test_secrets::test_a_certificate_that_no_one_vouches_for_is_refused",
        "test_certificates::test_an_authority_that_a_variable_names_is_trusted",
    ),
    "Plain http works to this machine": (
        "test_secrets::test_a_url_with_a_password_or_without_https_is_refused",
        "test_command_check::test_plain_http_to_another_machine_is_exit_2",
        "test_accounts_gateways::test_plain_http_to_another_machine_is_refused_with_the_setting_that_allows_it",
    ),
    "A base URL with a user name or a password": (
        "test_secrets::test_a_url_with_a_password_or_without_https_is_refused",
    ),
    "With a token of Microsoft Entra ID": ("test_hosts::test_an_endpoint_without_a_key_is_read_with_tokens_of_entra",),
    "A file in a folder, such as": (
        "test_accounts_sources::test_a_folder_cannot_name_the_host_of_a_key_in_the_environment",
        "test_accounts_sources::test_a_folder_cannot_name_the_host_of_a_key_in_the_users_own_files",
        "test_accounts_sources::test_a_link_to_the_users_secrets_does_not_make_them_the_folders",
        "test_accounts_sources::test_the_command_asks_nothing_of_a_host_that_a_folder_named",
    ),
    "Its host, its extra headers": (
        "test_accounts_sources::test_a_folder_can_neither_add_headers_to_a_key_nor_take_its_encryption",
        "test_accounts_sources::test_a_folder_cannot_add_to_the_headers_in_the_users_own_files",
    ),
    "A host of OpenAI, and for a key": (
        "test_accounts_sources::test_a_folder_may_name_a_host_of_openai",
        "test_accounts_sources::test_an_azure_key_goes_to_no_host_but_azures",
    ),
    "Any other host must come": (
        "test_accounts_sources::test_a_host_that_the_user_names_gets_the_key",
        "test_accounts_sources::test_a_key_of_a_configured_account_in_the_environment_goes_where_the_environment_says",
    ),
    "A token of Entra is sent": (
        "test_accounts_sources::test_tokens_of_entra_go_to_azure_or_where_the_environment_says",
    ),
    "`AZURE_OPENAI_API_KEY` is not sent": ("test_accounts_sources::test_an_azure_key_goes_to_no_host_but_azures",),
    "A variable of another client": (
        "test_hosts_endpoints::test_a_variable_of_another_client_that_says_something_else_is_refused",
    ),
    "The values of extra headers are secrets": (
        "test_accounts_gateways::test_headers_of_the_environment_go_with_every_request_and_are_not_shown",
        "test_accounts_gateways::test_headers_that_cannot_be_sent_are_exit_2_and_not_repeated",
    ),
    "Each configured account uses its own": (
        "test_command_accounts::test_all_are_read_each_from_its_host_with_its_key",
        "test_archive::test_the_files_of_another_account_come_with_its_key",
    ),
    "A key of the environment is not used": (
        "test_accounts::test_the_environment_of_a_single_account_gives_nothing_to_a_configured_one",
    ),
    "The key is written nowhere": (
        "test_secrets::test_the_key_stands_nowhere_after_verbose_runs_that_fail",
        "test_secrets::test_no_error_says_the_key_whatever_the_host_echoes",
        "test_credentials::test_no_error_says_a_token_neither_the_present_nor_a_past_one",
    ),
    "The state of dlt holds a fingerprint": (
        "test_credentials::test_the_fingerprint_is_of_the_key_or_of_the_tenant_and_of_organisation_and_project",
    ),
    "A key that the host repeats": (
        "test_secrets::test_no_error_says_the_key_whatever_the_host_echoes",
        "test_redaction::test_what_the_host_repeats_of_the_key_is_in_no_table",
        "test_redaction::test_every_form_of_a_secret_is_hidden_in_an_answer",
    ),
    "A password of a destination": ("test_secrets::test_no_part_of_a_password_of_a_destination_is_told",),
    # The network
    "`ftw sync` connects to no host but": (
        "test_secrets::test_no_other_host_is_connected_to",
        "test_secrets::test_no_other_host_is_connected_to_below_python_either",
    ),
    "Telemetry of dlt is off": (
        "test_security_promises::test_telemetry_stays_off_where_the_configuration_turns_it_on",
    ),
    "The page of `ftw explore` asks no host": ("test_explorer_browser::test_a_run_is_shown_as_sql_says",),
    # What a host sends
    "What a host sends is data": (
        "test_hostile_data::test_hostile_texts_go_through_as_data",
        "test_hostile_data::test_the_id_of_a_job_cannot_leave_its_place_in_an_address",
    ),
    "Nothing that is printed on a terminal": (
        "test_hostile_data::test_hostile_words_of_the_host_do_not_steer_the_terminal",
        "test_hostile_data::test_a_traceback_in_the_log_does_not_steer_the_terminal",
        "test_command_query::test_a_table_shows_every_row_and_cannot_steer_the_terminal",
        "test_command_best::test_csv_on_a_terminal_shows_control_characters_as_escapes",
    ),
    "A record that cannot be typed": ("test_hostile_data::test_any_json_is_either_a_row_or_rejected_with_the_reason",),
    "An archive is written into its own folder": (
        "test_archive_links::test_a_link_in_the_place_of_a_folder_is_refused",
        "test_archive_links::test_a_link_in_the_place_of_a_file_is_refused",
        "test_archive_links::test_links_that_are_swapped_in_during_a_run_are_not_followed",
        "test_archive_links::test_a_manifest_that_names_other_paths_is_not_followed",
    ),
    "No answer is endless or huge": (
        "test_answer_bounds::test_a_bomb_takes_no_more_memory_than_the_bound_and_is_told_with_its_setting",
        "test_answer_bounds::test_an_answer_that_drips_ends_at_its_deadline",
    ),
    "A page, a result file or any file": (
        "test_answer_bounds::test_an_answer_of_just_the_bound_is_read",
        "test_answer_bounds::test_a_download_of_unknown_size_is_no_larger_than_the_bound",
        "test_answer_bounds::test_a_download_of_unknown_size_ends_at_its_deadline",
        "test_answer_bounds::test_what_stands_around_an_answer_has_an_end",
    ),
    "Headers are bounded too": (
        "test_answer_bounds::test_more_headers_than_are_read_are_told_at_once",
        "test_answer_bounds::test_a_page_has_no_more_records_than_a_page_of_its_size_could_hold",
        "test_result_files::test_a_file_of_more_rows_than_fit_into_memory_is_refused",
    ),
    "JSON is read 200 levels deep": (
        "test_answer_bounds::test_json_is_never_nested_more_deeply_than_python_can_follow",
    ),
    "A file of an archive never has a name": ("test_archive::test_an_id_never_becomes_a_path",),
    # Your files
    "A sync that is killed loses nothing": (
        "test_crashes::test_a_load_that_is_killed_at_any_statement_is_made_whole_by_the_next_sync",
        "test_crashes::test_a_sync_that_is_killed_before_its_load_leaves_nothing_and_the_next_reads_it_all",
    ),
    "CSV in a pipe is the data": (
        "test_command_query::test_csv_in_a_pipe_is_the_data_and_no_spreadsheet_runs_it_where_that_is_asked",
    ),
    "With `--spreadsheet-safe`, and always": (
        "test_command_query::test_csv_in_a_pipe_is_the_data_and_no_spreadsheet_runs_it_where_that_is_asked",
        "test_explorer::test_downloads_hold_all_columns",
    ),
    # ftw query
    "`ftw query` runs one statement": (
        "test_command_query::test_no_statement_writes_or_reads_another_file_or_reaches_the_network",
    ),
    "It reads the DuckDB file and no other file": (
        "test_command_query::test_no_statement_writes_or_reads_another_file_or_reaches_the_network",
        "test_command_query::test_what_only_looks_dangerous_shows_nothing_private",
        "test_hostile_data::test_query_can_do_nothing_but_read_its_database",
    ),
    "It reaches no network and loads no extension": (
        "test_command_query::test_no_statement_writes_or_reads_another_file_or_reaches_the_network",
    ),
    "It can neither read nor delete the secrets": (
        "test_command_query::test_the_user_keeps_stored_secrets_that_other_programs_read",
    ),
    "A query that makes DuckDB crash": (
        "test_command_query::test_a_query_that_crashes_duckdb_is_an_error_in_a_line",
        "test_command_query::test_the_command_refuses_in_a_line_and_does_not_crash",
        "test_command_query::test_a_query_ends_with_its_command",
    ),
    # ftw explore
    "`ftw explore` serves 127.0.0.1 alone": (
        "test_explorer::test_nobody_sees_anything_without_the_token_and_no_other_site_with_it",
    ),
    "The token becomes a cookie": (
        "test_explorer::test_nobody_sees_anything_without_the_token_and_no_other_site_with_it",
    ),
    "The token is in no log": ("test_explorer::test_nobody_sees_anything_without_the_token_and_no_other_site_with_it",),
    "The address that `ftw explore` opens": ("test_explorer::test_it_serves_on_this_machine_and_ends_when_asked",),
    "Requests for another host name": (
        "test_explorer::test_nobody_sees_anything_without_the_token_and_no_other_site_with_it",
    ),
    "The page has a strict Content-Security-Policy": (
        "test_explorer::test_a_page_may_load_only_what_this_server_has_and_be_framed_by_nobody",
    ),
    "The queries of the page are as closed": ("test_explorer::test_the_page_asks_by_the_closed_query_alone",),
    # How it is built
    "Actions of the workflows are pinned": ("test_security_promises::test_what_builds_a_release_is_pinned",),
    "No secret is stored for a release": ("test_security_promises::test_what_builds_a_release_is_pinned",),
    "The systemd service has a bound": ("test_security_promises::test_the_systemd_service_has_a_bound_on_its_memory",),
}
"""The beginning of each sentence, and the tests that fail if it is untrue."""


def promises() -> list[str]:
    """The sentences of the section "What is promised"."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.partition("\n## What is promised\n")[2].partition("\n## ")[0]
    items = re.findall(r"^\* (.*?)(?=^\* |^#|\Z)", section, re.DOTALL | re.MULTILINE)
    return [sentence for item in items for sentence in re.split(r"(?<=\.) (?=[A-Z`])", " ".join(item.split()))]


def test_every_promise_is_held_by_tests_and_every_test_exists() -> None:
    sentences = promises()
    assert len(sentences) > 30
    held = {sentence: [start for start in HELD if sentence.startswith(start)] for sentence in sentences}
    assert {sentence: starts for sentence, starts in held.items() if len(starts) != 1} == {}
    assert set(HELD) == {start for starts in held.values() for start in starts}, "a sentence is gone"
    tests = {
        f"{file.stem}::{node.name}"
        for file in HERE.rglob("test_*.py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert {start for start, names in HELD.items() if not names} == set()
    assert {name for names in HELD.values() for name in names} - tests == set()


@pytest.mark.thorough
def test_telemetry_stays_off_where_the_configuration_turns_it_on(
    tmp_path: Path, world: ScriptedWorld, host: Simulator
) -> None:
    add_history(world, range(1))
    ftw = Command(tmp_path, host.base_url)
    site, log = tmp_path / "site", tmp_path / "connections"
    site.mkdir()
    (site / "sitecustomize.py").write_text(AUDIT.format(log=str(log)))
    asked = {"RUNTIME__DLTHUB_TELEMETRY": "true", "DLTHUB_TELEMETRY": "true", "PYTHONPATH": str(site)}
    configuration = ftw.folder / ".dlt"
    configuration.mkdir()
    (configuration / "config.toml").write_text('[runtime]\nsentry_dsn = "http://key@192.0.2.1/1"\n')
    (configuration / "secrets.toml").write_text('[runtime]\ndlthub_dsn = "http://192.0.2.1/2"\n')
    (site / "sentry_sdk.py").write_text("raise SystemExit('sentry is used')")
    assert ftw("sync", env=asked).code == 0
    lines = log.read_text().splitlines()
    assert lines
    assert [line for line in lines if "'127.0.0.1'" not in line] == []


def test_what_builds_a_release_is_pinned() -> None:
    for workflow in (ROOT / ".github/workflows").iterdir():
        used = re.findall(r"uses: \S+?@(\S+)", workflow.read_text(encoding="utf-8"))
        assert used
        assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in used)
    release = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert re.search(r"uv==\d+\.\d+\.\d+ --hash=sha256:[0-9a-f]{64}", release)
    assert "--require-hashes" in release
    assert "secrets." not in release
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", dockerfile, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"python:${PYTHON}"}
    assert re.search(r"pip install .*uv==\d+\.\d+\.\d+", dockerfile)


def test_the_systemd_service_has_a_bound_on_its_memory() -> None:
    unit = (ROOT / "pipelines/schedules/systemd/fine-tuning-sync.service").read_text(encoding="utf-8")
    assert re.search(r"^MemoryMax=\d+G$", unit, re.MULTILINE)


def test_no_secret_and_no_host_of_a_package_registry_stands_in_the_repository() -> None:
    named = re.compile(rb"sk-(?:proj-)?[A-Za-z0-9]{40,}|BEGIN [A-Z ]*PRIVATE KEY|files\.pythonhosted|pypi\.org/simple")
    found = [name for name in sorted(kept_files()) if named.search((ROOT / name).read_bytes())]
    assert [name for name in found if name != "tests/test_security_promises.py"] == []
    assert ".dlt/secrets.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["root", "OPENAI_API_KEY=sk-", "history of your shell", "can lie"])
def test_what_is_not_promised_is_said(text: str) -> None:
    assert text in (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("## What is not promised")[2]
