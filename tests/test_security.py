"""What others wrote (names, tables, weights) is shown and never run; nobody is told anything."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import toy
from images import write_picture
from rich.console import Console

import tutelage
from tutelage.cli import main
from tutelage.data import storage
from tutelage.data.find import open_source
from tutelage.data.issues import Issue, in_words
from tutelage.progress import Screen
from tutelage.values import visible

ROOT = Path(__file__).parents[1] / "src" / "tutelage"
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
PICKLES = Path("data/plain_pickles.py")  # which calls nothing that a pickle names
WORDS = Path("distributed/words.py")  # of processes of the same command, which trust each other
NETWORK = {  # module: who may import it
    "socket": {Path("networks/pretrained.py"), Path("distributed/launcher.py")},
    "urllib.request": {Path("networks/pretrained.py")},
    "requests": set(), "http": set(), "http.client": set(), "aiohttp": set(), "httpx": set(),
}  # fmt: skip
NEVER = {"pickle", "shelve", "marshal", "joblib", "dill", "cloudpickle", "telnetlib", "ftplib"}


def calls():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                yield path, ast.unparse(node.func), {k.arg: k.value for k in node.keywords}, node


def is_literal(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_is_run_that_a_file_holds():
    for path, name, keywords, node in calls():
        shown = f"{path}: {ast.unparse(node)}"
        if name == "torch.load" and path != WORDS:
            assert is_literal(keywords.get("weights_only"), True), shown
        elif name in ("np.load", "numpy.load"):
            assert is_literal(keywords.get("allow_pickle"), False), shown
        elif name.startswith("yaml.") and name.split(".")[1].startswith(
            ("load", "full_", "unsafe")
        ):
            assert ast.unparse(keywords["Loader"]) == "_PlainLoader", shown
        elif name.startswith("subprocess."):
            assert "shell" not in keywords, shown
        elif name.endswith("Environment"):
            assert is_literal(keywords.get("autoescape"), True), shown
        assert name not in ("eval", "exec", "compile", "os.system", "os.popen", "__import__"), shown
        assert not name.endswith((".extractall", ".extract", "unpack_archive")), shown
        assert "trust_remote_code" not in keywords, shown


def test_no_module_is_imported_that_runs_files_or_talks_to_others():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] not in NEVER or path == PICKLES, f"{path}: {name}"
                assert path in NETWORK.get(name, {path}), f"{path}: {name}"


def test_markup_is_made_of_our_own_text_alone():
    """Of an SVG and of the page's style sheet; nothing in a template is called safe."""
    made = {str(path) for path, name, _, node in calls() if name == "Markup" and node.args}
    assert made == {"reports/figures.py", "reports/html.py"}
    for template in ROOT.rglob("*.j2"):
        assert "|safe" not in template.read_text().replace(" ", "")
        assert "autoescape" not in template.read_text()


STEERS = "a\x1b[2J\x1b]0;title\x07b\u202egpj.exe\x9b\r\x00\u2028"


def test_signs_that_steer_a_terminal_are_shown(capsys, tmp_path):
    assert visible("Gr\u00f6\u00dfe \u732b \U0001f408\u200d\u2b1b\n\tx") == (
        "Gr\u00f6\u00dfe \u732b \U0001f408\u200d\u2b1b\n\tx"
    )
    shown = visible(STEERS)
    assert not set(STEERS) - set("ab[2J]0;titlegpj.exe") & set(shown)
    screen = Screen(Console(stderr=True, soft_wrap=True), log=tmp_path / "log.txt")
    screen.say(STEERS)
    screen.result(STEERS)
    out, err = capsys.readouterr()
    for text in (out, err, (tmp_path / "log.txt").read_text()):
        assert "\x1b" not in text
        assert r"\x1b[2J" in text


def test_a_file_name_can_not_pretend_to_be_another_line():
    name = "a.png\nnote: all is well"
    for severity in ("dropped", "note"):
        (line,) = in_words([Issue(severity, "unreadable", "labeled", name, "is no image")])
        assert "\n" not in line


def test_names_of_files_do_not_steer_the_terminal_of_check_and_predict(tmp_path, capsys):
    root = toy.write_toy(tmp_path / "toy")
    bad = root / "labeled" / "dot" / "x\x1b[2J\u202ey.png"
    bad.write_bytes(b"no image")
    (root / "labeled" / "dot" / "z\x1b[31m").mkdir()
    write_picture(root / "labeled" / "dot\x1b[2J" / "a.png", 1)
    main(["check", "--data", str(root / "labeled"), "--out", str(tmp_path / "out"), "--page"])
    for text in capsys.readouterr():
        assert "\x1b[2J" not in text
        assert "\u202e" not in text
    assert main(["check", "--data", str(root / "none\x1b[2J")]) == 2
    assert "\x1b[2J" not in capsys.readouterr().err


def test_a_table_from_elsewhere_names_no_file_of_this_machine(tmp_path):
    secret = write_picture(tmp_path / "secret.png", 1)
    names = [str(secret), f"file://{secret}", f"local://{secret}",
             f"simplecache::file://{secret}", "../../../secret.png"]  # fmt: skip
    for number, name in enumerate(names):
        address = f"memory://bucket{number}/table.csv"
        with storage._asked(address) as (files, path):
            files.pipe(path, f"path,label\n{name},cat\n".encode())
        source = open_source(address)
        for ask in (source.read, source.stamp):
            with pytest.raises(OSError, match=r"may not name|secret\.png"):
                ask(source.listing("labeled").names[0])
    table = tmp_path / "here.csv"
    table.write_text(f"path,label\n{secret},cat\n../{tmp_path.name}/secret.png,cat\n")
    source = open_source(table)
    assert {len(source.read(name)) for name in source.listing("labeled").names} == {
        secret.stat().st_size
    }
    table.write_text(f"path,label\nsimplecache::file://{secret},cat\n")
    source = open_source(table)
    with pytest.raises(PermissionError, match="may not name"):
        source.read(source.listing("labeled").names[0])


@pytest.fixture
def offline(monkeypatch):
    """Sockets to other machines are forbidden, and looking up their names too."""

    def refuse(*arguments, **more):
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_training_and_predicting_ask_nobody(tmp_path, offline):
    root = toy.write_toy(tmp_path / "toy")
    run = tmp_path / "run"
    tutelage.train(**toy.train_settings(root, run))
    tutelage.check(data=root / "labeled", unlabeled=root / "pool", out=tmp_path / "checked")
    formula = write_picture(root / "pool" / '=HYPERLINK("x").png', 9)
    tutelage.predict(run, [root / "pool"], out=tmp_path / "preds.csv")
    names = pd.read_csv(tmp_path / "preds.csv")["path"]
    assert str(formula) in set(names)  # a changed path would be that of no file
    tutelage.report(run)
    page = (run / "report" / "index.html").read_text()
    assert "http-equiv" in page
    assert not {'src="http', 'href="http', "url(http", "@import"} & set(page.split())


def test_statistics_of_use_are_off_before_any_library_reads_its_setting():
    code = (
        "import os, sys; import tutelage; assert 'huggingface_hub' not in sys.modules; "
        "print(os.environ['HF_HUB_DISABLE_TELEMETRY'], os.environ['HF_UPDATE_DOWNLOAD_COUNTS'])"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["1", "0"], done.stderr
