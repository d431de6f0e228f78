"""The score, tokenize and document-frequencies commands as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.cli.main import main
from toolkit.metrics import CiderD, DocumentFrequencies, score_captions
from toolkit.metrics.vqa import VQA_RULES

REFERENCES = {"1": ["a dog runs", "the dog is running"], "2": ["a red bus", "a bus"]}
RESULTS = [{"image_id": 1, "caption": "a dog is running"}, {"image_id": 2, "caption": "a blue bus"}]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "references.json").write_text(json.dumps(REFERENCES))
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def captions(files: Path, *more: str | Path) -> list[str | Path]:
    return [
        "score",
        "captions",
        "--references",
        files / "references.json",
        "--results",
        files / "results.json",
        *more,
    ]


def test_captions_as_json(files, capsys):
    code, out, _ = run(capsys, *captions(files, "--json", "--per-image", files / "each.jsonl"))
    assert code == 0
    expected = score_captions(
        {int(k): v for k, v in REFERENCES.items()}, {r["image_id"]: r["caption"] for r in RESULTS}
    )
    assert json.loads(out) == {"num_images": 2, **expected.corpus}
    rows = [json.loads(line) for line in (files / "each.jsonl").read_text().splitlines()]
    assert [row.pop("image_id") for row in rows] == [1, 2]
    assert rows == list(expected.per_image.values())


def test_captions_as_a_table_of_chosen_metrics(files, capsys):
    code, out, _ = run(capsys, *captions(files, "--metrics", "cider"))
    assert code == 0
    assert "cider" in out
    assert "bleu" not in out


def test_fixed_frequencies(files, capsys):
    table = files / "df.safetensors"
    code, out, _ = run(
        capsys, "data", "document-frequencies", "--references", files / "references.json", "--out", table
    )
    assert code == 0
    assert "2 images" in out
    _, out, _ = run(capsys, *captions(files, "--json", "--metrics", "cider", "--document-frequencies", table))
    scorer = CiderD(REFERENCES, DocumentFrequencies.load(table))
    assert json.loads(out)["cider"] == pytest.approx(
        scorer.score(["1", "2"], [r["caption"] for r in RESULTS]).mean()
    )


def test_a_subset_must_be_asked_for(files, capsys):
    (files / "results.json").write_text(json.dumps(RESULTS[:1]))
    code, out, err = run(capsys, *captions(files, "--json"))
    assert (code, out) == (2, "")
    assert "has references and no caption" in err
    assert "--subset" in err
    code, out, _ = run(capsys, *captions(files, "--json", "--subset"))
    assert code == 0
    assert json.loads(out)["num_images"] == 1


def test_wrong_input_exits_2(files, capsys):
    code, out, err = run(capsys, *captions(files, "--metrics", "blue"))
    assert (code, out) == (2, "")
    assert "rouge_l" in err
    code, _, err = run(
        capsys, "score", "captions", "--references", files / "none.json", "--results", files / "results.json"
    )
    assert code == 2
    assert "none.json" in err
    assert "Traceback" not in err


def test_vqa(files, capsys):
    people = [{"answer": "yes", "answer_id": n} for n in range(4)] + [
        {"answer": "no", "answer_id": n} for n in range(4, 10)
    ]
    (files / "q.json").write_text(json.dumps({"questions": [{"question_id": 1, "question": "?"}]}))
    (files / "a.json").write_text(
        json.dumps(
            {
                "annotations": [
                    {"question_id": 1, "answers": people, "answer_type": "yes/no", "question_type": "is"}
                ]
            }
        )
    )
    (files / "p.json").write_text(json.dumps([{"question_id": 1, "answer": "Yes"}]))
    words = [
        "score",
        "vqa",
        "--questions",
        files / "q.json",
        "--annotations",
        files / "a.json",
        "--results",
        files / "p.json",
    ]
    code, out, _ = run(capsys, *words, "--json", "--per-question", files / "each.jsonl")
    assert code == 0
    assert json.loads(out) == {
        "num_questions": 1,
        "accuracy": 100.0,
        "per_answer_type": {"yes/no": 100.0},
        "per_question_type": {"is": 100.0},
    }
    assert json.loads((files / "each.jsonl").read_text()) == {"question_id": 1, "accuracy": 100.0}
    code, _, err = run(capsys, *words, "--rule", "none")
    assert code == 2
    assert "vizwiz" in err


def test_help_names_every_rule(capsys):
    _, out, _ = run(capsys, "score", "vqa", "--help")
    assert all(rule in out for rule in VQA_RULES)


def test_pope_and_chair(files, capsys):
    (files / "q.jsonl").write_text('{"question_id": 1, "label": "yes"}\n')
    (files / "p.jsonl").write_text('{"question_id": 1, "answer": "yes"}\n')
    code, out, _ = run(
        capsys, "score", "pope", "--questions", files / "q.jsonl", "--results", files / "p.jsonl", "--json"
    )
    assert (code, json.loads(out)["accuracy"]) == (0, 1.0)
    (files / "synonyms.txt").write_text("dog, puppy\nbus\n")
    words = [
        "score",
        "chair",
        "--results",
        files / "results.json",
        "--synonyms",
        files / "synonyms.txt",
        "--json",
    ]
    code, out, _ = run(capsys, *words, "--references", files / "references.json")
    assert (code, json.loads(out)["chair_i"]) == (0, 0.0)


def test_tokenize_is_a_filter():
    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "tokenize"],
        input="A dog's ball.\n\nA\rB 1 1/2 €\n".encode(),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode() == "a dog 's ball\n\na b 1\u00a01/2 $\n"


def test_diversity_of_several_captions_an_image(files, capsys):
    rows = [{"image_id": key, "caption": text} for key, texts in REFERENCES.items() for text in texts]
    (files / "samples.json").write_text(json.dumps(rows))
    command = [
        "score",
        "diversity",
        "--results",
        files / "samples.json",
        "--training",
        files / "references.json",
    ]
    code, out, _ = run(capsys, *command, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["num_captions"] == 4
    assert told["novel"] == 0.0
    assert 0 < told["self_cider"] <= 1
    code, out, _ = run(capsys, "score", "diversity", "--results", files / "results.json")
    assert code == 0
    assert "bad_endings" in out
    assert "self_cider" not in out


@pytest.mark.java
def test_a_failing_metric_leaves_the_others(files, capsys, monkeypatch):
    monkeypatch.setattr("toolkit.metrics.java._folder", lambda name: files)
    code, out, err = run(capsys, *captions(files, "--metrics", "cider,meteor", "--json"))
    assert code == 1
    assert "cider" in json.loads(out)
    assert "METEOR failed" in err
