"""Verbs of mentions by a parser: a small one is trained here, since none can be fetched."""

import pickle
import warnings

import pytest

from vlpipe.models.verbs import verb_finder
from vlpipe.stores.errors import UsageError

SENTENCES = (
    ("someone slowly jumps .", (2, 2, 2, 2), ("nsubj", "advmod", "ROOT", "punct")),
    ("someone jumps .", (1, 1, 1), ("nsubj", "ROOT", "punct")),
    ("someone slowly sings .", (2, 2, 2, 2), ("nsubj", "advmod", "ROOT", "punct")),
)


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # spaCy's libraries warn of each other
        spacy = pytest.importorskip("spacy")
        from spacy.tokens import Doc
        from spacy.training import Example

        pipeline = spacy.blank("en")
        pipe = pipeline.add_pipe("parser")
        examples = []
        for text, heads, labels in SENTENCES:
            words = text.split()
            doc = Doc(pipeline.vocab, words=words)
            examples.append(Example.from_dict(doc, {"heads": list(heads), "deps": list(labels)}))
            for label in labels:
                pipe.add_label(label)
        optimizer = pipeline.initialize(lambda: examples)
        for _ in range(30):
            pipeline.update(examples, sgd=optimizer)
    folder = tmp_path_factory.mktemp("parser") / "small"
    pipeline.to_disk(folder)
    return folder


def test_a_mention_depends_on_its_verb(parser):
    finder = verb_finder("last_but_one", parser)
    assert "by the parser small" in finder.description
    for one in (finder, pickle.loads(pickle.dumps(finder))):
        assert one.verb_of(["someone", "slowly", "jumps", "."], 0) == 2
    # The root depends on nothing: the rule says.
    assert finder.verb_of(["someone", "jumps", "."], 1) == 1


def test_what_is_no_parser_is_said(tmp_path, parser):
    with pytest.raises(UsageError, match="is no pipeline of spaCy"):
        verb_finder("next_word", tmp_path)
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(UsageError, match="has no parser; it has: nothing"):
        verb_finder("next_word", tmp_path / "blank")
