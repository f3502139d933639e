"""What is printed commands no terminal; what cannot be done is one line with the right exit code."""

import io

import pytest

from onebit.leaderboards import cli, terminal


@pytest.mark.parametrize("code", [0, 7, 8, 13, 27, 127, 0x9B, 0x202E, 0x2066, 0x2028])
def test_what_a_terminal_obeys_is_shown(code):
    text = terminal.shown(f"a{chr(code)}b\tc\n")
    assert text.isprintable() or text.endswith("b\tc\n")
    assert chr(code) not in text
    assert text.startswith("a\\")


def test_plain_text_is_left_alone():
    text = "Ärger 数据 🙂 × é\tx\n"
    assert terminal.shown(text) == text


def test_all_that_is_printed_goes_through_it(capsys, monkeypatch):
    monkeypatch.setattr(cli, "_run", lambda arguments: print("\x1b[31mred") or 0)
    assert cli.main([]) == 0
    assert capsys.readouterr().out == "\\x1b[31mred\n"
    assert cli._fail("no \x1b]0;x\x07 " + "y" * 5000, 2) == 2
    said = capsys.readouterr().err
    assert said.startswith("onebit: no \\x1b]0;x\\x07 ")
    assert len(said) < 2100


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_full_output_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout", Full())
    assert cli.main(["backbones", "resnet18_w16"]) == 1
    assert capsys.readouterr().err == "onebit: could not write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "cifar10", "--records", "n" * 300], "ile name too long"),
        (["verify", "/dev/zero"], None),
        (["cost", "resnet18_w100000"], "expected a whole number from 1 to 1024"),
        (["bench", "mini-cifar10", "--backbones", ","], "expected something like a,b"),
        (["bench", "mini-cifar10", "--seeds", " 1"], "expected a whole number"),
        (["bench", "mini-cifar10", "--seeds", "1_0"], "expected a whole number"),
        (["bench", "mini-cifar10", "--seeds", "٣"], "expected a whole number"),
    ],
)
def test_wrong_input_is_one_line(capsys, arguments, message):
    try:
        code = cli.main(arguments)
    except SystemExit as ended:  # argparse
        code = ended.code
    out, err = capsys.readouterr()
    if message is None:  # a record that is none is a finding
        assert (code, "expected a file" in out) == (1, True)
    else:
        assert (code, err.count("\n"), message in err) == (2, 1, True)


def test_hooks_that_are_none_and_a_loss_that_is_none(tmp_path, capsys):
    from tests.faults.kill_verbs import draw_data

    draw_data(tmp_path)
    common = ["train", "classification", "--dataset", "mini-cifar10", "--backbone", "resnet18_w4"]
    where = ["--data", str(tmp_path / "data"), "--work-dir", str(tmp_path / "run"), "--cfg-options"]
    for option, message in (
        ("custom_hooks=3", "custom_hooks 3: expected a list of hooks"),
        ("model.label_smoothing=-1", "label_smoothing -1: expected a number from 0 to 1"),
        ("model.label_smoothing=5", "label_smoothing 5: expected a number from 0 to 1"),
    ):
        assert cli.main([*common, *where, option]) == 2
        assert message in capsys.readouterr().err
