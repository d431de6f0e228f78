"""pycocoevalcap as a reward and as a whole evaluation, for the other side of a measurement."""

from __future__ import annotations

from typing import Any

from caption_corpus import Corpus


class _AsLongAs(list[Any]):
    """A list that claims another length: pycocoevalcap takes the number of images from its references."""

    def __init__(self, items: list[Any], claimed: int) -> None:
        super().__init__(items)
        self._claimed = claimed

    def __len__(self) -> int:
        return self._claimed


class Official:
    """pycocoevalcap in the three ways it can be called as a reward."""

    def __init__(self, corpus: Corpus) -> None:
        from pycocoevalcap.cider.cider_scorer import CiderScorer
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        self._tokenizer, self._scorer = PTBTokenizer(), CiderScorer
        self._plain = {key: [{"caption": text} for text in texts] for key, texts in corpus.references.items()}
        self._references = self._tokenizer.tokenize(self._plain)
        counter = CiderScorer()
        for texts in self._references.values():
            counter += ("", texts)
        counter.compute_doc_freq()
        self._frequencies = counter.document_frequency

    def tokenize_all(self, captions: list[str]) -> list[str]:
        """Tokens joined by blanks, in one call of the tokenizer."""
        rows = {place: [{"caption": text}] for place, text in enumerate(captions)}
        tokens = self._tokenizer.tokenize(rows)
        return [tokens[place][0] for place in range(len(captions))]

    def cider(self, ids: list[Any], captions: list[str]) -> Any:
        """Its scorer alone, with given frequencies, on tokenized captions."""
        import numpy as np

        scorer = self._scorer()
        for image_id, caption in zip(ids, captions, strict=True):
            scorer += (caption, self._references[image_id])
        scorer.document_frequency = self._frequencies
        scorer.crefs = _AsLongAs(scorer.crefs, len(self._references))
        return np.asarray(scorer.compute_cider())

    def reward(self, ids: list[Any], captions: list[str]) -> Any:
        """Tokenizer and scorer; references tokenized beforehand."""
        return self.cider(ids, self.tokenize_all(captions))

    def example(self, ids: list[Any], captions: list[str]) -> Any:
        """As its example does: references and captions tokenized, then ``Cider.compute_score``."""
        from pycocoevalcap.cider.cider import Cider

        references = self._tokenizer.tokenize({place: self._plain[key] for place, key in enumerate(ids)})
        results = self._tokenizer.tokenize({k: [{"caption": text}] for k, text in enumerate(captions)})
        return Cider().compute_score(references, results)


def official_evaluation(corpus: Corpus, system: dict[Any, str]) -> dict[str, float]:
    """BLEU, ROUGE-L and CIDEr-D by pycocoevalcap, as its ``eval.py`` calls it."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    plain = {key: [{"caption": text} for text in texts] for key, texts in corpus.references.items()}
    references = PTBTokenizer().tokenize(plain)
    results = PTBTokenizer().tokenize({key: [{"caption": system[key]}] for key in plain})
    bleu = Bleu(4).compute_score(references, results, verbose=0)[0]
    scores = {f"bleu_{order}": float(value) for order, value in enumerate(bleu, start=1)}
    scores["rouge_l"] = float(Rouge().compute_score(references, results)[0])
    scores["cider"] = float(Cider().compute_score(references, results)[0])
    return scores
