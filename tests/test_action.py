"""The GitHub action, the hooks and the sample repository: their own commands are run, with circuitdsl as it is here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "docs" / "examples" / "ci"
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
WORKFLOW = yaml.safe_load((SAMPLE / ".github" / "workflows" / "circuits.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


@dataclass(frozen=True)
class Runner:
    """A machine with the sample repository; `temp` is its folder for what no repository holds."""

    repository: Path
    temp: Path

    def bash(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script as GitHub does, in the repository."""
        path = f"{self.temp / 'bin'}{os.pathsep}{os.environ['PATH']}"
        known = {"PATH": path, "PYTHONPATH": str(ROOT), "CIRCUITDSL_CACHE": str(self.temp / "circuitdsl-cache")}
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.repository,
            env={**os.environ, **known, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def action(self, **given: str) -> tuple[int, str, str]:
        """Run the action's commands; the exit status, the log, and the summary."""
        inputs = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()} | given
        known = {f"inputs.{name}": value for name, value in inputs.items()}
        known |= {"github.action_path": str(ROOT), "runner.temp": str(self.temp)}
        summary, outputs = self.temp / "summary.md", self.temp / "outputs"
        summary.unlink(missing_ok=True)
        log = ""
        for step in ACTION["runs"]["steps"]:
            if "run" in step:
                asked = {k: re.sub(r"\$\{\{ (.*?) \}\}", lambda m: known[m[1]], v) for k, v in step["env"].items()}
                done = self.bash(step["run"], GITHUB_OUTPUT=str(outputs), GITHUB_STEP_SUMMARY=str(summary), **asked)
                log += done.stdout + done.stderr
                if done.returncode:
                    break
        return done.returncode, log, summary.read_text() if summary.exists() else ""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runs keep between them: measurements, and the command."""
    temp = tmp_path_factory.mktemp("runner")
    (temp / "bin").mkdir()
    command = temp / "bin" / "circuitdsl"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m circuitdsl "$@"\n')
    command.chmod(0o755)
    return temp


@pytest.fixture
def runner(shared: Path, tmp_path: Path) -> Runner:
    return Runner(shutil.copytree(SAMPLE, tmp_path / "sample"), shared)


def of_workflow() -> dict[str, str]:
    """What the sample's workflow gives to the action."""
    (step,) = [each for each in WORKFLOW["jobs"]["verify"]["steps"] if "circuitdsl" in each["uses"]]
    return step["with"]


def replace_in(path: Path, old: str, new: str) -> None:
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_the_sample_passes_and_leaves_its_reports(runner: Runner) -> None:
    status, log, summary = runner.action(**of_workflow())
    assert status == 0, log
    assert (runner.temp / "outputs").read_text().splitlines()[-1] == "status=0"
    assert summary.startswith("### Against the base\n\n**4 as before**\n")
    found = runner.repository / "circuitdsl-reports"
    assert {each.name for each in found.iterdir()} == {
        f"report.{end}" for end in ("json", "html", "xml", "sarif", "md")
    }
    assert json.loads((found / "report.json").read_text())["spec"]["path"] == "circuits/ioi.circ"
    assert "::error" not in log


def test_a_regression_is_annotated_and_fails_the_job(runner: Runner) -> None:
    replace_in(runner.repository / "circuits" / "ioi.circ", "0.3 0.5 0.6 ", "0.3 0.5 0.1 ")
    status, log, summary = runner.action(**of_workflow())
    assert status == 1, log
    assert re.search(r"^::error file=circuits/ioi.circ,line=\d+,title=fails", log, re.MULTILINE)
    assert "#### Held before, and does not now" in summary
    replace_in(runner.repository / "circuits" / "accepted.json", '"holds"', '"fails"')
    status, log, _ = runner.action(**of_workflow(), reports="other reports")
    assert status == 0, log  # they did not hold before
    assert (runner.temp / "outputs").read_text().splitlines()[-1] == "status=1"


def test_mistakes_are_told_before_a_model_is_loaded(runner: Runner) -> None:
    replace_in(runner.repository / "circuits" / "ioi.circ", "suppressor      ->", "supressor ->")
    status, log, summary = runner.action(**of_workflow())
    assert (status, summary) == (2, "")
    assert "::error file=circuits/ioi.circ,line=7,endLine=7,col=1,endColumn=9,title=E040::" in log


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fail-on": "regression"}, "against names no report"),
        ({"fail-on": "never"}, "fail-on is claim or regression"),
        ({"against": "none.json"}, "there is no report"),
        ({"specs": "none/*.circ"}, "no spec"),
        ({"specs": "$(touch forged)`touch forged`;touch forged"}, "error"),
    ],
)
def test_inputs_that_are_wrong_end_the_job(runner: Runner, given: dict[str, str], said: str) -> None:
    status, log, _ = runner.action(**given)
    assert status != 0
    assert said in log
    assert not (runner.repository / "forged").exists()


def test_commands_of_the_action_hold_no_text_from_elsewhere() -> None:
    """An expression in a script would run what a stranger writes; inputs come as variables."""
    assert all("${{" not in step.get("run", "") for step in ACTION["runs"]["steps"])


def test_the_page_shows_the_files_of_the_sample() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    for name in (".github/workflows/circuits.yml", ".pre-commit-config.yaml"):
        assert f"```yaml\n{(SAMPLE / name).read_text()}```" in page


def test_every_input_is_described_and_documented() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    for name, each in ACTION["inputs"].items():
        assert each["description"]
        assert f"| `{name}` |" in page
    assert set(of_workflow()) <= set(ACTION["inputs"])


@pytest.mark.long
def test_the_sample_of_gitlab_passes_and_leaves_its_reports(runner: Runner) -> None:
    job = yaml.safe_load((SAMPLE / ".gitlab-ci.yml").read_text())["circuits"]
    done = runner.bash("\n".join(job["script"]))
    assert done.returncode == 0, done.stderr
    assert json.loads((runner.repository / job["artifacts"]["reports"]["codequality"]).read_text()) == []
    assert "<testsuites" in (runner.repository / job["artifacts"]["reports"]["junit"]).read_text()


def test_commands_of_the_readme_pass(runner: Runner) -> None:
    (commands,) = re.findall(r"```bash\n(.*?)```", (SAMPLE / "README.md").read_text(), re.DOTALL)
    done = runner.bash(commands)
    assert done.returncode == 0, done.stderr


def hooks_of_the_sample() -> list[dict[str, Any]]:
    (repository,) = yaml.safe_load((SAMPLE / ".pre-commit-config.yaml").read_text())["repos"]
    return repository["hooks"]


def test_hooks_check_and_format_the_specs_that_change(runner: Runner) -> None:
    spec = runner.repository / "circuits" / "ioi.circ"
    before = spec.read_text()
    spec.write_text(before.replace("suppressor      ->", "suppressor ->"))
    hooks = hooks_of_the_sample()
    same = ("id", "name", "entry", "files")
    assert [[hook[key] for key in same] for hook in hooks] == [[hook[key] for key in same] for hook in HOOKS]
    for hook in hooks:
        assert re.search(hook["files"], "circuits/ioi.circ") and not re.search(hook["files"], "README.md")
        done = runner.bash(f"{hook['entry']} circuits/ioi.circ")
        assert done.returncode == 0, done.stderr
    assert spec.read_text() == before
    spec.write_text("circuit\n")
    assert [runner.bash(f"{hook['entry']} circuits/ioi.circ").returncode for hook in hooks] == [2, 2]
