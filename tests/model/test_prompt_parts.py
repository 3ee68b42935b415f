import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.artefact import read_json, write_json
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.prompt import fill_history, pack_tokens
from onesearch.model.token_vocabulary import TokenVocabulary


def test_history_is_filled_from_the_left_and_the_newest_wins():
    history = np.array([[-1, -1, 5], [1, 2, 3], [-1, -1, -1]], np.int32)
    filler = np.array([[-1, 9], [8, 7], [-1, -1]], np.int32)
    assert fill_history(history, filler, 3).tolist() == [[-1, 9, 5], [1, 2, 3], [-1, -1, -1]]
    assert fill_history(history, filler, 2).tolist() == [[9, 5], [2, 3], [-1, -1]]
    assert fill_history(history, filler, 0).shape == (3, 0)


@given(st.lists(st.lists(st.integers(-1, 50), min_size=4, max_size=4), min_size=1, max_size=6))
def test_packing_keeps_order_and_drops_gaps(rows):
    array = np.array(rows, np.int32)
    tokens, mask = pack_tokens([array[:, :1], array[:, 1:]])
    for row, packed, seen in zip(rows, tokens, mask, strict=True):
        real = [value for value in row if value >= 0]
        assert packed[: len(real)].tolist() == real
        assert seen.sum() == max(len(real), 1)


def test_rows_keep_the_products_of_text_vectors():
    rng = np.random.default_rng(0)
    low = rng.normal(size=(200, 6)) @ rng.normal(size=(6, 20))
    vectors = (low / np.linalg.norm(low, axis=1, keepdims=True)).astype(np.float32)
    space = HeadRowProjection.fit(vectors, row_dim=8, features=2)
    assert space.dim == 8
    rows = space.project_items(vectors, np.ones((200, 2), np.float32))
    queries = space.project_queries(vectors[:5])
    np.testing.assert_allclose(queries @ rows.T, vectors[:5] @ vectors.T, atol=1e-4)


def test_row_space_survives_storage(tmp_path):
    space = HeadRowProjection.fit(np.eye(4, dtype=np.float32), 6, 2)
    space.save(tmp_path / "rows.safetensors")
    again = HeadRowProjection.load(tmp_path / "rows.safetensors")
    assert again.features == 2
    np.testing.assert_array_equal(again.projection, space.projection)


def test_only_texts_that_the_requests_use_are_looked_up():
    from onesearch.common.ragged import Ragged
    from onesearch.data.requests import Requests
    from onesearch.model.featurizer import TextFeatures
    from onesearch.model.model_settings import PromptSettings
    from onesearch.model.prompt_inputs import PromptInputs

    seen = []

    def table(texts):
        seen.extend(texts)
        zeros = np.zeros((len(texts), 2), np.float32)
        return TextFeatures(
            list(texts), Ragged.from_lists([[4]] * len(texts)), zeros, np.zeros((len(texts), 5), np.int32), zeros
        )

    clicked = np.array([[-1, 3], [1, 2]], np.int32)
    clicked_queries = np.array([[-1, 2], [-1, 0]], np.int32)
    requests = Requests(
        ["boots", "lamp"],
        np.full(2, -1),
        ["", ""],
        [(), ("boots",)],
        clicked,
        clicked_queries,
        np.full((2, 0), -1, np.int32),
        ["red", "never clicked for", "lamp"],
    )
    columns = PromptInputs.from_requests(requests, table, PromptSettings())
    assert seen == ["boots", "lamp", "red"]
    assert columns.clicked_query.tolist() == [[-1, 1], [-1, 2]]


def test_a_vocabulary_with_other_marks_is_refused(tmp_path):
    """Its ids would mean something else, and the first to notice would be a tensor of the wrong size."""
    TokenVocabulary.train(["red lamp"], 300, (4, 4)).save(tmp_path)
    assert TokenVocabulary.load(tmp_path).codebook_sizes == (4, 4)
    about = read_json(tmp_path / "vocabulary.json")
    write_json(tmp_path / "vocabulary.json", {**about, "marks": about["marks"][1:]})
    with pytest.raises(ValueError, match=r"other marks.*onesearch run"):
        TokenVocabulary.load(tmp_path)


@pytest.mark.parametrize("sizes", [[4, {}], [4, 0], [4, True], "44", None])
def test_a_vocabulary_whose_codebooks_have_no_sizes_is_refused(tmp_path, sizes):
    TokenVocabulary.train(["red lamp"], 300, (4, 4)).save(tmp_path)
    about = read_json(tmp_path / "vocabulary.json")
    write_json(tmp_path / "vocabulary.json", {**about, "codebook_sizes": sizes})
    with pytest.raises(ValueError, match=r"vocabulary.json: codebook_sizes must be whole numbers above 0"):
        TokenVocabulary.load(tmp_path)


def test_a_tokenizer_with_gaps_in_its_ids_is_refused(tmp_path):
    """Marks and SID tokens come behind the text's: a token numbered beyond their count would be one of them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    for name, last in (("whole", 2), ("gap", 9)):
        tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1, "lamp": last}, unk_token="<unk>"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path / name)
    assert TokenVocabulary.from_pretrained(str(tmp_path / "whole"), (4,)).text_size == 3
    with pytest.raises(ValueError, match="has 3 tokens, but ids up to 9"):
        TokenVocabulary.from_pretrained(str(tmp_path / "gap"), (4,))
