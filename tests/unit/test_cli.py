"""The command line: exit codes, messages, and that `--help` costs next to nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from dsv4_stack import __main__ as cli
from dsv4_stack import errors
from dsv4_stack.guest import convert


def test_each_error_has_its_own_exit_code() -> None:
    kinds = [kind for kind in errors.Dsv4Error.__subclasses__() if kind.__module__ == errors.__name__]
    assert {kind.__name__: kind.exit_code for kind in kinds} == {
        "StaleError": 1,
        "UsageError": 2,
        "ConfigError": 3,
        "NotFoundError": 4,
        "NotAllowedError": 5,
        "IntegrityError": 6,
        "NoSpaceError": 7,
        "NetworkError": 8,
        "NoEngineError": 9,
        "NotReadyError": 10,
        "PatchError": 11,
    }


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve"]) == 2
    assert capsys.readouterr().err == "error: there is no verb 'serve'\n  next: run: dsv4 --help\n"


def test_an_unknown_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--profile", "nope"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: there is no profile 'nope'\n  next: choose one of: w4a8-tp2")
    assert "Traceback" not in err


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "--profile", "nope", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_foresaw_is_an_error_like_the_rest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, debug: bool
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.delenv("DSV4_DEBUG", raising=False)
    monkeypatch.setattr(convert, "run", fail)
    assert cli.main(["convert", "in", "out", *["--debug"] * debug]) == 1
    out, err = capsys.readouterr()
    trace, error, said = err.partition("error: ")
    assert (out, error + said) == (
        "",
        "error: unexpected: ZeroDivisionError: by zero\n  next: run it again with --debug, and report what it prints\n",
    )
    lines = trace.splitlines()
    assert lines[:1] + lines[-1:] == (
        ["Traceback (most recent call last):", "ZeroDivisionError: by zero"] if debug else []
    )


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([verb, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: dsv4 {verb}")


def test_help_imports_no_package_but_the_standard_library() -> None:
    code = "import sys; from dsv4_stack.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "print(*sorted(m for m in sys.modules if m.split('.')[0] in"
    code += " ('jinja2', 'yaml', 'docker', 'requests', 'huggingface_hub', 'dataclasses', 'json', 'dsv4_stack')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == [
        "dsv4_stack",
        "dsv4_stack.__main__",
        "dsv4_stack.errors",
        "dsv4_stack.guest",
        "dsv4_stack.guest.cli",
    ]


def test_profiles_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profiles"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "w4a8-tp2",
        "demo",
        "w4a16-tp2",
        "w4a8-tp2-baremetal",
        "w4a8-tp4",
    ]


def test_render_out_writes_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["render", "--profile", "w4a16-tp2", "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().err == (
        f"render: w4a16-tp2 in {tmp_path}; run: docker compose -f {tmp_path}/compose/compose.yaml up\n"
    )
    assert cli.main(["render", "--check", "--profile", "w4a16-tp2", "--out", str(tmp_path)]) == 0
    assert cli.main(["render", "--profile", "w4a16-tp2"]) == 2
