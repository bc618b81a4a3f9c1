"""The command line as a user types it: help, errors, exit codes, JSON."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from vlpipe.extractors import configure_extractor
from vlpipe.pipelines.cli import app, run
from vlpipe.pipelines.cli.job_options import build_job, parse_settings, parse_weights
from vlpipe.pipelines.extraction.presets import PRESETS
from vlpipe.stores.errors import UsageError

ROOT = Path(__file__).parents[2]


def commands(group=None, prefix=()):
    """(words, command) of every command, subcommands included."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        else:
            yield (*prefix, name), command


COMMANDS = dict(commands())


def call(capfd, *words):
    code = run(list(words))
    out, err = capfd.readouterr()
    return code, out, err


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_every_command_has_help_with_an_example(words):
    command = COMMANDS[words]
    assert command.help
    assert "xample" in command.epilog
    assert f"vlpipe {' '.join(words)}" in command.epilog
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{words}: {parameter.name}"


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_every_command_speaks_json(words):
    assert any("--json" in p.opts for p in COMMANDS[words].params)


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_every_command_is_documented(words):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert f"vlpipe {' '.join(words)}" in text


def processor_time_of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_answers_at_once():
    # Processor time: the wall clock also counts what else the machine does.
    before = processor_time_of_children()
    subprocess.run([sys.executable, "-m", "vlpipe", "--help"], check=True, capture_output=True)
    assert processor_time_of_children() - before < 1.0


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom vlpipe.pipelines.cli import run\nrun(['--help'])\n"
        "heavy = ('torch', 'prefect', 'dask', 'zarr', 'numpy')\n"
        "print(','.join(m for m in heavy if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["extract", "x.mp4"], 2, "no features named"),
        (["extract", "--features", "vggish"], 2, "nothing to extract from"),
        (["extract", "--features", "resnet125", "x"], 2, "nearest: resnet152"),
        (["extract", "--features", "vggish", "--dataset", "tgif"], 2, "--root"),
        (["extract", "--features", "vggish", "--dataset", "tgiff", "--root", "."], 2, "tgif"),
        (["extract", "--features", "vggish", "--weights", "foo", "x"], 2, "NAME=FILE"),
        (["extract", "--features", "vggish", "--weights", "foo=x", "x"], 2, "'foo'"),
        (["extract", "--features", "vggish", "--set", "fps=3", "x"], 2, "EXTRACTOR.KEY=VALUE"),
        (["extract", "--features", "vggish", "--set", "resnet18.fps=3", "x"], 2, "resnet18"),
        (
            ["extract", "--features", "vggish", "--set", "vggish.fps=3", "x"],
            2,
            "settings of vggish",
        ),
        (["extract", "--features", "vggish", "--precision", "int4", "x"], 2, "int4"),
        (["store", "ls", "no-such-store"], 2, "no-such-store"),
        (["datasets", "check", "tgif", "--root", "no-such-folder"], 2, "no-such-folder"),
        (["weights", "add", "nothing", "x.pt"], 2, "weights ls"),
        (["weights", "add", "vggish_audioset", "x.pt"], 3, "x.pt"),
        (["extractors", "show", "vgish"], 2, "vggish"),
        (["nonsense"], 2, "nonsense"),
        (["extract", "--features", "vggish", "x", "--store", "memory://a"], 2, "memory"),
        (["extract", "--features", "resnet18", "x", "--set", "resnet18.fps=5000"], 2, "fps"),
        (
            ["extract", "--features", "resnet18", "x", "--weights", "untrained", "--device", "foo"],
            2,
            "foo",
        ),
        (
            [
                "extract",
                "--features",
                "resnet18",
                "x",
                "--weights",
                "untrained",
                "--device",
                "cuda:99",
            ],
            3,
            "cuda:99",
        ),
        (
            ["extract", "--features", "resnet18", "x", "--weights", "untrained", "--prefect"],
            3,
            "127.0.0.1:9",
        ),
        (["deploy", "--features", "vggish", "x"], 3, "PREFECT_API_URL"),
    ],
)
def test_wrong_use_says_what_and_how(capfd, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "weights"))
    if "--prefect" in words:
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    else:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "x").write_bytes(b"")
    got, out, err = call(capfd, *words)
    assert got == code
    assert out == ""
    assert said in re.sub(r"[│\s]+", " ", err)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_missing_weights_are_the_environments_fault(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "x.mp4").write_bytes(b"")
    code, _, err = call(capfd, "extract", "x.mp4", "--features", "vggish")
    assert code == 3
    assert "vggish-10086976.pth" in err
    assert not (tmp_path / "vlpipe-store").exists()


def test_listings_speak_json(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    for words, key in [
        (("datasets", "ls"), "datasets"),
        (("extractors", "ls"), "extractors"),
        (("weights", "ls"), "checkpoints"),
        (("weights", "check"), "checkpoints"),
        (("extractors", "show", "resnet152"), "settings"),
    ]:
        code, out, _ = call(capfd, *words, "--json")
        assert code == 0
        value = json.loads(out)
        assert value["schema_version"] == 1
        assert key in value
        assert call(capfd, *words)[0] == 0


def test_results_are_one_json_object_on_stdout(capfd, tmp_path, clips):
    store = str(tmp_path / "store")
    extract = (
        *("extract", str(clips), "--store", store, "--features", "resnet18,vggish"),
        *("--weights", "untrained", "--set", "resnet18.resize=40", "--set", "resnet18.crop=32"),
    )
    expected = {
        (*extract, "--dry-run"): ("to_do", 6),
        extract: ("extracted", 6),
        (*extract, "--no-prefect"): ("stored_before", 6),
        ("store", "ls", store): ("store", store),
        ("store", "ls", store, "--videos"): ("store", store),
        ("store", "info", store): ("videos", 6),
        ("store", "info", store, "--feature", "vggish"): ("name", "vggish"),
        ("store", "verify", store): ("is_sound", True),
        ("store", "failed", store): ("failed", []),
        ("store", "log", store): ("store", store),
        ("store", "rm", store, "--video", "gif0", "--yes"): ("deleted", ["gif0"]),
        ("store", "rm", store, "--feature", "vggish", "--yes"): ("feature", "vggish"),
    }
    for words, (key, value) in expected.items():
        code, out, err = call(capfd, *words, "--json")
        assert code == 0, err
        found = json.loads(out)
        assert found["schema_version"] == 1
        assert found[key] == value, words
        if "rm" not in words:
            assert call(capfd, *words)[0] == 0
    assert call(capfd, "store", "rm", store, "--video", "nobody", "--yes")[0] == 2


def test_a_damaged_store_is_exit_code_4(capfd, tmp_path, clips):
    store = tmp_path / "store"
    extract = ("extract", str(clips), "--store", str(store), "--features", "vggish")
    assert call(capfd, *extract, "--weights", "untrained")[0] == 0
    (rows,) = store.glob("data/vggish/*/*/rows/c.0.0")
    content = bytearray(rows.read_bytes())
    content[4100] ^= 1
    rows.write_bytes(content)
    code, _, err = call(capfd, "store", "verify", str(store))
    assert code == 4
    assert "sound" in err


def test_odd_names_are_shown_as_they_are(capfd, tmp_path, clips):
    folder = tmp_path / "[b]odd \u2603"
    folder.mkdir()
    (folder / "a[red]b.gif").write_bytes((clips / "gif0.gif").read_bytes())
    store = str(folder / "store")
    extract = ("extract", str(folder), "--store", store, "--features", "vggish")
    code, out, _ = call(capfd, *extract, "--weights", "untrained")
    assert code == 0
    assert "[b]odd" in out
    assert "a[red]b" in call(capfd, "store", "ls", store, "--videos")[1]


def test_settings_and_weights_are_parsed():
    assert parse_settings(["a.x=3", "a.y=p,q", "b.z=null", "b.v=none", "b.w=text"]) == {
        "a": {"x": 3, "y": ["p", "q"]},
        "b": {"z": None, "v": None, "w": "text"},
    }
    assert parse_weights(["untrained:3,vggish=a.pt", "vggish_pca=b=c.pt"]) == {
        "*": "untrained:3",
        "vggish": "a.pt",
        "vggish_pca": "b=c.pt",
    }
    assert parse_weights(["vggish=with, comma.pt,resnet18=x"]) == {
        "vggish": "with, comma.pt",
        "resnet18": "x",
    }
    with pytest.raises(UsageError):
        parse_settings(["x"])


def test_the_version_is_printed(capfd):
    code, out, _ = call(capfd, "--version")
    assert (code, out.split()[0]) == (0, "vlpipe")


def test_the_doctor_finds_this_machine_fit(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(capfd, "doctor", "--json")
    value = json.loads(out)
    assert code == 0, [f for f in value["findings"] if f["level"] == "fail"]
    names = {finding["name"] for finding in value["findings"]}
    assert {"packages", "ffmpeg", "decoding", "GPU", "weights", "prefect", "store access"} <= names
    assert all(f["fix"] for f in value["findings"] if f["level"] != "ok")
    assert not list(tmp_path.iterdir())


def test_the_doctor_names_a_server_that_does_not_answer(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    code, out, _ = call(capfd, "doctor", "--json")
    assert code == 3
    (api,) = [f for f in json.loads(out)["findings"] if f["name"] == "Prefect API"]
    assert api["level"] == "fail"
    assert "127.0.0.1:9" in api["found"]


def test_a_preset_is_features_with_settings_that_options_change(tmp_path):
    def job(**changes):
        options = {"paths": [tmp_path], "features": None, "weights": None, "settings": None}
        return build_job(**(options | {"preset": "jsfusion"} | changes))

    assert job().features == ("resnet152", "vggish")
    assert job().settings["resnet152"]["max_frames"] == 40
    assert job(features=["resnet18,vggish"]).features == ("resnet152", "vggish", "resnet18")
    changed = job(settings=["resnet152.max_frames=10", "vggish.rounding=round"])
    assert changed.settings["resnet152"]["max_frames"] == 10
    assert changed.settings["vggish"] == {"postprocess": "pca", "rounding": "round"}
    with pytest.raises(UsageError, match="'bmtt'"):
        job(preset="bmtt")


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_name_what_there_is(name, tmp_path):
    preset = PRESETS[name]
    assert preset.source
    for feature in preset.features:
        configure_extractor(feature, weights="untrained", **preset.settings.get(feature, {}))
