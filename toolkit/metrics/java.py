"""METEOR and SPICE through the jars that pycocoevalcap brings: one Java process for a whole evaluation.

Both get the tokens of this package's tokenizer. Java, the extra ``official`` and, for SPICE, two CoreNLP jars must be
there already: nothing is downloaded. SPICE could not be run where this was written (its jars are not to be had
from a package index); its command follows the original wrapper.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from toolkit.errors import EnvironmentLacking, RunFailed, UsageError
from toolkit.metrics.captions import check_same_images
from toolkit.metrics.tokenizer import tokenize, tokenize_lines

__all__ = ["JAVA_METRICS", "java_metric"]

JAVA_METRICS = ("meteor", "spice")
_SPICE_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
_SPICE_FOLDER = "VLM_RLHF_SPICE_JARS"


def java_metric(
    name: str,
    references: Mapping[Any, Sequence[str]],
    results: Mapping[Any, str],
    *,
    spice_jars: str | Path | None = None,
    timeout_s: float = 1800.0,
) -> tuple[float, dict[Any, float]]:
    """The corpus score and each image's score, 0 to 1, of ``meteor`` or ``spice``.

    Args:
        name: the metric.
        references: image id to reference captions.
        results: image id to the caption to score, for the same images.
        spice_jars: folder of SPICE's CoreNLP jars; without it the environment variable VLM_RLHF_SPICE_JARS.
        timeout_s: after so many seconds the Java process is ended.

    Raises:
        DataError: the images of references and results differ.
        EnvironmentLacking: Java, pycocoevalcap or a jar is missing.
        RunFailed: the Java program failed or ran out of time; what it wrote to stderr is in the message.
        UsageError: an unknown metric.
    """
    if name not in JAVA_METRICS:
        raise UsageError(f"unknown metric {name!r}; through Java there are {', '.join(JAVA_METRICS)}")
    check_same_images(references, results)
    java = _java(name)
    lines = iter(tokenize_lines([caption for captions in references.values() for caption in captions]))
    texts = {key: [" ".join(next(lines)) for _ in captions] for key, captions in references.items()}
    candidates = {key: " ".join(tokenize(results[key])) for key in references}
    if name == "meteor":
        return _meteor(java, _folder("meteor"), texts, candidates, timeout_s)
    return _spice(java, _folder("spice"), _spice_folder(spice_jars), texts, candidates, timeout_s)


def _java(name: str) -> str:
    java = shutil.which("java")
    if java is None:
        remedy = "install a Java runtime (for example Debian's default-jre-headless), or leave the metric out"
        raise EnvironmentLacking(f"{name} needs Java, and there is no `java` on the PATH", remedy=remedy)
    return java


def _folder(name: str) -> Path:
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        remedy = "install it: pip install 'vlm-rlhf[official]'"
        raise EnvironmentLacking(
            f"{name} needs the jars of pycocoevalcap, which is not installed", remedy=remedy
        )
    return Path(next(iter(spec.submodule_search_locations))) / name


def _spice_folder(configured: str | Path | None) -> Path:
    folder = Path(configured or os.environ.get(_SPICE_FOLDER) or "")
    missing = [jar for jar in _SPICE_JARS if not (folder / jar).is_file()]
    if missing or not (configured or os.environ.get(_SPICE_FOLDER)):
        remedy = (
            f"take {' and '.join(_SPICE_JARS)} from CoreNLP 3.6.0 and name their folder: --spice-jars DIR"
        )
        raise EnvironmentLacking(f"spice needs {', '.join(missing or _SPICE_JARS)}", remedy=remedy)
    return folder.resolve()


def _meteor(
    java: str,
    folder: Path,
    references: Mapping[Any, Sequence[str]],
    results: Mapping[Any, str],
    timeout_s: float,
) -> tuple[float, dict[Any, float]]:
    with _without_blanks(folder) as place, tempfile.TemporaryFile() as errors:
        command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(place / "meteor-1.5.jar")]
        command += ["-", "-", "-stdio", "-l", "en", "-norm"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        watch = threading.Timer(timeout_s, process.kill)
        watch.start()
        try:
            requests = [
                " ||| ".join(["SCORE", *references[key], text.replace("|||", "").replace("  ", " ")])
                for key, text in results.items()
            ]
            statistics = _ask(process, requests, len(requests))
            scores = _ask(process, [" ||| ".join(["EVAL", *statistics])], len(requests) + 1)
            values = [float(score) for score in scores]
        except (OSError, ValueError) as error:
            process.kill()
            raise RunFailed(f"METEOR failed: {_reason(process, watch, errors, timeout_s)}") from error
        finally:
            watch.cancel()
            process.kill()
            process.communicate()
    return values[-1], dict(zip(results, values, strict=False))


def _ask(process: subprocess.Popen[bytes], requests: Sequence[str], answers: int) -> list[str]:
    """Send lines and read as many answers; written from another thread, since both pipes can be full."""
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise ValueError("the process has no pipes")

    def write() -> None:
        try:
            stdin.write("".join(f"{request}\n" for request in requests).encode())
            stdin.flush()
        except OSError:
            return  # the process is gone: reading says so

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    lines = [stdout.readline().decode().strip() for _ in range(answers)]
    writer.join()
    if "" in lines:
        raise ValueError("the process ended early")
    return lines


def _reason(
    process: subprocess.Popen[bytes], watch: threading.Timer, errors: IO[bytes], timeout_s: float
) -> str:
    process.wait()
    if not watch.is_alive():
        return f"no answer within {timeout_s:.0f} s"
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()[-2000:] or f"exit code {process.returncode}"


def _spice(
    java: str,
    folder: Path,
    jars: Path,
    references: Mapping[Any, Sequence[str]],
    results: Mapping[Any, str],
    timeout_s: float,
) -> tuple[float, dict[Any, float]]:
    keys = list(results)
    rows = [
        {"image_id": place, "test": results[key], "refs": list(references[key])}
        for place, key in enumerate(keys)
    ]
    with tempfile.TemporaryDirectory(prefix="spice-") as scratch:
        (Path(scratch) / "in.json").write_text(json.dumps(rows), encoding="utf-8")
        class_path = os.pathsep.join(
            [str(folder / "spice-1.0.jar"), str(folder / "lib" / "*"), str(jars / "*")]
        )
        # Java 9 and later close what SPICE's object cache opens by reflection.
        command = [java, "-Xmx8G", "--add-opens=java.base/java.lang=ALL-UNNAMED", "-cp", class_path]
        command += ["edu.anu.spice.SpiceScorer", "in.json", "-out", "out.json", "-subset", "-silent"]
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, timeout=timeout_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"SPICE failed: no answer within {timeout_s:.0f} s") from error
        answer = Path(scratch) / "out.json"
        if done.returncode or not answer.is_file():
            reason = done.stderr.decode(errors="replace").strip()[-2000:]
            raise RunFailed(f"SPICE failed: {reason or f'exit code {done.returncode}'}")
        scored = json.loads(answer.read_text(encoding="utf-8"))
    values = {keys[row["image_id"]]: float(row["scores"]["All"]["f"]) for row in scored}
    return sum(values.values()) / len(values), values


@contextmanager
def _without_blanks(folder: Path) -> Iterator[Path]:
    """A path to ``folder`` without blanks: METEOR cannot find its own data under a path that has one."""
    if " " not in str(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="meteor-") as scratch:
        link = Path(scratch) / "meteor"
        link.symlink_to(folder, target_is_directory=True)
        yield link
