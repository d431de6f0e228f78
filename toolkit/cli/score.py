"""``vlm-rlhf score`` and ``vlm-rlhf tokenize``: files in, official numbers out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.errors import ToolkitError
    from toolkit.metrics import CaptionScores, DocumentFrequencies

__all__ = ["add_parser"]

_JAVA_METRICS = ("meteor", "spice")
_RULES = "official, index, lmms, textvqa, vlmevalkit, vizwiz, simple, exact"
_FORMATS = (
    "COCO captions, {image_id: [caption, …]} or rows {image_id, captions}; .json or .jsonl, plain or .gz"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands ``score`` and ``tokenize``; loads nothing but argparse."""
    from toolkit.cli.score_sets import add_parsers

    score = subparsers.add_parser("score", help="score a result file with the official metrics")
    kinds = score.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_captions(kinds)
    _add_vqa(kinds)
    _add_hallucination(kinds)
    add_parsers(kinds, _report)
    tokens = subparsers.add_parser(
        "tokenize", help="PTB tokens of captions, stdin to stdout, one caption a line"
    )
    tokens.set_defaults(handler=_tokenize)


def _add_captions(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser("captions", help="BLEU, ROUGE-L, CIDEr-D, METEOR, SPICE")
    parser.add_argument("--references", required=True, metavar="FILE", help=_FORMATS)
    parser.add_argument("--results", required=True, metavar="FILE", help='[{"image_id", "caption"}]')
    parser.add_argument(
        "--metrics",
        default="bleu,rouge_l,cider",
        metavar="NAMES",
        help="of bleu, rouge_l, cider, meteor, spice, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--document-frequencies",
        default="corpus",
        metavar="corpus|FILE",
        help="of CIDEr: counted in the references, or a table of `vlm-rlhf data document-frequencies`",
    )
    parser.add_argument(
        "--per-image", metavar="FILE", help="also write the scores of each image as JSON lines"
    )
    parser.add_argument("--subset", action="store_true", help="score only the images that have a caption")
    parser.add_argument("--spice-jars", metavar="DIR", help="folder with SPICE's CoreNLP 3.6.0 jars")
    _add_json(parser)
    parser.set_defaults(handler=_score_captions)


def _add_vqa(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = kinds.add_parser("vqa", help="VQA accuracy")
    parser.add_argument("--questions", required=True, metavar="FILE", help="official VQA question file")
    parser.add_argument("--annotations", required=True, metavar="FILE", help="official VQA annotation file")
    parser.add_argument("--results", required=True, metavar="FILE", help='[{"question_id", "answer"}]')
    parser.add_argument(
        "--rule", default="official", metavar="RULE", help=f"one of {_RULES} (default: %(default)s)"
    )
    parser.add_argument(
        "--per-question", metavar="FILE", help="also write each question's accuracy as JSON lines"
    )
    parser.add_argument("--subset", action="store_true", help="score only the questions that have an answer")
    _add_json(parser)
    parser.set_defaults(handler=_score_vqa)


def _add_hallucination(kinds: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    pope = kinds.add_parser("pope", help="yes/no questions about objects")
    pope.add_argument(
        "--questions", required=True, metavar="FILE", help='rows {"question_id", "label": yes or no}'
    )
    pope.add_argument("--results", required=True, metavar="FILE", help='[{"question_id", "answer"}]')
    pope.add_argument(
        "--rule", default="official", metavar="RULE", help="official or exact (default: %(default)s)"
    )
    _add_json(pope)
    pope.set_defaults(handler=_score_pope)
    chair = kinds.add_parser("chair", help="objects that captions name and images lack")
    chair.add_argument("--results", required=True, metavar="FILE", help='[{"image_id", "caption"}]')
    chair.add_argument(
        "--synonyms", required=True, metavar="FILE", help="a line an object: name, synonym, synonym …"
    )
    chair.add_argument("--objects", metavar="FILE", help="COCO instances, or {image_id: [object, …]}")
    chair.add_argument(
        "--references", metavar="FILE", help=f"captions whose objects count as present; {_FORMATS}"
    )
    chair.add_argument("--per-image", metavar="FILE", help="also write what each caption names as JSON lines")
    _add_json(chair)
    chair.set_defaults(handler=_score_chair)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def _score_captions(args: argparse.Namespace) -> int:
    from toolkit.errors import UsageError
    from toolkit.metrics.captions import DEFAULT_METRICS, score_captions
    from toolkit.metrics.files import align_ids, read_captions, read_references, write_jsonl

    metrics = [name.strip() for name in args.metrics.split(",") if name.strip()]
    unknown = [name for name in metrics if name not in (*DEFAULT_METRICS, *_JAVA_METRICS)]
    if unknown or not metrics:
        raise UsageError(
            f"--metrics {args.metrics}: choose from {', '.join((*DEFAULT_METRICS, *_JAVA_METRICS))}"
        )
    results = read_captions(args.results)
    references = align_ids(read_references(args.references), results)
    if args.subset:
        references = {image_id: texts for image_id, texts in references.items() if image_id in results}
    own = [name for name in metrics if name in DEFAULT_METRICS]
    scores = score_captions(references, results, own, _frequencies(args.document_frequencies))
    missing = _add_java_metrics(scores, metrics, references, results, args.spice_jars)
    if args.per_image:
        write_jsonl(
            args.per_image, ({"image_id": image_id, **row} for image_id, row in scores.per_image.items())
        )
    _report({"num_images": scores.num_images, **scores.corpus}, args.json)
    return _tell(missing)


def _frequencies(choice: str) -> DocumentFrequencies | Any:
    from toolkit.metrics import DocumentFrequencies

    return "corpus" if choice == "corpus" else DocumentFrequencies.load(choice)


def _add_java_metrics(
    scores: CaptionScores,
    metrics: list[str],
    references: Mapping[Any, list[str]],
    results: Mapping[Any, str],
    spice_jars: str | None,
) -> list[ToolkitError]:
    """Add METEOR and SPICE to ``scores`` where asked for; what the environment lacks, or what failed, comes back."""
    wanted = [name for name in metrics if name in _JAVA_METRICS]
    if not wanted:
        return []
    from toolkit.errors import EnvironmentLacking, RunFailed
    from toolkit.metrics.java import java_metric

    missing: list[ToolkitError] = []
    for name in wanted:
        try:
            corpus, per_image = java_metric(name, references, results, spice_jars=spice_jars)
        except (EnvironmentLacking, RunFailed) as error:
            missing.append(error)
            continue
        scores.corpus[name] = corpus
        for image_id, value in per_image.items():
            scores.per_image[image_id][name] = value
    return missing


def _score_vqa(args: argparse.Namespace) -> int:
    from toolkit.metrics.files import read_answers, read_rows, write_jsonl
    from toolkit.metrics.vqa import score_vqa

    questions = read_rows(args.questions, "questions", ["question_id"])
    annotations = read_rows(args.annotations, "annotations", ["question_id", "answers"])
    results = read_answers(args.results)
    if args.subset:
        questions = [question for question in questions if question["question_id"] in results]
    scores = score_vqa(questions, annotations, results, args.rule)
    if args.per_question:
        rows = ({"question_id": key, "accuracy": value} for key, value in scores.per_question.items())
        write_jsonl(args.per_question, rows)
    summary = {
        "num_questions": scores.num_questions,
        "accuracy": scores.accuracy,
        "per_answer_type": scores.per_answer_type,
        "per_question_type": scores.per_question_type,
    }
    _report(summary, args.json)
    return 0


def _score_pope(args: argparse.Namespace) -> int:
    from toolkit.metrics.files import read_answers, read_rows
    from toolkit.metrics.pope import score_pope

    labels = {
        row["question_id"]: row["label"]
        for row in read_rows(args.questions, "questions", ["question_id", "label"])
    }
    _report(score_pope(labels, read_answers(args.results), args.rule), args.json)
    return 0


def _score_chair(args: argparse.Namespace) -> int:
    from toolkit.metrics.chair import Synonyms, read_objects, score_chair
    from toolkit.metrics.files import align_ids, read_captions, read_references, write_jsonl

    results = read_captions(args.results)
    objects = align_ids(read_objects(args.objects), results) if args.objects else None
    references = align_ids(read_references(args.references), results) if args.references else None
    scores = score_chair(results, Synonyms.read(args.synonyms), objects=objects, references=references)
    if args.per_image:
        write_jsonl(args.per_image, scores.per_image)
    _report(scores.summary(), args.json)
    return 0


def _tokenize(args: argparse.Namespace) -> int:
    del args
    from toolkit.metrics.tokenizer import tokenize

    for line in sys.stdin.buffer:
        caption = line.decode("utf-8", errors="replace").removesuffix("\n")
        sys.stdout.buffer.write(" ".join(tokenize(caption)).encode() + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _report(summary: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        return
    for name, value in summary.items():
        if isinstance(value, Mapping):
            sys.stdout.write(f"{name}:\n")
            for key, share in value.items():
                sys.stdout.write(f"  {key:<28} {_shown(share)}\n")
        else:
            sys.stdout.write(f"{name:<30} {_shown(value)}\n")


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _tell(missing: list[ToolkitError]) -> int:
    """Say on stderr what could not be computed; exit code 3 if anything."""
    for error in missing:
        sys.stderr.write(f"{error}\n")
    return missing[0].exit_code if missing else 0
